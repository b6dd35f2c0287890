//! The checks. Each asks, and judges in a function of its own that is tested without AWS.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use continuity::error::chain;
use continuity::names::Slot;
use futures::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use infra::blueprint::operator;
use infra::kind::STACK_TAG;

use super::{Finding, State};
use crate::artifacts::{self, build, manifest};
use crate::stack::Stack;

const ENGINE: &str = "aurora-postgresql";
/// Lambda keeps this much of an account's concurrency for functions without a reservation.
const UNRESERVED: i64 = 100;
/// AWS refuses requests that are signed with a clock further off.
const MOST_SKEW_S: i64 = 300;
/// A name server that knows nothing of this machine's network.
const PUBLIC_RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));

fn unknown(check: &'static str, what: &str, error: &(dyn std::error::Error + 'static)) -> Finding {
    Finding::new(check, State::Unknown, format!("{what}: {}", chain(error)))
}

/// Who asks.
pub async fn credentials(stack: &Stack) -> Vec<Finding> {
    let check = "credentials";
    let identity = stack.cloud.sts(stack.home()).get_caller_identity().send().await;
    vec![match identity {
        Ok(identity) => {
            let who = identity.arn().unwrap_or("somebody");
            Finding::new(check, State::Ok, format!("{who} in account {}", stack.account))
        }
        Err(error) => Finding::new(check, State::Failed, chain(&error))
            .remedy("check them with `aws sts get-caller-identity`"),
    }]
}

/// Catches the time that AWS answers with.
#[derive(Debug, Clone, Default)]
struct DateHeader(Arc<Mutex<Option<String>>>);

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for DateHeader {
    fn name(&self) -> &'static str {
        "DateHeader"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}

/// How far this machine's clock is off.
pub async fn clock(stack: &Stack) -> Vec<Finding> {
    let header = DateHeader::default();
    let call = stack.cloud.sts(stack.home()).get_caller_identity().customize();
    let answer = call.interceptor(header.clone()).send().await;
    let here_s = i64::try_from(continuity::clock::now_ms() / 1000).unwrap_or(i64::MAX);
    if let Err(error) = answer {
        return vec![unknown("clock", "AWS's time", &error)];
    }
    let date = header.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let there = date.and_then(|date| DateTime::from_str(&date, Format::HttpDate).ok());
    vec![judge_clock(there.map(|there| here_s - there.secs()))]
}

fn judge_clock(ahead_s: Option<i64>) -> Finding {
    let Some(ahead_s) = ahead_s else {
        return Finding::new("clock", State::Unknown, "the answer has no date");
    };
    let off = ahead_s.abs();
    let state = match off {
        0..=30 => State::Ok,
        31..MOST_SKEW_S => State::Warning,
        _ => State::Failed,
    };
    let finding = Finding::new("clock", state, format!("{off} s from AWS's"));
    if state == State::Ok {
        return finding;
    }
    finding.remedy("switch on time synchronisation: AWS refuses requests that are five minutes off")
}

/// The role behind a session, or the user; `None` for the root user, who may do everything.
fn principal(arn: &str) -> Option<String> {
    if arn.ends_with(":root") {
        return None;
    }
    let Some((before, session)) = arn.split_once(":assumed-role/") else {
        return Some(arn.to_owned());
    };
    let account = before.rsplit(':').next().unwrap_or_default();
    let role = session.split('/').next().unwrap_or_default();
    Some(format!("arn:aws:iam::{account}:role/{role}"))
}

