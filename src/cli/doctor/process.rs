//! Limits of the process that has the store open, or else of this one.

use std::fs;

use super::Patient;
use super::finding::Findings;
use super::holder::pid_of;
use crate::cli::units::{counted, size, thousands};

const CHECK: &str = "limits";

/// Files that a store holds open beside its segments, and some for the program around it.
const FILES: u64 = 64;

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    let holder = patient.holder.as_deref().and_then(pid_of);
    let of_holder = holder.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    let (limits, whose) = match (of_holder, holder) {
        (Some(limits), Some(pid)) => (limits, format!("process {pid}")),
        _ => match fs::read_to_string("/proc/self/limits") {
            Ok(limits) => (limits, "this program".to_owned()),
            Err(error) => {
                findings.warn(CHECK, format!("cannot be read: {error}"), "");
                return;
            }
        },
    };
    let maps = fs::read_to_string("/proc/sys/vm/max_map_count");
    let maps = maps.ok().and_then(|maps| maps.trim().parse().ok());
    judge(patient, findings, &limits, &whose, maps);
}

fn judge(
    patient: &Patient<'_>,
    findings: &mut Findings,
    limits: &str,
    whose: &str,
    maps: Option<u64>,
) {
    let segments = patient.segments.len() as u64;
    let files = soft_limit(limits, "Max open files");
    let file_size = soft_limit(limits, "Max file size");
    let before = findings.list.len();
    // A program has maps of its own, and a merge brings segments before it takes any away.
    let runs_out = maps.is_some_and(|maps| segments * 2 > maps);
    if runs_out {
        findings.warn(
            CHECK,
            format!(
                "{} segments, and vm.max_map_count is {}: what cannot be mapped is read more slowly",
                thousands(segments),
                shown(maps, thousands)
            ),
            "raise it with sysctl, or use larger segments",
        );
    }
    let needed = FILES + if runs_out { segments } else { 0 };
    if files.is_some_and(|files| files < needed) {
        findings.warn(
            CHECK,
            format!(
                "{} open files for {whose}, {} may be needed",
                shown(files, thousands),
                thousands(needed)
            ),
            "raise it with ulimit -n",
        );
    }
    if file_size.is_some_and(|bytes| bytes < patient.segment_size()) {
        findings.fail(
            CHECK,
            format!(
                "files of at most {} for {whose}, segments have {}",
                shown(file_size, size),
                size(patient.segment_size())
            ),
            "raise it with ulimit -f, or use smaller segments",
        );
    }
    if findings.list.len() == before {
        findings.ok(
            CHECK,
            format!(
                "{} open files for {whose}, {} maps; {}",
                shown(files, thousands),
                shown(maps, thousands),
                counted(segments, "segment")
            ),
        );
    }
}

fn shown(limit: Option<u64>, show: impl Fn(u64) -> String) -> String {
    limit.map_or("any number of".to_owned(), show)
}

/// The soft limit of a line such as `Max open files            1024     4096     files`; nothing
/// where there is none.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::finding::Level;
    use super::*;

    const LIMITS: &str = "Limit            Soft Limit   Hard Limit   Units\n\
                          Max file size    unlimited    unlimited    bytes\n\
                          Max open files   1024         4096         files\n";

    fn level(limits: &str, maps: Option<u64>) -> Level {
        let dir = tempfile::tempdir().unwrap();
        let store = crabkv::Store::open(dir.path()).unwrap();
        store.put("a", "1").unwrap();
        let inspector = crabkv::inspect::Inspector::open(dir.path()).unwrap();
        let patient = Patient {
            dir: Path::new("data"),
            files: Vec::new(),
            segments: inspector.segments().unwrap(),
            manifest: inspector.manifest(),
            holder: None,
        };
        let mut findings = Findings::default();
        judge(&patient, &mut findings, limits, "a test", maps);
        findings.list[0].level
    }

    #[test]
    fn limits_that_a_store_runs_into_are_found() {
        assert_eq!(level(LIMITS, Some(65_530)), Level::Ok);
        assert_eq!(level("", None), Level::Ok);
        assert_eq!(level(LIMITS, Some(1)), Level::Warn);
        assert_eq!(level("Max open files 20 20 files", None), Level::Warn);
        assert_eq!(level("Max file size 4096 4096 bytes", None), Level::Fail);
    }

    #[test]
    fn the_soft_limit_is_the_first_figure() {
        assert_eq!(soft_limit(LIMITS, "Max open files"), Some(1024));
        assert_eq!(soft_limit(LIMITS, "Max file size"), None);
        assert_eq!(soft_limit(LIMITS, "Max nonsense"), None);
    }
}
