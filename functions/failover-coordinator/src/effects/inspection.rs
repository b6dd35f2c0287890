//! What the readiness evaluation looks at that no other step needs, in both serving regions. Reads only.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_cloudwatch::types::StateValue;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum};
use continuity::error::chain;
use continuity::names::{Names, Regions, Slot};
use futures::{StreamExt, stream};
use infra::blueprint::permissions::{self, Needed};
use infra::cloud::Cloud;
use infra::readiness::{Cluster, Fact, FunctionState, Global, Member, Quotas};
use infra::resources::state_machine;
use infra::spec::Spec;
use tokio::sync::OnceCell;

/// Questions to IAM at once: it allows few calls a second.
const ASKED_AT_ONCE: usize = 4;

/// Looks.
#[async_trait]
pub trait Inspection: Send + Sync {
    /// A strong read of the journal through a slot's region.
    async fn journal(&self, slot: Slot) -> Fact<()>;
    /// The global database, as this region sees it.
    async fn global(&self) -> Fact<Global>;
    /// A slot's cluster and its instances.
    async fn cluster(&self, slot: Slot) -> Fact<Cluster>;
    /// A function of a slot, by its name.
    async fn function(&self, slot: Slot, name: &str) -> Fact<FunctionState>;
    /// The status of a slot's state machine.
    async fn machine(&self, slot: Slot, workflow: &str) -> Fact<String>;
    /// The account's quotas in a slot's region.
    async fn quotas(&self, slot: Slot) -> Fact<Quotas>;
    /// Names of the stack's alarms in a slot's region that are in ALARM.
    async fn alarms(&self, slot: Slot) -> Fact<Vec<String>>;
    /// What IAM says to each permission that a takeover by this slot needs.
    async fn permissions(&self, spec: &Spec, slot: Slot) -> Vec<(Needed, Fact<bool>)>;
}

/// AWS.
#[derive(Debug)]
pub struct CloudInspection {
    cloud: Cloud,
    names: Names,
    regions: Regions,
    region: String,
    account: OnceCell<String>,
}

fn why(error: impl std::error::Error + 'static) -> String {
    chain(&error)
}

/// What a call would carry, for IAM's simulation.
fn entry((key, value): (&String, &String)) -> ContextEntry {
    let kind = if permissions::is_list(key) {
        ContextKeyTypeEnum::StringList
    } else {
        ContextKeyTypeEnum::String
    };
    ContextEntry::builder()
        .context_key_name(key)
        .context_key_type(kind)
        .context_key_values(value)
        .build()
}

impl CloudInspection {
    /// With clients of any region. `region` is the one it runs in.
    pub fn new(cloud: Cloud, names: Names, regions: Regions, region: &str) -> Self {
        CloudInspection {
            cloud,
            names,
            regions,
            region: region.to_owned(),
            account: OnceCell::new(),
        }
    }

    async fn account(&self) -> Fact<&str> {
        let ask = || async {
            let call = self.cloud.sts(&self.region).get_caller_identity().send();
            let identity = call.await.map_err(why)?;
            identity
                .account
                .ok_or_else(|| "STS does not say which account this is".to_owned())
        };
        self.account.get_or_try_init(ask).await.map(String::as_str)
    }

    async fn allowed(&self, needed: &Needed) -> Fact<bool> {
        let answer = self
            .cloud
            .iam(self.regions.of(Slot::Primary))
            .simulate_principal_policy()
            .policy_source_arn(&needed.role_arn)
            .action_names(&needed.action)
            .resource_arns(&needed.resource)
            .set_context_entries(Some(needed.context.iter().map(entry).collect()))
            .send()
            .await
            .map_err(why)?;
        let result = answer.evaluation_results().first();
        let result = result.ok_or_else(|| "IAM's answer is empty".to_owned())?;
        Ok(result.eval_decision().as_str() == "allowed")
    }
}

#[async_trait]
impl Inspection for CloudInspection {
    async fn journal(&self, slot: Slot) -> Fact<()> {
        // No entry has this key: what counts is that a quorum answers.
        let key = || AttributeValue::S("readiness".to_owned());
        self.cloud
            .dynamodb(self.regions.of(slot))
            .get_item()
            .table_name(self.names.journal_table())
            .key("partition", key())
            .key("entry", key())
            .consistent_read(true)
            .send()
            .await
            .map(|_| ())
            .map_err(why)
    }

    async fn global(&self) -> Fact<Global> {
        let answer = self
            .cloud
            .rds(&self.region)
            .describe_global_clusters()
            .global_cluster_identifier(self.names.aurora_global())
            .send()
            .await
            .map_err(why)?;
        let cluster = answer.global_clusters().first();
        let cluster = cluster.ok_or_else(|| "RDS knows no global database of ours".to_owned())?;
        let members = cluster.global_cluster_members().iter().map(|member| {
            let arn = member.db_cluster_arn().unwrap_or_default();
            let region = arn.split(':').nth(3).unwrap_or_default().to_owned();
            let writer = member.is_writer().unwrap_or_default();
            let word = member.synchronization_status().filter(|_| !writer);
            let synchronisation = word.map(|word| word.as_str().to_owned());
            (
                region,
                Member {
                    writer,
                    synchronisation,
                },
            )
        });
        Ok(Global {
            status: cluster.status().unwrap_or("unknown").to_owned(),
            members: members.collect(),
            changing_to: cluster
                .failover_state()
                .and_then(|state| state.to_db_cluster_arn())
                .map(str::to_owned),
        })
    }

