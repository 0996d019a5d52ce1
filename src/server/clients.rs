//! Who is connected: what one connection can learn of another, and do to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::Token;

use super::Mailbox;

/// All connections, by their ids, which are never given twice.
pub(crate) struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
    /// How many there may be at a time.
    max: AtomicUsize,
}

/// A connection, as others see it.
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) addr: SocketAddr,
    pub(crate) local_addr: SocketAddr,
    since: Instant,
    /// Milliseconds from `since` to its last request.
    last_request_ms: AtomicU64,
    names: Mutex<Names>,
    is_killed: AtomicBool,
    token: Token,
    mailbox: Arc<Mailbox>,
}

/// What a connection calls itself, and what it did last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) name: String,
    pub(crate) library: String,
    pub(crate) library_version: String,
    /// The command that it sent last, in lower case.
    pub(crate) last_command: &'static str,
    pub(crate) protocol: i64,
    /// Commands that it has queued for `EXEC`; `None` outside a transaction.
    pub(crate) queued: Option<usize>,
    /// Keys that it watches.
    pub(crate) watched: usize,
}

impl Clients {
    /// For at most so many at a time.
    pub(crate) fn new(max: usize) -> Clients {
        Clients {
            connected: Mutex::default(),
            last_id: AtomicU64::new(0),
            max: AtomicUsize::new(max),
        }
    }

    pub(crate) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(crate) fn connect(
        &self,
        addr: SocketAddr,
        local_addr: SocketAddr,
        token: Token,
        mailbox: Arc<Mailbox>,
    ) -> Arc<Client> {
        let client = Arc::new(Client {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            addr,
            local_addr,
            since: Instant::now(),
            last_request_ms: AtomicU64::new(0),
            names: Mutex::new(Names {
                protocol: 2,
                ..Names::default()
            }),
            is_killed: AtomicBool::new(false),
            token,
            mailbox,
        });
        self.lock().insert(client.id, Arc::clone(&client));
        client
    }

    pub(crate) fn disconnect(&self, client: &Client) {
        self.lock().remove(&client.id);
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// How many there have been.
    pub(crate) fn total(&self) -> u64 {
        self.last_id.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget_names(&self) {
        let mut names = self.names();
        names.name.clear();
        names.protocol = 2;
    }

    /// Notes when it sent something.
    pub(crate) fn note_request(&self, at: Instant) {
        let age_ms = at.saturating_duration_since(self.since).as_millis() as u64;
        self.last_request_ms.store(age_ms, Ordering::Relaxed);
    }

    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// How long it has said nothing.
    pub(crate) fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.last_request_ms.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }

    /// Closes it, as soon as its loop gets to it.
    pub(crate) fn kill(&self) {
        self.is_killed.store(true, Ordering::SeqCst);
        self.mailbox.look_at(self.token);
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::SeqCst)
    }
}
