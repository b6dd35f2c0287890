//! What the probe is told through its environment, and the limits that follow from it.

use std::collections::BTreeMap;
use std::time::Duration;

use continuity::assess::Policy;
use continuity::config::{ConfigError, FunctionConfig, env, required};
use continuity::names::Slot;
use continuity::observe::LOOK_LIMIT_MS;

/// A look takes no longer than this; one that takes longer than the interval goes on during the next round.
pub const LOOK_LIMIT: Duration = Duration::from_millis(LOOK_LIMIT_MS);
/// An invocation ends this long before its deadline.
pub const DEADLINE_MARGIN_MS: u64 = 1000;
/// A round that still runs this long before the deadline is cut.
pub const CUT_MARGIN_MS: u64 = 300;
/// Writing down a round and assessing it takes no longer than this.
pub const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// The pause between attempts of a workflow that ended too early doubles up to this.
pub const MOST_PAUSE_MS: u64 = 300_000;

const _: () = assert!(CUT_MARGIN_MS < DEADLINE_MARGIN_MS);

/// The probe's configuration.
#[derive(Debug, Clone)]
pub struct ProbeConfig {
    /// What all functions know.
    pub function: FunctionConfig,
    /// The URL base of each serving region's API, stage included.
    pub endpoints: BTreeMap<String, String>,
    /// From the start of one round to the start of the next.
    pub interval_ms: u64,
    /// When to take over, `UNDERSTUDY_POLICY` as JSON. The coordinator assesses again by the table's `spec` item.
    pub policy: Policy,
    /// The failover workflow of this region; none in the witness.
    pub failover_state_machine: Option<String>,
    /// The switchover workflow of this region; none in the witness.
    pub switchover_state_machine: Option<String>,
}

impl ProbeConfig {
    /// Reads it through `lookup`.
    ///
    /// # Errors
    /// The variable that is missing or cannot be used.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let function = FunctionConfig::from_lookup(&lookup)?;
        let mut endpoints = BTreeMap::new();
        for (slot, name) in [
            (Slot::Primary, "UNDERSTUDY_ENDPOINT_PRIMARY"),
            (Slot::Dr, "UNDERSTUDY_ENDPOINT_DR"),
        ] {
            let base = required(&lookup, name)?;
            endpoints.insert(
                function.regions.of(slot).to_owned(),
                base.trim_end_matches('/').to_owned(),
            );
        }
        let text = required(&lookup, "UNDERSTUDY_PROBE_INTERVAL_MS")?;
        let interval_ms = text
            .parse()
            .ok()
            .filter(|ms| (100..=60_000).contains(ms))
            .ok_or_else(|| ConfigError {
                name: "UNDERSTUDY_PROBE_INTERVAL_MS".into(),
                problem: format!("is `{text}`, not a number of milliseconds from 100 to 60000"),
            })?;
        let policy = match lookup("UNDERSTUDY_POLICY").filter(|json| !json.is_empty()) {
            None => Policy::default(),
            Some(json) => serde_json::from_str(&json).map_err(|error| ConfigError {
                name: "UNDERSTUDY_POLICY".into(),
                problem: format!("is not a policy: {error}"),
            })?,
        };
        let arn = |name: &str| lookup(name).filter(|arn| !arn.is_empty());
        Ok(ProbeConfig {
            function,
            endpoints,
            interval_ms,
            policy,
            failover_state_machine: arn("UNDERSTUDY_FAILOVER_STATE_MACHINE"),
            switchover_state_machine: arn("UNDERSTUDY_SWITCHOVER_STATE_MACHINE"),
        })
    }

    /// The same from the process environment.
    ///
    /// # Errors
    /// The variable that is missing or cannot be used.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(env)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn config(slot: &str, interval_ms: u64) -> ProbeConfig {
        let failover = "arn:aws:states:us-east-2:000000000000:stateMachine:failover-dr-dev";
        let switchover = "arn:aws:states:us-east-2:000000000000:stateMachine:switchover-dr-dev";
        ProbeConfig::from_lookup(|name| {
            Some(match name {
                "UNDERSTUDY_SUFFIX" => "dev".into(),
                "UNDERSTUDY_SLOT" => slot.into(),
                "UNDERSTUDY_PRIMARY_REGION" => "us-east-1".into(),
                "UNDERSTUDY_DR_REGION" => "us-east-2".into(),
                "UNDERSTUDY_WITNESS_REGION" => "us-west-2".into(),
                "UNDERSTUDY_ENDPOINT_PRIMARY" => "https://a.execute-api.us-east-1.amazonaws.com/live/".into(),
                "UNDERSTUDY_ENDPOINT_DR" => "https://b.execute-api.us-east-2.amazonaws.com/live".into(),
                "UNDERSTUDY_PROBE_INTERVAL_MS" => interval_ms.to_string(),
                "UNDERSTUDY_FAILOVER_STATE_MACHINE" if slot != "witness" => failover.into(),
                "UNDERSTUDY_SWITCHOVER_STATE_MACHINE" if slot != "witness" => switchover.into(),
                _ => return None,
            })
        })
        .unwrap()
    }

    #[test]
    fn the_environment_names_both_endpoints() {
        let config = config("dr", 10_000);
        assert_eq!(
            config.endpoints["us-east-1"],
            "https://a.execute-api.us-east-1.amazonaws.com/live"
        );
        assert_eq!(config.function.region(), "us-east-2");
        assert!(config.failover_state_machine.is_some());
        assert!(config.switchover_state_machine.is_some());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let wrong = |variable: &str, value: &str| {
            ProbeConfig::from_lookup(|name| {
                Some(
                    match name {
                        name if name == variable => value,
                        "UNDERSTUDY_SLOT" => "dr",
                        "UNDERSTUDY_PROBE_INTERVAL_MS" => "1000",
                        "UNDERSTUDY_POLICY" => "{}",
                        _ => "x",
                    }
                    .into(),
                )
            })
            .unwrap_err()
        };
        for (variable, value) in [
            ("UNDERSTUDY_PROBE_INTERVAL_MS", "soon"),
            ("UNDERSTUDY_PROBE_INTERVAL_MS", "0"),
            ("UNDERSTUDY_POLICY", "{\"decider\":\"nobody\"}"),
        ] {
            let error = wrong(variable, value).to_string();
            assert!(error.contains(variable), "{error}");
        }
    }
}
