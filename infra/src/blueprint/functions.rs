//! The three functions of a slot, each with its role and log group.

use std::collections::{BTreeMap, BTreeSet};

use continuity::names::Slot;
use serde_json::Value;

use super::Context;
use super::policies;
use super::roles::{self, BASIC_EXECUTION, Purpose, Role, VPC_EXECUTION};
use crate::graph::{Blueprint, Handle, Refs};
use crate::resources::api_stage::ApiStage;
use crate::resources::db_cluster::{self, DbCluster};
use crate::resources::iam_policy::{self, IamPolicy};
use crate::resources::iam_role;
use crate::resources::lambda_function::{self, LambdaFunction};
use crate::resources::log_group::{self, LogGroup};
use crate::resources::s3_bucket::{self, S3Bucket};
use crate::resources::security_group::SecurityGroup;
use crate::resources::state_machine;
use crate::resources::subnet::Subnet;

/// The package names, which are also the first word of every function's name.
pub const PAYMENT_PROCESSOR: &str = "payment-processor";
/// The observer.
pub const HEALTH_PROBE: &str = "health-probe";
/// The provisioner and mover.
pub const FAILOVER_COORDINATOR: &str = "failover-coordinator";

/// A request may take what API Gateway waits (29 s); a replay, which nobody waits for but the coordinator, longer.
const PROCESSOR_TIMEOUT_S: i32 = 110;
/// A probe goes on looking until the next minute's call has made a round. EventBridge Scheduler may call later than the minute
/// by some seconds, and a call may have to start a process first.
/// <https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html>
const PROBE_TIMEOUT_S: i32 = 90;
/// The coordinator's own limits (`limits.rs`) build on this.
const COORDINATOR_TIMEOUT_S: i32 = 120;

const PROBE_MEMORY_MB: i32 = 128;
const COORDINATOR_MEMORY_MB: i32 = 512;

const RUNTIME: &str = "provided.al2023";

/// A function's ARN follows from its name.
pub fn arn(context: &Context<'_>, slot: Slot, name: &str) -> String {
    format!(
        "arn:aws:lambda:{}:{}:function:{name}",
        context.region(slot),
        context.account
    )
}

/// Where a payment-processor stands: inside the VPC, beside its database.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Private subnets.
    pub subnets: Vec<Handle<Subnet>>,
    /// The group that may reach the database.
    pub security_group: Handle<SecurityGroup>,
    /// The regional cluster.
    pub cluster: Handle<DbCluster>,
}

/// The payments API's function, one in each serving slot.
pub fn payment_processor(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    bucket: &Handle<S3Bucket>,
    beside: Beside,
) -> Handle<LambdaFunction> {
    let functions = &context.spec.functions;
    let mut common = Common::new(
        context,
        slot,
        PAYMENT_PROCESSOR,
        context.names.payment_processor(slot),
    );
    common.description = "Accounts and payments: the ledger, the API, /health.";
    common.timeout_s = PROCESSOR_TIMEOUT_S;
    common.memory_mb = i32::try_from(functions.payment_processor_memory_mb).unwrap_or(i32::MAX);
    common.concurrency = i32::try_from(functions.payment_processor_concurrency)
        .ok()
        .filter(|calls| *calls > 0);
    common.set("UNDERSTUDY_DB_SECRET", context.names.database_secret());
    let bucket_for_data = context.names.data_bucket(slot, context.account);
    common.set("UNDERSTUDY_DATA_BUCKET", bucket_for_data);
    common.set("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true");
    let role = role(
        blueprint,
        context,
        slot,
        PAYMENT_PROCESSOR,
        true,
        policies::payment_processor(context, slot),
    );
    // Lambda deletes its network interfaces some time after the function, with this role: it outlives the group they are in.
    blueprint.order(&beside.security_group, &role.role);
    if let Some(attachments) = &role.attachments {
        blueprint.order(&beside.security_group, attachments);
    }
    let refs = (beside.subnets, beside.security_group, beside.cluster);
    function(
        blueprint,
        context,
        common,
        role,
        bucket,
        refs,
        |spec, (subnets, group, cluster)| {
            let cluster: db_cluster::Outputs = cluster;
            spec.subnet_ids = subnets.into_iter().map(|subnet| subnet.subnet_id).collect();
            spec.security_group_ids = BTreeSet::from([group.group_id]);
            spec.environment
                .insert("UNDERSTUDY_DB_HOST".into(), cluster.endpoint);
            spec.environment
                .insert("UNDERSTUDY_DB_PORT".into(), cluster.port.to_string());
        },
    )
}

