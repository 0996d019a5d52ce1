//! `serve`: the store on a TCP port, until it is told to stop.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::args::Options;
use super::context::{Context, IfMissing};
use super::exit::{Failure, Outcome};
use super::interrupt;
use super::units::{self, counted, duration};
use crate::server::{Config, Inline, Server, Stopper};

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 for any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    addr: SocketAddr,
    /// Listen on an address that others than this machine can reach: there is no password yet
    #[arg(long)]
    allow_remote: bool,
    /// Sync this often instead of before each answer; a power cut can take what came since
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    sync_interval: Option<Duration>,
    /// Threads that serve connections
    #[arg(long, value_name = "COUNT", default_value = "2")]
    threads: NonZeroUsize,
    /// What lines that are no RESP frames are: auto is text until a connection sends a frame
    #[arg(long, value_name = "LANGUAGE", value_enum, default_value = "auto")]
    inline: InlineArg,
    /// Connections at a time
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_connections: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum InlineArg {
    Auto,
    Text,
    Redis,
}

impl From<InlineArg> for Inline {
    fn from(inline: InlineArg) -> Inline {
        match inline {
            InlineArg::Auto => Inline::Auto,
            InlineArg::Text => Inline::Text,
            InlineArg::Redis => Inline::Redis,
        }
    }
}

/// How often the store syncs by itself where the server asks for a sync before each answer.
const RARELY: Duration = Duration::from_secs(3600);

pub(crate) fn run(context: &Context, args: &ServeArgs) -> Result<Outcome, Failure> {
    if !args.addr.ip().is_loopback() && !args.allow_remote {
        return Err(Failure::Usage(format!(
            "{} can be reached from other machines, and anybody there could read and write; \
             --allow-remote serves them all the same",
            args.addr
        )));
    }
    let server = Server::bind(Config {
        addr: args.addr,
        threads: args.threads,
        max_connections: args.max_connections,
        sync_before_reply: args.sync_interval.is_none(),
        default_ttl: context.options.default_ttl,
        inline: args.inline.into(),
    })
    .map_err(|source| Failure::Listen {
        addr: args.addr,
        source,
    })?;
    let stopper = server.stopper();
    let _graceful = interrupt::graceful_with({
        let stopper = stopper.clone();
        move || stopper.stop()
    });
    stop_at_termination(stopper);

    let begun = Instant::now();
    let configure = |builder: crabkv::CrabKvBuilder| {
        builder
            .sync_interval(args.sync_interval.unwrap_or(RARELY))
            .async_compaction(true)
    };
    // Commands have their own idea of when the default counts.
    let without_default = Context::new(Options {
        default_ttl: None,
        ..context.options.clone()
    });
    without_default.write_with(IfMissing::Create, configure, |store| {
        greet(context, args, &server, store.len(), begun.elapsed());
        server.run(store)?;
        Ok(())
    })?;
    context.note("stopped; everything that was answered is durable");
    Ok(Outcome::Done)
}

fn greet(context: &Context, args: &ServeArgs, server: &Server, keys: usize, took: Duration) {
    let addr = server.local_addr();
    let durability = match args.sync_interval {
        None => "every write is durable before it is answered".to_owned(),
        Some(interval) => format!(
            "writes are synced every {}; a power cut can take the last ones",
            duration(interval)
        ),
    };
    context.note(format_args!(
        "{} of {} loaded in {}; {durability}",
        counted(keys as u64, "key"),
        context.options.data_dir.display(),
        duration(took),
    ));
    context.note(format_args!(
        "listening on {addr}; try: printf 'PUT hello world\\nGET hello\\n' | nc -N {} {}",
        addr.ip(),
        addr.port(),
    ));
}

/// Ends in good order when the system asks for it.
#[cfg(unix)]
fn stop_at_termination(stopper: Stopper) {
    use signal_hook::consts::SIGTERM;
    use signal_hook::iterator::Signals;

    // Where it cannot be caught, it ends the process, which loses nothing that was answered.
    if let Ok(mut signals) = Signals::new([SIGTERM]) {
        std::thread::spawn(move || {
            for _ in signals.forever() {
                stopper.stop();
            }
        });
    }
}

#[cfg(not(unix))]
fn stop_at_termination(_: Stopper) {}
