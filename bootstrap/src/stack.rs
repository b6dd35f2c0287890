//! Which stack a command works on: its configuration, the account, and the clients to reach it.

use std::path::{Path, PathBuf};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use continuity::control::{ControlRecord, ControlStore};
use continuity::dynamo::DynamoControl;
use continuity::names::{Names, Slot};
use infra::cloud::Cloud;
use infra::spec::Spec;

use crate::failure::Failure;
use crate::local;

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

/// A stack that can be worked on.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Its configuration.
    pub spec: Spec,
    /// The account it lives in.
    pub account: String,
    /// Clients.
    pub cloud: Cloud,
    /// The local cloud it lives in, if any: only for what a person is told, never for what is done.
    pub local: Option<local::Cloud>,
}

impl Stack {
    /// Opens the stack that the options describe. The local cloud must be running.
    ///
    /// # Errors
    /// A configuration that cannot be used, no credentials, no local cloud.
    pub async fn open(options: &StackOptions) -> Result<Stack, Failure> {
        let mut spec = read_spec(&options.config)?;
        if let Some(suffix) = &options.suffix {
            spec.suffix.clone_from(suffix);
        }
        if options.local {
            let cloud = local::attach(&options.dir).await.map_err(|error| {
                Failure::new(&error)
                    .help("start one with `understudy local start`, or let `understudy up --local` do it")
            })?;
            return Stack::on_local(spec, cloud).await;
        }
        spec.validate()?;
        let config = continuity::aws::load(Some(spec.regions.of(Slot::Primary))).await;
        Stack::with_config(spec, config, None).await
    }

    /// A stack on a running local cloud, with the pace of a laptop.
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
        Stack::with_config(spec, config, Some(cloud)).await
    }

    async fn with_config(
        spec: Spec,
        config: SdkConfig,
        local: Option<local::Cloud>,
    ) -> Result<Stack, Failure> {
        let cloud = Cloud::new(config);
        let home = spec.regions.of(Slot::Primary);
        let identity = cloud.sts(home).get_caller_identity().send().await.map_err(|error| {
            Failure::new(&error)
                .help("check your AWS credentials with `aws sts get-caller-identity`, or use `--local` for the local cloud")
        })?;
        let account = identity.account().unwrap_or_default().to_owned();
        Ok(Stack {
            spec,
            account,
            cloud,
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

    /// The control record, from the first region that answers: an operator must see it while a region is down.
    ///
    /// # Errors
    /// No region answers.
    pub async fn control_record(&self) -> Result<Option<ControlRecord>, Failure> {
        let mut last = None;
        for slot in Slot::ALL {
            match self.control(self.spec.regions.of(slot)).read().await {
                Ok(record) => return Ok(record),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| Failure::text("no region to ask"), |error| Failure::new(&error)))
    }
}

fn read_spec(path: &Path) -> Result<Spec, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Spec::from_toml(&text).map_err(|error| {
            Failure::text(format!(
                "`{}`: {}",
                path.display(),
                continuity::error::chain(&error)
            ))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == Path::new("stack.toml") => {
            Ok(Spec::default())
        }
        Err(error) => Err(
            Failure::text(format!("`{}` cannot be read: {error}", path.display()))
                .help("give a configuration file with `--config FILE`, or none at all"),
        ),
    }
}

/// Faster defaults for a laptop: settings that any stack could have, applied where the configuration left the default.
fn local_pace(mut spec: Spec) -> Spec {
    let default = Spec::default();
    if spec.probe == default.probe {
        spec.probe.interval_ms = 1_000;
    }
    if spec.failover == default.failover {
        spec.failover.cooldown_ms = 5_000;
        spec.failover.stale_after_ms = 5_000;
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_laptop_pace_leaves_what_an_operator_set() {
        let mut spec = Spec::default();
        spec.failover.rounds_to_fail = 7;
        let paced = local_pace(spec.clone());
        assert_eq!(paced.failover, spec.failover);
        assert_eq!(paced.probe.interval_ms, 1_000);
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_it_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_spec(&folder.path().join("mine.toml")).unwrap_err();
        assert!(error.message().contains("mine.toml"));
        assert!(error.next().is_some());
    }

    #[test]
    fn a_malformed_file_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stack.toml");
        std::fs::write(&path, "sufix = 'dev'\n").unwrap();
        let error = read_spec(&path).unwrap_err();
        assert!(
            error.message().contains("stack.toml") && error.message().contains("sufix"),
            "{error}"
        );
    }
}