/// Whether the policies of the caller allow what an operator does.
pub async fn permissions(stack: &Stack) -> Vec<Finding> {
    let check = "permissions";
    let help = "`understudy doctor --policy` prints the policy that an operator needs";
    let identity = match stack.cloud.sts(stack.home()).get_caller_identity().send().await {
        Ok(identity) => identity,
        Err(error) => return vec![unknown(check, "the caller", &error)],
    };
    let Some(principal) = principal(identity.arn().unwrap_or_default()) else {
        return vec![
            Finding::new(check, State::Warning, "the root user may do everything")
                .remedy(format!("use a role with less: {help}")),
        ];
    };
    let policy = operator::policy(&stack.spec, &stack.account);
    let iam = stack.cloud.iam(stack.home());
    let asked = operator::permissions(&policy)
        .into_iter()
        .map(|(actions, resources)| {
            iam.simulate_principal_policy()
                .policy_source_arn(&principal)
                .set_action_names(Some(actions))
                .set_resource_arns(Some(resources))
                .send()
        });
    let mut denied = BTreeSet::new();
    let mut asked_for = 0;
    for answer in join_all(asked).await {
        match answer {
            Ok(answer) => {
                for result in answer.evaluation_results() {
                    asked_for += 1;
                    if result.eval_decision().as_str() != "allowed" {
                        denied.insert(result.eval_action_name().to_owned());
                    }
                }
            }
            Err(error) => {
                let what = "IAM does not say what is allowed (iam:SimulatePrincipalPolicy)";
                return vec![unknown(check, what, &error).remedy(help)];
            }
        }
    }
    if denied.is_empty() {
        return vec![Finding::new(
            check,
            State::Ok,
            format!("{asked_for} actions of an operator are allowed"),
        )];
    }
    let all: Vec<String> = denied.into_iter().collect();
    let shown = all.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    let more = if all.len() > 8 { ", ..." } else { "" };
    let text = format!("{} actions are not allowed: {shown}{more}", all.len());
    vec![Finding::new(check, State::Failed, text).remedy(help)]
}

/// Whether the account uses the three regions.
pub async fn regions(stack: &Stack) -> Vec<Finding> {
    let wanted = Slot::ALL.map(|slot| stack.spec.regions.of(slot).to_owned());
    let asked = stack
        .cloud
        .ec2(stack.home())
        .describe_regions()
        .all_regions(true)
        .send()
        .await;
    let known = match asked {
        Ok(answer) => answer,
        Err(error) => return vec![unknown("regions", "the account's regions", &error)],
    };
    let off: Vec<&String> = wanted
        .iter()
        .filter(|region| {
            !known.regions().iter().any(|known| {
                known.region_name() == Some(region.as_str()) && known.opt_in_status() != Some("not-opted-in")
            })
        })
        .collect();
    if off.is_empty() {
        return vec![Finding::new(
            "regions",
            State::Ok,
            format!("{} are enabled", wanted.join(", ")),
        )];
    }
    off.into_iter()
        .map(|region| {
            Finding::new(
                "regions",
                State::Failed,
                format!("{region} is not enabled for this account"),
            )
            .remedy(format!("aws account enable-region --region-name {region}"))
        })
        .collect()
}

/// Whether the serving regions have the zones that the subnets are in.
pub async fn zones(stack: &Stack) -> Vec<Finding> {
    let look = Slot::SERVING.map(|slot| async move {
        let region = stack.spec.regions.of(slot);
        match stack.cloud.ec2(region).describe_availability_zones().send().await {
            Ok(answer) => {
                let there: Vec<String> = answer
                    .availability_zones()
                    .iter()
                    .filter(|zone| zone.state().is_none_or(|state| state.as_str() == "available"))
                    .filter_map(|zone| zone.zone_name().map(str::to_owned))
                    .collect();
                judge_zones(region, stack.spec.network.zones, &there)
            }
            Err(error) => unknown("zones", &format!("the zones of {region}"), &error),
        }
    });
    join_all(look).await
}

fn judge_zones(region: &str, wanted: u8, there: &[String]) -> Finding {
    let names: Vec<String> = (b'a'..)
        .take(usize::from(wanted))
        .map(|letter| format!("{region}{}", char::from(letter)))
        .collect();
    let missing: Vec<&str> = names
        .iter()
        .filter(|name| !there.contains(name))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return Finding::new("zones", State::Ok, format!("{} are available", names.join(", ")));
    }
    Finding::new(
        "zones",
        State::Failed,
        format!("this account has no {}", missing.join(", ")),
    )
    .remedy(format!(
        "it has {}: set network.zones to fit, or use another region",
        there.join(", ")
    ))
}

