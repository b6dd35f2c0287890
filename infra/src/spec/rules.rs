//! What the values of a configuration must hold: everything that can be known without asking AWS. Pure; every broken rule is
//! reported, with the reason and what to write instead.

use serde_json::Value as Json;

use super::cidr::Cidr;
use super::expression;
use super::problem::Problem;
use super::regions::{KNOWN, STRONG_SETS};
use super::settings::{self, LOG_DAYS, Shape};
use super::{Aurora, Durability, Serverless, Spec};

type Problems = Vec<Problem>;

/// All rules.
pub fn check(spec: &Spec) -> Problems {
    let mut problems = ranges(spec);
    suffix(spec, &mut problems);
    regions(spec, &mut problems);
    domain(spec, &mut problems);
    network(spec, &mut problems);
    aurora(spec, &mut problems);
    failover(spec, &mut problems);
    approval(spec, &mut problems);
    retention(spec, &mut problems);
    functions(spec, &mut problems);
    api(spec, &mut problems);
    alerts(spec, &mut problems);
    drill(spec, &mut problems);
    tags(spec, &mut problems);
    artifacts(spec, &mut problems);
    problems
}

/// Words for a person.
pub fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.join(""),
    }
}

/// Why a value of the right type is outside its setting's limits, and what to write.
pub fn out_of_range(shape: Shape, value: &Json) -> Option<(String, String)> {
    match shape {
        Shape::Whole(least, most) => {
            let number = value.as_i64()?;
            let reason = if number < least {
                "that is too little"
            } else if number > most {
                "that is too much"
            } else {
                return None;
            };
            Some((reason.into(), format!("use {least} to {most}")))
        }
        Shape::Word(words) => {
            let word = value.as_str()?;
            if words.contains(&word) {
                return None;
            }
            let fix = match settings::meant(word, words.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("use {}", quoted(words)),
            };
            Some(("there is no such choice".into(), fix))
        }
        Shape::Windows(most) => {
            let windows = value.as_array()?.len();
            (windows > most).then(|| {
                let reason = format!("{windows} windows are too many");
                (reason, format!("use at most {most}"))
            })
        }
        _ => None,
    }
}

/// Every number within its setting's limits.
fn ranges(spec: &Spec) -> Problems {
    let json = serde_json::to_value(spec).unwrap_or_default();
    let broken = settings::SETTINGS.iter().filter_map(|setting| {
        let value = json.pointer(&format!("/{}", setting.path.replace('.', "/")))?;
        let (reason, fix) = out_of_range(setting.shape, value)?;
        Some(Problem::new(setting.path, Some(value.to_string()), reason, fix))
    });
    broken.collect()
}

fn text(field: &str, value: &str, reason: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem::new(field, Some(format!("\"{value}\"")), reason, fix)
}

fn suffix(spec: &Spec, problems: &mut Problems) {
    let suffix = spec.suffix.as_str();
    let mut refuse = |reason: String, fix: &str| problems.push(text("suffix", suffix, reason, fix));
    let example = "use for example \"dev\" or \"prod\"";
    if suffix.len() < 2 {
        refuse(
            "it ends every name, and this is too short to tell stacks apart".into(),
            example,
        );
    } else if suffix.len() > 16 {
        refuse(
            format!("{} characters make names longer than AWS takes", suffix.len()),
            "use at most 16",
        );
    }
    if suffix.contains('-') {
        refuse(
            "a hyphen would make names end like those of the stack that is called by what follows it".into(),
            "leave the hyphens out",
        );
    } else if let Some(bad) = suffix
        .chars()
        .find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit())
    {
        refuse(
            format!("names of buckets and databases cannot have {bad:?}"),
            "use a-z and 0-9",
        );
    } else if suffix.starts_with(|c: char| c.is_ascii_digit()) {
        refuse(
            "names of databases cannot have a part that begins with a digit".into(),
            "begin with a letter",
        );
    }
    if ["primary", "dr", "witness", "secondary", "global"].contains(&suffix) {
        refuse("that is the name of a place in every stack".into(), example);
    } else if ["aws", "amazon", "rds", "default", "understudy"].contains(&suffix) {
        refuse("AWS or Understudy uses that word for its own".into(), example);
    }
}