/// The observer, one in every slot. `stages` are the APIs of the serving slots, home first.
pub fn health_probe(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    bucket: &Handle<S3Bucket>,
    stages: &[Handle<ApiStage>; 2],
) -> Handle<LambdaFunction> {
    let mut common = Common::new(context, slot, HEALTH_PROBE, context.names.health_probe(slot));
    common.description = "Looks at both regions from outside, like a client.";
    common.timeout_s = PROBE_TIMEOUT_S;
    common.memory_mb = PROBE_MEMORY_MB;
    common.set(
        "UNDERSTUDY_PROBE_INTERVAL_MS",
        context.spec.probe.interval_ms.to_string(),
    );
    let policy = serde_json::to_string(&context.spec.failover).expect("a policy is plain data");
    common.set("UNDERSTUDY_POLICY", policy);
    if Slot::SERVING.contains(&slot) {
        for (workflow, variable) in [
            ("failover", "UNDERSTUDY_FAILOVER_STATE_MACHINE"),
            ("switchover", "UNDERSTUDY_SWITCHOVER_STATE_MACHINE"),
        ] {
            let name = context.names.state_machine(workflow, slot);
            let arn = state_machine::arn(context.region(slot), context.account, &name);
            common.set(variable, arn);
        }
    }
    let role = role(
        blueprint,
        context,
        slot,
        HEALTH_PROBE,
        false,
        policies::health_probe(context, slot),
    );
    let refs = (stages[0].clone(), stages[1].clone());
    function(
        blueprint,
        context,
        common,
        role,
        bucket,
        refs,
        |spec, (primary, dr)| {
            spec.environment
                .insert("UNDERSTUDY_ENDPOINT_PRIMARY".into(), primary.url);
            spec.environment.insert("UNDERSTUDY_ENDPOINT_DR".into(), dr.url);
        },
    )
}

/// The coordinator, one in each serving slot. It refers to nothing but its package and its role: it is what creates the rest.
pub fn failover_coordinator(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    bucket: &Handle<S3Bucket>,
) -> Handle<LambdaFunction> {
    let mut common = Common::new(
        context,
        slot,
        FAILOVER_COORDINATOR,
        context.names.failover_coordinator(slot),
    );
    common.description = "Provisions, repairs, assesses, and moves the active region.";
    common.timeout_s = COORDINATOR_TIMEOUT_S;
    common.memory_mb = COORDINATOR_MEMORY_MB;
    let role = role(
        blueprint,
        context,
        slot,
        FAILOVER_COORDINATOR,
        false,
        policies::failover_coordinator(context),
    );
    let name = context.names.failover_coordinator(slot);
    let more = iam_policy::Spec::new(name.clone(), &policies::failover_coordinator_more(context));
    let more: Handle<IamPolicy> = blueprint.add(
        format!("policy.{FAILOVER_COORDINATOR}.{slot}"),
        &roles::place(context, slot),
        (),
        move |()| more.clone(),
    );
    if let Some(attachments) = &role.attachments {
        blueprint.order(attachments, &more);
    }
    function(blueprint, context, common, role, bucket, (), |_, ()| {})
}

/// What the functions have in common.
struct Common {
    package: &'static str,
    slot: Slot,
    name: String,
    description: &'static str,
    code_sha256: String,
    architecture: &'static str,
    timeout_s: i32,
    memory_mb: i32,
    concurrency: Option<i32>,
    tracing: bool,
    environment: BTreeMap<String, String>,
}

