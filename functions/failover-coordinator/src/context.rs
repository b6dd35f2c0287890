//! What every step works with, built once per process.

use std::sync::Arc;
use std::time::Duration;

use aws_config::Region;
use continuity::config::FunctionConfig;
use continuity::control::{ControlRecord, ControlStore};
use continuity::dynamo::DynamoControl;
use continuity::names::Slot;
use infra::cloud::Cloud;

use crate::effects::archive::S3;
use crate::effects::aurora::RdsAurora;
use crate::effects::engine::CloudEngine;
use crate::effects::events::EventBridge;
use crate::effects::executions::StepFunctions;
use crate::effects::faults::Fis;
use crate::effects::inspection::CloudInspection;
use crate::effects::notices::Sns;
use crate::effects::probes::LambdaProbes;
use crate::effects::processor::LambdaProcessor;
use crate::effects::public_name::HttpPublicName;
use crate::effects::tail::AuroraTail;
use crate::effects::timer::SystemTimer;
use crate::effects::{
    Archive, Aurora, Engine, Events, Executions, Faults, Inspection, Notices, Probes, Processor, PublicName,
    Tail, Timer,
};
use crate::error::StepError;

/// What a planned change, and the recovery, reach in the other serving region. A failover does not touch it.
#[derive(Clone)]
pub struct Peer {
    /// The database's control plane there.
    pub aurora: Arc<dyn Aurora>,
    /// The payment-processor there.
    pub processor: Arc<dyn Processor>,
    /// What is left there of its ledger after it was taken over from.
    pub tail: Arc<dyn Tail>,
}

/// Configuration, and the effects behind their traits.
pub struct Context {
    /// What all functions know.
    pub config: FunctionConfig,
    /// The control table, through this region.
    pub control: Arc<dyn ControlStore>,
    /// The database's control plane in this region.
    pub aurora: Arc<dyn Aurora>,
    /// The payment-processor of this region.
    pub processor: Arc<dyn Processor>,
    /// The other serving region. Not used by a failover.
    pub peer: Peer,
    /// The public name, as a client sees it.
    pub public_name: Arc<dyn PublicName>,
    /// The probes of all regions. Not used by a failover.
    pub probes: Arc<dyn Probes>,
    /// The reconcile engine. Not used by a failover.
    pub engine: Arc<dyn Engine>,
    /// How executions stand. Not used by a failover.
    pub executions: Arc<dyn Executions>,
    /// Faults on purpose, in the region that a drill isolates. Not used by a failover.
    pub faults: Arc<dyn Faults>,
    /// What a readiness evaluation looks at. Not used by a failover.
    pub inspection: Arc<dyn Inspection>,
    /// The event bus of this region.
    pub events: Arc<dyn Events>,
    /// The alert topic of this region.
    pub notices: Arc<dyn Notices>,
    /// The data bucket of this region.
    pub archive: Arc<dyn Archive>,
    /// The clock.
    pub timer: Arc<dyn Timer>,
}

impl Context {
    /// With clients of the function's own region; only the peer, the engine, the probes, the executions, the faults and the inspection, which a failover
    /// does not use, reach further.
    ///
    /// # Errors
    /// The HTTP client cannot be built: no usable root certificates.
    pub async fn on_aws(config: FunctionConfig) -> Result<Self, reqwest::Error> {
        let sdk = continuity::aws::load(Some(config.region())).await;
        let cloud = Cloud::new(sdk.clone());
        let names = &config.names;
        let peer = match config.slot {
            Slot::Primary => Slot::Dr,
            Slot::Dr | Slot::Witness => Slot::Primary,
        };
        let peer_sdk = sdk
            .to_builder()
            .region(Region::new(config.regions.of(peer).to_owned()))
            .build();
        Ok(Context {
            control: Arc::new(DynamoControl::new(
                aws_sdk_dynamodb::Client::new(&sdk),
                names.control_table(),
            )),
            aurora: Arc::new(RdsAurora::new(
                aws_sdk_rds::Client::new(&sdk),
                names.aurora_global(),
            )),
            processor: Arc::new(LambdaProcessor::new(&sdk, names.payment_processor(config.slot))),
            peer: Peer {
                aurora: Arc::new(RdsAurora::new(
                    aws_sdk_rds::Client::new(&peer_sdk),
                    names.aurora_global(),
                )),
                processor: Arc::new(LambdaProcessor::new(&peer_sdk, names.payment_processor(peer))),
                tail: Arc::new(AuroraTail::new(
                    cloud.clone(),
                    names.clone(),
                    peer,
                    config.regions.of(peer),
                )),
            },
            public_name: Arc::new(HttpPublicName::new()?),
            probes: Arc::new(LambdaProbes::new(&sdk, &config.regions, names)),
            engine: Arc::new(CloudEngine::new(cloud.clone(), config.region())),
            events: Arc::new(EventBridge::new(cloud.events(config.region()))),
            notices: Arc::new(Sns::new(cloud.sns(config.region()))),
            faults: Arc::new(Fis::new(cloud.clone(), names.clone())),
            archive: Arc::new(S3::new(cloud.s3(config.region()))),
            inspection: Arc::new(CloudInspection::new(
                cloud.clone(),
                names.clone(),
                config.regions.clone(),
                config.region(),
            )),
            executions: Arc::new(StepFunctions::new(cloud)),
            timer: Arc::new(SystemTimer),
            config,
        })
    }

    /// The region this runs in.
    pub fn region(&self) -> &str {
        self.config.region()
    }

    /// The control record.
    ///
    /// # Errors
    /// `ControlUnavailable`, or `NotDeployed` when there is none.
    pub async fn record(&self) -> Result<ControlRecord, StepError> {
        self.control.read().await?.ok_or(StepError::NotDeployed)
    }

    /// When a step that watches for `limit` must return: by then, or before the invocation's deadline.
    pub fn watch_until(&self, limit: Duration, deadline_ms: u64) -> u64 {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        (self.timer.now_ms().saturating_add(limit_ms)).min(deadline_ms.saturating_sub(2000))
    }
}
