//! Which stack a command works on: its configuration, the account, and the clients to reach it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_sdk_s3::types::Bucket;
use aws_sdk_sfn::types::ExecutionStatus;
use continuity::control::{ControlRecord, ControlStore};
use continuity::dynamo::DynamoControl;
use continuity::error::StoreError;
use continuity::names::{Names, Slot};
use continuity::observe::Observation;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use infra::change::{self, CONFIGURATION_ITEM, Change, Configuration};
use infra::cloud::Cloud;
use infra::spec::{Source, Spec};

use crate::client::Way;
use crate::failure::Failure;
use crate::local;

/// A region that does not answer within this does not answer.
const REACH_LIMIT: Duration = Duration::from_secs(5);

/// The options that every command about a stack has.
#[derive(Debug, Clone, clap::Args)]
pub struct StackOptions {
    /// The stack's configuration; without the file, every setting has its default.
    #[arg(long, value_name = "FILE", default_value = "stack.toml")]
    pub config: PathBuf,
    /// The stack's suffix, which ends every name; overrides the configuration.
    #[arg(long, value_name = "SUFFIX")]
    pub suffix: Option<String>,
    /// Use the local cloud of this machine instead of an AWS account.
    #[arg(long)]
    pub local: bool,
    /// The local cloud's directory.
    #[arg(long, value_name = "DIR", default_value = ".understudy", requires = "local")]
    pub dir: PathBuf,
}

impl StackOptions {
    /// The configuration: the file, and what the command line puts in its place.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line.
    pub fn spec(&self) -> Result<Spec, Failure> {
        let suffix = self.suffix.as_deref();
        let name = self.config.display().to_string();
        let text = match std::fs::read_to_string(&self.config) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && self.config == Path::new("stack.toml") =>
            {
                return Ok(Spec::load(&Source::defaults().suffix(suffix))?);
            }
            Err(error) => {
                return Err(Failure::text(format!("`{name}` cannot be read: {error}"))
                    .help("give a configuration file with `--config FILE`, make one with `understudy init`, or use none at all"));
            }
        };
        Spec::load(&Source::file(&name, &text).suffix(suffix)).map_err(|error| {
            Failure::text(error.to_string())
                .help("`understudy init --config FILE` writes a file with every setting explained")
        })
    }
}

/// A stack that can be worked on.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Its configuration.
    pub spec: Spec,
    /// The account it lives in.
    pub account: String,
    /// Clients.
    pub cloud: Cloud,
    /// How its API is reached.
    pub way: Way,
    /// The local cloud it lives in, if any: for what a person is told, never for what is done to the stack.
    pub local: Option<local::Cloud>,
}

impl Stack {
    /// Opens the stack that the options describe. The local cloud must be running.
    ///
    /// # Errors
    /// A configuration that cannot be used, no credentials, no local cloud.
    pub async fn open(options: &StackOptions) -> Result<Stack, Failure> {
        let spec = options.spec()?;
        if options.local {
            let cloud = local::attach(&options.dir).await.map_err(|error| {
                Failure::new(&error)
                    .help("start one with `understudy local start`, or let `understudy up --local` do it")
            })?;
            return Stack::on_local(spec, cloud).await;
        }
        let config = continuity::aws::load(Some(spec.regions.of(Slot::Primary))).await;
        Stack::with_config(spec, config, Way::default(), None).await
    }

    /// A stack on a running local cloud, with the pace of a laptop. It is reached as the environment of `understudy local env` says.
    ///
    /// # Errors
    /// A configuration that cannot be used, or the local cloud does not answer.
    pub async fn on_local(spec: Spec, cloud: local::Cloud) -> Result<Stack, Failure> {
        let spec = local_pace(spec);
        spec.validate()?;
        let config = continuity::aws::loader(Some(spec.regions.of(Slot::Primary)))
            .endpoint_url(cloud.endpoint_url.clone())
            .credentials_provider(Credentials::new("test", "test", None, None, "local cloud"))
            .load()
            .await;
        let way = Way {
            proxy: Some(cloud.endpoint_url.clone()),
            authorities: Some(std::fs::read(&cloud.ca_certificate)?),
        };
        Stack::with_config(spec, config, way, Some(cloud)).await
    }

