//! Starts a workflow that changes the active region. The execution's name is the idempotency token: one per epoch; only an
//! execution that ended without having done its work (it held, it failed, it was stopped) is followed by another, under the
//! next name.

use async_trait::async_trait;
use aws_sdk_sfn::error::ProvideErrorMetadata;
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::Value;

/// Names tried in one round. The next round goes on from there.
const NAMES_AT_ONCE: u32 = 20;

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// It runs now, under this name.
    Now(String),
    /// It runs already, under this name.
    Running(String),
    /// One of that name ended a moment ago: give the signs time before the next attempt.
    Ended(String),
}

/// A call of Step Functions that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} `{name}` failed")]
pub struct StartError {
    /// The operation.
    pub operation: &'static str,
    /// The execution.
    pub name: String,
    /// What the SDK said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// How an execution of a name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// It did not exist and was started.
    Created,
    /// It is under way.
    Running {
        /// It was started to ask a person.
        asks: bool,
    },
    /// It ended.
    Ended {
        /// When, milliseconds since the Unix epoch.
        at_ms: u64,
        /// It asked a person: who declined, or did not answer.
        asked: bool,
    },
}

/// What is to run.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// The ARN of the state machine.
    pub state_machine: &'a str,
    /// The name of the first attempt's execution.
    pub base_name: String,
    /// The input.
    pub input: Value,
    /// It asks a person. Another that does not ask goes ahead of it.
    pub asks: bool,
    /// From the end of one attempt to the next.
    pub pause: Pause,
}

impl Job<'_> {
    /// The name of an attempt; the first is 1.
    fn name(&self, attempt: u32) -> String {
        match attempt {
            0 | 1 => self.base_name.clone(),
            _ => format!("{}-{attempt}", self.base_name),
        }
    }
}

/// From the end of one attempt to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// After the first attempt; it doubles with each.
    pub first_ms: u64,
    /// It grows no longer than this.
    pub most_ms: u64,
    /// After one that asked a person, before a person is asked again.
    pub answer_ms: u64,
}

impl Pause {
    fn after(&self, attempt: u32) -> u64 {
        let doublings = attempt.saturating_sub(1).min(32);
        self.first_ms.saturating_mul(1 << doublings).min(self.most_ms)
    }
}

/// Starts executions.
#[async_trait]
pub trait Starter: Send + Sync {
    /// Starts `name` of `state_machine`, or says how the execution of that name stands.
    async fn start(&self, state_machine: &str, name: &str, input: &str) -> Result<Execution, StartError>;
}

/// Starts the first execution of a job, or the next attempt after ones that ended long enough ago. `attempt` is the one that the
/// job has come to; 0 for none. It has no last one: while there is a reason to start it, there is a next attempt.
///
/// # Errors
/// Step Functions could not be asked.
pub async fn start_once(
    starter: &dyn Starter,
    job: &Job<'_>,
    attempt: &mut u32,
    now_ms: u64,
) -> Result<Started, StartError> {
    let input = job.input.to_string();
    *attempt = (*attempt).max(1);
    for _ in 0..NAMES_AT_ONCE {
        let name = job.name(*attempt);
        match starter.start(job.state_machine, &name, &input).await? {
            Execution::Created => return Ok(Started::Now(name)),
            // What acts at once does not wait for the answer to a question. Both may run: only one of them raises the epoch.
            Execution::Running { asks: true } if !job.asks => {}
            Execution::Running { .. } => return Ok(Started::Running(name)),
            Execution::Ended { at_ms, asked } => {
                let pause_ms = if asked && job.asks {
                    job.pause.answer_ms
                } else {
                    job.pause.after(*attempt)
                };
                if now_ms.saturating_sub(at_ms) < pause_ms {
                    return Ok(Started::Ended(name));
                }
            }
        }
        *attempt = attempt.saturating_add(1);
    }
    Ok(Started::Ended(job.name(*attempt)))
}

/// Step Functions in this region.
#[derive(Debug, Clone)]
pub struct StepFunctions {
    client: aws_sdk_sfn::Client,
}

impl StepFunctions {
    /// Through this client.
    pub fn new(client: aws_sdk_sfn::Client) -> Self {
        StepFunctions { client }
    }
}

