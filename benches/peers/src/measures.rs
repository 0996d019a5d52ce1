//! What is measured: names, titles, units, and how it is put into tables.

/// How a figure is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    Microseconds,
    Bytes,
    MegabytesPerSecond,
    Times,
    Percent,
}

pub(crate) struct Measure {
    /// In JSON.
    pub(crate) name: &'static str,
    /// At the head of a column.
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
}

/// A table's worth of measures.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) measures: &'static [Measure],
    /// Whether crabkv's figures divided by those of the others say something.
    pub(crate) compared: bool,
}

const fn measure(name: &'static str, title: &'static str, unit: Unit) -> Measure {
    Measure { name, title, unit }
}

pub(crate) const GROUPS: &[Group] = &[
    Group {
        title: "Reading",
        measures: &[
            measure("get", "get /s", Unit::PerSecond),
            measure("get_2", "get, 2 threads /s", Unit::PerSecond),
            measure("miss", "miss /s", Unit::PerSecond),
            measure("miss_2", "miss, 2 threads /s", Unit::PerSecond),
            measure("zipf", "zipfian /s", Unit::PerSecond),
            measure("zipf_2", "zipfian, 2 threads /s", Unit::PerSecond),
            measure("dependent", "dependent get /s", Unit::PerSecond),
            measure("iterate", "iteration MB/s", Unit::MegabytesPerSecond),
        ],
        compared: true,
    },
    Group {
        title: "More ways to read",
        measures: &[
            measure("guard", "get by guard /s", Unit::PerSecond),
            measure("get_many_32", "get_many of 32 /s", Unit::PerSecond),
            measure("get_many_64", "get_many of 64 /s", Unit::PerSecond),
        ],
        compared: false,
    },
    Group {
        title: "Larger values",
        measures: &[
            measure("get_1k", "get, 1 KiB /s", Unit::PerSecond),
            measure("get_1k_2", "get, 1 KiB, 2 threads /s", Unit::PerSecond),
            measure("get_16k", "get, 16 KiB /s", Unit::PerSecond),
            measure("get_16k_2", "get, 16 KiB, 2 threads /s", Unit::PerSecond),
        ],
        compared: true,
    },
    Group {
        title: "Writing",
        measures: &[
            measure("put", "put, relaxed /s", Unit::PerSecond),
            measure("put_lost", "lost by kill -9", Unit::Percent),
            measure(
                "batch",
                "batches of 1,000, relaxed, puts /s",
                Unit::PerSecond,
            ),
            measure("durable_1", "durable put /s", Unit::PerSecond),
            measure("durable_8", "durable, 8 threads /s", Unit::PerSecond),
            measure("overwrite", "overwriting in batches /s", Unit::PerSecond),
        ],
        compared: true,
    },
    Group {
        title: "Reading and writing at once, 2 threads, zipfian",
        measures: &[
            measure("ycsb_a", "YCSB A /s", Unit::PerSecond),
            measure("ycsb_b", "YCSB B /s", Unit::PerSecond),
            measure("ycsb_c", "YCSB C /s", Unit::PerSecond),
        ],
        compared: true,
    },
    Group {
        title: "Opening, and reading from the disk",
        measures: &[
            measure("reopen", "reopen ms", Unit::Milliseconds),
            measure("reopen_killed", "after kill -9 ms", Unit::Milliseconds),
            measure("reopen_cold", "cold ms", Unit::Milliseconds),
            measure("cold_p50", "cold get, p50 µs", Unit::Microseconds),
            measure("cold_bytes", "bytes read for each", Unit::Bytes),
        ],
        compared: true,
    },
    Group {
        title: "Memory and disk",
        measures: &[
            measure("anon", "anonymous memory, bytes per key", Unit::Bytes),
            measure("index", "index, bytes per key", Unit::Bytes),
            measure("disk_loaded", "disk / live, loaded", Unit::Times),
            measure(
                "disk_overwritten",
                "disk / live, overwritten 5 times",
                Unit::Times,
            ),
            measure("written_loaded", "written / put, loading", Unit::Times),
            measure(
                "written_overwritten",
                "written / put, overwriting",
                Unit::Times,
            ),
        ],
        compared: false,
    },
];

impl Unit {
    /// Whether a larger figure is the better one.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::MegabytesPerSecond)
    }

    pub(crate) fn write(self, figure: f64) -> String {
        match self {
            Unit::PerSecond => match figure {
                1e6.. => format!("{:.2}M", figure / 1e6),
                1e4.. => format!("{:.0}k", figure / 1e3),
                1e3.. => format!("{:.1}k", figure / 1e3),
                _ => format!("{figure:.0}"),
            },
            Unit::MegabytesPerSecond => format!("{figure:.0}"),
            Unit::Bytes | Unit::Milliseconds | Unit::Microseconds => match figure {
                1e4.. => format!("{:.0}k", figure / 1e3),
                100.0.. => format!("{figure:.0}"),
                1.0.. => format!("{figure:.1}"),
                _ => format!("{figure:.2}"),
            },
            Unit::Times => format!("{figure:.2}"),
            Unit::Percent => match figure {
                0.0 => "0".to_owned(),
                figure => format!("{figure:.2} %"),
            },
        }
    }
}
