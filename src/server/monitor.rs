//! What the second port tells: figures for Prometheus, and whether the server is well.

use std::collections::BTreeMap;
use std::time::Duration;

use crabkv::Stats;

use super::commands;
use super::event_loop::Shared;
use super::exposition::{CONTENT_TYPE, Exposition, Kind};
use super::figures::Trouble;
use super::http::{Page, plain};
use super::metrics::CommandFigures;

/// The page of a path.
pub(crate) fn page(path: &str, shared: &Shared) -> Page {
    match path {
        "/metrics" => Page {
            status: "200 OK",
            content_type: CONTENT_TYPE,
            body: metrics(shared),
        },
        "/health" => match illness(shared, &shared.store.stats()) {
            None => plain("200 OK", "ok"),
            Some(reason) => plain("503 Service Unavailable", &reason),
        },
        _ => plain(
            "404 Not Found",
            "there is /metrics, for Prometheus, and /health: 200 or 503",
        ),
    }
}

/// Why writes do not work, if they do not.
fn illness(shared: &Shared, stats: &Stats) -> Option<String> {
    if let Some(error) = shared.syncer.failure() {
        return Some(format!("writes can no longer be made durable: {error}"));
    }
    let refusal = stats.poisoned.as_ref();
    refusal.map(|error| format!("the store refuses writes: {error}"))
}

fn metrics(shared: &Shared) -> String {
    let stats = shared.store.stats();
    let mut exposition = Exposition::default();
    process(shared, &mut exposition);
    clients(shared, &mut exposition);
    commands(shared, &mut exposition);
    contents(&stats, &mut exposition);
    compaction(&stats, &mut exposition);
    durability(shared, &stats, &mut exposition);
    troubles(shared, &mut exposition);
    exposition.into_text()
}

fn process(shared: &Shared, to: &mut Exposition) {
    let help = "Always 1; the labels say which program this is.";
    to.family("crabkv_build_info", Kind::Gauge, help).sample(
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
            ("tls", if cfg!(feature = "tls") { "yes" } else { "no" }),
        ],
        1,
    );
    to.single(
        "crabkv_start_time_seconds",
        Kind::Gauge,
        "When the server began, in seconds since 1970.",
        shared.figures.started_at().as_secs_f64(),
    );
    to.single(
        "crabkv_uptime_seconds",
        Kind::Gauge,
        "For how long it has run.",
        shared.since.elapsed().as_secs_f64(),
    );
}

fn clients(shared: &Shared, to: &mut Exposition) {
    let traffic = shared.figures.traffic();
    to.single(
        "crabkv_connections",
        Kind::Gauge,
        "Connections now.",
        shared.clients.count(),
    );
    to.single(
        "crabkv_connections_max",
        Kind::Gauge,
        "Connections that there may be at a time.",
        shared.clients.max(),
    );
    to.single(
        "crabkv_connections_accepted_total",
        Kind::Counter,
        "Connections so far.",
        shared.clients.total(),
    );
    to.single(
        "crabkv_connections_rejected_total",
        Kind::Counter,
        "Connections that were one too many.",
        shared.metrics.rejected_connections(),
    );
    to.single(
        "crabkv_network_received_bytes_total",
        Kind::Counter,
        "Bytes from clients; encrypted, with TLS.",
        traffic.received,
    );
    to.single(
        "crabkv_network_sent_bytes_total",
        Kind::Counter,
        "Bytes to clients; encrypted, with TLS.",
        traffic.sent,
    );
}

type Figure = fn(&CommandFigures) -> u64;

/// Commands by their families, of which there are few: each of them has a dozen figures.
fn commands(shared: &Shared, to: &mut Exposition) {
    let metrics = &shared.metrics;
    let mut families: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for known in commands::known() {
        let family = families.entry(known.command.group).or_default();
        family.push(known.number);
    }
    let counters: [(&str, &str, Figure); 3] = [
        ("crabkv_commands_total", "Calls of commands.", |f| f.calls),
        (
            "crabkv_commands_failed_total",
            "Calls that were answered with an error.",
            |f| f.failed,
        ),
        (
            "crabkv_commands_rejected_total",
            "Requests that did not become calls: of the wrong length, or not allowed.",
            |f| f.rejected,
        ),
    ];
    for (name, help, figure) in counters {
        to.family(name, Kind::Counter, help);
        for (family, numbers) in &families {
            let figures = numbers.iter().map(|number| metrics.command(*number));
            let sum: u64 = figures.map(|figures| figure(&figures)).sum();
            to.sample(&[("family", family)], sum);
        }
    }
    let help = "How long calls took, without the sync that their answers waited for.";
    to.family("crabkv_command_duration_seconds", Kind::Histogram, help);
    for (family, numbers) in &families {
        to.distribution(&[("family", family)], &metrics.times(numbers));
    }
    let help = "Error replies, by their first word.";
    to.family("crabkv_error_replies_total", Kind::Counter, help);
    for (code, count) in metrics.errors() {
        to.sample(&[("code", &code)], count);
    }
}