#[async_trait]
impl Starter for StepFunctions {
    async fn start(&self, state_machine: &str, name: &str, input: &str) -> Result<Execution, StartError> {
        let failed = |operation, source: Box<dyn std::error::Error + Send + Sync>| StartError {
            operation,
            name: name.to_owned(),
            source,
        };
        let result = self
            .client
            .start_execution()
            .state_machine_arn(state_machine)
            .name(name)
            .input(input)
            .send()
            .await;
        match result {
            Ok(_) => return Ok(Execution::Created),
            Err(error) if error.code() == Some("ExecutionAlreadyExists") => {}
            Err(error) => return Err(failed("StartExecution", error.into())),
        }
        let described = self
            .client
            .describe_execution()
            .execution_arn(execution_arn(state_machine, name))
            .send()
            .await
            .map_err(|error| failed("DescribeExecution", error.into()))?;
        if matches!(
            described.status(),
            ExecutionStatus::Running | ExecutionStatus::PendingRedrive
        ) {
            return Ok(Execution::Running {
                asks: asks(described.input()),
            });
        }
        let ended_ms = described
            .stop_date()
            .and_then(|date| date.to_millis().ok())
            .and_then(|ms| u64::try_from(ms).ok())
            .unwrap_or(0);
        Ok(Execution::Ended {
            at_ms: ended_ms,
            asked: asks(described.input()) && !held(described.output()),
        })
    }
}

/// Whether an execution with this input asks a person.
fn asks(input: Option<&str>) -> bool {
    json(input)["verdict"] == "propose"
}

/// Whether an execution with this output held before it asked anybody.
fn held(output: Option<&str>) -> bool {
    json(output)["assess"]["verdict"] == "hold"
}

