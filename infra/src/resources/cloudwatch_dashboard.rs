//! A CloudWatch dashboard. Dashboards have no regions and take no tags; this one is found by its name. CloudWatch keeps the body
//! as text, so bodies are compared as JSON.

use continuity::names::Names;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::documents::canonical;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Scope, Site};

const GONE: &[&str] = &[
    "ResourceNotFound",
    "ResourceNotFoundException",
    "DashboardNotFoundError",
];

/// The kind.
#[derive(Debug)]
pub struct CloudwatchDashboard;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub body: Value,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for CloudwatchDashboard {
    const NAME: &'static str = "cloudwatch-dashboard";
    const SCOPE: Scope = Scope::Global;
    const IMMUTABLE: &'static [&'static str] = &["name"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let request = site.cloud.cloudwatch(site.region).get_dashboard();
        let result = request.dashboard_name(&spec.name).send().await;
        let answer = absent(result, GONE).map_err(|e| site.fail("GetDashboard", &spec.name, e))?;
        Ok(answer.map(|answer| Live {
            spec: Spec {
                name: spec.name.clone(),
                body: parsed(answer.dashboard_body().unwrap_or_default()),
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .cloudwatch(site.region)
            .put_dashboard()
            .dashboard_name(&spec.name)
            .dashboard_body(canonical(&spec.body))
            .send()
            .await
            .map_err(|e| site.fail("PutDashboard", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::create(site, spec).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.name).await
    }

    async fn discard(site: &Site<'_>, name: &str) -> Result<(), KindError> {
        let request = site
            .cloud
            .cloudwatch(site.region)
            .delete_dashboards()
            .dashboard_names(name);
        absent(request.send().await, GONE).map_err(|e| site.fail("DeleteDashboards", name, e))?;
        Ok(())
    }

    /// By name: there is one.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let name = Names::new(site.suffix).dashboard();
        let request = site.cloud.cloudwatch(site.region).list_dashboards();
        let result = request.dashboard_name_prefix(&name).send().await;
        let answer = result.map_err(|e| site.fail("ListDashboards", &name, e))?;
        let found = answer.dashboard_entries().iter();
        let found = found.filter(|entry| entry.dashboard_name() == Some(name.as_str()));
        Ok(found
            .map(|_| site.found::<CloudwatchDashboard>(&name, None))
            .collect())
    }
}

/// A body that is no JSON is another body than ours.
fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formatting_is_no_difference_and_content_is() {
        let ours = json!({"widgets": [{"type": "text", "x": 0}], "start": "-PT3H"});
        assert_eq!(
            parsed("{ \"start\":\"-PT3H\",\n \"widgets\": [ {\"x\":0, \"type\":\"text\"} ] }"),
            ours
        );
        assert_eq!(parsed(&canonical(&ours)), ours);
        assert_ne!(parsed("{}"), ours);
        assert_ne!(parsed("made by hand"), ours);
    }
}