/// Whether an account has the concurrency that the payment-processor reserves.
pub async fn concurrency(stack: &Stack) -> Vec<Finding> {
    let look = Slot::SERVING.map(|slot| async move {
        let region = stack.spec.regions.of(slot);
        let lambda = stack.cloud.lambda(region);
        let settings = match lambda.get_account_settings().send().await {
            Ok(settings) => settings,
            Err(error) => return unknown("concurrency", &format!("Lambda's limits in {region}"), &error),
        };
        let Some(limit) = settings.account_limit() else {
            return Finding::new(
                "concurrency",
                State::Unknown,
                format!("Lambda names no limit in {region}"),
            );
        };
        let name = stack.names().payment_processor(slot);
        let held = lambda.get_function_concurrency().function_name(name).send().await;
        let held = held
            .ok()
            .and_then(|held| held.reserved_concurrent_executions())
            .unwrap_or(0);
        let free = limit
            .unreserved_concurrent_executions()
            .unwrap_or(limit.concurrent_executions());
        let wanted = i64::from(stack.spec.functions.payment_processor_concurrency);
        judge_concurrency(region, i64::from(free), i64::from(held), wanted)
    });
    join_all(look).await
}

fn judge_concurrency(region: &str, free: i64, held: i64, wanted: i64) -> Finding {
    let left = free + held - wanted;
    if wanted == 0 || left >= UNRESERVED {
        return Finding::new(
            "concurrency",
            State::Ok,
            format!(
                "{region} has {} calls at once, {wanted} are reserved",
                free + held
            ),
        );
    }
    Finding::new(
        "concurrency",
        State::Failed,
        format!("{region} has {} calls at once: {wanted} reserved would leave {left}, and AWS keeps {UNRESERVED}", free + held),
    )
    .remedy("ask AWS for more (Service Quotas, Lambda, concurrent executions), or lower functions.payment_processor_concurrency")
}

/// One quota that the stack takes from.
struct Quota {
    what: &'static str,
    service: &'static str,
    code: &'static str,
    region: String,
    /// What is used already, and what the stack needs beyond it.
    used: Result<usize, String>,
    needed: usize,
}

/// Whether there is room for the stack.
pub async fn quotas(stack: &Stack) -> Vec<Finding> {
    let regional = Slot::SERVING.map(|slot| async move {
        let region = stack.spec.regions.of(slot).to_owned();
        let (vpcs, clusters, apis) = futures::join!(
            stack.cloud.ec2(&region).describe_vpcs().send(),
            stack.cloud.rds(&region).describe_db_clusters().send(),
            stack.cloud.apigateway(&region).get_rest_apis().limit(500).send(),
        );
        let suffix = stack.spec.suffix.as_str();
        let our_vpc = vpcs.as_ref().is_ok_and(|vpcs| {
            vpcs.vpcs().iter().any(|vpc| {
                vpc.tags()
                    .iter()
                    .any(|tag| tag.key() == Some(STACK_TAG) && tag.value() == Some(suffix))
            })
        });
        let name = stack.names().aurora_cluster(slot);
        let our_cluster = clusters.as_ref().is_ok_and(|answer| {
            answer
                .db_clusters()
                .iter()
                .any(|cluster| cluster.db_cluster_identifier() == Some(&name))
        });
        let api = stack.names().rest_api(slot);
        let our_api = apis
            .as_ref()
            .is_ok_and(|answer| answer.items().iter().any(|item| item.name() == Some(&api)));
        vec![
            Quota {
                what: "VPCs",
                service: "vpc",
                code: "L-F678F1CE",
                used: vpcs
                    .map(|answer| answer.vpcs().len())
                    .map_err(|error| chain(&error)),
                needed: usize::from(!our_vpc),
                region: region.clone(),
            },
            Quota {
                what: "database clusters",
                service: "rds",
                code: "L-952B80B8",
                used: clusters
                    .map(|answer| answer.db_clusters().len())
                    .map_err(|error| chain(&error)),
                needed: usize::from(!our_cluster),
                region: region.clone(),
            },
            Quota {
                what: "regional APIs",
                service: "apigateway",
                code: "L-AA0FF27B",
                used: apis
                    .map(|answer| answer.items().len())
                    .map_err(|error| chain(&error)),
                needed: usize::from(!our_api),
                region: region.clone(),
            },
            Quota {
                what: "API requests per second",
                service: "apigateway",
                code: "L-8A5B8E43",
                used: Ok(0),
                needed: usize::try_from(stack.spec.api.rate_limit).unwrap_or(usize::MAX),
                region,
            },
        ]
    });
    let buckets = stack.cloud.s3(stack.home()).list_buckets().send().await;
    let ours = format!("-{}-{}", stack.spec.suffix, stack.account);
    let our_buckets = buckets.as_ref().map_or(0, |answer| {
        answer
            .buckets()
            .iter()
            .filter(|bucket| bucket.name().is_some_and(|name| name.ends_with(&ours)))
            .count()
    });
    let mut all: Vec<Quota> = join_all(regional).await.into_iter().flatten().collect();
    all.push(Quota {
        what: "buckets",
        service: "s3",
        code: "L-DC2B2D3D",
        used: buckets
            .map(|answer| answer.buckets().len())
            .map_err(|error| chain(&error)),
        needed: 5usize.saturating_sub(our_buckets),
        region: stack.home().to_owned(),
    });
    let asked = all.into_iter().map(|quota| async move {
        let answer = stack
            .cloud
            .quotas(&quota.region)
            .get_service_quota()
            .service_code(quota.service)
            .quota_code(quota.code)
            .send()
            .await;
        let limit = match answer {
            Ok(answer) => answer
                .quota()
                .and_then(|quota| quota.value())
                .ok_or_else(|| "Service Quotas names no value".to_owned()),
            Err(error) => Err(chain(&error)),
        };
        judge_quota(&quota, limit)
    });
    summed_up(join_all(asked).await)
}

