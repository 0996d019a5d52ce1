//! Plots as SVG, without a library: bars of reads against peers, and lines of cost against the
//! number of keys.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::Run;
use super::markdown::with_commas;
use crate::engines::{BARE, ENGINES, OURS, Outcome};
use crate::measures::Unit;

/// Measures that make a panel of bars each.
const PANELS: [(&str, &str); 6] = [
    ("get", "get"),
    ("dependent", "dependent get"),
    ("miss", "miss"),
    ("zipf_2", "zipfian, 2 threads"),
    ("ycsb_a", "YCSB A, 2 threads"),
    ("ycsb_b", "YCSB B, 2 threads"),
];
/// Measures whose cost is drawn against the number of keys.
const COSTS: [(&str, &str); 2] = [("get", "get"), ("dependent", "dependent get")];

const FONT: &str = "font-family=\"system-ui, sans-serif\"";
const INK: &str = "#1f2328";
const FAINT: &str = "#d0d7de";

/// Colours that are told apart also by those who see fewer: Okabe and Ito's, then darker ones.
const COLOURS: [&str; 12] = [
    "#7f7f7f", "#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00", "#5b3a8c",
    "#8c6d31", "#1b7837", "#b2182b", "#4d4d4d",
];

/// Writes `reads.svg`, of the run with a number of keys closest to a million, and `keys.svg`, of
/// all.
pub(crate) fn draw(runs: &[Run], out: &Path) -> Outcome<()> {
    let distance = |run: &&Run| (run.keys as f64 / 1e6).ln().abs();
    let middle = runs
        .iter()
        .min_by(|one, other| distance(one).total_cmp(&distance(other)));
    if let Some(svg) = middle.and_then(reads) {
        fs::write(out.join("reads.svg"), svg)?;
    }
    if let Some(svg) = costs(runs) {
        fs::write(out.join("keys.svg"), svg)?;
    }
    Ok(())
}

fn colour(engine: &str) -> &'static str {
    let at = ENGINES.iter().position(|about| about.name == engine);
    COLOURS[at.unwrap_or(COLOURS.len() - 1) % COLOURS.len()]
}

fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" {FONT} font-size=\"12\" fill=\"{INK}\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    )
}

/// Text at a place; `anchor` is `start`, `middle` or `end`.
fn text(svg: &mut String, x: f64, y: f64, anchor: &str, what: &str, bold: bool) {
    let weight = if bold { " font-weight=\"600\"" } else { "" };
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{weight}>{what}</text>"
    );
}

fn dot(svg: &mut String, x: f64, y: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>"
    );
}