fn regions(spec: &Spec, problems: &mut Problems) {
    let given = [
        ("regions.primary", &spec.regions.primary),
        ("regions.dr", &spec.regions.dr),
        ("regions.witness", &spec.regions.witness),
    ];
    let before = problems.len();
    for (position, (field, region)) in given.iter().enumerate() {
        if !KNOWN.contains(&region.as_str()) {
            let other_partition = ["cn-", "us-gov-", "us-iso", "eu-isoe", "eusc-"]
                .iter()
                .any(|prefix| region.starts_with(prefix));
            let (reason, fix) = if other_partition {
                (
                    "only the commercial regions are supported".to_owned(),
                    "use for example \"us-east-1\"".to_owned(),
                )
            } else {
                let fix = settings::meant(region, KNOWN.iter().copied()).map_or_else(
                    || "use for example \"us-east-1\"".to_owned(),
                    |meant| format!("did you mean \"{meant}\"?"),
                );
                ("no such AWS region is known".to_owned(), fix)
            };
            problems.push(text(field, region, reason, fix));
        } else if let Some((earlier, _)) = given[..position].iter().find(|(_, other)| other == region) {
            problems.push(text(
                field,
                region,
                format!("{earlier} is the same"),
                "the three need different regions: one that fails must leave two",
            ));
        }
    }
    if problems.len() > before || spec.durability != Durability::Strong {
        return;
    }
    let in_set = |set: &&[&str]| given.iter().all(|(_, region)| set.contains(&region.as_str()));
    if STRONG_SETS.iter().any(in_set) {
        return;
    }
    // The set that most of them are in is the one that was meant.
    let set = STRONG_SETS
        .iter()
        .max_by_key(|set| {
            given
                .iter()
                .filter(|(_, region)| set.contains(&region.as_str()))
                .count()
        })
        .copied()
        .unwrap_or_default();
    let stranger = given.iter().find(|(_, region)| !set.contains(&region.as_str()));
    if let Some((field, region)) = stranger {
        let sets: Vec<String> = STRONG_SETS.iter().map(|set| set.join(", ")).collect();
        let mut problem = text(
            field,
            region,
            "durability is \"strong\", and DynamoDB's strong consistency needs three regions of one set",
            format!(
                "the sets are ({}); or set durability = \"eventual\", which can lose the last second",
                sets.join("), (")
            ),
        );
        problem.related = &["regions.primary", "regions.dr", "regions.witness", "durability"];
        problems.push(problem);
    }
}

fn domain(spec: &Spec, problems: &mut Problems) {
    let Some(domain) = &spec.domain else { return };
    let mut refuse = |reason: &str, fix: String| problems.push(text("domain", domain, reason, fix));
    let example = "use for example \"payments.example.com\"".to_owned();
    if let Some((_, rest)) = domain.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or(rest);
        return refuse("it must be a domain, not an address", format!("use \"{host}\""));
    }
    if domain.ends_with('.') {
        return refuse(
            "the final dot is left out",
            format!("use \"{}\"", domain.trim_end_matches('.')),
        );
    }
    if domain.chars().any(|c| c.is_ascii_uppercase()) {
        return refuse(
            "it must be in lower case",
            format!("use \"{}\"", domain.to_lowercase()),
        );
    }
    let labels: Vec<&str> = domain.split('.').collect();
    if labels.len() < 2 {
        return refuse("it must have two parts or more", example);
    }
    let good = |label: &&str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if let Some(label) = labels.iter().find(|label| !good(label)) {
        return refuse(
            &format!("\"{label}\" is not a part of a domain: 1 to 63 of a-z, 0-9 and hyphens inside"),
            example,
        );
    }
    if labels
        .last()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
    {
        return refuse("that is an address, not a domain", example);
    }
    // A certificate's name has at most 64 characters, and `api.` comes before the domain.
    if domain.len() > 60 {
        refuse(
            "with `api.` before it, it is longer than the 64 characters of a certificate's name",
            "use at most 60 characters".into(),
        );
    }
}

/// Networks that no VPC may touch, and why.
const RESERVED: [(&str, &str); 1] = [(
    "172.17.0.0/16",
    "AWS services use 172.17.0.0/16 inside, and what is in it cannot be reached from them",
)];
/// Where private networks lie.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];

