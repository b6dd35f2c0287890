//! A public certificate of ACM with the DNS record that proves our right to the name, for as long as the certificate is renewed.
//! Certificates of one name in one account are all proven by the same record, whatever their region. Found by its name and tags.
//!
//! ACM issues it when it finds the record in public DNS: the zone must be delegated to its name servers, which only the owner of
//! the domain above can do. Until then the certificate is settling, and says so.

use aws_sdk_acm::types::{
    CertificateDetail, CertificateStatus, CertificateSummary, ResourceRecord as Proof, Tag, ValidationMethod,
};
use aws_sdk_route53::types::{ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType};
use serde::{Deserialize, Serialize};

use super::hosted_zone::{change, same_name};
use super::tagging::{key_of, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site, tags};

const GONE: &[&str] = &["ResourceNotFoundException"];
/// Renewals look it up once in a while; nothing else does.
const PROOF_TTL_S: i64 = 300;

/// The kind.
#[derive(Debug)]
pub struct Certificate;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The name that it is for.
    pub domain: String,
    /// The zone that the name is in.
    pub zone_id: String,
    /// That zone's name, for the person who must delegate it.
    pub zone: String,
    /// The proof is in the zone.
    pub proven: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its ARN.
    pub arn: String,
}

impl Kind for Certificate {
    const NAME: &'static str = "certificate";
    const IMMUTABLE: &'static [&'static str] = &["domain", "zone_id"];
    const ARNS: &'static [&'static str] = &["acm:certificate/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        for summary in summaries(site).await? {
            if summary.domain_name() != Some(spec.domain.as_str()) {
                continue;
            }
            let arn = summary.certificate_arn().unwrap_or_default();
            let live = read_tags(site, arn).await?;
            if key_of(site, live.iter().map(pair)).as_deref() != Some(site.key) {
                continue;
            }
            let Some(certificate) = describe(site, arn).await? else {
                continue;
            };
            if is_lost(&certificate) {
                continue;
            }
            let proven = match proof(&certificate) {
                Some(proof) => is_published(site, &spec.zone_id, proof).await?,
                None => false,
            };
            return Ok(Some(Live {
                spec: Spec {
                    proven,
                    tagged: tagged(site, live.iter().map(pair)),
                    ..spec.clone()
                },
                outputs: Outputs { arn: arn.to_owned() },
                settling: settling(&certificate, proven, &spec.zone),
            }));
        }
        Ok(None)
    }

    /// The proof comes with the first update, when ACM has said what it is.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .acm(site.region)
            .request_certificate()
            .domain_name(&spec.domain)
            .validation_method(ValidationMethod::Dns)
            // Two requests with one token within an hour are one certificate.
            .idempotency_token(token(site.key))
            .set_tags(Some(tag_list(site)))
            .send()
            .await
            .map_err(|e| site.fail("RequestCertificate", &spec.domain, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let arn = &live.outputs.arn;
        if !live.spec.proven
            && let Some(certificate) = describe(site, arn).await?
            && let Some(proof) = proof(&certificate)
        {
            publish(site, &spec.zone_id, proof).await?;
        }
        if !live.spec.tagged {
            let request = site.cloud.acm(site.region).add_tags_to_certificate();
            let result = request
                .certificate_arn(arn)
                .set_tags(Some(tag_list(site)))
                .send()
                .await;
            result.map_err(|e| site.fail("AddTagsToCertificate", arn, e))?;
        }
        Ok(())
    }

    /// The proof goes with the zone: the other region's certificate may still be renewed with it.
    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.arn).await
    }

    async fn discard(site: &Site<'_>, arn: &str) -> Result<(), KindError> {
        let request = site
            .cloud
            .acm(site.region)
            .delete_certificate()
            .certificate_arn(arn);
        absent(request.send().await, GONE).map_err(|e| site.fail("DeleteCertificate", arn, e))?;
        Ok(())
    }

    /// By tag.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut found = Vec::new();
        for summary in summaries(site).await? {
            let arn = summary.certificate_arn().unwrap_or_default();
            let live = read_tags(site, arn).await?;
            if let Some(key) = key_of(site, live.iter().map(pair)) {
                found.push(site.found::<Certificate>(arn, Some(key)));
            }
        }
        Ok(found)
    }
}

async fn summaries(site: &Site<'_>) -> Result<Vec<CertificateSummary>, KindError> {
    let request = site.cloud.acm(site.region).list_certificates();
    let pages: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
    pages.map_err(|e| site.fail("ListCertificates", site.key, e))
}

async fn describe(site: &Site<'_>, arn: &str) -> Result<Option<CertificateDetail>, KindError> {
    let request = site
        .cloud
        .acm(site.region)
        .describe_certificate()
        .certificate_arn(arn);
    let answer = absent(request.send().await, GONE).map_err(|e| site.fail("DescribeCertificate", arn, e))?;
    Ok(answer.and_then(|answer| answer.certificate))
}

/// It will never be issued (any more): another one is requested.
fn is_lost(certificate: &CertificateDetail) -> bool {
    use CertificateStatus::{Expired, Failed, Revoked, ValidationTimedOut};
    matches!(
        certificate.status(),
        Some(Expired | Failed | Revoked | ValidationTimedOut)
    )
}

/// What ACM wants to find in DNS. It says so some seconds after the request.
fn proof(certificate: &CertificateDetail) -> Option<&Proof> {
    let mut options = certificate.domain_validation_options().iter();
    options.find_map(|option| option.resource_record())
}

