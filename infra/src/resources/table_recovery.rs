//! Point-in-time recovery of a table in one region: replicas do not inherit it.

use aws_sdk_dynamodb::types::{PointInTimeRecoverySpecification, PointInTimeRecoveryStatus};
use serde::{Deserialize, Serialize};

use crate::error::{Class, KindError, absent};
use crate::kind::{Found, Kind, Live, Site};

/// The kind.
#[derive(Debug)]
pub struct TableRecovery;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The table's name.
    pub table: String,
    /// How far back, 1 to 35.
    pub days: i32,
}

/// Nothing refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {}

impl Kind for TableRecovery {
    const NAME: &'static str = "table-recovery";
    const IMMUTABLE: &'static [&'static str] = &["table"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let table = &spec.table;
        let result = site
            .cloud
            .dynamodb(site.region)
            .describe_continuous_backups()
            .table_name(table)
            .send()
            .await;
        let answer = absent(result, &["TableNotFoundException", "ResourceNotFoundException"])
            .map_err(|e| site.fail("DescribeContinuousBackups", table, e))?;
        let recovery = answer
            .and_then(|answer| answer.continuous_backups_description)
            .and_then(|backups| backups.point_in_time_recovery_description)
            .filter(|live| live.point_in_time_recovery_status() == Some(&PointInTimeRecoveryStatus::Enabled));
        Ok(recovery.map(|live| Live {
            // 35 is what AWS means when it does not say.
            spec: Spec {
                table: table.clone(),
                days: live.recovery_period_in_days().unwrap_or(35),
            },
            outputs: Outputs {},
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        put(site, &spec.table, Some(spec.days)).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        put(site, &spec.table, Some(spec.days)).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.table).await
    }

    async fn discard(site: &Site<'_>, table: &str) -> Result<(), KindError> {
        put(site, table, None).await
    }

    /// Goes with its table.
    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

async fn put(site: &Site<'_>, table: &str, days: Option<i32>) -> Result<(), KindError> {
    let recovery = PointInTimeRecoverySpecification::builder()
        .point_in_time_recovery_enabled(days.is_some())
        .set_recovery_period_in_days(days)
        .build()
        .expect("whether it is enabled is given");
    let result = site
        .cloud
        .dynamodb(site.region)
        .update_continuous_backups()
        .table_name(table)
        .point_in_time_recovery_specification(recovery)
        .send()
        .await;
    match result.map_err(|e| site.fail("UpdateContinuousBackups", table, e)) {
        // "Backups are being enabled for the table": a new table needs a moment.
        Err(error) if error.code() == Some("ContinuousBackupsUnavailableException") => Err(KindError {
            class: Class::Conflict,
            ..error
        }),
        // A table that is gone has none.
        Err(error)
            if days.is_none()
                && matches!(
                    error.code(),
                    Some("TableNotFoundException" | "ResourceNotFoundException")
                ) =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}