/// One panel for each measure, one bar for each engine, the longest first.
fn reads(run: &Run) -> Option<String> {
    const WIDTH: f64 = 400.0;
    const NAMES: f64 = 100.0;
    const BARS: f64 = 230.0;
    const LINE: f64 = 18.0;
    const TOP: f64 = 44.0;
    let panels: Vec<_> = PANELS
        .iter()
        .filter_map(|(measure, title)| {
            let mut bars: Vec<_> = run
                .engines
                .iter()
                .filter_map(|engine| Some((engine.figures.get(*measure)?.median, &engine.name)))
                .collect();
            bars.sort_by(|one, other| other.0.total_cmp(&one.0));
            (!bars.is_empty()).then_some((*title, bars))
        })
        .collect();
    let lines = panels.iter().map(|(_, bars)| bars.len()).max()?;
    let panel_height = LINE * (lines as f64 + 2.5);
    let rows = panels.len().div_ceil(2) as f64;
    let mut svg = begin(WIDTH * 2.0, TOP + rows * panel_height);
    let title = format!(
        "Operations per second, {} keys, values of {} bytes",
        with_commas(run.keys),
        run.value_len
    );
    text(&mut svg, 16.0, 26.0, "start", &title, true);
    for (at, (title, bars)) in panels.iter().enumerate() {
        let left = WIDTH * (at % 2) as f64;
        let top = TOP + panel_height * (at / 2) as f64;
        text(
            &mut svg,
            left + NAMES,
            top + LINE * 0.7,
            "start",
            title,
            true,
        );
        let longest = bars.first().map_or(1.0, |(figure, _)| *figure);
        for (line, (figure, engine)) in bars.iter().enumerate() {
            let y = top + LINE * (line as f64 + 1.2);
            let len = figure / longest * BARS;
            text(
                &mut svg,
                left + NAMES - 6.0,
                y + 12.0,
                "end",
                engine,
                *engine == OURS,
            );
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{len:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                left + NAMES,
                LINE - 4.0,
                colour(engine)
            );
            let label = Unit::PerSecond.write(*figure);
            text(
                &mut svg,
                left + NAMES + len + 4.0,
                y + 12.0,
                "start",
                &label,
                false,
            );
        }
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The points of one engine's line: keys, and nanoseconds for each get.
type Points = Vec<(f64, f64)>;

/// One panel's lines, by engine.
type Lines = Vec<(&'static str, Points)>;

fn lines(runs: &[Run], measure: &str) -> Lines {
    let points = |engine: &str| {
        let mut points: Points = runs
            .iter()
            .filter_map(|run| Some((run.keys as f64, 1e9 / run.median(engine, measure)?)))
            .collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    };
    ENGINES
        .iter()
        .map(|about| (about.name, points(about.name)))
        .filter(|(_, points)| !points.is_empty())
        .collect()
}

/// Nanoseconds for each get against the number of keys, both logarithmic; one panel for each
/// measure, one line for each engine.
fn costs(runs: &[Run]) -> Option<String> {
    let panels: Vec<_> = COSTS
        .iter()
        .map(|(measure, title)| (*title, lines(runs, measure)))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    let points = panels
        .iter()
        .flat_map(|(_, lines)| lines)
        .flat_map(|(_, points)| points);
    let mut counts: Vec<_> = runs.iter().map(|run| run.keys).collect();
    counts.sort_unstable();
    counts.dedup();
    let axes = Axes::around(points, counts)?;

    let mut svg = begin(Axes::WIDTH * panels.len() as f64, Axes::HEIGHT);
    let title = "Nanoseconds for each get against the number of keys, 1 thread";
    text(&mut svg, 16.0, 26.0, "start", title, true);
    for (at, (title, lines)) in panels.iter().enumerate() {
        let left = Axes::WIDTH * at as f64 + Axes::LEFT;
        text(&mut svg, left, Axes::TOP - 10.0, "start", title, true);
        axes.draw(&mut svg, left);
        axes.name(&mut svg, left, lines);
        for (engine, points) in lines {
            axes.line(&mut svg, left, engine, points);
        }
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Where points go in a panel.
struct Axes {
    /// The numbers of keys that there are runs of.
    counts: Vec<usize>,
    /// Logarithms.
    least_keys: f64,
    most_keys: f64,
    /// Whole decades of nanoseconds, as logarithms.
    low: f64,
    high: f64,
}

impl Axes {
    const WIDTH: f64 = 420.0;
    const HEIGHT: f64 = 400.0;
    const LEFT: f64 = 56.0;
    const TOP: f64 = 60.0;
    /// What is inside the axes, without names and numbers.
    const PLOT_WIDTH: f64 = 240.0;
    const PLOT_HEIGHT: f64 = 290.0;

    fn around<'p>(
        points: impl Iterator<Item = &'p (f64, f64)>,
        counts: Vec<usize>,
    ) -> Option<Axes> {
        let (keys, costs): (Vec<_>, Vec<_>) = points.copied().unzip();
        let least = |of: &[f64]| of.iter().copied().min_by(f64::total_cmp);
        let most = |of: &[f64]| of.iter().copied().max_by(f64::total_cmp);
        Some(Axes {
            counts,
            least_keys: least(&keys)?.log10(),
            most_keys: most(&keys)?.log10(),
            low: least(&costs)?.log10().floor(),
            high: most(&costs)?.log10().ceil(),
        })
    }

    fn x(&self, keys: f64) -> f64 {
        // One number of keys alone goes to the left.
        let span = (self.most_keys - self.least_keys).max(0.1);
        (keys.log10() - self.least_keys) / span * Axes::PLOT_WIDTH
    }

    fn y(&self, cost: f64) -> f64 {
        let span = (self.high - self.low).max(1.0);
        Axes::TOP + Axes::PLOT_HEIGHT * (1.0 - (cost.log10() - self.low) / span)
    }

    fn draw(&self, svg: &mut String, left: f64) {
        for decade in self.low as i32..=self.high as i32 {
            let cost = 10_f64.powi(decade);
            let y = self.y(cost);
            let _ = writeln!(
                svg,
                "<line x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{FAINT}\"/>",
                left + Axes::PLOT_WIDTH,
            );
            text(svg, left - 6.0, y + 4.0, "end", &format!("{cost}"), false);
        }
        for keys in &self.counts {
            let label = match keys {
                1_000_000.. => format!("{} M", keys / 1_000_000),
                _ => format!("{} k", keys / 1_000),
            };
            let y = Axes::TOP + Axes::PLOT_HEIGHT + 18.0;
            text(svg, left + self.x(*keys as f64), y, "middle", &label, false);
        }
    }

    /// Names beside the ends of the lines, pushed apart where they would meet.
    fn name(&self, svg: &mut String, left: f64, lines: &Lines) {
        let mut ends: Vec<_> = lines
            .iter()
            .filter_map(|(engine, points)| Some((self.y(points.last()?.1), *engine)))
            .collect();
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut taken = f64::NEG_INFINITY;
        for (end, engine) in ends {
            taken = end.max(taken + 14.0);
            let x = left + Axes::PLOT_WIDTH + 14.0;
            dot(svg, x, taken, colour(engine));
            text(svg, x + 7.0, taken + 4.0, "start", engine, engine == OURS);
        }
    }

    fn line(&self, svg: &mut String, left: f64, engine: &str, points: &Points) {
        let colour = colour(engine);
        let width = if engine == OURS { 3.0 } else { 1.5 };
        let dashes = if engine == BARE {
            " stroke-dasharray=\"5 4\""
        } else {
            ""
        };
        let places: Vec<_> = points
            .iter()
            .map(|(keys, cost)| (left + self.x(*keys), self.y(*cost)))
            .collect();
        let path: Vec<_> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"{dashes}/>",
            path.join(" "),
        );
        for (x, y) in places {
            dot(svg, x, y, colour);
        }
    }
}
