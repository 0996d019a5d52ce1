//! `CONFIG`: the settings that clients ask for, under the names that Redis has for them. Few of them
//! can be changed while the server runs; a change to what is so already succeeds.

use super::Flag::Admin;
use super::Run::Directly;
use super::dispatch::help;
use super::{Call, Command, Failure, integer, wrong_arity};
use crate::server::event_loop::Shared;
use crate::server::glob::Glob;
use crate::server::limits::REQUEST;

pub(crate) const COMMANDS: &[Command] = &[Command::container(
    "config",
    &[
        Command::new("config|get", -3, &[Admin], Directly(get))
            .syntax("<pattern> [<pattern> ...]")
            .about(
                "server",
                "Returns the settings whose names match, and their values.",
            ),
        Command::new("config|help", 2, &[], Directly(help)).about("server", "Prints this."),
        Command::new("config|resetstat", 2, &[Admin], Directly(resetstat))
            .about("server", "Begins to count from 0 what INFO shows."),
        Command::new("config|rewrite", 2, &[Admin], Directly(rewrite))
            .about("server", "Is refused: there is no file of settings."),
        Command::new("config|set", -4, &[Admin], Directly(set))
            .syntax("<directive> <value> [<directive> <value> ...]")
            .about("server", "Changes settings, all or none."),
    ],
)
.about("server", "Looks at settings and changes them.")];

type Change = fn(&Shared, i64);

/// A setting.
struct Setting {
    name: &'static str,
    get: fn(&Shared) -> String,
    /// Its bounds, and how it is changed; `None` if it cannot be.
    set: Option<(i64, i64, Change)>,
}

impl Setting {
    const fn fixed(name: &'static str, get: fn(&Shared) -> String) -> Setting {
        Setting {
            name,
            get,
            set: None,
        }
    }

    const fn number(
        name: &'static str,
        get: fn(&Shared) -> String,
        (min, max): (i64, i64),
        set: Change,
    ) -> Setting {
        Setting {
            name,
            get,
            set: Some((min, max, set)),
        }
    }
}

/// In the order of their names.
const SETTINGS: &[Setting] = &[
    Setting::fixed("appendfsync", |shared| {
        let is_always = shared.config.sync_before_reply;
        if is_always { "always" } else { "everysec" }.to_owned()
    }),
    Setting::fixed("appendonly", |_| "yes".to_owned()),
    Setting::fixed("bind", |shared| shared.local_addr.ip().to_string()),
    Setting::fixed("cluster-enabled", |_| "no".to_owned()),
    Setting::fixed("databases", |_| "1".to_owned()),
    Setting::fixed("dir", |shared| shared.store.dir().display().to_string()),
    Setting::fixed("io-threads", |shared| shared.config.threads.to_string()),
    Setting::fixed("latency-monitor-threshold", |_| "0".to_owned()),
    Setting::number(
        "maxclients",
        |shared| shared.clients.max().to_string(),
        (1, u32::MAX as i64),
        |shared, count| shared.clients.set_max(size(count)),
    ),
    Setting::fixed("maxmemory", |_| "0".to_owned()),
    Setting::fixed("maxmemory-policy", |_| "noeviction".to_owned()),
    Setting::fixed("notify-keyspace-events", |_| String::new()),
    Setting::fixed("port", |shared| shared.local_addr.port().to_string()),
    Setting::fixed("proto-max-bulk-len", |_| REQUEST.bytes.to_string()),
    Setting::fixed("save", |_| String::new()),
    Setting::number(
        "slowlog-log-slower-than",
        |shared| shared.slowlog.threshold_us().to_string(),
        (-1, i64::MAX),
        |shared, threshold_us| shared.slowlog.set_threshold_us(threshold_us),
    ),
    Setting::number(
        "slowlog-max-len",
        |shared| shared.slowlog.max_len().to_string(),
        (0, MAX_SLOWLOG_LEN),
        |shared, len| shared.slowlog.set_max_len(size(len)),
    ),
    Setting::fixed("timeout", |shared| {
        let idle = shared.config.timeouts.idle;
        idle.map_or(0, |timeout| timeout.as_secs()).to_string()
    }),
];

/// An entry takes some kilobytes at most, and all of them are memory.
const MAX_SLOWLOG_LEN: i64 = 100_000;

fn size(number: i64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn find(name: &[u8]) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| super::is(name, setting.name))
}

fn get(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let patterns = call.words[2..]
        .iter()
        .map(|pattern| Glob::ignoring_case(pattern))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Failure::new("ERR pattern too long"))?;
    let is_meant = |setting: &&Setting| {
        let name = setting.name.as_bytes();
        patterns.iter().any(|pattern| pattern.matches(name))
    };
    let meant: Vec<_> = SETTINGS.iter().filter(is_meant).collect();
    call.reply.map(meant.len());
    for setting in meant {
        call.reply.bulk(setting.name.as_bytes());
        call.reply.bulk((setting.get)(call.shared).as_bytes());
    }
    Ok(())
}

fn set(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let words = &call.words[2..];
    if words.len() % 2 != 0 {
        return Err(wrong_arity("config|set"));
    }
    // All are looked at before the first is changed.
    let mut changes: Vec<(Change, i64)> = Vec::new();
    for (place, pair) in words.chunks_exact(2).enumerate() {
        let (name, value) = (pair[0], pair[1]);
        let setting = find(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            Failure::new(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            ))
        })?;
        let failed = |reason: &str| {
            let name = setting.name;
            Failure::new(format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"
            ))
        };
        let before = words.chunks_exact(2).take(place);
        if before
            .into_iter()
            .any(|pair| super::is(pair[0], setting.name))
        {
            return Err(failed("duplicate parameter"));
        }
        let Some((min, max, set)) = setting.set else {
            if value.eq_ignore_ascii_case((setting.get)(call.shared).as_bytes()) {
                continue;
            }
            return Err(failed("can't set immutable config"));
        };
        let number =
            integer(value).map_err(|_| failed("argument couldn't be parsed into an integer"))?;
        if number < min || number > max {
            let reason = format!("argument must be between {min} and {max} inclusive");
            return Err(failed(&reason));
        }
        changes.push((set, number));
    }
    for (set, number) in changes {
        set(call.shared, number);
    }
    call.reply.ok();
    Ok(())
}

fn resetstat(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    call.shared.metrics.reset();
    call.reply.ok();
    Ok(())
}

fn rewrite(_: &mut Call<'_, '_>) -> Result<(), Failure> {
    Err(Failure::new(
        "ERR The server is running without a config file",
    ))
}
