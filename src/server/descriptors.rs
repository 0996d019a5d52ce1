//! File descriptors: the process has so many, and connections must not take the last ones. Without
//! any, the store could begin no segment, and writes would fail because of clients.

use mio::net::TcpStream;

use super::limits::RESERVED_DESCRIPTORS;

/// How many descriptors connections may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    /// The first that no connection gets; `None` where there is no limit.
    end: Option<u64>,
}

impl Descriptors {
    /// Asks the system for as many as so many connections need.
    #[cfg(unix)]
    pub(crate) fn for_connections(max: usize) -> Descriptors {
        use rustix::process::{Resource, getrlimit, setrlimit};

        let wanted = (max as u64).saturating_add(2 * RESERVED_DESCRIPTORS);
        let mut limit = getrlimit(Resource::Nofile);
        let allowed = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
        if limit.current.is_some_and(|current| current < allowed) {
            let former = limit.current;
            limit.current = Some(allowed);
            // Where it is not granted, there are as many as before.
            if setrlimit(Resource::Nofile, limit).is_err() {
                limit.current = former;
            }
        }
        Descriptors::of(limit.current)
    }

    #[cfg(not(unix))]
    pub(crate) fn for_connections(_: usize) -> Descriptors {
        Descriptors::of(None)
    }

    /// With so many in all.
    fn of(limit: Option<u64>) -> Descriptors {
        let end = limit.map(|limit| limit - RESERVED_DESCRIPTORS.min(limit / 2));
        Descriptors { end }
    }

    /// Whether a connection took one of the last. The system gives the lowest number that is free, so
    /// whoever gets a high one comes when the others are in use.
    #[cfg(unix)]
    pub(crate) fn are_short_with(self, stream: &TcpStream) -> bool {
        use std::os::fd::AsRawFd;

        let number = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
        self.end.is_some_and(|end| number >= end)
    }

    #[cfg(not(unix))]
    pub(crate) fn are_short_with(self, _: &TcpStream) -> bool {
        self.end.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_left_for_the_store() {
        assert_eq!(Descriptors::of(Some(1024)).end, Some(992));
        assert_eq!(Descriptors::of(Some(20)).end, Some(10));
        assert_eq!(Descriptors::of(None).end, None);
    }
}
