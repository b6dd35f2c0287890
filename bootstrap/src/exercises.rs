//! `understudy drill`: the evidence of failovers, switchovers and drills, read from the data buckets. Each region's bucket has
//! all of it, sooner or later, so one region is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::operation::get_object::GetObjectError;
use console::style;
use continuity::names::{Slot, Takeover};
use infra::exercise::{
    Evidence, Kind, Outcome, PREFIX, html_key, json_key, page, seconds, tail_sentence, utc,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::stack::Stack;
use crate::ui::table;

/// A bucket that does not answer within this does not answer.
const REACH_LIMIT: Duration = Duration::from_secs(10);

/// An exercise in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Kind, and what a drill rehearses: `failover`, `drill isolation`.
    pub kind: String,
    /// When it began, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// How it ended.
    pub outcome: String,
    /// It broke off or missed an objective.
    pub failed: bool,
    /// The recovery time, milliseconds.
    pub rto_ms: Option<u64>,
    /// Acknowledged payments lost.
    pub lost: Option<u64>,
    /// The regions whose buckets have it.
    pub regions: Vec<String>,
}

impl Listed {
    fn of(evidence: &Evidence, regions: Vec<String>) -> Listed {
        Listed {
            id: evidence.id.clone(),
            kind: kind(evidence),
            began_ms: evidence.began_ms,
            outcome: evidence.outcome.as_str().to_owned(),
            failed: evidence.is_failed(),
            rto_ms: evidence.achieved.rto_ms,
            lost: evidence.payments.lost,
            regions,
        }
    }
}

fn kind(evidence: &Evidence) -> String {
    match evidence.drill {
        Some(drill) => format!("{} {}", evidence.kind.as_str(), drill.as_str()),
        None => evidence.kind.as_str().to_owned(),
    }
}

/// A serving region's bucket.
struct Bucket {
    region: String,
    name: String,
    client: aws_sdk_s3::Client,
}

fn buckets(stack: &Stack) -> [Bucket; 2] {
    Slot::SERVING.map(|slot| {
        let region = stack.spec.regions.of(slot).to_owned();
        Bucket {
            name: stack.names().data_bucket(slot, &stack.account),
            client: stack.cloud.s3(&region),
            region,
        }
    })
}

impl Bucket {
    /// Ids of all exercises in it.
    async fn ids(&self) -> Result<Vec<String>, String> {
        let pages = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .prefix(PREFIX)
            .delimiter("/")
            .into_paginator()
            .send()
            .collect::<Result<Vec<_>, _>>();
        let pages = match tokio::time::timeout(REACH_LIMIT, pages).await {
            Ok(Ok(pages)) => pages,
            Ok(Err(error)) => return Err(DisplayErrorContext(error).to_string()),
            Err(_) => return Err(format!("no answer within {} s", REACH_LIMIT.as_secs())),
        };
        Ok(pages
            .iter()
            .flat_map(|page| page.common_prefixes())
            .filter_map(|prefix| {
                Some(
                    prefix
                        .prefix()?
                        .strip_prefix(PREFIX)?
                        .trim_end_matches('/')
                        .to_owned(),
                )
            })
            .collect())
    }

    /// A file; none when the bucket does not have it.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let get = async {
            let answer = self.client.get_object().bucket(&self.name).key(key).send().await;
            match answer {
                Ok(object) => {
                    let body = object.body.collect().await.map_err(|error| error.to_string())?;
                    Ok(Some(body.to_vec()))
                }
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(GetObjectError::is_no_such_key) =>
                {
                    Ok(None)
                }
                Err(error) => Err(DisplayErrorContext(error).to_string()),
            }
        };
        tokio::time::timeout(REACH_LIMIT, get)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", REACH_LIMIT.as_secs())))
    }
}

fn unreachable(silent: &BTreeMap<String, String>) -> Failure {
    let told: Vec<String> = silent
        .iter()
        .map(|(region, why)| format!("{region}: {why}"))
        .collect();
    Failure::text(format!("no data bucket of the stack can be read: {}", told.join("; ")))
        .help("check with `understudy status` that the stack is deployed, and that your credentials may read its buckets")
}

