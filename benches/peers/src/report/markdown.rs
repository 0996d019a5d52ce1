//! A run as markdown, to be pasted into a document.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Run;
use super::bars::{Judged, Met};
use crate::engines::{BARE, OURS, about};
use crate::measures::{GROUPS, Group, Measure};

/// All tables but the bars. Of what nobody has a figure for there is no column.
pub(crate) fn tables(run: &Run) -> String {
    let mut text = String::new();
    let machine = &run.machine;
    let versions: Vec<_> = run
        .engines
        .iter()
        .filter(|engine| engine.name != BARE)
        .map(|engine| format!("{} {}", engine.name, engine.version))
        .collect();
    let _ = writeln!(
        text,
        "{} keys of 16 bytes, values of {} bytes; medians of {} {}.\n\n{}; {} cores, {} GiB, Linux {}.\n\n{}.",
        with_commas(run.keys),
        run.value_len,
        run.rounds,
        if run.rounds == 1 { "round" } else { "rounds" },
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        versions.join(", "),
    );
    for group in GROUPS {
        let measures: Vec<_> = group
            .measures
            .iter()
            .filter(|measure| run.has(measure.name))
            .collect();
        if !measures.is_empty() {
            figures(&mut text, run, group, &measures);
            if group.compared && run.engine(OURS).is_some() {
                ratios(&mut text, run, &measures);
            }
        }
    }
    failures(&mut text, run);
    text
}

fn figures(text: &mut String, run: &Run, group: &Group, measures: &[&Measure]) {
    let _ = writeln!(text, "\n### {}", group.title);
    if group
        .measures
        .iter()
        .any(|measure| measure.name == "get_1k")
    {
        let _ = writeln!(
            text,
            "\n{} keys for each size.",
            with_commas(run.large_keys)
        );
    }
    head(text, measures);
    for engine in &run.engines {
        if !measures
            .iter()
            .any(|measure| engine.figures.contains_key(measure.name))
        {
            continue;
        }
        let cells = measures.iter().map(|measure| {
            let figure = engine.figures.get(measure.name);
            figure.map_or("-".to_owned(), |figure| measure.unit.write(figure.median))
        });
        row(text, &engine.name, cells);
    }
    notes(text, run, group);
}

/// How many times as good crabkv's figures are as those of the others.
fn ratios(text: &mut String, run: &Run, measures: &[&Measure]) {
    let measures: Vec<_> = measures
        .iter()
        .copied()
        .filter(|measure| measure.name != "put_lost")
        .collect();
    let _ = writeln!(
        text,
        "\nHow many times as good crabkv is (more than 1: better):"
    );
    head(text, &measures);
    for engine in run.engines.iter().filter(|engine| engine.name != OURS) {
        let ratios: Vec<_> = measures
            .iter()
            .map(|measure| {
                let ours = (OURS, measure.name);
                let theirs = (&engine.name[..], measure.name);
                if measure.unit.more_is_better() {
                    run.ratio(ours, theirs)
                } else {
                    run.ratio(theirs, ours)
                }
            })
            .collect();
        if ratios.iter().any(Option::is_some) {
            let cells = ratios
                .into_iter()
                .map(|ratio| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
            row(text, &engine.name, cells);
        }
    }
}

fn head(text: &mut String, measures: &[&Measure]) {
    let titles: Vec<_> = measures.iter().map(|measure| measure.title).collect();
    let _ = writeln!(
        text,
        "\n| engine | {} |\n| --- |{}",
        titles.join(" | "),
        " ---: |".repeat(titles.len())
    );
}

fn row(text: &mut String, engine: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<_> = cells.collect();
    let name = match engine {
        BARE => format!("*{engine}*"),
        OURS => format!("**{engine}**"),
        _ => engine.to_owned(),
    };
    let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
}

/// Why there is no figure where there is none, and what to know of others.
fn notes(text: &mut String, run: &Run, group: &Group) {
    let mut notes = BTreeSet::new();
    for engine in &run.engines {
        for (why, measures) in Run::said_of(group, |measure| run.reason(engine, measure)) {
            notes.insert(format!(
                "- {}, no {}: {why}.",
                engine.name,
                measures.join(", ")
            ));
        }
        let remark = |measure: &str| {
            let is_there = engine.figures.contains_key(measure);
            about(&engine.name)?.remark(measure).filter(|_| is_there)
        };
        for (what, measures) in Run::said_of(group, remark) {
            notes.insert(format!(
                "- {}, {}: {what}.",
                engine.name,
                measures.join(", ")
            ));
        }
        let is_of_group = group.measures.iter().any(|m| m.name == "disk_overwritten");
        if is_of_group
            && run
                .median(&engine.name, "unrested")
                .is_some_and(|not| not > 0.0)
        {
            notes.insert(format!(
                "- {}: compaction was still at work when the disk was looked at.",
                engine.name
            ));
        }
    }
    if !notes.is_empty() {
        let notes: Vec<_> = notes.into_iter().collect();
        let _ = writeln!(text, "\n{}", notes.join("\n"));
    }
}

fn failures(text: &mut String, run: &Run) {
    let failures: Vec<_> = run
        .engines
        .iter()
        .flat_map(|engine| engine.failures.iter().map(|what| (&engine.name, what)))
        .collect();
    if !failures.is_empty() {
        let _ = writeln!(text, "\n### Failed\n");
        for (engine, what) in failures {
            let _ = writeln!(text, "- {engine}: {what}");
        }
    }
}

/// The bars, one to a line.
pub(crate) fn bars(judged: &[Judged]) -> String {
    let mut text =
        "\n### Bars\n\n| what | bar | measured | met |\n| --- | ---: | ---: | --- |\n".to_owned();
    for bar in judged {
        let met = match bar.met {
            Met::Yes => "yes",
            Met::No => "**no**",
            Met::NotMeasured => "not measured",
        };
        let measured = bar
            .measured
            .map_or("-".to_owned(), |measured| format!("{measured:.2}"));
        let _ = writeln!(text, "| {} | {} | {measured} | {met} |", bar.what, bar.bar);
    }
    text
}

fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn tables_have_figures_ratios_and_reasons() {
        let run = run(&[
            ("bare", "get", [6e6, 6e6]),
            ("crabkv", "get", [4e6, 4e6]),
            ("crabkv", "put", [9e5, 9e5]),
        ]);
        let text = tables(&run);
        assert!(text.starts_with("1,000,000 keys"), "{text}");
        assert!(text.contains("| *bare* | 6.00M |"), "{text}");
        assert!(text.contains("| *bare* | 0.67 |"), "{text}");
        assert!(
            text.contains("- bare, no put, relaxed /s: built in one go"),
            "{text}"
        );
        assert!(!text.contains("YCSB"), "{text}");
    }
}
