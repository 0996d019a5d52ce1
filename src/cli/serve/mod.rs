//! `serve`: the store on a TCP port, until it is told to stop.

mod log;
mod tls;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::cli::args::Options;
use crate::cli::context::{Context, IfMissing};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::units::{self, counted, duration};
use crate::server::{
    Config, Inline, Limits, PASSWORD_BYTES, Password, REQUEST, Server, Stopper, Timeouts,
};
use log::LogArgs;
use tls::TlsArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 for any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    addr: SocketAddr,
    /// Ask clients for the password that this file has; or $CRABKV_PASSWORD, without it
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Listen without a password on an address that others than this machine can reach
    #[arg(long)]
    allow_remote: bool,
    /// Where to serve figures for Prometheus, and a health check, over HTTP: /metrics, /health
    #[arg(long, value_name = "ADDRESS")]
    metrics_addr: Option<SocketAddr>,
    /// Sync this often instead of before each answer; a power cut can take what came since
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    sync_interval: Option<Duration>,
    /// Threads that serve connections; by default one for each two processors, up to 4
    #[arg(long, value_name = "COUNT", default_value_t = threads(), hide_default_value = true)]
    threads: NonZeroUsize,
    /// What lines that are no RESP frames are: auto is text until a connection sends a frame
    #[arg(long, value_name = "LANGUAGE", value_enum, default_value = "auto")]
    inline: InlineArg,
    /// Connections at a time
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_connections: usize,
    /// Words of a request, such as the keys of MGET
    #[arg(long, value_name = "COUNT", default_value_t = REQUEST.arguments)]
    max_arguments: usize,
    /// Close connections that send no request for so long; 0 for never
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, default_value = "0")]
    timeout: Duration,
    /// Close connections that take longer to send a request, beside a second for each 64 KiB
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, default_value = "30s")]
    request_timeout: Duration,
    /// Close connections that take longer to take their answers, beside a second for each 64 KiB
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, default_value = "60s")]
    write_timeout: Duration,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    log: LogArgs,
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

/// The system's part of the work, and the clients if they are here, need processors as well.
fn threads() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new((processors / 2).min(4)).unwrap_or(NonZeroUsize::MIN)
}

/// How often the store syncs by itself where the server asks for a sync before each answer.
const RARELY: Duration = Duration::from_secs(3600);

pub(crate) fn run(context: &Context, args: &ServeArgs) -> Result<Outcome, Failure> {
    args.log.begin();
    let password = password(args)?;
    if !args.addr.ip().is_loopback() && password.is_none() && !args.allow_remote {
        return Err(Failure::Usage(format!(
            "{} can be reached from other machines, and anybody there could read and write; \
             --password-file asks them for a password, --allow-remote serves them all the same",
            args.addr
        )));
    }
    let mut server = Server::bind(Config {
        addr: args.addr,
        threads: args.threads,
        max_connections: args.max_connections,
        request: Limits {
            arguments: args.max_arguments,
            ..REQUEST
        },
        timeouts: Timeouts {
            request: args.request_timeout,
            write: args.write_timeout,
            idle: Some(args.timeout).filter(|timeout| !timeout.is_zero()),
        },
        sync_before_reply: args.sync_interval.is_none(),
        default_ttl: context.options.default_ttl,
        inline: args.inline.into(),
        password,
        tls: args.tls.load()?,
    })
    .map_err(|source| Failure::Listen {
        addr: args.addr,
        option: "--addr",
        source,
    })?;
    let metrics_addr = args
        .metrics_addr
        .map(|addr| monitor_at(addr, args.allow_remote, &mut server))
        .transpose()?;
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
        if let Some(addr) = metrics_addr {
            context.note(format_args!(
                "figures at http://{addr}/metrics, health at http://{addr}/health"
            ));
        }
        greet(context, args, &server, store.len(), begun.elapsed());
        server.run(store)?;
        Ok(())
    })?;
    context.note("stopped; everything that was answered is durable");
    Ok(Outcome::Done)
}

/// The password, if there is one. It cannot be given on the command line, which others can see.
fn password(args: &ServeArgs) -> Result<Option<Password>, Failure> {
    let (bytes, source) = if let Some(path) = &args.password_file {
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|source| Failure::file("read", path, source))?;
        (bytes, path.display().to_string())
    } else if let Some(value) = std::env::var_os(PASSWORD_VARIABLE) {
        (value.into_encoded_bytes(), PASSWORD_VARIABLE.to_owned())
    } else {
        return Ok(None);
    };
    // A file of one line has one line end.
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > PASSWORD_BYTES {
        let reason = format!("a password has at most {PASSWORD_BYTES} bytes; {source} has more");
        return Err(Failure::Usage(reason));
    }
    let password = Password::new(line.to_vec());
    let password = password.ok_or_else(|| Failure::Usage(format!("no password is in {source}")));
    password.map(Some)
}

const PASSWORD_VARIABLE: &str = "CRABKV_PASSWORD";

/// The port for figures and health. Nobody is asked for a password there.
fn monitor_at(
    addr: SocketAddr,
    allow_remote: bool,
    server: &mut Server,
) -> Result<SocketAddr, Failure> {
    if !addr.ip().is_loopback() && !allow_remote {
        return Err(Failure::Usage(format!(
            "{addr} can be reached from other machines, and anybody there could read the figures; \
             --allow-remote serves them all the same"
        )));
    }
    let option = "--metrics-addr";
    let bound = server.monitor_at(addr);
    bound.map_err(|source| Failure::Listen {
        addr,
        option,
        source,
    })
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
    let (ip, port) = (addr.ip(), addr.port());
    let line_to_try = match args.tls.certificate() {
        None => format!("printf 'PUT hello world\\nGET hello\\n' | nc -N {ip} {port}"),
        Some(path) => format!(
            "redis-cli --tls --cacert {} -h {ip} -p {port} SET hello world",
            path.display()
        ),
    };
    context.note(format_args!("listening on {addr}; try: {line_to_try}"));
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