/// What is kept, and which regions did not say.
#[derive(Debug, Clone, Serialize)]
pub struct List {
    /// The newest first.
    pub exercises: Vec<Listed>,
    /// Regions whose bucket does not answer, with why.
    pub unreachable: BTreeMap<String, String>,
}

/// All exercises, the newest first.
///
/// # Errors
/// No bucket answers.
pub async fn list(stack: &Stack) -> Result<List, Failure> {
    let buckets = buckets(stack);
    let answers = futures::future::join_all(buckets.iter().map(Bucket::ids)).await;
    let mut places: BTreeMap<String, Vec<&Bucket>> = BTreeMap::new();
    let mut silent = BTreeMap::new();
    for (bucket, answer) in buckets.iter().zip(answers) {
        match answer {
            Ok(ids) => {
                for id in ids {
                    places.entry(id).or_default().push(bucket);
                }
            }
            Err(why) => {
                silent.insert(bucket.region.clone(), why);
            }
        }
    }
    if silent.len() == buckets.len() {
        return Err(unreachable(&silent));
    }
    let read = places.iter().map(|(id, places)| async move {
        let mut found = None;
        for bucket in places {
            if let Ok(Some(body)) = bucket.get(&json_key(id)).await {
                found = serde_json::from_slice::<Evidence>(&body).ok();
                break;
            }
        }
        let regions = places.iter().map(|bucket| bucket.region.clone()).collect();
        found.map(|evidence| Listed::of(&evidence, regions))
    });
    let read = futures::future::join_all(read).await;
    let mut exercises: Vec<Listed> = read.into_iter().flatten().collect();
    exercises.sort_by(|a, b| (b.began_ms, &b.id).cmp(&(a.began_ms, &a.id)));
    Ok(List {
        exercises,
        unreachable: silent,
    })
}

/// The failovers that have evidence, by the epoch that each began or was to begin.
///
/// # Errors
/// No bucket answers.
pub async fn failovers(stack: &Stack) -> Result<BTreeSet<u64>, Failure> {
    let buckets = buckets(stack);
    let answers = futures::future::join_all(buckets.iter().map(Bucket::ids)).await;
    let (mut epochs, mut silent) = (BTreeSet::new(), BTreeMap::new());
    for (bucket, answer) in buckets.iter().zip(answers) {
        match answer {
            Ok(ids) => {
                let found = ids.iter().filter_map(|id| stack.names().takeover_of(id));
                epochs.extend(
                    found.filter_map(|(which, epoch)| (which == Takeover::Failover).then_some(epoch)),
                );
            }
            Err(why) => {
                silent.insert(bucket.region.clone(), why);
            }
        }
    }
    if silent.len() == buckets.len() {
        return Err(unreachable(&silent));
    }
    Ok(epochs)
}

/// The regions whose bucket has both the document and the page of an exercise.
pub async fn kept_in(stack: &Stack, id: &str) -> Vec<String> {
    let mut regions = Vec::new();
    for bucket in buckets(stack) {
        let (document, page) = (json_key(id), html_key(id));
        let both = futures::join!(bucket.get(&document), bucket.get(&page));
        if matches!(both, (Ok(Some(_)), Ok(Some(_)))) {
            regions.push(bucket.region);
        }
    }
    regions
}

/// The evidence of an exercise, from the first region that has it.
///
/// # Errors
/// No bucket answers, none has it, or it cannot be read by this version.
pub async fn show(stack: &Stack, id: &str) -> Result<Evidence, Failure> {
    let evidence = read(stack, &json_key(id), &format!("the evidence `{id}`")).await?;
    evidence.ok_or_else(|| {
        Failure::text(format!("there is no evidence of an exercise `{id}`"))
            .help("`understudy drill list` shows the ids of all exercises")
    })
}