fn judge_quota(quota: &Quota, limit: Result<f64, String>) -> Finding {
    let Quota {
        what, region, needed, ..
    } = quota;
    let (used, limit) = match (&quota.used, limit) {
        (Ok(used), Ok(limit)) => (*used, limit),
        (Err(why), _) => return Finding::new("quotas", State::Unknown, format!("{what} in {region}: {why}")),
        (_, Err(why)) => return Finding::new("quotas", State::Unknown, format!("{what} in {region}: {why}")),
    };
    if (used + needed) as f64 <= limit {
        let text = format!("{what} in {region}: {used} used, {needed} needed, {limit} allowed");
        return Finding::new("quotas", State::Ok, text);
    }
    Finding::new(
        "quotas",
        State::Failed,
        format!("{what} in {region}: {used} used, {needed} more needed, and {limit} allowed"),
    )
    .remedy(format!(
        "aws service-quotas request-service-quota-increase --region {region} --service-code {} --quota-code {} --desired-value {}",
        quota.service,
        quota.code,
        used + needed
    ))
}

/// The same reason for many questions is one finding.
fn summed_up(findings: Vec<Finding>) -> Vec<Finding> {
    let (silent, mut told): (Vec<Finding>, Vec<Finding>) = findings
        .into_iter()
        .partition(|finding| finding.state == State::Unknown);
    if let Some(first) = silent.first() {
        let more = match silent.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        told.push(Finding::new(
            first.check,
            State::Unknown,
            format!("{}{more}", first.text),
        ));
    }
    told
}

/// Whether the roles are there that services work with.
pub async fn service_roles(stack: &Stack) -> Vec<Finding> {
    const ROLES: [(&str, &str); 3] = [
        (
            "AWSServiceRoleForDynamoDBReplication",
            "replication.dynamodb.amazonaws.com",
        ),
        ("AWSServiceRoleForRDS", "rds.amazonaws.com"),
        ("AWSServiceRoleForAPIGateway", "ops.apigateway.amazonaws.com"),
    ];
    let iam = stack.cloud.iam(stack.home());
    let asked = ROLES.map(|(role, service)| {
        let call = iam.get_role().role_name(role).send();
        async move {
            match call.await {
                Ok(_) => Finding::new("service roles", State::Ok, format!("{role} is there")),
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|error| error.is_no_such_entity_exception()) =>
                {
                    let text = format!(
                        "{role} is not there; AWS makes it when it is first needed, if that is allowed"
                    );
                    Finding::new("service roles", State::Warning, text).remedy(format!(
                        "aws iam create-service-linked-role --aws-service-name {service}"
                    ))
                }
                Err(error) => unknown("service roles", role, &error),
            }
        }
    });
    join_all(asked).await
}

