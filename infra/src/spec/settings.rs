//! Every setting of a configuration file: its name, the shape of its value, its limits. One table; the reader of files, the
//! checks and the test of the template work through it.

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number from the first to the last.
    Whole(i64, i64),
    /// A number.
    Number,
    /// `true` or `false`.
    Switch,
    /// A table of texts, with any keys.
    Texts,
    /// A list of windows of the week, so many at most: `["Sat:20:30-Sat:21:30"]`.
    Windows(usize),
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// As in the file, with its table: `network.zones`.
    pub path: &'static str,
    /// What its value looks like.
    pub shape: Shape,
}

const fn setting(path: &'static str, shape: Shape) -> Setting {
    Setting { path, shape }
}

/// The days that CloudWatch Logs accepts: <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html>.
pub const LOG_DAYS: [u32; 22] = [
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

/// A day, in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Every setting, in the order of the template.
pub const SETTINGS: &[Setting] = &[
    setting("suffix", Shape::Text),
    setting("domain", Shape::Text),
    setting("durability", Shape::Word(&["strong", "eventual"])),
    setting("deletion_protection", Shape::Switch),
    setting("regions.primary", Shape::Text),
    setting("regions.dr", Shape::Text),
    setting("regions.witness", Shape::Text),
    setting("network.primary_cidr", Shape::Text),
    setting("network.dr_cidr", Shape::Text),
    // Aurora wants two, and no region has more than six.
    setting("network.zones", Shape::Whole(2, 6)),
    setting("aurora.engine_version", Shape::Text),
    setting("aurora.instance_class", Shape::Text),
    // A global database has at most 15 readers in its primary region, secondary clusters counted: one writer, 14 readers.
    setting("aurora.instances", Shape::Whole(1, 15)),
    setting("aurora.serverless.min_acu", Shape::Number),
    setting("aurora.serverless.max_acu", Shape::Number),
    setting("probe.interval_ms", Shape::Whole(200, 60_000)),
    setting(
        "failover.decider",
        Shape::Word(&["automatic", "approve", "manual"]),
    ),
    // No observer keeps more rounds than `KEPT_ROUNDS`.
    setting(
        "failover.rounds_to_fail",
        Shape::Whole(1, continuity::observe::KEPT_ROUNDS as i64),
    ),
    setting(
        "failover.rounds_to_recover",
        Shape::Whole(1, continuity::observe::KEPT_ROUNDS as i64),
    ),
    // Two of the three look at the active region from outside.
    setting("failover.observers", Shape::Whole(1, 2)),
    setting("failover.cooldown_ms", Shape::Whole(0, DAY_MS)),
    setting("failover.stale_after_ms", Shape::Whole(1_000, 600_000)),
    setting("failover.recovery_timeout_ms", Shape::Whole(60_000, DAY_MS)),
    setting("failover.approval_expires_ms", Shape::Whole(60_000, DAY_MS)),
    // As many as a practice run of ARC zonal autoshift may have.
    setting("failover.blocked_windows", Shape::Windows(15)),
    setting(
        "failover.grey.decider",
        Shape::Word(&["automatic", "approve", "manual"]),
    ),
    setting(
        "failover.grey.window_rounds",
        Shape::Whole(2, continuity::observe::KEPT_ROUNDS as i64),
    ),
    setting("failover.grey.failing_percent", Shape::Whole(1, 100)),
    // No look takes longer than its limit, so none were slow beyond it.
    setting(
        "failover.grey.slow_ms",
        Shape::Whole(1, continuity::observe::LOOK_LIMIT_MS as i64 - 100),
    ),
    setting("failover.grey.slow_percent", Shape::Whole(1, 100)),
    setting("objectives.rto_seconds", Shape::Whole(1, 86_400)),
    setting("retention.log_days", Shape::Whole(1, 3653)),
    setting("retention.backup_days", Shape::Whole(1, 35)),
    setting("retention.old_version_days", Shape::Whole(1, 36_500)),
    setting(
        "functions.payment_processor_concurrency",
        Shape::Whole(0, 100_000),
    ),
    setting("functions.payment_processor_memory_mb", Shape::Whole(128, 10_240)),
    setting("functions.log_level", Shape::Text),
    setting("functions.tracing", Shape::Switch),
    setting("api.rate_limit", Shape::Whole(1, 100_000)),
    setting("api.burst_limit", Shape::Whole(1, 50_000)),
    setting("alerts.address", Shape::Text),
    setting("reconcile.interval_minutes", Shape::Whole(1, 1440)),
    setting("reconcile.repair", Shape::Switch),
    setting("readiness.interval_minutes", Shape::Whole(5, 1440)),
    setting("drill.schedule", Shape::Text),
    // The shortest action of FIS takes a minute. An hour is longer than any failover.
    setting("drill.isolation_minutes", Shape::Whole(1, 60)),
    setting("drill.blocked_windows", Shape::Windows(15)),
    setting(
        "drill.kind",
        Shape::Word(&["readiness", "switchover", "isolation"]),
    ),
    setting("drill.hold_seconds", Shape::Whole(10, 1_800)),
    setting("drill.payments_per_second", Shape::Whole(1, 20)),
    setting("drill.longest_gap_ms", Shape::Whole(1_000, 600_000)),
    setting("tags", Shape::Texts),
];

/// What `understudy up` fills in: known to the reader, of no interest to a person.
pub const FILLED_IN: &[Setting] = &[
    setting("artifacts", Shape::Texts),
    setting("architecture", Shape::Word(&["arm64", "x86_64"])),
];

/// Tables whose keys are given all together or not at all.
pub const WHOLE_TABLES: [&str; 2] = ["regions", "aurora.serverless"];

/// The setting of that path.
pub fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .chain(FILLED_IN)
        .find(|setting| setting.path == path)
}

/// Whether the path is a table of settings.
pub fn is_table(path: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        setting
            .path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The keys that a table may have; `""` is the file itself.
pub fn keys_of(table: &str) -> Vec<&'static str> {
    let mut keys: Vec<&'static str> = SETTINGS
        .iter()
        .filter_map(|setting| match table {
            "" => Some(setting.path),
            table => setting.path.strip_prefix(table)?.strip_prefix('.'),
        })
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    keys.dedup();
    keys
}

/// The word of `words` that was probably meant.
pub fn meant<'a>(given: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    words
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&given, word), word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
