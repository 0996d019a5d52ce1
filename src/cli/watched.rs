//! Long work of the library that tells how far it has come: with a bar, and to be stopped by Ctrl-C
//! in good order.

use std::ops::ControlFlow;

use super::context::Context;
use super::interrupt::{self, Graceful};
use super::progress::Progress;

/// While it lives, there is a bar, and Ctrl-C stops the work.
pub(crate) struct Watched {
    bar: Progress,
    _graceful: Graceful,
}

impl Watched {
    pub(crate) fn new(context: &Context, label: &str) -> Watched {
        Watched {
            bar: Progress::of_bytes(context, label, 0),
            _graceful: interrupt::graceful(),
        }
    }

    /// So many bytes are done, of so many as far as known; says whether to go on.
    pub(crate) fn reach(&self, done: u64, total: u64) -> ControlFlow<()> {
        self.bar.set_total(total);
        self.bar.set(done);
        if interrupt::is_requested() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
