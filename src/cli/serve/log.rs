//! Options of `serve` for its log, and where that goes: to stderr, a line for each event.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;

#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// What to log on stderr; never keys, values or passwords
    #[arg(
        long = "log",
        value_name = "LEVEL",
        env = "CRABKV_LOG",
        value_enum,
        default_value = "warn"
    )]
    level: LogLevel,
    /// How to write the log
    #[arg(
        long = "log-format",
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogLevel {
    /// Nothing
    Off,
    /// What must be seen to: writes are refused, nothing can be made durable
    Error,
    /// What may have to be seen to: compaction or accepting fails, a password is wrong
    Warn,
    /// When it began and ended to serve, too
    Info,
    /// Each connection too, and why it was closed
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object on each line
    Json,
}

impl LogArgs {
    /// Lets the log begin.
    pub(super) fn begin(&self) {
        let log = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::from(self.level))
            .with_writer(io::stderr)
            .with_ansi(false)
            // There is nobody to tell when stderr is closed; saying it there would be a panic.
            .log_internal_errors(false);
        // In the shell, a second server has the log of the first one.
        let _ = match self.format {
            LogFormat::Text => log.try_init(),
            LogFormat::Json => log.json().flatten_event(true).try_init(),
        };
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> LevelFilter {
        match level {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}
