//! The server: a store on a TCP port, over the library's public API alone.
//!
//! A few threads each run an event loop ([`event_loop`]) over their share of the connections. A
//! turn of a connection reads what has arrived, does every request in it, and writes one answer
//! ([`connection`]). Two languages share the port: lines for `nc` and for people ([`text`]), and RESP
//! ([`resp`], [`commands`]), which Redis clients speak. A request that begins with `*` is RESP.
//!
//! Synced writes hold no thread. A write is applied to the store at once, and everything that is
//! answered from then on waits in the connections' buffers until a sync has made it durable
//! ([`syncer`]): all writes that arrive while one sync runs share the next, and nobody outside
//! learns of a write that a power cut could still take.

mod clients;
mod combine;
mod commands;
mod connection;
mod descriptors;
mod event_loop;
mod exposition;
mod figures;
mod glob;
mod histogram;
mod http;
mod inline;
mod input;
mod keyspace;
mod limits;
mod metrics;
mod monitor;
mod output;
mod password;
mod patience;
mod rdb;
mod resp;
mod saves;
mod session;
mod slowlog;
mod stream;
mod syncer;
mod text;
mod tls;
mod turnstile;
mod watch;
mod web;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use crabkv::Store;
use mio::net::TcpListener;
use tracing::{error, info};

use event_loop::{EventLoop, Shared};
use figures::Trouble;
use http::HttpServer;

pub(crate) use event_loop::Mailbox;
pub(crate) use limits::PASSWORD_BYTES;
pub(crate) use limits::REQUEST;
pub(crate) use password::Password;
pub(crate) use patience::Timeouts;
pub(crate) use resp::parse::Limits;
pub(crate) use tls::Tls;
#[cfg(feature = "tls")]
pub(crate) use tls::TlsError;

/// How a server runs.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) addr: SocketAddr,
    /// Event loops, each on a thread.
    pub(crate) threads: NonZeroUsize,
    pub(crate) max_connections: usize,
    pub(crate) request: Limits,
    pub(crate) timeouts: Timeouts,
    /// Whether each answer waits until what it tells of is durable.
    pub(crate) sync_before_reply: bool,
    /// How long values live that are put without a TTL. The store itself has no default.
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) inline: Inline,
    /// What clients have to give before anything else.
    pub(crate) password: Option<Password>,
    /// The port speaks TLS, with this certificate.
    pub(crate) tls: Option<Tls>,
}

impl Config {
    /// When a value expires that is put now and says nothing of it. What lasts longer than time
    /// does, lasts.
    pub(crate) fn default_expiry(&self) -> Option<SystemTime> {
        self.default_ttl
            .and_then(|ttl| commands::now().checked_add(ttl))
    }
}

/// What lines are that are no frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Inline {
    /// Text, until the connection has sent a frame; Redis commands that text has not, always.
    #[default]
    Auto,
    /// Text, always.
    Text,
    /// Redis commands, always.
    Redis,
}

/// A server that listens, but answers nobody yet.
pub(crate) struct Server {
    config: Config,
    listener: TcpListener,
    local_addr: SocketAddr,
    loops: Vec<EventLoop>,
    monitor: Option<HttpServer>,
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
            monitor: None,
        })
    }

    /// Takes a second address, for figures and health over HTTP; which one it is.
    pub(crate) fn monitor_at(&mut self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let monitor = self.monitor.insert(HttpServer::bind(addr)?);
        Ok(monitor.local_addr())
    }

    /// Where it listens; with port 0 in the configuration, the one that the system chose.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    pub(crate) fn stopper(&self) -> Stopper {
        Stopper(self.loops.iter().map(EventLoop::mailbox).collect())
    }

    /// Serves until it is stopped, and until what was answered is durable.
    pub(crate) fn run(self, store: &Store) -> crabkv::Result<()> {
        let shared = Arc::new(Shared::new(store.clone(), self.config, self.local_addr, {
            let mailboxes = self.loops.iter().map(EventLoop::mailbox);
            mailboxes.collect()
        }));
        let spawn = |work: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || work(&shared))
        };
        let helpers = [
            spawn(|shared| {
                shared.syncer.run(&shared.store);
                if let Some(error) = shared.syncer.failure() {
                    shared.figures.note(Trouble::Sync);
                    error!(%error, "a sync failed; what waited for it is answered with an error");
                }
            }),
            spawn(|shared| shared.worker.run(shared)),
            spawn(|shared| shared.watch.run(shared)),
        ];
        let monitor = self.monitor.map(|mut monitor| {
            let shared = Arc::clone(&shared);
            let stopper = monitor.stopper();
            let run = move || monitor.run(&|path| monitor::page(path, &shared));
            (stopper, thread::spawn(run))
        });
        info!(addr = %self.local_addr, keys = store.len(), "serving");
        let mut listener = Some(self.listener);
        let loops: Vec<_> = self
            .loops
            .into_iter()
            .map(|mut event_loop| {
                // The first one accepts, for all.
                let listener = listener.take();
                let shared = Arc::clone(&shared);
                thread::spawn(move || event_loop.run(&shared, listener))
            })
            .collect();
        loops.into_iter().for_each(join);
        info!("no longer serving");
        shared.worker.stop();
        shared.syncer.stop();
        shared.watch.stop();
        if let Some((stopper, thread)) = monitor {
            stopper.stop();
            join(thread);
        }
        helpers.into_iter().for_each(join);
        store.sync()
    }
}

/// A panic goes on in the thread that waits.
fn join(thread: thread::JoinHandle<()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