    async fn with_config(
        spec: Spec,
        config: SdkConfig,
        way: Way,
        local: Option<local::Cloud>,
    ) -> Result<Stack, Failure> {
        let cloud = Cloud::new(config);
        // Any region knows whose credentials these are; the home region may be the one that does not answer.
        let ask = |slot| {
            let client = cloud.sts(spec.regions.of(slot));
            async move { client.get_caller_identity().send().await }
        };
        let identity = first_answer(Slot::ALL.map(ask)).await.map_err(|error| {
            Failure::new(&error)
                .help("check your AWS credentials with `aws sts get-caller-identity`, or use `--local` for the local cloud")
        })?;
        let account = identity.account().unwrap_or_default().to_owned();
        Ok(Stack {
            spec,
            account,
            cloud,
            way,
            local,
        })
    }

    /// Names of the stack.
    pub fn names(&self) -> Names {
        self.spec.names()
    }

    /// The home region.
    pub fn home(&self) -> &str {
        self.spec.regions.of(Slot::Primary)
    }

    /// The control table as seen from `region`.
    pub fn control(&self, region: &str) -> DynamoControl {
        DynamoControl::new(self.cloud.dynamodb(region), self.names().control_table())
    }

    /// The same stack with the configuration that is deployed, which says where it is, whatever the file says.
    #[must_use]
    pub fn as_deployed(&self, deployed: &Configuration) -> Stack {
        Stack {
            spec: deployed.spec.clone(),
            ..self.clone()
        }
    }

    /// The control record, from the first region that has the table: an operator must see it while a region is down.
    ///
    /// # Errors
    /// No region answers.
    pub async fn control_record(&self) -> Result<Option<ControlRecord>, Failure> {
        let read = |slot| {
            let control = self.control(self.spec.regions.of(slot));
            async move { control.read().await }
        };
        Ok(first_table(Slot::ALL.map(read)).await?)
    }

    /// A document of the control table, from the first region that has the table.
    ///
    /// # Errors
    /// No region answers.
    pub async fn document(&self, id: &str) -> Result<Option<String>, Failure> {
        let read = |slot| {
            let control = self.control(self.spec.regions.of(slot));
            async move { control.document(id).await }
        };
        Ok(first_table(Slot::ALL.map(read)).await?)
    }

    /// The control record and these documents, in their order, in one look, from the first region that has the table.
    ///
    /// # Errors
    /// No region answers.
    pub async fn read_with(
        &self,
        documents: &[&str],
    ) -> Result<(Option<ControlRecord>, Vec<Option<String>>), Failure> {
        let read = |slot| {
            let control = self.control(self.spec.regions.of(slot));
            async move { control.read_with(documents).await.map(Some) }
        };
        let read = first_table(Slot::ALL.map(read)).await?;
        Ok(read.unwrap_or_else(|| (None, vec![None; documents.len()])))
    }

    /// What the observers wrote, from the first region that has the table.
    ///
    /// # Errors
    /// No region answers.
    pub async fn observations(&self) -> Result<Vec<Observation>, Failure> {
        let observers = &Slot::ALL.map(|slot| self.spec.regions.of(slot));
        let read = |slot| {
            let control = self.control(self.spec.regions.of(slot));
            async move { control.observations(observers).await.map(Some) }
        };
        Ok(first_table(Slot::ALL.map(read)).await?.unwrap_or_default())
    }

    /// The configuration that the stack was last told to have; none when nothing is deployed.
    ///
    /// # Errors
    /// No region answers; another version of this program stored what this one does not know; or the stack is in other regions.
    /// Nothing may then be decided about it, not even that it is unprotected.
    pub async fn configuration(&self) -> Result<Option<Configuration>, Failure> {
        match self.document(CONFIGURATION_ITEM).await? {
            Some(json) => configuration(&json).map(Some),
            None => self.refuse_elsewhere().await.map(|()| None),
        }
    }