fn network(spec: &Spec, problems: &mut Problems) {
    let network = &spec.network;
    let primary = one_network(
        "network.primary_cidr",
        &network.primary_cidr,
        network.zones,
        problems,
    );
    let dr = one_network("network.dr_cidr", &network.dr_cidr, network.zones, problems);
    if let (Some(primary), Some(dr)) = (primary, dr)
        && primary.overlaps(dr)
    {
        let mut problem = text(
            "network.dr_cidr",
            &network.dr_cidr,
            format!("it overlaps network.primary_cidr, which is \"{primary}\""),
            format!("use for example \"{}\"", Cidr::beside(dr.bits().max(16), primary)),
        );
        problem.related = &["network.primary_cidr"];
        problems.push(problem);
    }
}

/// A network that could be used by itself.
fn one_network(field: &'static str, given: &str, zones: u8, problems: &mut Problems) -> Option<Cidr> {
    let mut refuse = |reason: String, fix: String| problems.push(text(field, given, reason, fix));
    let Some((cidr, _)) = Cidr::parse_loosely(given) else {
        refuse(
            "it must be an IPv4 network".into(),
            "use for example \"10.0.0.0/16\"".into(),
        );
        return None;
    };
    if Cidr::parse(given).is_none() {
        refuse(
            "that is an address in a network, not a network".into(),
            format!("use \"{cidr}\""),
        );
        return None;
    }
    let same_size = |bits: u8| {
        let mut smaller = given.to_owned();
        smaller.truncate(given.find('/').unwrap_or(given.len()));
        format!("use for example \"{smaller}/{bits}\"")
    };
    if cidr.bits() < 16 {
        refuse("a VPC is a /16 at most".into(), same_size(16));
        return None;
    }
    // A /24 for each zone; a network that is too small is aligned for a larger one only by chance.
    let zones = zones.max(1);
    let least = 24 - u8::try_from(zones.next_power_of_two().trailing_zeros()).unwrap_or(0);
    if cidr.bits() > least {
        let mut problem = text(
            field,
            given,
            format!("it is too small: each of {zones} zones gets a /24, which takes a /{least}"),
            format!("use /{least} or larger, \"10.0.0.0/16\" for example"),
        );
        problem.related = &["network.zones"];
        problems.push(problem);
        return None;
    }
    let is_private = PRIVATE
        .iter()
        .filter_map(|network| Cidr::parse(network))
        .any(|network| cidr.within(network));
    if !is_private {
        refuse(
            "those addresses are not private: who has them could not be reached from the stack, or AWS keeps them for itself".into(),
            format!("use a network in {}", PRIVATE.join(", ")),
        );
        return None;
    }
    for (reserved, why) in RESERVED {
        if Cidr::parse(reserved).is_some_and(|reserved| reserved.overlaps(cidr)) {
            refuse(why.into(), "use for example \"10.0.0.0/16\"".into());
            return None;
        }
    }
    Some(cidr)
}

/// The first minor version of each major one that is supported: those with a managed switchover below 30 seconds, and the
/// first of the versions that came later.
/// <https://aws.amazon.com/about-aws/whats-new/2025/05/amazon-aurora-cross-region-global-database-switchover-time-under-30-seconds/>
const FIRST_VERSIONS: [(u32, u32); 5] = [(14, 17), (15, 12), (16, 8), (17, 4), (18, 3)];

/// Families of instances that a global database takes: memory-optimised ones.
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-global-database-getting-started.html>
const FAMILIES: [&str; 9] = ["r5", "r6g", "r6gd", "r6i", "r6id", "r7g", "r7i", "r8g", "x2g"];
const SIZES: [&str; 11] = [
    "large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "32xlarge",
    "48xlarge", "metal",
];

