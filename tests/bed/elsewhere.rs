//! Layers of the test bed that need Linux, where there is another system.

use crate::layer::skip;

#[test]
fn what_needs_linux_is_said() {
    const FILE_SYSTEMS: &str = "only on Linux can a test make file systems of its own";
    for (layer, why) in [
        ("real power cuts", FILE_SYSTEMS),
        ("real full disks", FILE_SYSTEMS),
        ("real failing disks", FILE_SYSTEMS),
        (
            "process limits",
            "they are set and counted as Linux does it",
        ),
        ("system calls", "only Linux has the strace that fails them"),
    ] {
        skip(layer, why);
    }
    if cfg!(windows) {
        skip(
            "faults in maps",
            "what a map cannot read is no signal there",
        );
    }
}