/// Whether both regions have the engine, with global databases, and instances of the class.
pub async fn engine(stack: &Stack) -> Vec<Finding> {
    let look = Slot::SERVING.map(|slot| async move {
        let region = stack.spec.regions.of(slot);
        let aurora = &stack.spec.aurora;
        let rds = stack.cloud.rds(region);
        let (versions, classes) = futures::join!(
            rds.describe_db_engine_versions()
                .engine(ENGINE)
                .engine_version(&aurora.engine_version)
                .send(),
            rds.describe_orderable_db_instance_options()
                .engine(ENGINE)
                .engine_version(&aurora.engine_version)
                .db_instance_class(&aurora.instance_class)
                .send(),
        );
        let version = match versions {
            Ok(answer) => {
                let found = answer.db_engine_versions().first();
                judge_version(
                    region,
                    &aurora.engine_version,
                    found.map(|version| version.supports_global_databases()),
                )
            }
            Err(error) => unknown("engine", &format!("versions in {region}"), &error),
        };
        let class = match classes {
            Ok(answer) if answer.orderable_db_instance_options().is_empty() => Finding::new(
                "engine",
                State::Failed,
                format!("{region} has no {} for version {}", aurora.instance_class, aurora.engine_version),
            )
            .remedy(format!(
                "aws rds describe-orderable-db-instance-options --region {region} --engine {ENGINE} --engine-version {} lists them",
                aurora.engine_version
            )),
            Ok(_) => Finding::new("engine", State::Ok, format!("{region} has {}", aurora.instance_class)),
            Err(error) => unknown("engine", &format!("classes in {region}"), &error),
        };
        vec![version, class]
    });
    join_all(look).await.into_iter().flatten().collect()
}

fn judge_version(region: &str, version: &str, global: Option<Option<bool>>) -> Finding {
    let list =
        format!("aws rds describe-db-engine-versions --region {region} --engine {ENGINE} lists the versions");
    match global {
        None => Finding::new(
            "engine",
            State::Failed,
            format!("{region} has no {ENGINE} {version}"),
        )
        .remedy(list),
        Some(Some(false)) => Finding::new(
            "engine",
            State::Failed,
            format!("{ENGINE} {version} has no global databases in {region}"),
        )
        .remedy(list),
        Some(Some(true)) => Finding::new(
            "engine",
            State::Ok,
            format!("{region} has {ENGINE} {version} with global databases"),
        ),
        Some(None) => Finding::new(
            "engine",
            State::Unknown,
            format!("{region} has {ENGINE} {version}, and does not say whether with global databases"),
        ),
    }
}

/// Whether another account has a bucket of ours: their names are the world's.
pub async fn names(stack: &Stack) -> Vec<Finding> {
    let names = stack.names();
    let mut buckets: Vec<(Slot, String)> = Slot::ALL
        .map(|slot| (slot, names.artifact_bucket(slot, &stack.account)))
        .into();
    buckets.extend(Slot::SERVING.map(|slot| (slot, names.data_bucket(slot, &stack.account))));
    let count = buckets.len();
    let asked = buckets.into_iter().map(|(slot, bucket)| async move {
        let s3 = stack.cloud.s3(stack.spec.regions.of(slot));
        let answer = s3
            .head_bucket()
            .bucket(&bucket)
            .expected_bucket_owner(&stack.account)
            .send()
            .await;
        let Err(error) = answer else { return None };
        let status = error.raw_response().map(|raw| raw.status().as_u16());
        match status {
            Some(404) => None,
            Some(403) => Some(
                Finding::new(
                    "names",
                    State::Failed,
                    format!("bucket `{bucket}` is another account's, or closed to you"),
                )
                .remedy("use another suffix"),
            ),
            Some(301) => Some(
                Finding::new(
                    "names",
                    State::Failed,
                    format!("bucket `{bucket}` is in another region"),
                )
                .remedy("use another suffix"),
            ),
            _ => Some(unknown("names", &bucket, &error)),
        }
    });
    let found: Vec<Finding> = join_all(asked).await.into_iter().flatten().collect();
    if found.is_empty() {
        return vec![Finding::new(
            "names",
            State::Ok,
            format!("{count} bucket names are free or ours"),
        )];
    }
    summed_up(found)
}

