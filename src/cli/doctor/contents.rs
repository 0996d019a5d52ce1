//! What the manifest and the ends of the segments say.

use std::time::SystemTime;

use crabkv::DamageKind;
use crabkv::inspect::{SegmentInfo, SegmentState};

use super::Patient;
use super::finding::Findings;
use crate::cli::units::{counted, duration, epoch_ms, moment, size};

/// Clocks of machines differ a little.
const TOLERANCE_MS: u64 = 60_000;

pub(super) fn check(patient: &Patient<'_>, findings: &mut Findings) {
    manifest(patient, findings);
    segments(patient, findings);
    clock(patient, findings);
}

fn manifest(patient: &Patient<'_>, findings: &mut Findings) {
    let program = env!("CARGO_PKG_VERSION");
    match patient.manifest {
        Ok(manifest) => findings.ok(
            "version",
            format!(
                "format {}, which crabkv {program} reads and writes",
                manifest.version
            ),
        ),
        Err(damage) => findings.damage(
            "manifest",
            damage.to_string(),
            "restore a backup, or save what can be saved with repair",
        ),
    }
}

fn segments(patient: &Patient<'_>, findings: &mut Findings) {
    let segments = &patient.segments;
    let mut is_sound = true;
    for damage in segments.iter().flat_map(|segment| &segment.damage) {
        is_sound = false;
        let message = damage.to_string();
        if damage.kind.heals() {
            let advice = "nothing is lost by it: opening the store for writing makes it again";
            findings.warn("segments", message, advice);
        } else if damage.kind == DamageKind::Unreadable {
            let advice = "if it is not for permissions, the disk fails: make a copy while it lasts";
            findings.fail("segments", message, advice);
        } else {
            let advice = "run verify for all there is, then restore a backup, or run repair";
            findings.damage("segments", message, advice);
        }
    }
    if is_sound {
        let lens = segments.iter().filter_map(SegmentInfo::data_len);
        findings.ok(
            "segments",
            format!(
                "{}, {}; headers, footers and hint files fit",
                counted(segments.len() as u64, "segment"),
                size(lens.sum())
            ),
        );
    }
    // Only a sealed one has a footer.
    let bare = segments.iter();
    let bare = bare.filter(|segment| segment.footer.is_some() && segment.hint.is_none());
    let bare = bare.count() as u64;
    if bare > 0 {
        findings.warn(
            "hint files",
            format!(
                "{} without: opening reads them in full",
                counted(bare, "sealed segment")
            ),
            "open the store for writing once, which makes them",
        );
    }
    let mut states = segments.iter().map(|segment| segment.state);
    if states.any(|state| state == Some(SegmentState::Active)) && patient.holder.is_none() {
        findings.ok(
            "last close",
            "not in good order, such as by a crash: opening reads the last segment in full",
        );
    }
}

fn clock(patient: &Patient<'_>, findings: &mut Findings) {
    let Ok(manifest) = patient.manifest else {
        return;
    };
    let now_ms = epoch_ms(SystemTime::now());
    let ahead_ms = manifest.clock_ms.saturating_sub(now_ms);
    if ahead_ms > TOLERANCE_MS {
        let ahead = duration(std::time::Duration::from_millis(ahead_ms));
        findings.warn(
            "clock",
            format!(
                "the store has seen {}, {ahead} ahead of this machine's clock: values with a TTL \
                 expire by the later of the two",
                moment(manifest.clock_ms)
            ),
            "set the clock right; if it was ahead once, its values expire early until it is reached",
        );
    } else {
        findings.ok("clock", format!("{}, not behind the store", moment(now_ms)));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crabkv::inspect::Inspector;

    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_clock_behind_the_store_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        drop(crabkv::Store::open(dir.path()).unwrap());
        let inspector = Inspector::open(dir.path()).unwrap();
        let mut manifest = inspector.manifest().unwrap().clone();
        for (ahead_ms, level) in [
            (0, Level::Ok),
            (30_000, Level::Ok),
            (7_200_000, Level::Warn),
        ] {
            manifest.clock_ms = epoch_ms(SystemTime::now()) + ahead_ms;
            let patient = Patient {
                dir: Path::new("data"),
                files: Vec::new(),
                segments: Vec::new(),
                manifest: Ok(&manifest),
                holder: None,
            };
            let mut findings = Findings::default();
            clock(&patient, &mut findings);
            assert_eq!(findings.list[0].level, level);
        }
    }
}
