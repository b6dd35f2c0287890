//! Aurora's control plane, asked in this region only: a failover must work while the other region answers nothing.

use async_trait::async_trait;

use crate::error::StepError;

/// A cluster of the global cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The cluster's ARN.
    pub arn: String,
    /// It takes writes.
    pub writer: bool,
}

impl Member {
    /// The region in the ARN.
    pub fn region(&self) -> &str {
        self.arn.split(':').nth(3).unwrap_or_default()
    }
}

/// The global cluster as this region sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Its clusters.
    pub members: Vec<Member>,
    /// The cluster that a running failover or switchover makes the writer.
    pub changing_to: Option<String>,
}

/// The global cluster.
#[async_trait]
pub trait Aurora: Send + Sync {
    /// `DescribeGlobalClusters`.
    async fn topology(&self) -> Result<Topology, StepError>;
    /// `FailoverGlobalCluster`, allowing data loss: what the old writer did not send is in the journal.
    async fn failover(&self, target_arn: &str) -> Result<(), StepError>;
    /// `SwitchoverGlobalCluster`, without loss. To be called in the region of the writer.
    async fn switchover(&self, target_arn: &str) -> Result<(), StepError>;
}

/// RDS in this region.
#[derive(Debug, Clone)]
pub struct RdsAurora {
    client: aws_sdk_rds::Client,
    global_cluster: String,
}

impl RdsAurora {
    /// The global cluster of that name through a client of this region.
    pub fn new(client: aws_sdk_rds::Client, global_cluster: impl Into<String>) -> Self {
        RdsAurora {
            client,
            global_cluster: global_cluster.into(),
        }
    }

    fn failed(
        &self,
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StepError {
        StepError::DatabaseFailed {
            operation,
            subject: self.global_cluster.clone(),
            source: source.into(),
        }
    }
}

#[async_trait]
impl Aurora for RdsAurora {
    async fn topology(&self) -> Result<Topology, StepError> {
        let output = self
            .client
            .describe_global_clusters()
            .global_cluster_identifier(&self.global_cluster)
            .send()
            .await
            .map_err(|error| self.failed("DescribeGlobalClusters", error))?;
        let cluster = output
            .global_clusters()
            .first()
            .ok_or_else(|| self.failed("DescribeGlobalClusters", "the answer is empty"))?;
        Ok(Topology {
            members: cluster
                .global_cluster_members()
                .iter()
                .map(|member| Member {
                    arn: member.db_cluster_arn().unwrap_or_default().to_owned(),
                    writer: member.is_writer().unwrap_or_default(),
                })
                .collect(),
            changing_to: cluster
                .failover_state()
                .and_then(|state| state.to_db_cluster_arn())
                .map(str::to_owned),
        })
    }

    async fn failover(&self, target_arn: &str) -> Result<(), StepError> {
        self.client
            .failover_global_cluster()
            .global_cluster_identifier(&self.global_cluster)
            .target_db_cluster_identifier(target_arn)
            .allow_data_loss(true)
            .send()
            .await
            .map_err(|error| self.failed("FailoverGlobalCluster", error))?;
        Ok(())
    }

    async fn switchover(&self, target_arn: &str) -> Result<(), StepError> {
        self.client
            .switchover_global_cluster()
            .global_cluster_identifier(&self.global_cluster)
            .target_db_cluster_identifier(target_arn)
            .send()
            .await
            .map_err(|error| self.failed("SwitchoverGlobalCluster", error))?;
        Ok(())
    }
}