fn aurora(spec: &Spec, problems: &mut Problems) {
    engine_version(&spec.aurora, problems);
    let class = spec.aurora.instance_class.as_str();
    let is_serverless = class == "db.serverless";
    if !is_serverless {
        instance_class(class, problems);
    }
    let field = "aurora.serverless";
    match (&spec.aurora.serverless, is_serverless) {
        (None, true) => {
            let mut problem = text(
                "aurora.instance_class",
                class,
                "it needs a capacity",
                "add a table `[aurora.serverless]` with min_acu = 8 and max_acu = 32, for example",
            );
            problem.related = &["aurora.serverless"];
            problems.push(problem);
        }
        (Some(_), false) => {
            let mut problem = Problem::new(
                field,
                None,
                format!("a capacity is for serverless instances, and aurora.instance_class is \"{class}\""),
                "set instance_class = \"db.serverless\", or leave the table out",
            );
            problem.related = &["aurora.serverless.min_acu", "aurora.instance_class"];
            problems.push(problem);
        }
        (Some(capacity), true) => serverless(capacity, problems),
        (None, false) => {}
    }
}

fn engine_version(aurora: &Aurora, problems: &mut Problems) {
    let version = aurora.engine_version.as_str();
    let mut refuse = |reason: String, fix: String| {
        problems.push(text("aurora.engine_version", version, reason, fix));
    };
    let firsts: Vec<String> = FIRST_VERSIONS
        .iter()
        .map(|(major, minor)| format!("{major}.{minor}"))
        .collect();
    let newest = "use for example \"16.8\"".to_owned();
    if version.contains("limitless") {
        return refuse("Aurora Limitless has no global databases".into(), newest);
    }
    let Some((major, minor)) = aurora.version() else {
        let fix = FIRST_VERSIONS
            .iter()
            .find(|(major, _)| version == major.to_string())
            .map_or(newest, |(major, minor)| {
                format!("use \"{major}.{minor}\" or later")
            });
        return refuse("it must be a major and a minor version".into(), fix);
    };
    match FIRST_VERSIONS.iter().find(|(known, _)| *known == major) {
        None => refuse(
            format!("Aurora PostgreSQL {major} is not supported"),
            format!(
                "supported are {}, and later minor versions of these",
                firsts.join(", ")
            ),
        ),
        Some((_, first)) if minor < *first => refuse(
            "its global databases have no fast managed switchover".into(),
            format!("use \"{major}.{first}\" or later"),
        ),
        Some(_) => {}
    }
}

fn instance_class(class: &str, problems: &mut Problems) {
    let mut refuse = |reason: String, fix: String| {
        problems.push(text("aurora.instance_class", class, reason, fix));
    };
    let example = "use for example \"db.r6g.large\" or \"db.serverless\"".to_owned();
    let parts: Vec<&str> = class.split('.').collect();
    let &["db", family, size] = parts.as_slice() else {
        return refuse("it must be a class of database instances".into(), example);
    };
    if family.starts_with('t') {
        return refuse("global databases take no burstable instances".into(), example);
    }
    if !FAMILIES.contains(&family) {
        return refuse(
            "global databases take memory-optimised instances".into(),
            format!("use one of the families {}", FAMILIES.join(", ")),
        );
    }
    if !SIZES.contains(&size) {
        refuse(
            format!("there is no size \"{size}\""),
            settings::meant(size, SIZES)
                .map_or(example, |meant| format!("did you mean \"db.{family}.{meant}\"?")),
        );
    }
}

fn serverless(capacity: &Serverless, problems: &mut Problems) {
    let Serverless { min_acu, max_acu } = *capacity;
    let bad = |field: &str, value: f64, least: f64| {
        let reason = if value == 0.0 {
            "a database that sleeps cannot take over in seconds"
        } else if !value.is_finite() || value < least || value > 256.0 {
            "that is outside what Aurora takes"
        } else if (value * 2.0).fract() != 0.0 {
            "capacity comes in steps of 0.5"
        } else {
            return None;
        };
        let fix = format!("use {least} to 256 in steps of 0.5");
        Some(Problem::new(field, Some(value.to_string()), reason, fix))
    };
    let before = problems.len();
    problems.extend(bad("aurora.serverless.min_acu", min_acu, 0.5));
    problems.extend(bad("aurora.serverless.max_acu", max_acu, 1.0));
    if problems.len() == before && min_acu > max_acu {
        problems.push(Problem::new(
            "aurora.serverless.max_acu",
            Some(max_acu.to_string()),
            format!("it is less than min_acu, which is {min_acu}"),
            "use at least as much",
        ));
    }
}