    /// Refuses regions that are not those of the stack: its roles are the account's, so they would be taken away from it or
    /// changed under it. A bucket's name is the world's, so it shows where the stack is.
    async fn refuse_elsewhere(&self) -> Result<(), Failure> {
        let names = Slot::ALL.map(|slot| self.names().artifact_bucket(slot, &self.account));
        let list = |slot| {
            let client = self.cloud.s3(self.spec.regions.of(slot));
            // Without any parameter S3 does not say where they are.
            let pages = client.list_buckets().prefix("artifacts-").into_paginator();
            pages.send().collect::<Result<Vec<_>, _>>()
        };
        let pages = first_answer(Slot::ALL.map(list)).await?;
        for (slot, name) in Slot::ALL.into_iter().zip(&names) {
            let mut buckets = pages.iter().flat_map(|page| page.buckets());
            let bucket = buckets.find(|bucket| bucket.name() == Some(name));
            let expected = self.spec.regions.of(slot);
            let region = bucket.and_then(Bucket::bucket_region).unwrap_or(expected);
            if region != expected {
                let suffix = &self.spec.suffix;
                return Err(Failure::text(format!(
                    "the stack `{suffix}` is in other regions: its bucket `{name}` is in {region}, not in {expected}"
                ))
                .help("set `regions` in stack.toml to those that it was deployed in, or name another stack with `--suffix`"));
            }
        }
        Ok(())
    }

    /// The slot that serves, or would: the one that changes of the stack run in.
    pub fn active_slot(&self, record: Option<&ControlRecord>) -> Slot {
        record
            .and_then(|record| self.spec.regions.slot_of(&record.active_region))
            .unwrap_or(Slot::Primary)
    }

    /// The regions that do not answer now, each with why.
    pub async fn unreachable(&self) -> Vec<(Slot, String)> {
        let ask = |slot| async move {
            let call = self
                .cloud
                .sts(self.spec.regions.of(slot))
                .get_caller_identity()
                .send();
            match tokio::time::timeout(REACH_LIMIT, call).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some((slot, continuity::error::chain(&error))),
                Err(_) => Some((slot, format!("no answer within {} s", REACH_LIMIT.as_secs()))),
            }
        };
        let answers = futures::future::join_all(Slot::ALL.map(ask)).await;
        answers.into_iter().flatten().collect()
    }

    /// The change of the stack that runs now: its item, if the execution that holds it still runs, or if its region does not
    /// say.
    ///
    /// # Errors
    /// No region answers.
    pub async fn change(&self) -> Result<Option<Change>, Failure> {
        let stored = self.document(change::ITEM).await?;
        let Some(holder) = stored.and_then(|json| serde_json::from_str::<Change>(&json).ok()) else {
            return Ok(None);
        };
        let client = self.cloud.sfn(holder.region());
        let call = client
            .describe_execution()
            .execution_arn(&holder.execution)
            .send();
        let runs = match tokio::time::timeout(REACH_LIMIT, call).await {
            Ok(Ok(seen)) => matches!(
                seen.status(),
                ExecutionStatus::Running | ExecutionStatus::PendingRedrive
            ),
            Ok(Err(error)) => !error
                .as_service_error()
                .is_some_and(|e| e.is_execution_does_not_exist()),
            Err(_) => true,
        };
        let silent_ms = continuity::clock::now_ms().saturating_sub(holder.seen_ms);
        let alive = runs && u128::from(silent_ms) <= change::LEASE.as_millis();
        Ok(alive.then_some(holder))
    }
}

/// Reads a stored configuration.
///
/// # Errors
/// Another version of this program stored what this one does not know.
pub fn configuration(json: &str) -> Result<Configuration, Failure> {
    serde_json::from_str(json).map_err(|error| {
        Failure::text(format!(
            "the configuration that is deployed cannot be read by this version: {error}"
        ))
        .help("use the version of understudy that deployed it, or a newer one; nothing was changed")
    })
}