/// A JSON file of the data buckets, from the first region that has it; none where no region has it. `what` says in errors what it is.
///
/// # Errors
/// No bucket answers, or it cannot be read by this version.
pub async fn read<T: DeserializeOwned>(stack: &Stack, key: &str, what: &str) -> Result<Option<T>, Failure> {
    let buckets = buckets(stack);
    let mut silent = BTreeMap::new();
    for bucket in &buckets {
        match bucket.get(key).await {
            Ok(Some(body)) => {
                return serde_json::from_slice(&body).map(Some).map_err(|error| {
                    Failure::text(format!("{what} cannot be read by this version: {error}"))
                        .help("use the version of understudy that wrote it, or a newer one")
                });
            }
            Ok(None) => {}
            Err(why) => {
                silent.insert(bucket.region.clone(), why);
            }
        }
    }
    if silent.len() == buckets.len() {
        return Err(unreachable(&silent));
    }
    Ok(None)
}

/// The list for a person.
pub fn describe_list(list: &List) -> String {
    let mut lines: Vec<String> = list
        .unreachable
        .keys()
        .map(|region| format!("no answer from the bucket in {region}: the list may lack what is only there"))
        .collect();
    if list.exercises.is_empty() {
        lines.push("no exercise has been recorded".to_owned());
    }
    let width = list.exercises.iter().map(|one| one.id.len()).max().unwrap_or(0);
    for one in &list.exercises {
        let verdict = if one.failed { "FAILED" } else { "ok" };
        lines.push(format!(
            "{:width$}  {} UTC  {:6}  {}, {}, RTO {}, lost {}",
            one.id,
            &utc(one.began_ms)[..19],
            verdict,
            one.kind,
            one.outcome,
            one.rto_ms.map_or_else(|| "not measured".to_owned(), seconds),
            one.lost
                .map_or_else(|| "not known".to_owned(), |lost| lost.to_string()),
        ));
    }
    lines.join("\n")
}

/// The summary for a person.
pub fn describe(evidence: &Evidence) -> String {
    let known =
        |number: Option<u64>| number.map_or_else(|| "not known".to_owned(), |number| number.to_string());
    let verdict = if evidence.is_failed() {
        style("FAILED").red().bold().to_string()
    } else {
        style("ok").green().bold().to_string()
    };
    let achieved = &evidence.achieved;
    let mut rows = vec![
        ("outcome", format!("{} ({verdict})", evidence.outcome.as_str())),
        ("kind", kind(evidence)),
        (
            "from, to",
            format!("{}, {}", evidence.from_region, evidence.to_region),
        ),
        (
            "epoch",
            format!("{} -> {}", evidence.epoch_before, evidence.epoch_after),
        ),
        ("began", format!("{} UTC", utc(evidence.began_ms))),
        (
            "took",
            seconds(evidence.ended_ms.saturating_sub(evidence.began_ms)),
        ),
        ("started by", evidence.started_by.clone()),
        (
            "recovery time",
            format!(
                "{}, objective {}",
                achieved.rto_ms.map_or_else(|| "not measured".to_owned(), seconds),
                seconds(evidence.objectives.rto_ms)
            ),
        ),
        ("acknowledged", evidence.payments.acknowledged.to_string()),
        ("from the journal", known(evidence.payments.replayed)),
        ("lost", known(evidence.payments.lost)),
        ("duplicated", known(evidence.payments.duplicated)),
    ];
    if evidence.kind == Kind::Failover && evidence.outcome == Outcome::Completed {
        let told = match &evidence.lost_tail {
            Some(report) => tail_sentence(report),
            None => format!("not known yet: `understudy lost-tail {}`", evidence.epoch_after),
        };
        rows.push(("only in the old", told));
    }
    if let Some(reason) = &evidence.outcome_reason {
        rows.insert(1, ("reason", reason.clone()));
    }
    let mut text = format!("{}\n{}\n", evidence.title(), table(&rows));
    let steps: Vec<String> = evidence
        .steps
        .iter()
        .map(|step| {
            let took = seconds(step.ended_ms.saturating_sub(step.began_ms));
            format!("  {:16}{took:>9}  {}", step.step, step.note)
        })
        .collect();
    let gaps: Vec<String> = evidence
        .gaps
        .iter()
        .map(|gap| format!("  {}; {}", gap.gap, gap.remedy))
        .collect();
    let list = |items: &[String]| items.iter().map(|item| format!("  {item}")).collect();
    let parts: [(&str, Vec<String>); 4] = [
        ("missed", list(&evidence.missed)),
        ("steps", steps),
        ("gaps", gaps),
        ("not proven", list(&evidence.not_proven)),
    ];
    for (name, lines) in parts {
        if !lines.is_empty() {
            text.push_str(&format!("{name}\n{}\n", lines.join("\n")));
        }
    }
    text.trim_end().to_owned()
}