fn failover(spec: &Spec, problems: &mut Problems) {
    let (policy, interval_ms) = (&spec.failover, spec.probe.interval_ms);
    if policy.stale_after_ms < interval_ms.saturating_mul(2) {
        let mut problem = Problem::new(
            "failover.stale_after_ms",
            Some(policy.stale_after_ms.to_string()),
            format!(
                "observers look every {interval_ms} ms (probe.interval_ms), so one late look would count as none"
            ),
            format!("use at least {}", interval_ms.saturating_mul(2)),
        );
        problem.related = &["probe.interval_ms"];
        problems.push(problem);
    }
    let to_decide_ms = interval_ms.saturating_mul(u64::from(policy.rounds_to_fail));
    if to_decide_ms > policy.recovery_timeout_ms {
        let mut problem = Problem::new(
            "failover.rounds_to_fail",
            Some(policy.rounds_to_fail.to_string()),
            format!(
                "with probe.interval_ms = {interval_ms} a failure is believed after {to_decide_ms} ms, later than failover.recovery_timeout_ms"
            ),
            "use fewer rounds, or look more often",
        );
        problem.related = &["probe.interval_ms", "failover.recovery_timeout_ms"];
        problems.push(problem);
    }
}

/// A proposal that ends before the observers could have seen the region recover is none.
fn approval(spec: &Spec, problems: &mut Problems) {
    let (policy, interval_ms) = (&spec.failover, spec.probe.interval_ms);
    let to_recover_ms = interval_ms.saturating_mul(u64::from(policy.rounds_to_recover));
    if to_recover_ms > policy.approval_expires_ms {
        let mut problem = Problem::new(
            "failover.rounds_to_recover",
            Some(policy.rounds_to_recover.to_string()),
            format!(
                "with probe.interval_ms = {interval_ms} a recovery is believed after {to_recover_ms} ms, later than failover.approval_expires_ms"
            ),
            "use fewer rounds, or look more often",
        );
        problem.related = &["probe.interval_ms", "failover.approval_expires_ms"];
        problems.push(problem);
    }
}

fn retention(spec: &Spec, problems: &mut Problems) {
    let days = spec.retention.log_days;
    if LOG_DAYS.contains(&days) {
        return;
    }
    let next = LOG_DAYS.iter().find(|known| **known > days).or(LOG_DAYS.last());
    let all: Vec<String> = LOG_DAYS.iter().map(u32::to_string).collect();
    problems.push(Problem::new(
        "retention.log_days",
        Some(days.to_string()),
        format!("CloudWatch Logs takes only {}", all.join(", ")),
        next.map_or_else(String::new, |next| format!("use {next}")),
    ));
}

fn functions(spec: &Spec, problems: &mut Problems) {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let given = spec.functions.log_level.as_str();
    let good = |directive: &str| {
        let (target, level) = match directive.split_once('=') {
            Some((target, level)) => (target, level),
            None => ("all", directive),
        };
        let target_is_path = !target.is_empty()
            && target
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_:-[]{}".contains(c));
        target_is_path && LEVELS.contains(&level.to_lowercase().as_str())
    };
    if !given.split(',').all(|directive| good(directive.trim())) {
        problems.push(text(
            "functions.log_level",
            given,
            "it must be a level, or levels by module",
            settings::meant(given, LEVELS).map_or_else(
                || format!("use {}, or \"info,infra=debug\"", quoted(&LEVELS)),
                |meant| format!("did you mean \"{meant}\"?"),
            ),
        ));
    }
}

/// What an account may have at once in a region, before it asks for more.
const DEFAULT_BURST: u32 = 5_000;

fn api(spec: &Spec, problems: &mut Problems) {
    let (rate, burst) = (spec.api.rate_limit, spec.api.burst_limit);
    // AWS sets an account's burst to half its rate, and to no less than the default.
    let most = DEFAULT_BURST.max(rate / 2);
    if burst > most {
        let mut problem = Problem::new(
            "api.burst_limit",
            Some(burst.to_string()),
            format!(
                "with {rate} requests per second (api.rate_limit) API Gateway lets at most {most} in at once"
            ),
            format!("use at most {most}"),
        );
        problem.related = &["api.rate_limit"];
        problems.push(problem);
    }
}

