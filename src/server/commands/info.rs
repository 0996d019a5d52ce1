//! `INFO`: figures by section, as far as they are known here. What Redis has and this server does
//! not know is left out.

use std::fmt::{Display, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Run::Directly;
use super::dispatch::known;
use super::{Call, Command, Failure, REDIS_VERSION, is};
use crate::server::event_loop::Shared;

pub(crate) const COMMANDS: &[Command] = &[Command::new("info", -1, &[], Directly(info))
    .about("server", "Returns figures about the server, by section.")];

/// A section: its name, whether it is shown when none is asked for, and what is in it.
struct Section {
    name: &'static str,
    is_default: bool,
    write: fn(&Shared, &mut Lines),
}

const SECTIONS: &[Section] = &[
    section("Server", true, server),
    section("Clients", true, clients),
    section("Memory", true, memory),
    section("Persistence", true, persistence),
    section("Stats", true, stats),
    section("Replication", true, replication),
    section("CPU", true, cpu),
    section("Modules", true, |_, _| {}),
    section("Commandstats", false, commandstats),
    section("Errorstats", true, errorstats),
    section("Cluster", true, |_, lines| lines.add("cluster_enabled", 0)),
    section("Keyspace", true, keyspace),
    section("CrabKv", true, crabkv),
];

const fn section(name: &'static str, is_default: bool, write: fn(&Shared, &mut Lines)) -> Section {
    Section {
        name,
        is_default,
        write,
    }
}

/// What is written, in lines of a name and a value.
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// Text that may have line ends of its own.
    fn add_text(&mut self, name: &str, value: &str) {
        self.add(name, value.replace(['\r', '\n'], " "));
    }
}

fn info(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let wanted = &call.words[1..];
    let is_wanted = |section: &&Section| {
        let asks_for = |name: &str| wanted.iter().any(|word| is(word, name));
        asks_for("all")
            || asks_for("everything")
            || asks_for(section.name)
            || (section.is_default && (wanted.is_empty() || asks_for("default")))
    };
    let mut lines = Lines(String::new());
    for section in SECTIONS.iter().filter(is_wanted) {
        if !lines.0.is_empty() {
            lines.0.push_str("\r\n");
        }
        let _ = write!(lines.0, "# {}\r\n", section.name);
        (section.write)(call.shared, &mut lines);
    }
    call.reply.verbatim(&lines.0);
    Ok(())
}

fn server(shared: &Shared, lines: &mut Lines) {
    let uptime = shared.since.elapsed().as_secs();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    lines.add("redis_version", REDIS_VERSION);
    lines.add("crabkv_version", env!("CARGO_PKG_VERSION"));
    lines.add("redis_mode", "standalone");
    lines.add("os", std::env::consts::OS);
    lines.add("arch_bits", usize::BITS);
    lines.add("process_id", std::process::id());
    lines.add("tcp_port", shared.local_addr.port());
    lines.add("server_time_usec", now.unwrap_or_default().as_micros());
    lines.add("uptime_in_seconds", uptime);
    lines.add("uptime_in_days", uptime / 86_400);
    lines.add("io_threads", shared.config.threads);
    lines.add("config_file", "");
}

fn clients(shared: &Shared, lines: &mut Lines) {
    lines.add("connected_clients", shared.clients.count());
    lines.add("maxclients", shared.clients.max());
    lines.add("blocked_clients", 0);
    lines.add("tracking_clients", 0);
}

