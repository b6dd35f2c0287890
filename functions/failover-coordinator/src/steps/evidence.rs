//! failover: record. What happened, when, and with which result, as one document of the control table.

use serde_json::{Value, json};

use crate::context::Context;
use crate::error::StepError;
use crate::event::{Request, Step, TakeoverInput};

/// Stores the evidence under the execution's name. It follows from the execution's state alone, so storing it again
/// stores the same.
pub async fn record(context: &Context, request: &Request) -> Result<Value, StepError> {
    let input = request.takeover(context.region())?;
    let id = format!("exercise#{}", request.execution);
    let document = evidence(request, &input, context.config.regions.peer_of(context.region()));
    context.control.put_document(&id, &document.to_string()).await?;
    Ok(json!({"item": id}))
}

fn evidence(request: &Request, input: &TakeoverInput, from_region: Option<&str>) -> Value {
    let of = |step| request.result_of(step).cloned().unwrap_or(Value::Null);
    let timeline: Vec<Value> = Step::FAILOVER
        .into_iter()
        .filter_map(|step| {
            let result = request.result_of(step)?;
            let (began_ms, ended_ms) = (result["began_ms"].as_u64()?, result["ended_ms"].as_u64()?);
            Some(json!({
                "step": step.as_str(),
                "began_ms": began_ms,
                "ended_ms": ended_ms,
                "ms": ended_ms.saturating_sub(began_ms),
            }))
        })
        .collect();
    json!({
        "id": request.execution,
        "kind": "failover",
        "started_by": input.started_by,
        "reasons": input.reasons,
        "decided_ms": input.decided_ms,
        "from_region": from_region,
        "to_region": input.to_region,
        "epoch": input.epoch + 1,
        "assessment": of(Step::Assess)["reasons"],
        "promotion": of(Step::Promote)["promotion"],
        "replay": of(Step::Replay)["replayed"],
        "ledger": of(Step::Verify),
        "opened_ms": of(Step::Open)["opened_ms"],
        "traffic": of(Step::AwaitTraffic),
        "timeline": timeline,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn evidence_tells_each_step_with_its_time_and_leaves_out_what_did_not_happen() {
        let event = json!({"step": "record", "execution": "failover-dev-2", "input": {
            "epoch": 1, "to_region": "us-east-2", "started_by": "health-probe", "reasons": ["seen"], "decided_ms": 5,
            "assess": {"verdict": "failover", "reasons": ["still"], "began_ms": 10, "ended_ms": 14},
            "replay": {"replayed": {"posted": 7}, "began_ms": 20, "ended_ms": 50},
            "open": {"opened_ms": 60, "began_ms": 55, "ended_ms": 61},
            "failure": {"Error": "ControlUnavailable", "Cause": "once"},
        }});
        let request = Request::parse(&event, 0).unwrap();
        let input = request.takeover("us-east-2").unwrap();
        let document = evidence(&request, &input, Some("us-east-1"));
        assert_eq!(document["epoch"], 2);
        assert_eq!(document["replay"]["posted"], 7);
        assert_eq!(document["opened_ms"], 60);
        assert_eq!(document["traffic"], Value::Null);
        let steps: Vec<_> = document["timeline"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mark| (mark["step"].as_str().unwrap(), mark["ms"].as_u64().unwrap()))
            .collect();
        assert_eq!(steps, [("assess", 4), ("replay", 30), ("open", 6)]);
    }
}