    async fn cluster(&self, slot: Slot) -> Fact<Cluster> {
        let rds = self.cloud.rds(self.regions.of(slot));
        let name = self.names.aurora_cluster(slot);
        let described = rds.describe_db_clusters().db_cluster_identifier(&name).send();
        let instances = rds.describe_db_instances().into_paginator().items().send();
        let (described, instances) = tokio::join!(described, instances.collect::<Result<Vec<_>, _>>());
        let (described, instances) = (described.map_err(why)?, instances.map_err(why)?);
        let cluster = described.db_clusters().first();
        let cluster = cluster.ok_or_else(|| format!("RDS knows no cluster `{name}`"))?;
        let ours = instances
            .iter()
            .filter(|instance| instance.db_cluster_identifier() == Some(name.as_str()));
        let instances: BTreeMap<String, String> = ours
            .map(|instance| {
                let status = instance.db_instance_status().unwrap_or("unknown");
                let name = instance.db_instance_identifier().unwrap_or_default();
                (name.to_owned(), status.to_owned())
            })
            .collect();
        Ok(Cluster {
            status: cluster.status().unwrap_or("unknown").to_owned(),
            engine_version: cluster.engine_version().unwrap_or_default().to_owned(),
            instances,
        })
    }

    async fn function(&self, slot: Slot, name: &str) -> Fact<FunctionState> {
        let answer = self
            .cloud
            .lambda(self.regions.of(slot))
            .get_function()
            .function_name(name)
            .send()
            .await
            .map_err(why)?;
        let reserved = answer
            .concurrency()
            .and_then(|one| one.reserved_concurrent_executions());
        let configuration = answer
            .configuration()
            .ok_or_else(|| "Lambda's answer is empty".to_owned())?;
        Ok(FunctionState {
            state: configuration
                .state()
                .map_or("unknown", |state| state.as_str())
                .to_owned(),
            last_update: configuration
                .last_update_status()
                .map_or("unknown", |status| status.as_str())
                .to_owned(),
            code_sha256: configuration.code_sha256().unwrap_or_default().to_owned(),
            reserved,
        })
    }

    async fn machine(&self, slot: Slot, workflow: &str) -> Fact<String> {
        let region = self.regions.of(slot);
        let name = self.names.state_machine(workflow, slot);
        let arn = state_machine::arn(region, self.account().await?, &name);
        let answer = self
            .cloud
            .sfn(region)
            .describe_state_machine()
            .state_machine_arn(arn)
            .send()
            .await
            .map_err(why)?;
        Ok(answer
            .status()
            .map_or("unknown", |status| status.as_str())
            .to_owned())
    }

    async fn quotas(&self, slot: Slot) -> Fact<Quotas> {
        let region = self.regions.of(slot);
        let lambda = self.cloud.lambda(region);
        let api = self.cloud.apigateway(region);
        let (functions, apis) = tokio::join!(lambda.get_account_settings().send(), api.get_account().send());
        let (functions, apis) = (functions.map_err(why)?, apis.map_err(why)?);
        let concurrency = functions
            .account_limit()
            .map(|limit| i64::from(limit.concurrent_executions()));
        let throttle = apis.throttle_settings();
        let throttle = throttle.ok_or_else(|| "API Gateway does not tell the account's rate".to_owned())?;
        // A rate of whole requests, whatever the type.
        #[allow(clippy::cast_possible_truncation)]
        let api_rate_per_s = throttle.rate_limit() as i64;
        Ok(Quotas {
            lambda_concurrency: concurrency
                .ok_or_else(|| "Lambda does not tell the account's limits".to_owned())?,
            api_rate_per_s,
            api_burst: i64::from(throttle.burst_limit()),
        })
    }

    async fn alarms(&self, slot: Slot) -> Fact<Vec<String>> {
        let ending = format!("-{slot}-{}", self.names.suffix());
        let pages = self
            .cloud
            .cloudwatch(self.regions.of(slot))
            .describe_alarms()
            .state_value(StateValue::Alarm)
            .into_paginator()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .map_err(why)?;
        let alarms = pages.iter().flat_map(|page| page.metric_alarms());
        Ok(alarms
            .filter(|alarm| alarm.state_value() == Some(&StateValue::Alarm))
            .filter_map(|alarm| alarm.alarm_name())
            .filter(|name| name.ends_with(&ending))
            .map(str::to_owned)
            .collect())
    }

    async fn permissions(&self, spec: &Spec, slot: Slot) -> Vec<(Needed, Fact<bool>)> {
        let account = self.account().await;
        // Without the account there is still something to say: that nothing is known.
        let needed = permissions::takeover(spec, account.as_deref().unwrap_or("unknown"), slot);
        let account = &account;
        stream::iter(needed)
            .map(|needed| async move {
                let answer = match account {
                    Ok(_) => self.allowed(&needed).await,
                    Err(why) => Err(why.clone()),
                };
                (needed, answer)
            })
            .buffered(ASKED_AT_ONCE)
            .collect()
            .await
    }
}
