//! The public name: a zone, a health check of each serving region, and a failover record for each. None of it is touched
//! during a failover: `/health` says which region serves, and Route 53's data plane follows.

use continuity::names::{Names, Slot};

use super::{Context, domain};
use crate::graph::{Blueprint, Handle};
use crate::resources::api_stage::{self, ApiStage};
use crate::resources::health_check::{self, HealthCheck};
use crate::resources::hosted_zone::{self, HostedZone};
use crate::resources::record_set::{self, RecordSet};

/// Looks in a row that change a checker's mind, both ways: customers wait for it after every change of the active region. One checker
/// that errs counts for nothing, because more than 18 of 100 must agree
/// (<https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/dns-failover-determining-health-of-endpoints.html>); two looks, so that
/// one lost by all of them sends nobody to a region that does not serve.
const FAILURE_THRESHOLD: i32 = 2;
/// Seconds between looks: the fast one of the two that Route 53 offers.
const CHECK_INTERVAL_S: i32 = 10;
/// As long as resolvers may send clients to a region that has failed.
const TTL_S: i64 = 10;

/// Zone, checks and records. `stages` are the APIs of the serving slots, home first.
pub fn dns(blueprint: &mut Blueprint, context: &Context<'_>, stages: &[Handle<ApiStage>; 2]) {
    let global = context.global();
    let zone_name = context.spec.zone();
    let public_name = Names::public_name(&zone_name);
    let comment = format!("Understudy stack {}.", context.spec.suffix);
    // Another domain is another zone: the old one is in the configuration no more, and serves until it is pruned.
    let key = match &context.spec.domain {
        Some(domain) => format!("hosted-zone.{domain}"),
        None => "hosted-zone".to_owned(),
    };
    let zone: Handle<HostedZone> = blueprint.add(key, &global, (), move |()| hosted_zone::Spec {
        domain: zone_name.clone(),
        comment: comment.clone(),
        tagged: true,
    });
    for (slot, stage) in Slot::SERVING.into_iter().zip(stages) {
        let check: Handle<HealthCheck> = blueprint.add(
            format!("health-check.{slot}"),
            &global,
            stage.clone(),
            |stage: api_stage::Outputs| health_check::Spec {
                path: format!("/{}/health", stage.stage),
                host: stage.host,
                port: 443,
                interval_s: CHECK_INTERVAL_S,
                threshold: FAILURE_THRESHOLD,
                inverted: false,
                disabled: false,
                tagged: true,
            },
        );
        if context.spec.domain.is_some() {
            let behind = domain::Behind {
                zone: &zone,
                stage,
                check: &check,
            };
            domain::domain(blueprint, context, slot, &behind);
            continue;
        }
        let failover = if slot == Slot::Primary {
            "PRIMARY"
        } else {
            "SECONDARY"
        };
        let name = public_name.clone();
        let _: Handle<RecordSet> = blueprint.add(
            format!("record-set.{slot}"),
            &global,
            (zone.clone(), stage.clone(), check),
            move |(zone, stage, check): (hosted_zone::Outputs, api_stage::Outputs, health_check::Outputs)| {
                record_set::Spec {
                    zone_id: zone.zone_id,
                    name: name.clone(),
                    set_identifier: slot.to_string(),
                    failover: failover.into(),
                    target: stage.host,
                    ttl_s: TTL_S,
                    health_check_id: check.id,
                }
            },
        );
    }
}
