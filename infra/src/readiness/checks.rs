//! The checks. Each judges facts and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use continuity::control::{ControlRecord, Phase};
use continuity::names::Slot;
use continuity::takeover::fit_to_take_over;

use super::facts::{Cluster, Fact, Facts, Function, FunctionState, Global, Ledger, Quotas};
use super::{Finding, Report, Severity, State};
use crate::blueprint::functions::PAYMENT_PROCESSOR;
use crate::outcome::{PlanEntry, PlanOutcome};
use crate::plan::Change;
use crate::spec::Spec;

use Severity::{Critical, Warning};

/// The standby may be behind by what the API lets in within this time: the alarm on replication lag has the same limit.
const LAG_LIMIT_S: u64 = 10;
/// The clocks of two regions may differ by this; an observer's time is by its own clock.
const CLOCK_SKEW_MS: u64 = 60_000;
/// An exercise each week, and a day's grace.
const REHEARSAL_LIMIT: Duration = Duration::from_secs(8 * 24 * 3600);
/// Names in a reason, before it says how many more there are.
const NAMED: usize = 6;
/// Alarms that say nothing about readiness: the one that is in ALARM until a drill is watched, and the one that says what this
/// evaluation says.
const BY_DESIGN: [&str; 2] = ["drill-unwatched-", "not-ready-"];

/// What a check came to, with its reason.
enum Verdict {
    Passed(String),
    Failed(String),
    Unknown(String),
}

use Verdict::{Failed, Passed, Unknown};

/// A check, before it has looked at anything.
struct Check {
    name: &'static str,
    severity: Severity,
    remedy: &'static str,
}

impl Check {
    fn finding(&self, subject: impl Into<String>, verdict: Verdict) -> Finding {
        let (state, reason) = match verdict {
            Passed(reason) => (State::Passed, reason),
            Failed(reason) => (State::Failed, reason),
            Unknown(reason) => (State::Unknown, reason),
        };
        Finding {
            check: self.name.into(),
            severity: self.severity,
            state,
            subject: subject.into(),
            reason,
            remedy: match state {
                State::Passed => String::new(),
                _ => self.remedy.into(),
            },
        }
    }

    /// Judges what is known; what is not is unknown.
    fn of<T>(&self, subject: &str, fact: &Fact<T>, judge: impl FnOnce(&T) -> Verdict) -> Finding {
        match fact {
            Ok(known) => self.finding(subject, judge(known)),
            Err(why) => self.finding(subject, Unknown(why.clone())),
        }
    }
}

/// Judges the facts.
pub fn check(facts: &Facts, spec: &Spec, now_ms: u64) -> Report {
    let mut findings = Vec::new();
    control(facts, &mut findings);
    database(facts, spec, &mut findings);
    standby(facts, spec, &mut findings);
    functions(facts, spec, &mut findings);
    machines(facts, &mut findings);
    quotas(facts, spec, &mut findings);
    resources(facts, &mut findings);
    permissions(facts, &mut findings);
    watch(facts, spec, now_ms, &mut findings);
    under_way(facts, now_ms, &mut findings);
    Report {
        region: facts.region.clone(),
        at_ms: now_ms,
        findings,
    }
}

