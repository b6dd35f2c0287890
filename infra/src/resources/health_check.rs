//! A Route 53 health check of an HTTPS endpoint. Found by the caller reference that we gave it, as a hosted zone is. Route 53
//! does not validate certificates and wants 2xx or 3xx within two seconds; a new check counts as healthy until it has looked.

use aws_sdk_route53::types::{HealthCheck as LiveCheck, HealthCheckConfig, HealthCheckType, TagResourceType};
use serde::{Deserialize, Serialize};

use super::hosted_zone::{fresh_reference, is_tagged, known_key, put_tags, reference};
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site};

/// The kind.
#[derive(Debug)]
pub struct HealthCheck;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The host to ask, by TLS with its name (SNI).
    pub host: String,
    /// The port.
    pub port: i32,
    /// The path, with its leading slash.
    pub path: String,
    /// Seconds between looks of one checker: 10 or 30, fixed for life.
    pub interval_s: i32,
    /// Looks in a row that change its mind.
    pub threshold: i32,
    /// Healthy counts as unhealthy. Never; but somebody may have switched it on.
    pub inverted: bool,
    /// A disabled check counts as healthy, which is why it is a difference.
    pub disabled: bool,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The check's id, a UUID.
    pub id: String,
}

impl Kind for HealthCheck {
    const NAME: &'static str = "health-check";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["interval_s"];
    const ARNS: &'static [&'static str] = &["route53:healthcheck/"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, _spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let ours = reference(site.suffix, site.key);
        let mut checks = site
            .cloud
            .route53(site.region)
            .list_health_checks()
            .into_paginator()
            .items()
            .send();
        while let Some(check) = checks.next().await {
            let check = check.map_err(|e| site.fail("ListHealthChecks", site.key, e))?;
            if check.caller_reference().starts_with(&ours) {
                let tagged = is_tagged(site, TagResourceType::Healthcheck, check.id()).await?;
                return Ok(Some(read(&check, tagged)));
            }
        }
        Ok(None)
    }

    /// Tags come with the first update: CreateHealthCheck takes none.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let config = HealthCheckConfig::builder()
            .r#type(HealthCheckType::Https)
            .fully_qualified_domain_name(&spec.host)
            .port(spec.port)
            .resource_path(&spec.path)
            .request_interval(spec.interval_s)
            .failure_threshold(spec.threshold)
            .enable_sni(true)
            .inverted(spec.inverted)
            .disabled(spec.disabled)
            .build()
            .expect("the type is given");
        site.cloud
            .route53(site.region)
            .create_health_check()
            .caller_reference(fresh_reference(site))
            .health_check_config(config)
            .send()
            .await
            .map_err(|e| site.fail("CreateHealthCheck", &spec.host, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let id = &live.outputs.id;
        let but_for_tags = Spec {
            tagged: live.spec.tagged,
            ..spec.clone()
        };
        if but_for_tags != live.spec {
            site.cloud
                .route53(site.region)
                .update_health_check()
                .health_check_id(id)
                .fully_qualified_domain_name(&spec.host)
                .port(spec.port)
                .resource_path(&spec.path)
                .failure_threshold(spec.threshold)
                .enable_sni(true)
                .inverted(spec.inverted)
                .disabled(spec.disabled)
                .send()
                .await
                .map_err(|e| site.fail("UpdateHealthCheck", id, e))?;
        }
        if !live.spec.tagged {
            put_tags(site, TagResourceType::Healthcheck, id).await?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.id).await
    }

    async fn discard(site: &Site<'_>, id: &str) -> Result<(), KindError> {
        let result = site
            .cloud
            .route53(site.region)
            .delete_health_check()
            .health_check_id(id)
            .send()
            .await;
        absent(result, &["NoSuchHealthCheck"]).map_err(|e| site.fail("DeleteHealthCheck", id, e))?;
        Ok(())
    }

    /// By caller reference, or by tag.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut checks = site
            .cloud
            .route53(site.region)
            .list_health_checks()
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(check) = checks.next().await {
            let check = check.map_err(|e| site.fail("ListHealthChecks", site.suffix, e))?;
            let (id, reference) = (check.id(), check.caller_reference());
            if let Some(key) = known_key(site, TagResourceType::Healthcheck, id, reference).await {
                found.push(site.found::<HealthCheck>(check.id(), Some(key)));
            }
        }
        Ok(found)
    }
}

fn read(check: &LiveCheck, tagged: bool) -> Live<Spec, Outputs> {
    let config = check.health_check_config();
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Live {
        spec: Spec {
            host: text(config.and_then(HealthCheckConfig::fully_qualified_domain_name)),
            port: config.and_then(HealthCheckConfig::port).unwrap_or_default(),
            path: text(config.and_then(HealthCheckConfig::resource_path)),
            interval_s: config
                .and_then(HealthCheckConfig::request_interval)
                .unwrap_or_default(),
            threshold: config
                .and_then(HealthCheckConfig::failure_threshold)
                .unwrap_or_default(),
            inverted: config.and_then(HealthCheckConfig::inverted).unwrap_or(false),
            disabled: config.and_then(HealthCheckConfig::disabled).unwrap_or(false),
            tagged,
        },
        outputs: Outputs {
            id: check.id().to_owned(),
        },
        settling: None,
    }
}
