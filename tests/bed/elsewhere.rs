//! Layers of the test bed that need Linux, where there is another system.

use crate::layer::skip;

#[test]
fn what_needs_linux_is_said() {
    for layer in [
        "real power cuts",
        "real full disks",
        "real failing disks",
        "process limits",
    ] {
        skip(
            layer,
            "only on Linux can a test make file systems of its own",
        );
    }
}