/// The first answer of a region that has the table: a table's replicas come and go one after the other. Nothing, if only regions
/// without it answer; the last error when none does.
async fn first_table<T>(
    calls: impl IntoIterator<Item = impl Future<Output = Result<Option<T>, StoreError>>>,
) -> Result<Option<T>, StoreError> {
    let mut running: FuturesUnordered<_> = calls.into_iter().collect();
    let (mut no_table, mut last) = (false, None);
    while let Some(answer) = running.next().await {
        match answer {
            Ok(value) => return Ok(value),
            Err(StoreError::NoTable(_)) => no_table = true,
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) if !no_table => Err(error),
        _ => Ok(None),
    }
}

/// The first answer of several that are equally good; the last error when there is none.
async fn first_answer<T, E>(
    calls: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
) -> Result<T, E> {
    let mut running: FuturesUnordered<_> = calls.into_iter().collect();
    let mut last = None;
    while let Some(answer) = running.next().await {
        match answer {
            Ok(value) => return Ok(value),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("there is at least one to ask"))
}

/// Faster defaults for a laptop: settings that any stack could have, applied where the configuration left the default.
fn local_pace(mut spec: Spec) -> Spec {
    let default = Spec::default();
    if spec.probe == default.probe {
        spec.probe.interval_ms = 1_000;
    }
    if spec.failover == default.failover {
        spec.failover.cooldown_ms = 5_000;
        spec.failover.stale_after_ms = (3 * spec.probe.interval_ms).max(5_000);
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_answer_counts_and_an_error_only_when_there_is_no_answer() {
        let call = |answer: Result<u8, &'static str>, ms: u64| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            answer
        };
        assert_eq!(
            first_answer([call(Err("cut off"), 0), call(Ok(2), 5)]).await,
            Ok(2)
        );
        assert_eq!(
            first_answer([call(Err("cut off"), 5), call(Ok(2), 0)]).await,
            Ok(2)
        );
        assert_eq!(
            first_answer([call(Err("a"), 0), call(Err("b"), 5)]).await,
            Err("b")
        );
    }

    #[tokio::test]
    async fn a_region_that_has_the_table_is_believed_before_one_that_has_none() {
        let missing = || Err(StoreError::NoTable("control-dev".to_owned()));
        let silent = || {
            Err(StoreError::Call {
                operation: "GetItem",
                table: "control-dev".to_owned(),
                source: "cut off".into(),
            })
        };
        let call = |answer: Result<Option<u8>, StoreError>, ms: u64| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            answer
        };
        for (first, second, found) in [
            (missing(), Ok(Some(2)), Some(2)),
            (silent(), Ok(Some(2)), Some(2)),
            (Ok(None), silent(), None),
            (silent(), missing(), None),
            (missing(), silent(), None),
        ] {
            let answer = first_table([call(first, 0), call(second, 5)]).await;
            assert_eq!(answer.expect("somebody answers"), found);
        }
        let nobody = first_table([call(silent(), 0), call(silent(), 5)]).await;
        assert!(matches!(nobody, Err(StoreError::Call { .. })), "{nobody:?}");
    }

    #[test]
    fn the_laptop_pace_leaves_what_an_operator_set() {
        let mut spec = Spec::default();
        spec.failover.rounds_to_fail = 7;
        let paced = local_pace(spec.clone());
        assert_eq!(paced.failover, spec.failover);
        assert_eq!(paced.probe.interval_ms, 1_000);
    }

    #[test]
    fn the_laptop_pace_validates_whatever_an_operator_set_of_it() {
        for interval_ms in [200, 1_000, 20_000, 60_000] {
            let mut spec = Spec::default();
            spec.probe.interval_ms = interval_ms;
            assert!(local_pace(spec).validate().is_ok(), "{interval_ms}");
        }
    }

    fn options(config: &Path) -> StackOptions {
        StackOptions {
            config: config.to_owned(),
            suffix: None,
            local: false,
            dir: ".understudy".into(),
        }
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_it_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = options(&folder.path().join("mine.toml")).spec().unwrap_err();
        assert!(error.message().contains("mine.toml"));
        assert!(error.next().is_some());
    }

    #[test]
    fn a_malformed_file_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stack.toml");
        std::fs::write(&path, "sufix = 'dev'\n").unwrap();
        let error = options(&path).spec().unwrap_err();
        assert!(error.message().contains("stack.toml:1:1: sufix"), "{error}");
        assert!(error.next().is_some());
    }
}