impl Common {
    fn new(context: &Context<'_>, slot: Slot, package: &'static str, name: String) -> Self {
        let environment = [
            ("UNDERSTUDY_SUFFIX", context.spec.suffix.clone()),
            ("UNDERSTUDY_SLOT", slot.to_string()),
            (
                "UNDERSTUDY_PRIMARY_REGION",
                context.region(Slot::Primary).to_owned(),
            ),
            ("UNDERSTUDY_DR_REGION", context.region(Slot::Dr).to_owned()),
            (
                "UNDERSTUDY_WITNESS_REGION",
                context.region(Slot::Witness).to_owned(),
            ),
            ("RUST_LOG", context.spec.functions.log_level.clone()),
        ];
        Common {
            package,
            slot,
            name,
            description: "",
            code_sha256: context.spec.artifacts.get(package).cloned().unwrap_or_default(),
            architecture: context.spec.architecture.as_str(),
            timeout_s: 0,
            memory_mb: 0,
            concurrency: None,
            tracing: context.spec.functions.tracing,
            environment: environment
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.to_owned(), value.into());
    }
}

fn role(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    slot: Slot,
    package: &'static str,
    in_vpc: bool,
    statements: Vec<Value>,
) -> Role {
    let purpose = Purpose {
        what: package,
        slot,
        description: "Runs the function of the same name.",
        service: "lambda.amazonaws.com",
    };
    let own = (package == FAILOVER_COORDINATOR).then(|| {
        let name = context.names.failover_coordinator(slot);
        iam_policy::arn(context.account, &name)
    });
    let managed = std::iter::once(BASIC_EXECUTION)
        .chain(in_vpc.then_some(VPC_EXECUTION))
        .map(str::to_owned)
        .chain(own);
    roles::service(blueprint, context, purpose, managed.collect(), (), move |()| {
        statements.clone()
    })
}

/// Log group and function. The group comes first, or Lambda would make one that keeps everything for ever.
fn function<R: Refs>(
    blueprint: &mut Blueprint,
    context: &Context<'_>,
    common: Common,
    role: Role,
    bucket: &Handle<S3Bucket>,
    refs: R,
    finish: impl Fn(&mut lambda_function::Spec, R::Outputs) + Send + Sync + 'static,
) -> Handle<LambdaFunction> {
    let (slot, package) = (common.slot, common.package);
    let place = context.place(slot);
    let logs = log_group::Spec {
        name: format!("{}{}", log_group::LAMBDA_PREFIX, common.name),
        retention_days: i32::try_from(context.spec.retention.log_days).unwrap_or(i32::MAX),
        tagged: true,
    };
    let log_group: Handle<LogGroup> =
        blueprint.add(format!("log-group.{package}.{slot}"), &place, (), move |()| {
            logs.clone()
        });
    // The role goes before the group when a stack is torn down: the last lines of a call that is under way, allowed to no more,
    // cannot bring the group back.
    blueprint.order(&role.role, &log_group);
    let function = blueprint.add(
        format!("function.{package}.{slot}"),
        &place,
        (role.role.clone(), bucket.clone(), refs),
        move |(role, bucket, outputs): (iam_role::Outputs, s3_bucket::Outputs, R::Outputs)| {
            let mut spec = lambda_function::Spec {
                name: common.name.clone(),
                description: common.description.to_owned(),
                code_sha256: common.code_sha256.clone(),
                source: lambda_function::Source {
                    bucket: bucket.bucket,
                    package: package.to_owned(),
                },
                role_arn: role.arn,
                architecture: common.architecture.to_owned(),
                runtime: RUNTIME.into(),
                memory_mb: common.memory_mb,
                timeout_s: common.timeout_s,
                environment: common.environment.clone(),
                subnet_ids: BTreeSet::new(),
                security_group_ids: BTreeSet::new(),
                reserved_concurrency: common.concurrency,
                tracing: common.tracing,
                tagged: true,
            };
            finish(&mut spec, outputs);
            spec
        },
    );
    role.before(blueprint, &function);
    blueprint.order(&function, &log_group);
    function
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_outlives_the_task_that_it_waits_for() {
        const { assert!(PROCESSOR_TIMEOUT_S < COORDINATOR_TIMEOUT_S) };
    }
}