/// Whether the world asks our zone for the domain.
pub async fn domain(stack: &Stack) -> Vec<Finding> {
    let check = "domain";
    let Some(domain) = &stack.spec.domain else {
        return vec![
            Finding::new(
                check,
                State::Warning,
                format!(
                    "none is set: {} resolves nowhere but in its own zone",
                    stack.spec.zone()
                ),
            )
            .remedy("set `domain` in stack.toml"),
        ];
    };
    let route53 = stack.cloud.route53(stack.home());
    let listed = match route53
        .list_hosted_zones_by_name()
        .dns_name(format!("{domain}."))
        .send()
        .await
    {
        Ok(listed) => listed,
        Err(error) => return vec![unknown(check, "the hosted zone", &error)],
    };
    let zone = listed
        .hosted_zones()
        .iter()
        .find(|zone| zone.name().trim_end_matches('.') == domain);
    let Some(zone) = zone else {
        return vec![
            Finding::new(
                check,
                State::Warning,
                format!("{domain} has no hosted zone yet; `up` makes it"),
            )
            .remedy("then have the domain above it name the zone's name servers (NS records)"),
        ];
    };
    let ours = match route53.get_hosted_zone().id(zone.id()).send().await {
        Ok(answer) => answer
            .delegation_set()
            .map(|set| set.name_servers().to_vec())
            .unwrap_or_default(),
        Err(error) => return vec![unknown(check, "the zone's name servers", &error)],
    };
    let resolver = match public_resolver() {
        Ok(resolver) => resolver,
        Err(error) => return vec![unknown(check, "a public resolver", &error)],
    };
    let seen = match resolver.ns_lookup(format!("{domain}.")).await {
        Ok(found) => found
            .answers()
            .iter()
            .map(|record| record.data.to_string())
            .collect(),
        Err(error) if error.is_no_records_found() => Vec::new(),
        Err(error) => return vec![unknown(check, "the public name servers", &error)],
    };
    vec![judge_delegation(domain, &ours, &seen)]
}

/// A resolver that asks [`PUBLIC_RESOLVER`] only and caches nothing.
fn public_resolver() -> Result<TokioResolver, NetError> {
    let connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let server = NameServerConfig::new(PUBLIC_RESOLVER, true, connections);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.timeout = Duration::from_secs(1);
    options.attempts = 2;
    TokioResolver::builder_with_config(config, Default::default())
        .with_options(options)
        .build()
}

fn judge_delegation(domain: &str, ours: &[String], seen: &[String]) -> Finding {
    let set = |names: &[String]| -> BTreeSet<String> {
        names
            .iter()
            .map(|name| name.trim_end_matches('.').to_lowercase())
            .collect()
    };
    let (ours, seen) = (set(ours), set(seen));
    if ours == seen {
        return Finding::new(
            "domain",
            State::Ok,
            format!("{domain} is delegated to its hosted zone"),
        );
    }
    let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    let text = if seen.is_empty() {
        format!("{domain} is not delegated: nobody finds it, and no certificate can be issued")
    } else {
        format!(
            "{domain} is delegated to {}, which are not the zone's",
            list(seen)
        )
    };
    Finding::new("domain", State::Failed, text).remedy(format!(
        "in the domain above it, set the NS records of {domain} to {}",
        list(ours)
    ))
}