/// Writes the page of an exercise.
///
/// # Errors
/// The file cannot be written.
pub fn write_page(evidence: &Evidence, file: &Path) -> Result<(), Failure> {
    std::fs::write(file, page::page(evidence))
        .map_err(|error| Failure::text(format!("`{}` cannot be written: {error}", file.display())))
}

/// Writes the page to a new temporary file, which stays, and opens it with whatever this machine opens pages with.
///
/// # Errors
/// The file cannot be written, or nothing here opens pages.
pub fn open_page(evidence: &Evidence) -> Result<std::path::PathBuf, Failure> {
    let directory = tempfile::Builder::new()
        .prefix("understudy-")
        .tempdir()
        .map_err(|error| Failure::text(format!("no temporary folder: {error}")))?
        .keep();
    let file = directory.join("index.html");
    write_page(evidence, &file)?;
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    std::process::Command::new(opener)
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            Failure::text(format!("`{opener}` cannot be started: {error}"))
                .help(format!("open `{}` in a browser yourself", file.display()))
        })?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        serde_json::from_value(serde_json::json!({
            "schema": infra::exercise::SCHEMA, "id": "failover-dev-2", "kind": "failover", "scenario": "s",
            "stack": {"suffix": "dev", "regions": continuity::names::Regions::default(), "program_version": "0.1.0"},
            "started_by": "health-probe", "from_region": "us-east-1", "to_region": "us-east-2",
            "epoch_before": 1, "epoch_after": 2, "decided_ms": null, "began_ms": 1_795_741_985_000_u64,
            "ended_ms": 1_795_741_990_000_u64, "outcome": "completed",
            "objectives": {"rto_ms": 300_000, "lost": 0},
            "achieved": {"rto_ms": 5_320, "rto_how": "", "rpo_payments": 0, "rpo_ms": 0, "rpo_how": ""},
            "steps": [{"step": "fence", "region": "us-east-2", "began_ms": 1, "ended_ms": 61, "note": "epoch 2"}],
            "traffic": {"source": "", "seconds": []}, "health": [],
            "payments": {"acknowledged": 9, "replayed": 7, "lost": 0, "duplicated": 0, "source": ""},
            "not_proven": ["much"],
        }))
        .unwrap()
    }

    #[test]
    fn a_person_reads_outcome_recovery_time_and_what_was_not_proven() {
        let text = describe(&evidence());
        for part in [
            "Failover: us-east-1 to us-east-2",
            "5.3 s, objective 5 min",
            "not proven\n  much",
            "epoch 2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_list_has_a_line_for_each_exercise_and_names_the_region_that_is_silent() {
        let list = List {
            exercises: vec![Listed::of(&evidence(), vec!["us-east-2".into()])],
            unreachable: [("us-east-1".to_owned(), "refused".to_owned())].into(),
        };
        let text = describe_list(&list);
        assert!(
            text.contains(
                "failover-dev-2  2026-11-27 01:13:05 UTC  ok      failover, completed, RTO 5.3 s, lost 0"
            ),
            "{text}"
        );
        assert!(text.contains("us-east-1"));
        let none = List {
            exercises: vec![],
            unreachable: BTreeMap::new(),
        };
        assert_eq!(describe_list(&none), "no exercise has been recorded");
    }

    #[test]
    fn the_page_is_written_where_it_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("page.html");
        write_page(&evidence(), &file).unwrap();
        assert!(
            std::fs::read_to_string(&file)
                .unwrap()
                .starts_with("<!doctype html>")
        );
        let error = write_page(&evidence(), &folder.path().join("no/page.html")).unwrap_err();
        assert!(error.to_string().contains("cannot be written"));
    }
}