fn named(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let listed = names.join(", ");
    match more {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// Fails with everything in `wrong`, or passes.
fn unless(wrong: Vec<String>, passed: impl Into<String>) -> Verdict {
    if wrong.is_empty() {
        Passed(passed.into())
    } else {
        Failed(named(wrong))
    }
}

fn control(facts: &Facts, findings: &mut Vec<Finding>) {
    let table = Check {
        name: "control-table",
        severity: Critical,
        remedy: "without the control table nobody can take over: look at its replicas in DynamoDB",
    };
    findings.push(table.of("control table", &facts.record, |record| {
        Passed(format!("a strong read answers; epoch {}", record.epoch))
    }));
    let phase = Check {
        name: "phase",
        severity: Critical,
        remedy: "a change of the active region is under way: `understudy status` shows it",
    };
    findings.push(
        phase.of("control record", &facts.record, |record| match record.phase {
            Phase::Serving => Passed(format!("{} serves", record.active_region)),
            other => Failed(format!("the phase is {other}, by `{}`", record.changed_by)),
        }),
    );
    let maintenance = Check {
        name: "maintenance",
        severity: Warning,
        remedy: "no failover begins by itself: `understudy maintenance off` when the work is done",
    };
    findings.push(maintenance.of(
        "control record",
        &facts.record,
        |record| match record.maintenance {
            false => Passed("off".into()),
            true => Failed("the maintenance lock is on".into()),
        },
    ));
    let journal = Check {
        name: "journal",
        severity: Critical,
        remedy: "a takeover replays from the journal: look at its replicas in DynamoDB",
    };
    for (region, answer) in &facts.journals {
        findings.push(journal.of(region, answer, |()| Passed("a strong read answers".into())));
    }
}

fn available(status: &str) -> bool {
    status.eq_ignore_ascii_case("available")
}

fn database(facts: &Facts, spec: &Spec, findings: &mut Vec<Finding>) {
    let global = Check {
        name: "global-database",
        severity: Critical,
        remedy: "both regions must be in the global database and nothing may be changing: `understudy up` puts back what is missing",
    };
    findings.push(global.of("global database", &facts.global, |seen| {
        unless(
            global_wrong(seen, facts, spec),
            "both regions are in it and it is quiet",
        )
    }));
    let instances = Check {
        name: "database-instances",
        severity: Critical,
        remedy: "wait until RDS has finished, or run `understudy up`",
    };
    for (region, cluster) in &facts.clusters {
        findings.push(instances.of(region, cluster, |cluster| {
            let wrong = cluster_wrong(cluster, usize::from(spec.aurora.instances));
            unless(wrong, format!("{} available", cluster.instances.len()))
        }));
    }
    let versions = Check {
        name: "engine-versions",
        severity: Critical,
        remedy: "Aurora switches over between equal versions only: set `aurora.engine_version` and run `understudy up`",
    };
    let seen: Fact<BTreeMap<&String, &String>> = facts
        .clusters
        .iter()
        .map(|(region, cluster)| match cluster {
            Ok(cluster) => Ok((region, &cluster.engine_version)),
            Err(why) => Err(why.clone()),
        })
        .collect();
    findings.push(versions.of("both clusters", &seen, |seen| {
        let mut all = seen.values();
        let first = all.next();
        match all.all(|version| Some(version) == first) {
            true => Passed(first.map_or(String::new(), |version| (*version).clone())),
            false => Failed(
                seen.iter()
                    .map(|(region, version)| format!("{region} has {version}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
        }
    }));
}

fn global_wrong(seen: &Global, facts: &Facts, spec: &Spec) -> Vec<String> {
    let mut wrong = Vec::new();
    if !available(&seen.status) {
        wrong.push(format!("its status is {}", seen.status));
    }
    if let Some(target) = &seen.changing_to {
        wrong.push(format!("it is changing its writer to `{target}`"));
    }
    for slot in Slot::SERVING {
        let region = spec.regions.of(slot);
        match seen.members.get(region) {
            None => wrong.push(format!("{region} has no cluster in it")),
            Some(member) => {
                if let Some(word) = &member.synchronisation
                    && word != "connected"
                {
                    wrong.push(format!("{region} is {word}"));
                }
            }
        }
    }
    let writers: Vec<&String> = seen
        .members
        .iter()
        .filter_map(|(region, member)| member.writer.then_some(region))
        .collect();
    if let Ok(record) = &facts.record
        && writers != [&record.active_region]
    {
        wrong.push(format!(
            "{} is active, and the writer is {}",
            record.active_region,
            writers.first().map_or("nowhere", |region| region.as_str())
        ));
    }
    wrong
}

fn cluster_wrong(cluster: &Cluster, wanted: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if !available(&cluster.status) {
        wrong.push(format!("the cluster is {}", cluster.status));
    }
    if cluster.instances.len() < wanted {
        wrong.push(format!("{} of {wanted} instances exist", cluster.instances.len()));
    }
    let busy = cluster.instances.iter().filter(|(_, status)| !available(status));
    wrong.extend(busy.map(|(name, status)| format!("`{name}` is {status}")));
    wrong
}

fn standby(facts: &Facts, spec: &Spec, findings: &mut Vec<Finding>) {
    let call = Check {
        name: "payment-processor",
        severity: Critical,
        remedy: "the payment-processor must answer in both regions: see its log and its last configuration",
    };
    for (region, answer) in &facts.ledgers {
        // A call that fails is no lack of knowledge.
        findings.push(call.finding(
            region,
            match answer {
                Ok(_) => Passed("it answered a real call".into()),
                Err(why) => Failed(why.clone()),
            },
        ));
    }
    let fit = Check {
        name: "standby-fit",
        severity: Critical,
        remedy: "the standby's ledger could miss what the journal no longer holds: let replication catch up, or rebuild it with `understudy up`",
    };
    let lag = Check {
        name: "replication-lag",
        severity: Critical,
        remedy: "the standby is far behind: a takeover would take long; look at the load and at Aurora's replication",
    };
    let pair = pair(facts, spec);
    let standby = pair.as_ref().map_or("the standby", |pair| pair.standby);
    findings.push(fit.of(standby, &pair, |pair| {
        match fit_to_take_over(pair.record, &pair.theirs.status) {
            Ok(()) => Passed(format!(
                "its ledger is in epoch {}",
                pair.theirs.status.ledger_epoch.unwrap_or_default()
            )),
            Err(refused) => Failed(refused.to_string()),
        }
    }));
    let ours = pair.and_then(|pair| {
        let active = facts.ledgers.get(&pair.record.active_region);
        match active {
            Some(Ok(active)) => Ok(active.last_seq.saturating_sub(pair.theirs.last_seq)),
            Some(Err(why)) => Err(why.clone()),
            None => Err("the active region was not asked".into()),
        }
    });
    let limit = LAG_LIMIT_S * u64::from(spec.api.rate_limit);
    findings.push(lag.of(standby, &ours, |behind| match *behind {
        0 => Passed("it has every entry".into()),
        behind if behind <= limit => Passed(format!("{behind} entries behind")),
        behind => Failed(format!("{behind} entries behind, more than {limit}")),
    }));
}

struct Pair<'a> {
    record: &'a ControlRecord,
    standby: &'a str,
    theirs: &'a Ledger,
}

/// The control record, and the region that stands by.
fn roles<'a>(facts: &'a Facts, spec: &'a Spec) -> Fact<(&'a ControlRecord, &'a str)> {
    let record = facts.record.as_ref().map_err(Clone::clone)?;
    let active = &record.active_region;
    let standby = spec.regions.peer_of(active);
    let standby = standby.ok_or_else(|| format!("`{active}` is no region of the stack"))?;
    Ok((record, standby))
}

fn pair<'a>(facts: &'a Facts, spec: &'a Spec) -> Fact<Pair<'a>> {
    let (record, standby) = roles(facts, spec)?;
    match facts.ledgers.get(standby) {
        Some(Ok(theirs)) => Ok(Pair {
            record,
            standby,
            theirs,
        }),
        Some(Err(why)) => Err(why.clone()),
        None => Err("it was not asked".into()),
    }
}

fn functions(facts: &Facts, spec: &Spec, findings: &mut Vec<Finding>) {
    let active = Check {
        name: "functions",
        severity: Critical,
        remedy: "see the function's state reason in Lambda; `understudy up` puts back its configuration",
    };
    let concurrency = Check {
        name: "concurrency",
        severity: Critical,
        remedy: "without reserved concurrency the region may be throttled when all traffic comes: `understudy up` reserves it again",
    };
    let alike = Check {
        name: "same-code",
        severity: Critical,
        remedy: "the regions run different packages: finish the deployment with `understudy up`",
    };
    let wanted = i32::try_from(spec.functions.payment_processor_concurrency).unwrap_or(i32::MAX);
    let mut by_package: BTreeMap<&str, Vec<&Function>> = BTreeMap::new();
    for function in &facts.functions {
        let subject = format!("{} in {}", function.package, function.region);
        findings.push(active.of(&subject, &function.state, |state| {
            unless(state_wrong(state), "active")
        }));
        if function.package == PAYMENT_PROCESSOR && wanted > 0 {
            findings.push(
                concurrency.of(&subject, &function.state, |state| match state.reserved {
                    Some(reserved) if reserved >= wanted => Passed(format!("{reserved} calls at once")),
                    Some(reserved) => Failed(format!("{reserved} calls at once, {wanted} are wanted")),
                    None => Failed(format!("nothing is reserved, {wanted} calls at once are wanted")),
                }),
            );
        }
        by_package.entry(&function.package).or_default().push(function);
    }
    for (package, functions) in by_package {
        let hashes: Fact<Vec<&String>> = functions
            .iter()
            .map(|function| match &function.state {
                Ok(state) => Ok(&state.code_sha256),
                Err(why) => Err(why.clone()),
            })
            .collect();
        findings.push(alike.of(
            package,
            &hashes,
            |hashes| match hashes.windows(2).all(|two| two[0] == two[1]) {
                true => Passed("the same package everywhere".into()),
                false => Failed("the packages differ between the regions".into()),
            },
        ));
    }
}

fn state_wrong(state: &FunctionState) -> Vec<String> {
    let mut wrong = Vec::new();
    if state.state != "Active" {
        wrong.push(format!("its state is {}", state.state));
    }
    if state.last_update != "Successful" {
        wrong.push(format!("its last update is {}", state.last_update));
    }
    wrong
}

fn machines(facts: &Facts, findings: &mut Vec<Finding>) {
    let check = Check {
        name: "workflows",
        severity: Critical,
        remedy: "a takeover runs as a state machine of the region that takes over: `understudy up` makes it again",
    };
    for machine in &facts.machines {
        let subject = format!("{} in {}", machine.workflow, machine.region);
        findings.push(
            check.of(&subject, &machine.status, |status| match status.as_str() {
                "ACTIVE" => Passed("active".into()),
                other => Failed(format!("its status is {other}")),
            }),
        );
    }
}

fn quotas(facts: &Facts, spec: &Spec, findings: &mut Vec<Finding>) {
    let check = Check {
        name: "quotas",
        severity: Critical,
        remedy: "the standby could not carry all traffic: ask for the same quota there in Service Quotas",
    };
    let of = |region: &str| -> Fact<Quotas> {
        let answer = facts.quotas.get(region).cloned();
        answer.unwrap_or_else(|| Err(format!("{region} was not asked")))
    };
    let pair = roles(facts, spec).and_then(|(record, standby)| {
        let active = record.active_region.as_str();
        Ok((active, of(active)?, standby, of(standby)?))
    });
    let subject = pair.as_ref().map_or("the standby", |(_, _, standby, _)| standby);
    findings.push(check.of(subject, &pair, |(active, ours, _, theirs)| {
        let rows = [
            (
                "calls of functions at once",
                ours.lambda_concurrency,
                theirs.lambda_concurrency,
            ),
            (
                "API requests a second",
                ours.api_rate_per_s,
                theirs.api_rate_per_s,
            ),
            ("API requests at once", ours.api_burst, theirs.api_burst),
        ];
        let less = rows.iter().filter(|(_, ours, theirs)| theirs < ours);
        unless(
            less.map(|(what, ours, theirs)| format!("{theirs} {what}, {ours} in {active}"))
                .collect(),
            format!(
                "{} {}, no less than {active} in anything",
                theirs.lambda_concurrency, rows[0].0
            ),
        )
    }));
}

/// Groups of resources by the start of their kind. What is in none of them endangers no takeover.
const GROUPS: [(&str, &[&str]); 8] = [
    ("database", &["db-", "global-cluster"]),
    ("functions", &["lambda-function", "lambda-permission"]),
    ("network", &["vpc", "subnet", "route-table", "security-group"]),
    ("workflows", &["state-machine", "schedule"]),
    (
        "names and API",
        &[
            "hosted-zone",
            "record-set",
            "alias-record",
            "health-check",
            "rest-api",
            "api-stage",
            "api-domain",
            "api-mapping",
            "certificate",
        ],
    ),
    ("tables", &["dynamodb-table", "table-"]),
    ("secrets and keys", &["secret", "kms-"]),
    ("roles", &["iam-"]),
];
const OTHERS: &str = "the rest";

fn group(kind: &str) -> &'static str {
    let found = GROUPS
        .iter()
        .find(|(_, starts)| starts.iter().any(|start| kind.starts_with(start)));
    found.map_or(OTHERS, |(name, _)| name)
}

fn resources(facts: &Facts, findings: &mut Vec<Finding>) {
    let remedy =
        "`understudy plan` shows the fields; `understudy up` puts them back, and so does the reconcile";
    let (mut differing, mut unread): (BTreeMap<_, Vec<String>>, BTreeMap<_, Vec<String>>) =
        Default::default();
    for entry in facts.resources.iter().flatten() {
        let place = group(&entry.kind);
        match difference(entry) {
            None => {}
            Some(Ok(what)) => differing.entry(place).or_default().push(what),
            Some(Err(why)) => unread.entry(place).or_default().push(why),
        }
    }
    for name in GROUPS.iter().map(|(name, _)| *name).chain([OTHERS]) {
        let check = Check {
            name: "resources",
            severity: if name == OTHERS { Warning } else { Critical },
            remedy,
        };
        findings.push(check.of(name, &facts.resources, |_| {
            match (differing.remove(name), unread.remove(name)) {
                (Some(wrong), _) => Failed(named(wrong)),
                (None, Some(why)) => Unknown(named(why)),
                (None, None) => Passed("as in the blueprint".into()),
            }
        }));
    }
}

/// What differs, or why that is not known. Roles that have moved with a failover are in order.
fn difference(entry: &PlanEntry) -> Option<Result<String, String>> {
    let planned = match &entry.plan {
        PlanOutcome::Planned(planned) => planned,
        PlanOutcome::Failed { error } => return Some(Err(format!("{}: {error}", entry.key))),
    };
    match &planned.change {
        Change::Unchanged => None,
        Change::Create => Some(Ok(format!("{} is missing", entry.key))),
        Change::Update { fields } | Change::Replace { fields, .. } => {
            let fields: Vec<&str> = fields.iter().map(|change| change.field.as_str()).collect();
            Some(Ok(format!("{} differs ({})", entry.key, fields.join(", "))))
        }
        Change::Unknown { until } => Some(Err(format!("{} needs {}", entry.key, until.join(", ")))),
    }
}

fn permissions(facts: &Facts, findings: &mut Vec<Finding>) {
    let check = Check {
        name: "permissions",
        severity: Critical,
        remedy: "a takeover would be refused: `understudy up` puts the policies back; look for boundaries and rules of the organisation",
    };
    let mut purposes: BTreeMap<&str, Vec<(&str, &str, &Fact<bool>)>> = BTreeMap::new();
    for (needed, answer) in &facts.permissions {
        purposes
            .entry(&needed.purpose)
            .or_default()
            .push((&needed.action, &needed.resource, answer));
    }
    for (purpose, asked) in purposes {
        let denied: Vec<String> = asked
            .iter()
            .filter(|(.., answer)| **answer == Ok(false))
            .map(|(action, resource, _)| format!("{action} on {resource}"))
            .collect();
        let unknown = asked.iter().find_map(|(.., answer)| answer.as_ref().err());
        let subject = format!("role of {purpose} in {}", facts.region);
        findings.push(check.finding(
            subject,
            match unknown {
                _ if !denied.is_empty() => Failed(format!("denied: {}", named(denied))),
                Some(why) => Unknown(why.clone()),
                None => Passed(format!("{} actions are allowed", asked.len())),
            },
        ));
    }
}

fn watch(facts: &Facts, spec: &Spec, now_ms: u64, findings: &mut Vec<Finding>) {
    let observers = Check {
        name: "observers",
        severity: Critical,
        remedy: "a failover needs two observers: see the schedule and the log of the health-probe there",
    };
    let limit_ms = spec.failover.stale_after_ms + CLOCK_SKEW_MS;
    for slot in Slot::ALL {
        let region = spec.regions.of(slot);
        findings.push(observers.of(region, &facts.observed_ms, |seen| {
            match seen.get(region).map(|at_ms| now_ms.abs_diff(*at_ms)) {
                None => Failed("it has written nothing".into()),
                Some(ago_ms) if ago_ms > limit_ms => Failed(format!("it wrote {} s ago", ago_ms / 1000)),
                Some(ago_ms) => Passed(format!("it wrote {} s ago", ago_ms / 1000)),
            }
        }));
    }
    let alarms = Check {
        name: "alarms",
        severity: Warning,
        remedy: "see the alarm's description in CloudWatch",
    };
    for (region, on) in &facts.alarms {
        findings.push(alarms.of(region, on, |on| {
            let counted = on
                .iter()
                .filter(|name| !BY_DESIGN.iter().any(|start| name.starts_with(start)))
                .cloned();
            unless(counted.collect(), "none is in ALARM")
        }));
    }
}

fn under_way(facts: &Facts, now_ms: u64, findings: &mut Vec<Finding>) {
    let change = Check {
        name: "change",
        severity: Warning,
        remedy: "resources may be changing: evaluate again when it has ended",
    };
    findings.push(change.of("stack", &facts.change, |running| match running {
        None => Passed("nothing runs".into()),
        Some(name) => Failed(format!("`{name}` runs")),
    }));
    let drift = Check {
        name: "drift",
        severity: Warning,
        remedy: "`understudy status` says which resources, and why they were not repaired",
    };
    findings.push(drift.of("last reconcile", &facts.drift, |report| {
        let open = report.last.as_ref().map_or(0, |run| run.counts.open);
        match open {
            0 => Passed("nothing is open".into()),
            open => Failed(format!("{open} resources are not repaired")),
        }
    }));
    let rehearsal = Check {
        name: "rehearsal",
        severity: Warning,
        remedy: "rehearse it: `understudy failover --to` the other region and back, or a drill",
    };
    findings.push(
        rehearsal.of("last exercise", &facts.rehearsed, |last| match last {
            None => Failed("the active region was never changed, not even as an exercise".into()),
            Some(last) => {
                let ago = Duration::from_millis(now_ms.saturating_sub(last.at_ms));
                let told = format!("{} `{}` was {} ago", last.kind, last.id, days(ago));
                if ago > REHEARSAL_LIMIT {
                    Failed(told)
                } else {
                    Passed(told)
                }
            }
        }),
    );
}

fn days(ago: Duration) -> String {
    match ago.as_secs() / (24 * 3600) {
        0 => "less than a day".into(),
        1 => "a day".into(),
        days => format!("{days} days"),
    }
}
