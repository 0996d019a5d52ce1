//! Prometheus' text format, version 0.0.4: figures by their names and labels, for programs that
//! collect them.

use std::fmt::{Display, Write as _};

use super::histogram::Distribution;

/// What the format is called in HTTP.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows, until the server starts again.
    Counter,
    Gauge,
    Histogram,
}

/// A text that grows family by family.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    /// The name of the family that is being written.
    name: &'static str,
}

/// Names and values; the values can be any text.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    /// Begins a family; its samples follow.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> &mut Exposition {
        self.name = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    /// A family of one sample without labels.
    pub(crate) fn single(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        value: impl Display,
    ) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, value);
    }

    /// The samples of a histogram.
    pub(crate) fn distribution(&mut self, labels: Labels<'_>, distribution: &Distribution) {
        for (bound, count) in &distribution.up_to {
            let bound = bound.as_secs_f64().to_string();
            self.line("_bucket", labels, Some(&bound), count);
        }
        self.line("_bucket", labels, Some("+Inf"), distribution.count);
        self.line("_sum", labels, None, distribution.sum.as_secs_f64());
        self.line("_count", labels, None, distribution.count);
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut before = '{';
        let bound = bound.map(|bound| ("le", bound));
        for (name, value) in labels.iter().copied().chain(bound) {
            let _ = write!(self.text, "{before}{name}=\"{}\"", escaped(value));
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"");
    value.replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn families_are_written_as_the_format_has_them() {
        let mut exposition = Exposition::default();
        exposition.single("a_total", Kind::Counter, "How many.", 3);
        exposition.family("b", Kind::Gauge, "What.");
        exposition.sample(&[("x", "1"), ("y", "a\"b\\c\nd")], 0.5);
        exposition.family("c_seconds", Kind::Histogram, "How long.");
        let distribution = Distribution {
            up_to: vec![(Duration::from_micros(250), 1), (Duration::from_secs(1), 2)],
            count: 4,
            sum: Duration::from_millis(1500),
        };
        exposition.distribution(&[("x", "1")], &distribution);
        let expected = r#"# HELP a_total How many.
# TYPE a_total counter
a_total 3
# HELP b What.
# TYPE b gauge
b{x="1",y="a\"b\\c\nd"} 0.5
# HELP c_seconds How long.
# TYPE c_seconds histogram
c_seconds_bucket{x="1",le="0.00025"} 1
c_seconds_bucket{x="1",le="1"} 2
c_seconds_bucket{x="1",le="+Inf"} 4
c_seconds_sum{x="1"} 1.5
c_seconds_count{x="1"} 4
"#;
        assert_eq!(exposition.into_text(), expected);
    }
}
