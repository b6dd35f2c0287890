//! A domain of one's own: in each serving region a certificate and a custom domain for the public name, and alias records that
//! fail over between them. The health checks keep looking at each region's own host: the public name leads to one region only,
//! and a check that followed it would say of the standby what is true of the other.

use continuity::names::{Names, Slot};

use super::Context;
use crate::graph::{Blueprint, Handle};
use crate::resources::alias_record::{self, AliasRecord};
use crate::resources::api_domain::{self, ApiDomain};
use crate::resources::api_mapping::{self, ApiMapping};
use crate::resources::api_stage::{self, ApiStage};
use crate::resources::certificate::{self, Certificate};
use crate::resources::health_check::{self, HealthCheck};
use crate::resources::hosted_zone::{self, HostedZone};

/// What answers under the public name in a slot's region.
#[derive(Debug, Clone)]
pub struct Behind<'a> {
    /// The zone that the name is in.
    pub zone: &'a Handle<HostedZone>,
    /// The region's stage.
    pub stage: &'a Handle<ApiStage>,
    /// The region's health check.
    pub check: &'a Handle<HealthCheck>,
}

/// Certificate, custom domain, mapping and failover record of a slot. The domain is in the keys of what is named by it: another
/// domain is another resource, and the old one stays, and serves, until it is pruned.
pub fn domain(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot, behind: &Behind<'_>) {
    let place = context.place(slot);
    let zone_name = context.spec.zone();
    let name = Names::public_name(&zone_name);
    let (for_certificate, its_zone) = (name.clone(), zone_name.clone());
    let certificate: Handle<Certificate> = blueprint.add(
        format!("certificate.{zone_name}.{slot}"),
        &place,
        behind.zone.clone(),
        move |zone: hosted_zone::Outputs| certificate::Spec {
            domain: for_certificate.clone(),
            zone_id: zone.zone_id,
            zone: its_zone.clone(),
            proven: true,
            tagged: true,
        },
    );
    let for_domain = name.clone();
    let domain: Handle<ApiDomain> = blueprint.add(
        format!("api-domain.{zone_name}.{slot}"),
        &place,
        certificate,
        move |certificate: certificate::Outputs| api_domain::Spec {
            domain: for_domain.clone(),
            certificate_arn: certificate.arn,
            security_policy: "TLS_1_2".into(),
            tagged: true,
        },
    );
    let mapping: Handle<ApiMapping> = blueprint.add(
        format!("api-mapping.{slot}"),
        &place,
        (domain.clone(), behind.stage.clone()),
        |(domain, stage): (api_domain::Outputs, api_stage::Outputs)| api_mapping::Spec {
            domain: domain.domain,
            rest_api_id: stage.rest_api_id,
            stage: stage.stage,
        },
    );
    let failover = if slot == Slot::Primary {
        "PRIMARY"
    } else {
        "SECONDARY"
    };
    let record: Handle<AliasRecord> = blueprint.add(
        format!("alias-record.{slot}"),
        &context.global(),
        (behind.zone.clone(), domain, behind.check.clone()),
        move |(zone, domain, check): (hosted_zone::Outputs, api_domain::Outputs, health_check::Outputs)| {
            alias_record::Spec {
                zone_id: zone.zone_id,
                name: name.clone(),
                set_identifier: slot.to_string(),
                failover: failover.into(),
                target: domain.regional_domain,
                target_zone_id: domain.regional_zone_id,
                health_check_id: check.id,
            }
        },
    );
    // Nobody is sent where nothing answers yet.
    blueprint.order(&record, &mapping);
}

#[cfg(test)]
mod tests {
    use crate::blueprint::blueprint;
    use crate::spec::Spec;

    #[test]
    fn a_domain_brings_aliases_in_the_place_of_cnames() {
        let spec = Spec {
            domain: Some("payments.example.com".into()),
            ..Spec::default()
        };
        let stack = blueprint(&spec, "000000000000");
        stack.validate().expect("a graph");
        let kinds = |kind: &str| stack.nodes().iter().filter(|node| node.kind == kind).count();
        for kind in ["certificate", "api-domain", "api-mapping", "alias-record"] {
            assert_eq!(kinds(kind), 2, "{kind}");
        }
        assert_eq!(kinds("record-set"), 0);
        let without = blueprint(&Spec::default(), "000000000000");
        assert!(without.nodes().iter().all(|node| node.kind != "certificate"));
    }
}