fn memory(shared: &Shared, lines: &mut Lines) {
    let stats = shared.store.stats();
    let used = stats.index_bytes + stats.append_buffer_bytes + stats.buffered_bytes;
    lines.add("used_memory", used);
    lines.add("used_memory_human", human(used));
    if let Some(resident) = process::resident_bytes() {
        lines.add("used_memory_rss", resident);
        lines.add("used_memory_rss_human", human(resident));
    }
    lines.add("used_memory_index", stats.index_bytes);
    lines.add("mapped_bytes", stats.mapped_bytes);
    lines.add("maxmemory", 0);
    lines.add("maxmemory_human", "0B");
    lines.add("maxmemory_policy", "noeviction");
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn human(bytes: u64) -> String {
    let units = [("G", 30), ("M", 20), ("K", 10)];
    let unit = units.into_iter().find(|(_, bits)| bytes >= 1 << bits);
    match unit {
        Some((unit, bits)) => format!("{:.2}{unit}", bytes as f64 / (1u64 << bits) as f64),
        None => format!("{bytes}B"),
    }
}

fn persistence(shared: &Shared, lines: &mut Lines) {
    let stats = shared.store.stats();
    let saves = &shared.saves;
    let outcome = |has_failed: bool| if has_failed { "err" } else { "ok" };
    let compaction_failed = saves.rewrite_has_failed() || stats.compaction_failure.is_some();
    let is_rewriting = saves.is_rewriting() || stats.compacting;
    lines.add("loading", 0);
    lines.add("async_loading", 0);
    lines.add("rdb_bgsave_in_progress", 0);
    lines.add("rdb_last_save_time", saves.last());
    lines.add("rdb_last_bgsave_status", outcome(saves.has_failed()));
    lines.add("aof_enabled", 1);
    lines.add("aof_rewrite_in_progress", u8::from(is_rewriting));
    lines.add("aof_rewrite_scheduled", 0);
    lines.add("aof_last_bgrewrite_status", outcome(compaction_failed));
    lines.add("aof_last_write_status", outcome(stats.poisoned.is_some()));
    lines.add("aof_current_size", stats.data_bytes);
}

fn stats(shared: &Shared, lines: &mut Lines) {
    let metrics = &shared.metrics;
    let errors: u64 = metrics.errors().values().sum();
    lines.add("total_connections_received", shared.clients.total());
    lines.add("total_commands_processed", metrics.calls());
    lines.add("instantaneous_ops_per_sec", metrics.calls_per_second());
    lines.add("rejected_connections", metrics.rejected_connections());
    lines.add("evicted_keys", 0);
    lines.add("pubsub_channels", 0);
    lines.add("pubsub_patterns", 0);
    lines.add("total_error_replies", errors);
}

fn replication(_: &Shared, lines: &mut Lines) {
    lines.add("role", "master");
    lines.add("connected_slaves", 0);
    lines.add("master_failover_state", "no-failover");
    lines.add("master_repl_offset", 0);
    lines.add("repl_backlog_active", 0);
}

fn cpu(_: &Shared, lines: &mut Lines) {
    if let Some((user, system)) = process::cpu_seconds() {
        lines.add("used_cpu_sys", format_args!("{system:.2}"));
        lines.add("used_cpu_user", format_args!("{user:.2}"));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn commandstats(shared: &Shared, lines: &mut Lines) {
    for known in known() {
        let figures = shared.metrics.command(known.number);
        if figures.calls + figures.rejected == 0 {
            continue;
        }
        let micros = figures.time.as_micros();
        let per_call = figures.time.as_secs_f64() * 1e6 / figures.calls.max(1) as f64;
        // The names of subcommands have a bar in them, as here.
        let name = format!("cmdstat_{}", known.command.name);
        lines.add(
            &name,
            format_args!(
                "calls={},usec={micros},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                figures.calls, figures.rejected, figures.failed,
            ),
        );
    }
}

fn errorstats(shared: &Shared, lines: &mut Lines) {
    for (code, count) in shared.metrics.errors() {
        let name = format!("errorstat_{code}");
        lines.add(&name, format_args!("count={count}"));
    }
}

/// How many keys expire, the store does not count.
fn keyspace(shared: &Shared, lines: &mut Lines) {
    let keys = shared.store.len();
    if keys > 0 {
        lines.add("db0", format_args!("keys={keys}"));
    }
}

fn crabkv(shared: &Shared, lines: &mut Lines) {
    let stats = shared.store.stats();
    lines.add("segments", stats.segments.len());
    lines.add("data_bytes", stats.data_bytes);
    lines.add("live_bytes", stats.live_bytes);
    lines.add("stale_bytes", stats.stale_bytes);
    lines.add("tombstone_bytes", stats.tombstone_bytes);
    lines.add("expired_bytes", stats.expired_bytes);
    lines.add("appended_bytes", stats.appended_bytes);
    lines.add("syncs", stats.syncs);
    lines.add("merges", stats.merges);
    lines.add("merged_bytes", stats.merged_bytes);
    if let Some(failure) = &stats.compaction_failure {
        lines.add_text("compaction_failure", failure);
    }
    if let Some(reason) = &stats.poisoned {
        lines.add_text("poisoned", reason);
    }
}

/// What the system knows of this process.
mod process {
    /// Bytes of memory that it has.
    #[cfg(target_os = "linux")]
    pub(super) fn resident_bytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kilobytes << 10)
    }

    /// Seconds that it has worked, by itself and inside the system.
    #[cfg(target_os = "linux")]
    pub(super) fn cpu_seconds() -> Option<(f64, f64)> {
        /// What programs see, whatever the kernel counts by.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name may have anything in it, and ends with the last bracket.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace().skip(11);
        let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some((seconds()?, seconds()?))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn resident_bytes() -> Option<u64> {
        None
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn cpu_seconds() -> Option<(f64, f64)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_for_people() {
        assert_eq!(human(0), "0B");
        assert_eq!(human(1023), "1023B");
        assert_eq!(human(1536), "1.50K");
        assert_eq!(human(5 << 30), "5.00G");
    }
}
