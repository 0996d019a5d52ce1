//! The server: a store on a TCP port, over the library's public API alone.
//!
//! A few threads each run an event loop ([`event_loop`]) over their share of the connections. A
//! turn of the loop reads what has arrived, does every request in it at once, and writes one answer
//! ([`connection`]). The language is in [`text`]: lines for `nc` and for people.
//!
//! Synced writes hold no thread. A write is applied to the store at once, and everything that is
//! answered from then on waits in the connections' buffers until a sync has made it durable
//! ([`syncer`]): all writes that arrive while one sync runs share the next, and nobody outside
//! learns of a write that a power cut could still take.

mod connection;
mod event_loop;
mod inline;
mod input;
mod limits;
mod output;
mod syncer;
mod text;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use crabkv::Store;
use mio::net::TcpListener;

use event_loop::EventLoop;
use syncer::Syncer;
use worker::Worker;

pub(crate) use event_loop::Mailbox;

/// How a server runs.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) addr: SocketAddr,
    /// Event loops, each on a thread.
    pub(crate) threads: NonZeroUsize,
    pub(crate) max_connections: usize,
    /// Whether each answer waits until what it tells of is durable.
    pub(crate) sync_before_reply: bool,
}

/// A server that listens, but answers nobody yet.
pub(crate) struct Server {
    config: Config,
    listener: TcpListener,
    local_addr: SocketAddr,
    loops: Vec<EventLoop>,
}

/// Stops a server, from any thread.
#[derive(Clone)]
pub(crate) struct Stopper(Vec<Arc<Mailbox>>);

impl Stopper {
    /// Lets the server end: it takes no new requests, and answers those that it has.
    pub(crate) fn stop(&self) {
        for mailbox in &self.0 {
            mailbox.stop();
        }
    }
}

impl Server {
    /// Takes the address.
    pub(crate) fn bind(config: Config) -> io::Result<Server> {
        let listener = TcpListener::bind(config.addr)?;
        let local_addr = listener.local_addr()?;
        let loops = (0..config.threads.get())
            .map(|_| EventLoop::new())
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Server {
            config,
            listener,
            local_addr,
            loops,
        })
    }

    /// Where it listens; with port 0 in the configuration, the one that the system chose.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    pub(crate) fn stopper(&self) -> Stopper {
        Stopper(self.mailboxes())
    }

    fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.loops.iter().map(EventLoop::mailbox).collect()
    }

    /// Serves until it is stopped, and until what was answered is durable.
    pub(crate) fn run(self, store: &Store) -> crabkv::Result<()> {
        let mailboxes = self.mailboxes();
        let syncer = Syncer::new(self.config.sync_before_reply, mailboxes.clone());
        let worker = Worker::new();
        let shared = event_loop::Shared::new(store.clone(), self.config, syncer, worker, mailboxes);
        thread::scope(|scope| {
            let helpers = [
                scope.spawn(|| shared.syncer.run(store)),
                scope.spawn(|| shared.worker.run()),
            ];
            let mut listener = Some(self.listener);
            let loops: Vec<_> = self
                .loops
                .into_iter()
                .map(|mut event_loop| {
                    // The first one accepts, for all.
                    let listener = listener.take();
                    let shared = &shared;
                    scope.spawn(move || event_loop.run(shared, listener))
                })
                .collect();
            for thread in loops {
                join(thread);
            }
            shared.worker.stop();
            shared.syncer.stop();
            for thread in helpers {
                join(thread);
            }
        });
        store.sync()
    }
}

/// A panic goes on in the thread that waits.
fn join(thread: thread::ScopedJoinHandle<'_, ()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
