//! A regional custom domain of API Gateway: the public name, answered in this region with this region's certificate. Which API
//! answers is `api-mapping`; which region is asked is DNS's business.

use std::collections::HashMap;

use aws_sdk_apigateway::types::{
    DomainName, DomainNameStatus, EndpointConfiguration, EndpointType, Op, PatchOperation, SecurityPolicy,
};
use serde::{Deserialize, Serialize};

use super::tagging::{key_of, pairs, tag_map, tagged};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

const GONE: &[&str] = &["NotFoundException"];

/// The kind.
#[derive(Debug)]
pub struct ApiDomain;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The name.
    pub domain: String,
    /// ARN of its certificate in this region.
    pub certificate_arn: String,
    /// `TLS_1_2`: nothing older.
    pub security_policy: String,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The name.
    pub domain: String,
    /// The host that an alias leads to.
    pub regional_domain: String,
    /// The hosted zone of that host, which an alias names too.
    pub regional_zone_id: String,
}

impl Kind for ApiDomain {
    const NAME: &'static str = "api-domain";
    const IMMUTABLE: &'static [&'static str] = &["domain"];
    const ARNS: &'static [&'static str] = &["apigateway:/domainnames/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let request = site.cloud.apigateway(site.region).get_domain_name();
        let result = request.domain_name(&spec.domain).send().await;
        let answer = absent(result, GONE).map_err(|e| site.fail("GetDomainName", &spec.domain, e))?;
        Ok(answer.map(|live| {
            let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
            let none = HashMap::new();
            Live {
                spec: Spec {
                    domain: spec.domain.clone(),
                    certificate_arn: text(live.regional_certificate_arn()),
                    security_policy: text(live.security_policy().map(SecurityPolicy::as_str)),
                    tagged: tagged(site, pairs(live.tags().unwrap_or(&none))),
                },
                outputs: Outputs {
                    domain: spec.domain.clone(),
                    regional_domain: text(live.regional_domain_name()),
                    regional_zone_id: text(live.regional_hosted_zone_id()),
                },
                settling: settling(live.domain_name_status(), live.domain_name_status_message()),
            }
        }))
    }

    /// One call in 30 seconds and account is allowed; the engine tries again.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let regional = EndpointConfiguration::builder()
            .types(EndpointType::Regional)
            .build();
        let result = site
            .cloud
            .apigateway(site.region)
            .create_domain_name()
            .domain_name(&spec.domain)
            .regional_certificate_arn(&spec.certificate_arn)
            .endpoint_configuration(regional)
            .security_policy(SecurityPolicy::from(spec.security_policy.as_str()))
            .set_tags(Some(tag_map(site)))
            .send()
            .await;
        result.map_err(|e| site.fail("CreateDomainName", &spec.domain, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let gateway = site.cloud.apigateway(site.region);
        let mut operations = Vec::new();
        if spec.certificate_arn != live.spec.certificate_arn {
            operations.push(replace("/regionalCertificateArn", &spec.certificate_arn));
        }
        if spec.security_policy != live.spec.security_policy {
            operations.push(replace("/securityPolicy", &spec.security_policy));
        }
        if !operations.is_empty() {
            let request = gateway.update_domain_name().domain_name(&spec.domain);
            let result = request.set_patch_operations(Some(operations)).send().await;
            result.map_err(|e| site.fail("UpdateDomainName", &spec.domain, e))?;
        }
        if !live.spec.tagged {
            let arn = format!("arn:aws:apigateway:{}::/domainnames/{}", site.region, spec.domain);
            let request = gateway.tag_resource().resource_arn(arn);
            let result = request.set_tags(Some(tag_map(site))).send().await;
            result.map_err(|e| site.fail("TagResource", &spec.domain, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.domain).await
    }

    /// One call in 30 seconds and account is allowed; the engine tries again.
    async fn discard(site: &Site<'_>, domain: &str) -> Result<(), KindError> {
        let request = site
            .cloud
            .apigateway(site.region)
            .delete_domain_name()
            .domain_name(domain);
        absent(request.send().await, GONE).map_err(|e| site.fail("DeleteDomainName", domain, e))?;
        Ok(())
    }

    /// By tag.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let gateway = site.cloud.apigateway(site.region);
        let request = gateway.get_domain_names().limit(500);
        let pages: Result<Vec<DomainName>, _> = request.into_paginator().items().send().collect().await;
        let domains = pages.map_err(|e| site.fail("GetDomainNames", site.suffix, e))?;
        let ours = domains.iter().filter_map(|domain| {
            let key = key_of(site, pairs(domain.tags()?))?;
            Some(site.found::<ApiDomain>(domain.domain_name()?, Some(key)))
        });
        Ok(ours.collect())
    }
}

fn replace(path: &str, value: &str) -> PatchOperation {
    let operation = PatchOperation::builder().op(Op::Replace);
    operation.path(path).value(value).build()
}

fn settling(status: Option<&DomainNameStatus>, message: Option<&str>) -> Option<String> {
    match status {
        None | Some(DomainNameStatus::Available) => None,
        Some(status) => {
            let reason = message.map(|text| format!(": {text}")).unwrap_or_default();
            Some(format!("domain is {}{reason}", status.as_str().to_lowercase()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_is_being_updated_is_settling_and_says_why() {
        assert_eq!(settling(Some(&DomainNameStatus::Available), None), None);
        assert_eq!(
            settling(Some(&DomainNameStatus::Updating), Some("a new certificate")).as_deref(),
            Some("domain is updating: a new certificate")
        );
    }
}