fn contents(stats: &Stats, to: &mut Exposition) {
    let gauges = [
        (
            "crabkv_keys",
            "Keys, expired ones that are not removed yet included.",
            stats.keys,
        ),
        (
            "crabkv_segments",
            "Segment files.",
            stats.segments.len() as u64,
        ),
        (
            "crabkv_data_bytes",
            "Bytes in all segments.",
            stats.data_bytes,
        ),
        (
            "crabkv_live_bytes",
            "Bytes of the records that hold the keys' values.",
            stats.live_bytes,
        ),
        (
            "crabkv_stale_bytes",
            "Bytes of all other records, tombstones included.",
            stats.stale_bytes,
        ),
        (
            "crabkv_tombstone_bytes",
            "Bytes of tombstones.",
            stats.tombstone_bytes,
        ),
        (
            "crabkv_expired_bytes",
            "About how many of the live bytes have expired.",
            stats.expired_bytes,
        ),
        (
            "crabkv_pinned_bytes",
            "Bytes of merged segments whose files wait for a reader.",
            stats.pinned_bytes,
        ),
        (
            "crabkv_index_bytes",
            "Memory of the index.",
            stats.index_bytes,
        ),
        (
            "crabkv_append_buffer_bytes",
            "Memory of the active segment's buffer.",
            stats.append_buffer_bytes,
        ),
        (
            "crabkv_mapped_bytes",
            "Bytes of sealed segments that are mapped.",
            stats.mapped_bytes,
        ),
    ];
    for (name, help, value) in gauges {
        to.single(name, Kind::Gauge, help, value);
    }
    to.single(
        "crabkv_appended_bytes_total",
        Kind::Counter,
        "Bytes of records that were written.",
        stats.appended_bytes,
    );
}

fn compaction(stats: &Stats, to: &mut Exposition) {
    to.single(
        "crabkv_compaction_merges_total",
        Kind::Counter,
        "Merges that were finished.",
        stats.merges,
    );
    to.single(
        "crabkv_compaction_written_bytes_total",
        Kind::Counter,
        "Bytes that merges wrote.",
        stats.merged_bytes,
    );
    to.single(
        "crabkv_compaction_running",
        Kind::Gauge,
        "1 while compaction is at work on its own.",
        u8::from(stats.compacting),
    );
    to.single(
        "crabkv_compaction_paused",
        Kind::Gauge,
        "1 while compaction is paused.",
        u8::from(stats.compaction_paused),
    );
    to.single(
        "crabkv_compaction_last_failed",
        Kind::Gauge,
        "1 if the last compaction failed.",
        u8::from(stats.compaction_failure.is_some()),
    );
}

fn durability(shared: &Shared, stats: &Stats, to: &mut Exposition) {
    to.single(
        "crabkv_healthy",
        Kind::Gauge,
        "1 if writes work, as /health says.",
        u8::from(illness(shared, stats).is_none()),
    );
    to.single(
        "crabkv_syncs_total",
        Kind::Counter,
        "Syncs of the log, for whatever reason.",
        stats.syncs,
    );
    let name = "crabkv_sync_duration_seconds";
    let help = "How long syncs took that answers waited for.";
    to.family(name, Kind::Histogram, help)
        .distribution(&[], &shared.syncer.times());
}

/// What went wrong, and when.
fn troubles(shared: &Shared, to: &mut Exposition) {
    let help = "What went wrong, by what it was.";
    to.family("crabkv_errors_total", Kind::Counter, help);
    for trouble in Trouble::ALL {
        to.sample(&[("kind", trouble.name())], shared.figures.count(trouble));
    }
    let help = "When that happened last, in seconds since 1970; 0 for never.";
    to.family("crabkv_last_error_timestamp_seconds", Kind::Gauge, help);
    for trouble in Trouble::ALL {
        let last = Duration::from_millis(shared.figures.last_ms(trouble));
        to.sample(&[("kind", trouble.name())], last.as_secs_f64());
    }
}
