//! A run as markdown, to be pasted into a document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::bars::{Judged, Met};
use super::{EngineRun, Run};
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

/// Why there is no figure where there is none, and what to know of others; of engines that are in
/// the table.
fn notes(text: &mut String, run: &Run, group: &Group) {
    let mut engines_by_note: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let has_figure = |engine: &EngineRun| {
        let has = |measure: &Measure| engine.figures.contains_key(measure.name);
        group.measures.iter().any(has)
    };
    for engine in run.engines.iter().filter(|engine| has_figure(engine)) {
        let mut note = |note: String| {
            engines_by_note.entry(note).or_default().push(&engine.name);
        };
        for (why, titles) in said_of(group, |measure| run.reason(engine, measure)) {
            note(format!("no {titles}: {why}."));
        }
        let remark = |measure: &str| {
            let is_there = engine.figures.contains_key(measure);
            about(&engine.name)?.remark(measure).filter(|_| is_there)
        };
        for (what, titles) in said_of(group, remark) {
            note(format!("{titles}: {what}."));
        }
        let is_of_group = group.measures.iter().any(|m| m.name == "disk_overwritten");
        let unrested = run.median(&engine.name, "unrested");
        if is_of_group && unrested.is_some_and(|unrested| unrested > 0.0) {
            note("compaction was still at work when the disk was looked at.".to_owned());
        }
    }
    for (at, (note, engines)) in engines_by_note.iter().enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}- {}: {note}", engines.join(", "));
    }
}

/// What `say` says of a group's measures, with the titles of those that it says it of.
fn said_of(
    group: &Group,
    say: impl Fn(&str) -> Option<&'static str>,
) -> BTreeMap<&'static str, String> {
    let mut said: BTreeMap<_, String> = BTreeMap::new();
    for measure in group.measures {
        if let Some(what) = say(measure.name) {
            let titles = said.entry(what).or_default();
            if !titles.is_empty() {
                titles.push_str("; ");
            }
            titles.push_str(measure.title.trim_end_matches(" /s"));
        }
    }
    said
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

pub(super) fn with_commas(number: usize) -> String {
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
            ("crabkv", "batch", [2e6, 2e6]),
            ("heed", "batch", [1e5, 1e5]),
        ]);
        let text = tables(&run);
        assert!(text.starts_with("1,000,000 keys"), "{text}");
        assert!(text.contains("| *bare* | 6.00M |"), "{text}");
        assert!(text.contains("| *bare* | 0.67 |"), "{text}");
        assert!(text.contains("- heed: no put, relaxed: failed"), "{text}");
        assert!(
            !text.contains("built in one go"),
            "bare has no row there: {text}"
        );
        assert!(!text.contains("YCSB"), "{text}");
    }
}