fn alerts(spec: &Spec, problems: &mut Problems) {
    let Some(address) = &spec.alerts.address else {
        return;
    };
    let good_host = |host: &str| {
        host.contains('.')
            && host.split('.').all(|label| {
                !label.is_empty()
                    && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
    };
    if address.contains("://") {
        if !address.starts_with("https://") {
            return problems.push(text(
                "alerts.address",
                address,
                "alerts go over https only",
                "use an https:// URL or an e-mail address",
            ));
        }
        let host = address["https://".len()..]
            .split(['/', '?', ':'])
            .next()
            .unwrap_or_default();
        if !good_host(host) || address.chars().any(char::is_whitespace) {
            problems.push(text(
                "alerts.address",
                address,
                "that is no URL that SNS can call",
                "use for example \"https://alerts.example.com/understudy\"",
            ));
        }
        return;
    }
    let good = address.rsplit_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && user.len() <= 64
            && good_host(host)
            && user
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c))
    });
    if !good {
        problems.push(text(
            "alerts.address",
            address,
            "it is neither an e-mail address nor an https:// URL",
            "use for example \"oncall@example.com\"",
        ));
    }
}

fn drill(spec: &Spec, problems: &mut Problems) {
    let Some(schedule) = &spec.drill.schedule else {
        return;
    };
    if let Err(wrong) = expression::check(schedule) {
        problems.push(text("drill.schedule", schedule, wrong.reason, wrong.fix));
    }
}

/// The tags that every resource has of ours; the first three can be replaced by an operator's.
const OURS: [&str; 3] = ["Environment", "CostCenter", "Criticality"];
/// AWS's limit for one resource.
const MOST_TAGS: usize = 50;

fn tags(spec: &Spec, problems: &mut Problems) {
    // <https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html>
    let good = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    let mut seen: Vec<(String, &str)> = OURS.iter().map(|ours| (ours.to_lowercase(), *ours)).collect();
    for (key, value) in &spec.tags {
        let field = format!("tags.{key}");
        let mut refuse = |reason: String, fix: &str| problems.push(text(&field, value, reason, fix));
        let length = key.chars().count();
        let lower = key.to_lowercase();
        if !(1..=128).contains(&length) {
            refuse(format!("its name has {length} characters"), "use 1 to 128");
        } else if lower.starts_with("aws:") {
            refuse(
                "names that begin with \"aws:\" are AWS's own".into(),
                "use another name",
            );
        } else if lower.starts_with("understudy:") {
            refuse(
                "names that begin with \"understudy:\" say whose a resource is".into(),
                "use another name",
            );
        } else if let Some(bad) = key.chars().find(|c| !good(*c)) {
            refuse(
                format!("its name has {bad:?}"),
                "use letters, digits, spaces and _ . : / = + - @",
            );
        } else if let Some((_, other)) = seen
            .iter()
            .find(|(known, other)| *known == lower && *other != key)
        {
            refuse(
                format!("IAM does not tell it from \"{other}\", which is also a tag"),
                "use another name, or the same letters",
            );
        }
        if value.chars().count() > 256 {
            refuse("its value is too long".into(), "use at most 256 characters");
        } else if let Some(bad) = value.chars().find(|c| !good(*c)) {
            refuse(
                format!("its value has {bad:?}"),
                "use letters, digits, spaces and _ . : / = + - @",
            );
        }
        seen.push((lower, key));
    }
    let own = OURS.iter().filter(|ours| !spec.tags.contains_key(**ours)).count() + 2;
    if spec.tags.len() + own > MOST_TAGS {
        problems.push(Problem::new(
            "tags",
            None,
            format!(
                "{} tags and {own} of Understudy's are more than the {MOST_TAGS} that AWS takes",
                spec.tags.len()
            ),
            format!("use at most {}", MOST_TAGS - own),
        ));
    }
}

fn artifacts(spec: &Spec, problems: &mut Problems) {
    for (function, hash) in &spec.artifacts {
        let good = hash.len() == 64
            && hash
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !good {
            problems.push(text(
                &format!("artifacts.{function}"),
                hash,
                "a SHA-256 is 64 lower-case hex digits",
                "leave it out: `understudy up` fills it in",
            ));
        }
    }
}