fn json(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// The ARN of an execution of a state machine.
fn execution_arn(state_machine: &str, name: &str) -> String {
    format!(
        "{}:{name}",
        state_machine.replacen(":stateMachine:", ":execution:", 1)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    /// Step Functions with the given executions.
    #[derive(Default)]
    pub(crate) struct Double {
        pub(crate) executions: Mutex<BTreeMap<String, (Execution, String)>>,
        pub(crate) machines: Mutex<BTreeMap<String, String>>,
    }

    impl Double {
        pub(crate) fn end(&self, name: &str, at_ms: u64) {
            let mut executions = self.executions.lock().unwrap();
            let (execution, input) = executions.get_mut(name).unwrap();
            *execution = Execution::Ended {
                at_ms,
                asked: asks(Some(input)),
            };
        }
    }

    #[async_trait]
    impl Starter for Double {
        async fn start(&self, state_machine: &str, name: &str, input: &str) -> Result<Execution, StartError> {
            let mut executions = self.executions.lock().unwrap();
            if let Some((execution, _)) = executions.get(name) {
                return Ok(*execution);
            }
            let running = Execution::Running {
                asks: asks(Some(input)),
            };
            executions.insert(name.to_owned(), (running, input.to_owned()));
            let mut machines = self.machines.lock().unwrap();
            machines.insert(name.to_owned(), state_machine.to_owned());
            Ok(Execution::Created)
        }
    }

    fn job(asks: bool) -> Job<'static> {
        Job {
            state_machine: "arn",
            base_name: "f-2".into(),
            input: serde_json::json!({"verdict": if asks { "propose" } else { "failover" }}),
            asks,
            pause: Pause {
                first_ms: 3_000,
                most_ms: 60_000,
                answer_ms: 1_800_000,
            },
        }
    }

    #[tokio::test]
    async fn starts_as_a_table() {
        const NOW_MS: u64 = 10_000_000;
        let ended = |ago_ms: u64| Execution::Ended {
            at_ms: NOW_MS - ago_ms,
            asked: false,
        };
        let asked = |ago_ms: u64| Execution::Ended {
            at_ms: NOW_MS - ago_ms,
            asked: true,
        };
        let (running, asking) = (
            Execution::Running { asks: false },
            Execution::Running { asks: true },
        );
        let (now, still, over) = (Started::Now, Started::Running, Started::Ended);
        type Row<'a> = (&'a [(&'a str, Execution)], bool, Started, &'a str);
        let rows: [Row<'_>; 11] = [
            (&[], false, now("f-2".into()), "the first"),
            (&[("f-2", running)], false, still("f-2".into()), "it runs"),
            (
                &[("f-2", ended(500))],
                false,
                over("f-2".into()),
                "it held a moment ago",
            ),
            (
                &[("f-2", ended(5_000))],
                false,
                now("f-2-2".into()),
                "it held a while ago",
            ),
            (
                &[("f-2", ended(9_000)), ("f-2-2", ended(5_000))],
                false,
                over("f-2-2".into()),
                "the pause after the second is longer",
            ),
            (
                &[
                    ("f-2", ended(90_000)),
                    ("f-2-2", ended(50_000)),
                    ("f-2-3", running),
                ],
                false,
                still("f-2-3".into()),
                "the third attempt runs",
            ),
            (
                &[("f-2", asking)],
                true,
                still("f-2".into()),
                "a person is asked already",
            ),
            (
                &[("f-2", asking)],
                false,
                now("f-2-2".into()),
                "what acts at once does not wait for an answer",
            ),
            (
                &[("f-2", asked(1_799_999))],
                true,
                over("f-2".into()),
                "a person declined half an hour ago",
            ),
            (
                &[("f-2", asked(1_800_000))],
                true,
                now("f-2-2".into()),
                "and is asked again",
            ),
            (
                &[("f-2", asked(5_000))],
                false,
                now("f-2-2".into()),
                "what was declined as a proposal may still be done unasked when the policy says so",
            ),
        ];
        for (existing, asks, expected, row) in rows {
            let double = Double::default();
            for (name, execution) in existing {
                let mut executions = double.executions.lock().unwrap();
                executions.insert((*name).to_owned(), (*execution, String::new()));
            }
            let started = start_once(&double, &job(asks), &mut 0, NOW_MS).await.unwrap();
            assert_eq!(started, expected, "{row}");
        }
    }

    #[tokio::test]
    async fn a_job_never_gives_up_and_goes_on_where_it_was() {
        let double = Double::default();
        let name = |attempt: u32| job(false).name(attempt);
        for attempt in 1..=200 {
            let ended = Execution::Ended {
                at_ms: 0,
                asked: false,
            };
            let mut executions = double.executions.lock().unwrap();
            executions.insert(name(attempt), (ended, String::new()));
        }
        let mut attempt = 0;
        let mut rounds = 0;
        loop {
            rounds += 1;
            let started = start_once(&double, &job(false), &mut attempt, 10_000_000)
                .await
                .unwrap();
            if started == Started::Now("f-2-201".into()) {
                break;
            }
            assert!(rounds < 20, "{started:?}");
        }
        assert_eq!((attempt, rounds), (201, 11));
    }

    #[test]
    fn the_pause_grows_to_its_most() {
        let pause = job(false).pause;
        let pauses: Vec<u64> = [1, 2, 3, 4, 5, 6, 7, 4_000]
            .into_iter()
            .map(|attempt| pause.after(attempt))
            .collect();
        assert_eq!(
            pauses,
            [3_000, 6_000, 12_000, 24_000, 48_000, 60_000, 60_000, 60_000]
        );
    }

    #[test]
    fn what_an_execution_is_for_stands_in_its_input_and_output() {
        assert!(asks(Some(r#"{"verdict":"propose"}"#)));
        for input in [
            Some(r#"{"verdict":"failover"}"#),
            Some("{}"),
            Some("no JSON"),
            None,
        ] {
            assert!(!asks(input), "{input:?}");
        }
        assert!(held(Some(r#"{"assess":{"verdict":"hold"}}"#)));
        assert!(!held(Some(r#"{"assess":{"verdict":"propose"}}"#)));
    }

    #[test]
    fn an_execution_is_found_by_name() {
        assert_eq!(
            execution_arn(
                "arn:aws:states:us-east-2:0:stateMachine:failover-dr-dev",
                "failover-dev-2"
            ),
            "arn:aws:states:us-east-2:0:execution:failover-dr-dev:failover-dev-2"
        );
    }
}