fn settling(certificate: &CertificateDetail, proven: bool, zone: &str) -> Option<String> {
    if certificate.status() != Some(&CertificateStatus::PendingValidation) {
        return None;
    }
    match proof(certificate) {
        None => Some("ACM to say which DNS record proves the name".into()),
        // To be published at once, which is an update.
        Some(_) if !proven => None,
        Some(_) => Some(format!(
            "ACM to find the proof in DNS: `{zone}` must be delegated to the name servers of its hosted zone"
        )),
    }
}

async fn is_published(site: &Site<'_>, zone_id: &str, proof: &Proof) -> Result<bool, KindError> {
    let result = site
        .cloud
        .route53(site.region)
        .list_resource_record_sets()
        .hosted_zone_id(zone_id)
        .start_record_name(proof.name())
        .start_record_type(RrType::Cname)
        .max_items(1)
        .send()
        .await;
    let answer = absent(result, &["NoSuchHostedZone"])
        .map_err(|e| site.fail("ListResourceRecordSets", proof.name(), e))?;
    let sets = answer
        .map(|answer| answer.resource_record_sets)
        .unwrap_or_default();
    Ok(sets.iter().any(|set| is_proof(set, proof)))
}

fn is_proof(set: &ResourceRecordSet, proof: &Proof) -> bool {
    same_name(set.name(), proof.name())
        && set.r#type() == &RrType::Cname
        && set
            .resource_records()
            .iter()
            .any(|record| same_name(record.value(), proof.value()))
}

async fn publish(site: &Site<'_>, zone_id: &str, proof: &Proof) -> Result<(), KindError> {
    let value = ResourceRecord::builder().value(proof.value()).build();
    let set = ResourceRecordSet::builder()
        .name(proof.name())
        .r#type(RrType::Cname)
        .ttl(PROOF_TTL_S)
        .resource_records(value.expect("the value is given"))
        .build()
        .expect("name and type are given");
    let batch = ChangeBatch::builder()
        .changes(change(ChangeAction::Upsert, set))
        .build();
    site.cloud
        .route53(site.region)
        .change_resource_record_sets()
        .hosted_zone_id(zone_id)
        .change_batch(batch.expect("a change is given"))
        .send()
        .await
        .map_err(|e| site.fail("ChangeResourceRecordSets", proof.name(), e))?;
    Ok(())
}

/// At most 32 of letters, digits and underscores.
fn token(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).take(32).collect()
}

fn pair(tag: &Tag) -> (&str, &str) {
    (tag.key(), tag.value().unwrap_or_default())
}

fn tag_list(site: &Site<'_>) -> Vec<Tag> {
    let tag = |(key, value)| {
        Tag::builder()
            .key(key)
            .value(value)
            .build()
            .expect("the key is set")
    };
    tags(site).into_iter().map(tag).collect()
}

async fn read_tags(site: &Site<'_>, arn: &str) -> Result<Vec<Tag>, KindError> {
    let request = site
        .cloud
        .acm(site.region)
        .list_tags_for_certificate()
        .certificate_arn(arn);
    let answer =
        absent(request.send().await, GONE).map_err(|e| site.fail("ListTagsForCertificate", arn, e))?;
    Ok(answer.and_then(|answer| answer.tags).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_sdk_acm::types::{DomainValidation, RecordType};

    use super::*;

    fn certificate(status: CertificateStatus, told: bool) -> CertificateDetail {
        let proof = Proof::builder()
            .name("_x.api.example.com.")
            .value("_y.acm-validations.aws.");
        let proof = proof.r#type(RecordType::Cname).build().unwrap();
        let option = DomainValidation::builder().domain_name("api.example.com");
        let option = option.set_resource_record(told.then_some(proof)).build().unwrap();
        CertificateDetail::builder()
            .status(status)
            .domain_validation_options(option)
            .build()
    }

    #[test]
    fn a_certificate_waits_for_acm_then_for_our_record_and_then_for_the_delegation() {
        let pending = |told| certificate(CertificateStatus::PendingValidation, told);
        let words = settling(&pending(false), false, "example.com").unwrap();
        assert!(words.contains("which DNS record"), "{words}");
        assert_eq!(
            settling(&pending(true), false, "example.com"),
            None,
            "ours to publish"
        );
        let words = settling(&pending(true), true, "example.com").unwrap();
        assert!(words.contains("`example.com` must be delegated"), "{words}");
        assert_eq!(
            settling(&certificate(CertificateStatus::Issued, true), true, "example.com"),
            None
        );
    }

    #[test]
    fn a_certificate_that_cannot_be_issued_any_more_is_requested_again() {
        assert!(is_lost(&certificate(CertificateStatus::ValidationTimedOut, true)));
        assert!(!is_lost(&certificate(CertificateStatus::PendingValidation, true)));
    }

    #[test]
    fn the_proof_is_known_by_name_and_value() {
        let certificate = certificate(CertificateStatus::Issued, true);
        let set = |value: &str| {
            let record = ResourceRecord::builder().value(value).build().unwrap();
            let set = ResourceRecordSet::builder()
                .name("_x.api.example.com")
                .r#type(RrType::Cname);
            set.resource_records(record).build().unwrap()
        };
        let proof = proof(&certificate).unwrap();
        assert!(is_proof(&set("_y.acm-validations.aws"), proof));
        assert!(!is_proof(&set("elsewhere.example.com"), proof));
    }
}