/// Whether there are packages to deploy, or the tools to make them.
pub async fn packages() -> Vec<Finding> {
    let check = "packages";
    let folder = match artifacts::default_folder() {
        Ok(folder) => folder,
        Err(error) => return vec![unknown(check, "this program", &error)],
    };
    let there = folder.clone();
    let loaded = tokio::task::spawn_blocking(move || manifest::load(&there)).await;
    if let Ok(Ok(packages)) = loaded {
        let text = format!("three for {} in `{}`", packages.architecture, folder.display());
        return vec![Finding::new(check, State::Ok, text)];
    }
    let missing = Finding::new(
        check,
        State::Warning,
        format!("not all three are in `{}`", folder.display()),
    );
    vec![match build::cargo_lambda_version().await {
        Ok(version) => missing.remedy(format!(
            "make them with `understudy build` ({version} is installed)"
        )),
        Err(_) => missing.remedy("`pip install cargo-lambda`, then `understudy build`"),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_aws_takes() {
        assert_eq!(judge_clock(Some(-3)).state, State::Ok);
        assert_eq!(judge_clock(Some(60)).state, State::Warning);
        assert_eq!(judge_clock(Some(-300)).state, State::Failed);
        assert_eq!(judge_clock(None).state, State::Unknown);
    }

    #[test]
    fn a_session_is_asked_about_by_its_role() {
        assert_eq!(
            principal("arn:aws:sts::123456789012:assumed-role/Admin/me").as_deref(),
            Some("arn:aws:iam::123456789012:role/Admin")
        );
        let user = "arn:aws:iam::123456789012:user/me";
        assert_eq!(principal(user).as_deref(), Some(user));
        assert_eq!(principal("arn:aws:iam::123456789012:root"), None);
    }

    #[test]
    fn zones_of_a_region_must_be_those_of_the_subnets() {
        let there: Vec<String> = ["a", "b", "c"].iter().map(|z| format!("us-east-2{z}")).collect();
        assert_eq!(judge_zones("us-east-2", 3, &there).state, State::Ok);
        let failed = judge_zones("us-east-2", 4, &there);
        assert_eq!(failed.state, State::Failed);
        assert!(failed.text.contains("us-east-2d"));
    }

    #[test]
    fn a_reservation_leaves_what_aws_keeps() {
        assert_eq!(judge_concurrency("r", 1000, 0, 32).state, State::Ok);
        assert_eq!(judge_concurrency("r", 100, 32, 32).state, State::Ok);
        assert_eq!(judge_concurrency("r", 10, 0, 32).state, State::Failed);
        assert_eq!(judge_concurrency("r", 10, 0, 0).state, State::Ok);
    }

    #[test]
    fn a_quota_is_judged_by_what_is_used_and_needed() {
        let quota = |used: Result<usize, String>| Quota {
            what: "VPCs",
            service: "vpc",
            code: "L-F678F1CE",
            region: "us-east-1".into(),
            used,
            needed: 1,
        };
        assert_eq!(judge_quota(&quota(Ok(4)), Ok(5.0)).state, State::Ok);
        let full = judge_quota(&quota(Ok(5)), Ok(5.0));
        assert_eq!(full.state, State::Failed);
        assert!(
            full.remedy
                .is_some_and(|remedy| remedy.contains("--desired-value 6"))
        );
        assert_eq!(
            judge_quota(&quota(Err("no".into())), Ok(5.0)).state,
            State::Unknown
        );
        assert_eq!(judge_quota(&quota(Ok(5)), Err("no".into())).state, State::Unknown);
    }

    #[test]
    fn silence_with_one_reason_is_one_finding() {
        let silent = |text: &str| Finding::new("quotas", State::Unknown, text);
        let told = Finding::new("quotas", State::Ok, "x");
        let findings = summed_up(vec![silent("a"), told.clone(), silent("b")]);
        assert_eq!(findings, [told, silent("a (and 1 more)")]);
    }

    #[test]
    fn a_version_needs_global_databases() {
        assert_eq!(judge_version("r", "16.8", Some(Some(true))).state, State::Ok);
        assert_eq!(judge_version("r", "16.8", Some(Some(false))).state, State::Failed);
        assert_eq!(judge_version("r", "16.8", None).state, State::Failed);
        assert_eq!(judge_version("r", "16.8", Some(None)).state, State::Unknown);
    }

    #[test]
    fn a_delegation_is_the_same_name_servers_in_any_order_and_case() {
        let ours = ["ns-1.awsdns-01.com".to_owned(), "ns-2.awsdns-02.org".to_owned()];
        let seen = ["NS-2.awsdns-02.org.".to_owned(), "ns-1.awsdns-01.com.".to_owned()];
        assert_eq!(judge_delegation("x.example.com", &ours, &seen).state, State::Ok);
        let none = judge_delegation("x.example.com", &ours, &[]);
        assert!(none.state == State::Failed && none.text.contains("not delegated"));
        assert_eq!(
            judge_delegation("x.example.com", &ours, &seen[..1]).state,
            State::Failed
        );
    }
}
