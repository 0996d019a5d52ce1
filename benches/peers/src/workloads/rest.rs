//! Waiting until an engine's background work is done.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::engines::Outcome;
use crate::machine::{disk_bytes, transferred};

/// Some throttle themselves; what is not done by then does not count as given back.
const PATIENCE: Duration = Duration::from_mins(3);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits, and says whether the engine has come to rest: has moved no bytes for as long as `quiet`,
/// and its files are as large as before.
pub(super) fn wait(dir: &Path, quiet: Duration) -> Outcome<bool> {
    let begun = Instant::now();
    let mut seen = (transferred()?.at_work(), disk_bytes(dir)?);
    let mut since = Instant::now();
    while since.elapsed() < quiet {
        if begun.elapsed() > PATIENCE {
            return Ok(false);
        }
        sleep(LOOK_EVERY);
        let now = (transferred()?.at_work(), disk_bytes(dir)?);
        if now != seen {
            seen = now;
            since = Instant::now();
        }
    }
    Ok(true)
}
