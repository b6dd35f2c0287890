//! The step that needs an action, and how its failure is read: what an operator sees, not the emulator's log of decisions.

use std::time::{Duration, Instant};

use continuity::assess::failing_region;
use continuity::clock::now_ms;
use continuity::control::ControlStore;
use continuity::names::Slot;
use infra::change::{Change, ITEM, Kind};
use serde_json::Value;

use super::damage::{self, Damage, Live};
use super::grants::{Grant, matches};
use super::reviewed::UNUSED;
use super::stage::Stage;
use crate::Authorization;

/// How long a pass that compares or mends may take here. It gives up on a refusal only after ten seconds, or with the pass.
const LOOK: Duration = Duration::from_secs(15);
/// How long a pass may take that makes or removes the whole stack: to where the action is needed, and ten seconds more.
const PASS: Duration = Duration::from_secs(45);
/// Passes until everything is mended or removed.
const PASSES: usize = 20;
/// How long a customer tries before a payment counts as failed.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a payment may take that nothing hinders; the function may just have been restarted.
const COMES_THROUGH: Duration = Duration::from_secs(60);
/// How long a failure may take to be written down: an invocation of a probe lasts a minute, and its log is there at its end.
const TOLD_WITHIN: Duration = Duration::from_secs(100);
/// How long a schedule of a minute may take to come round, and what it last started to end.
const SCHEDULED_WITHIN: Duration = Duration::from_secs(150);
/// An observer that wrote nothing for so long is called by nobody: one invocation follows the other within seconds.
const SILENT: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What needs an action.
#[derive(Clone, Copy)]
pub enum Step {
    /// The coordinator compares everything with the configuration.
    Look,
    /// The coordinator asks whether the execution that holds the change has ended.
    Hold,
    /// The coordinator mends this.
    Mend(&'static Damage),
    /// The coordinator looks for what is no longer in the configuration.
    Prune,
    /// The coordinator takes the stack down.
    Teardown,
    /// The coordinator makes the stack anew.
    Deploy,
    /// The coordinator has the payment-processor migrate the ledger.
    Initialise,
    /// The coordinator tells of the drift that it found.
    Report,
    /// A customer pays.
    Pay,
    /// A customer asks for a statement, and follows the link.
    Export,
    /// The payment-processor counts a request.
    Count,
    /// A probe makes a round.
    Round,
    /// A workflow calls its function.
    Workflow,
    /// S3 copies a new object to the other region, or a deletion.
    Replicate,
    /// A schedule calls a probe, which then sees something new.
    ScheduledProbe,
    /// A schedule calls the payment-processor to end authorisations.
    ScheduledExpiry,
    /// A schedule starts the reconcile workflow.
    ScheduledReconcile,
}

/// What a grant is needed for.
pub enum Need {
    /// One of these steps, the likeliest first.
    Steps(Vec<Step>),
    /// A region that takes over: see [`super::takeover`].
    Takeover,
    /// Nothing that a run in a local cloud is known to do; why it is there all the same.
    Reviewed(&'static str),
    /// The series does not know.
    Unknown,
}

impl Need {
    /// Of a grant.
    pub fn of(grant: &Grant) -> Need {
        let this = (grant.purpose(), grant.action.as_str());
        match this {
            // Before the reviewed ones: a schedule comes round if somebody waits for it.
            ("probe-schedule", "lambda:InvokeFunction") => Need::Steps(vec![Step::ScheduledProbe]),
            ("expiry-schedule", "lambda:InvokeFunction") => Need::Steps(vec![Step::ScheduledExpiry]),
            ("reconcile-schedule", "states:StartExecution") => Need::Steps(vec![Step::ScheduledReconcile]),
            ("health-probe", "states:StartExecution")
            | ("failover-coordinator", "rds:FailoverGlobalCluster")
            | ("payment-processor", "dynamodb:Query") => Need::Takeover,
            _ if let Some(reason) = reviewed(this) => Need::Reviewed(reason),
            ("failover-coordinator", action) => Need::Steps(of_coordinator(action)),
            (
                "payment-processor",
                "dynamodb:GetItem" | "dynamodb:PutItem" | "secretsmanager:GetSecretValue" | "kms:Decrypt",
            ) => Need::Steps(vec![Step::Pay]),
            ("payment-processor", "s3:PutObject" | "s3:GetObject" | "kms:GenerateDataKey") => {
                Need::Steps(vec![Step::Export])
            }
            ("payment-processor", "dynamodb:UpdateItem") => Need::Steps(vec![Step::Count]),
            ("health-probe", "dynamodb:GetItem" | "dynamodb:PutItem") => Need::Steps(vec![Step::Round]),
            ("workflows", "lambda:InvokeFunction") => Need::Steps(vec![Step::Workflow]),
            ("s3-replication", _) => Need::Steps(vec![Step::Replicate]),
            _ => Need::Unknown,
        }
    }

    /// The likeliest step's name, or what else there is to say.
    pub fn name(&self) -> &'static str {
        match self {
            Need::Steps(steps) => steps.first().map_or("no step", |step| step.name()),
            Need::Takeover => "failover",
            Need::Reviewed(_) => "reviewed",
            Need::Unknown => "no step",
        }
    }
}

fn reviewed(this: (&str, &str)) -> Option<&'static str> {
    let found = UNUSED.iter().find(|(role, action, _)| (*role, *action) == this);
    found.map(|(_, _, reason)| *reason)
}

impl Step {
    /// Its name, as the workflows and the series call it.
    pub fn name(self) -> &'static str {
        match self {
            Step::Look => "repair (look)",
            Step::Hold => "repair (hold)",
            Step::Mend(_) => "repair (mend)",
            Step::Prune => "reconcile (prune)",
            Step::Teardown => "teardown",
            Step::Deploy => "reconcile",
            Step::Initialise => "initialise",
            Step::Report => "report-drift",
            Step::Pay => "payment",
            Step::Export => "statement",
            Step::Count => "payment (count)",
            Step::Round => "probe round",
            Step::Workflow => "workflow task",
            Step::Replicate => "replication",
            Step::ScheduledProbe => "scheduled probe",
            Step::ScheduledExpiry => "scheduled expiry",
            Step::ScheduledReconcile => "scheduled reconcile",
        }
    }

    /// Whether it takes a minute or more: what a schedule starts, or what is told when it ends.
    pub fn is_long(self) -> bool {
        matches!(
            self,
            Step::Round | Step::ScheduledProbe | Step::ScheduledExpiry | Step::ScheduledReconcile
        )
    }

    /// Runs it while the role lacks the action, and returns what an operator can read about it.
    ///
    /// # Errors
    /// It did not fail, or no word of it names the action, the role and a resource; with what was said.
    pub async fn fails(self, stage: &mut Stage, grant: &Grant) -> Result<String, String> {
        let live = Live::of(&stage.stack);
        match self {
            Step::Mend(damage) => {
                (damage.make)(live).await?;
                home_answers(stage).await?;
            }
            // Anything that is mended is told.
            Step::Report => {
                (damage::ALL[0].make)(live).await?;
                home_answers(stage).await?;
            }
            Step::Teardown => stage.fill_the_bucket().await,
            Step::Deploy => torn_down(stage).await?,
            // With nothing missing it comes through, so that a failure says something.
            Step::Pay => stage.pay(COMES_THROUGH).await?,
            Step::Export => stage.export(COMES_THROUGH).await?,
            Step::Replicate => {
                if let Ok(told) = replicated(stage, grant).await {
                    return Err(format!("it fails with nothing missing: {told}"));
                }
            }
            Step::ScheduledReconcile => reconcile_each_minute(stage).await,
            _ => {}
        }
        stage.remove(grant).await;
        let outcome = self.run(stage, grant).await;
        stage.give_back(grant).await;
        let mended = match self {
            Step::Look
            | Step::Hold
            | Step::Mend(_)
            | Step::Report
            | Step::Prune
            | Step::ScheduledReconcile => until_done(stage, "reconcile", "repair").await,
            // What was taken down in part is not deployed on: its ledger is empty, and has served.
            Step::Teardown => match torn_down(stage).await {
                Ok(()) => deployed(stage).await,
                failed => failed,
            },
            Step::Deploy | Step::Initialise => deployed(stage).await,
            Step::ScheduledProbe => observes_again(stage).await,
            Step::Pay
            | Step::Export
            | Step::Count
            | Step::Round
            | Step::Workflow
            | Step::Replicate
            | Step::ScheduledExpiry => Ok(()),
        };
        outcome.and_then(|evidence| mended.map(|()| evidence))
    }

    async fn run(self, stage: &mut Stage, grant: &Grant) -> Result<String, String> {
        let said = match self {
            Step::Look | Step::Mend(_) => repair(stage).await?,
            Step::Hold => return hold(stage, grant).await,
            Step::Prune => prune(stage).await,
            Step::Teardown => pass(stage, "teardown", "teardown", PASS).await,
            Step::Deploy => pass(stage, "deploy", "reconcile", PASS).await,
            Step::Pay => return pay(stage, grant).await,
            Step::Export => return export(stage, grant).await,
            Step::Count => return count(stage, grant).await,
            Step::Round => return round(stage, grant).await,
            Step::Initialise => stage.execute(Slot::Primary, "deploy").await,
            Step::Report | Step::Workflow => stage.execute(Slot::Primary, "reconcile").await,
            Step::Replicate => return replicated(stage, grant).await,
            Step::ScheduledProbe => return scheduled_probe(stage, grant).await,
            Step::ScheduledExpiry => return scheduled_expiry(stage, grant).await,
            Step::ScheduledReconcile => return scheduled_reconcile(stage, grant).await,
        };
        evidence(&said, grant).ok_or_else(|| format!("nothing names it: {}", shortened(&said)))
    }
}

/// By the verb: what reads is needed to compare or to list, what removes for the teardown, what only mends has its damage; all
/// else makes. Some of the first two are needed where others of their kind are not, so there is more than one place to look.
fn of_coordinator(action: &str) -> Vec<Step> {
    // The version that somebody made goes when the right one is made.
    let mended = match action {
        "iam:DeletePolicyVersion" | "iam:ListPolicyVersions" => "iam:CreatePolicyVersion",
        action => action,
    };
    if let Some(damage) = damage::ALL.iter().find(|damage| damage.action == mended) {
        return vec![Step::Mend(damage), Step::Deploy];
    }
    let verb = action.split(':').nth(1).unwrap_or_default();
    let begins = |words: &[&str]| words.iter().any(|word| verb.starts_with(word));
    match action {
        "states:DescribeExecution" => vec![Step::Hold],
        "events:PutEvents" => vec![Step::Report],
        "lambda:InvokeFunction" => vec![Step::Initialise],
        "apigateway:DELETE" | "ec2:DisassociateRouteTable" => vec![Step::Teardown],
        "apigateway:GET" => vec![Step::Look],
        _ if begins(&["Describe", "List"]) || (begins(&["Get"]) && !begins(&["GetObject"])) => {
            vec![Step::Look, Step::Prune, Step::Deploy, Step::Teardown]
        }
        _ if begins(&["Abort", "Delete", "Remove", "Untag", "Detach", "Schedule"]) => {
            vec![Step::Teardown, Step::Deploy]
        }
        _ => vec![Step::Deploy, Step::Teardown],
    }
}

async fn pass(stage: &mut Stage, kind: &str, step: &str, budget: Duration) -> String {
    let answer = stage.step(Slot::Primary, kind, step, budget).await;
    format!("{answer}\n{}", stage.told(Slot::Primary).await)
}

/// The first pass of a repair. One that was put off, because the observers got no answer from the home region meanwhile, says nothing
/// of permissions and is made again.
async fn repair(stage: &mut Stage) -> Result<String, String> {
    let until = Instant::now() + SCHEDULED_WITHIN;
    loop {
        let answer = stage.step(Slot::Primary, "reconcile", "repair", LOOK).await;
        let is_open = answer["counts"]["open"].as_u64() > Some(0);
        let put_off = is_open && answer["finished"] == true && answer["stuck_passes"] == 0;
        if !put_off || Instant::now() > until {
            return Ok(format!("{answer}\n{}", stage.told(Slot::Primary).await));
        }
        home_answers(stage).await?;
    }
}

/// Runs passes until one has nothing left to do.
async fn until_done(stage: &mut Stage, kind: &str, step: &str) -> Result<(), String> {
    let mut last = Value::Null;
    for _ in 0..PASSES {
        last = stage
            .step(Slot::Primary, kind, step, Duration::from_secs(30))
            .await;
        let counts = &last["counts"];
        let clean = counts["drift"] == 0 && counts["unreadable"] == 0;
        if last["done"] == true || clean {
            return Ok(());
        }
    }
    Err(format!(
        "{step} does not come to its end afterwards: {}",
        shortened(&last.to_string())
    ))
}

/// Waits until the observers get answers from the home region again, after it was taken down or its processors were busy: while
/// they do not, nothing is mended through the control planes that are only there.
async fn home_answers(stage: &Stage) -> Result<(), String> {
    let control = stage.stack.control(stage.stack.home());
    let observers = Slot::ALL.map(|slot| stage.region(slot));
    let until = Instant::now() + SCHEDULED_WITHIN;
    loop {
        let seen = control.observations(&observers).await;
        let seen = seen.map_err(|error| error.to_string())?;
        let policy = &stage.stack.spec.failover;
        match failing_region(stage.stack.home(), &seen, policy, now_ms()) {
            None => return Ok(()),
            Some(why) if Instant::now() > until => return Err(why.join("; ")),
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Takes down all but the seed, and forgets that the stack has served, which `down` does with the seed.
async fn torn_down(stage: &mut Stage) -> Result<(), String> {
    until_done(stage, "teardown", "teardown").await?;
    let dynamodb = stage.stack.cloud.dynamodb(stage.stack.home());
    let request = dynamodb
        .delete_item()
        .table_name(stage.stack.names().control_table());
    let id = aws_sdk_dynamodb::types::AttributeValue::S("epoch".to_owned());
    let deleted = request.key("id", id).send().await;
    deleted.map(drop).map_err(|error| format!("{error:?}"))
}

/// Deploys to the end, ledger and control record included: without those nothing is mended.
async fn deployed(stage: &mut Stage) -> Result<(), String> {
    let ended = stage.execute(Slot::Primary, "deploy").await;
    if ended.starts_with("SUCCEEDED") {
        return Ok(());
    }
    Err(format!("it is not deployed again afterwards: {ended}"))
}

/// A repair finds the change held by an execution that has ended. If it may not ask, it lets the holder be, until its lease ends.
async fn hold(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let before = stage.executions(Slot::Primary, "reconcile").await;
    stage.execute(Slot::Primary, "reconcile").await;
    let after = stage.executions(Slot::Primary, "reconcile").await;
    let execution = after.difference(&before).next().cloned();
    let holder = Change {
        kind: Kind::Reconcile,
        execution: execution.ok_or("no execution was started")?,
        generation: 1,
        began_ms: now_ms(),
        seen_ms: now_ms(),
    };
    let region = stage.region(Slot::Primary).to_owned();
    let json = serde_json::to_string(&holder).map_err(|error| error.to_string())?;
    let stored = stage.stack.control(&region).put_document(ITEM, &json).await;
    stored.map_err(|error| error.to_string())?;
    stage.execute(Slot::Primary, "reconcile").await;
    let function = stage.stack.names().failover_coordinator(Slot::Primary);
    logged(stage, &region, &function, grant).await
}

async fn prune(stage: &mut Stage) -> String {
    let input = serde_json::json!({ "prune": true });
    let answer = stage
        .step_with(Slot::Primary, "deploy", "reconcile", PASS, input)
        .await;
    format!("{answer}\n{}", stage.told(Slot::Primary).await)
}

/// The sentence that names the action, the role and the resource.
fn evidence(said: &str, grant: &Grant) -> Option<String> {
    said.split("User: ").skip(1).find_map(|sentence| {
        let end = sentence.find(" because ").unwrap_or(sentence.len());
        let sentence = &sentence[..end];
        let (who, what) = sentence.split_once(" is not authorized to perform: ")?;
        let (action, resource) = what.split_once(" on resource: ")?;
        let named = who.contains(&format!("/{}/", grant.role)) && matches(&grant.action, action);
        (named && !resource.is_empty()).then(|| sentence.to_owned())
    })
}

/// A payment that must not come through, and the function's log that says why.
async fn pay(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let (region, function) = new_processor(stage).await?;
    if stage.pay(PATIENCE).await.is_ok() {
        return Err("the payment came through".to_owned());
    }
    logged(stage, &region, &function, grant).await
}

/// A payment that comes through all the same, and the function's log that says that it was not counted.
async fn count(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let (region, function) = new_processor(stage).await?;
    stage.pay(COMES_THROUGH).await?;
    logged(stage, &region, &function, grant).await
}

/// The region and name of the payment-processor, whose processes are new: credentials are kept as long as one lives. A function
/// whose memory is set gets a new one.
async fn new_processor(stage: &Stage) -> Result<(String, String), String> {
    let function = stage.stack.names().payment_processor(Slot::Primary);
    let region = stage.region(Slot::Primary).to_owned();
    let lambda = stage.stack.cloud.lambda(&region);
    let request = lambda.get_function_configuration().function_name(&function);
    let now = request.send().await.map_err(|error| format!("{error:?}"))?;
    let request = lambda.update_function_configuration().function_name(&function);
    let request = request.set_memory_size(now.memory_size());
    request.send().await.map_err(|error| format!("{error:?}"))?;
    Ok((region, function))
}

/// A statement that must not be written or not be read: the bucket says why to whoever follows the link, else the function's log.
async fn export(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let Err(said) = stage.export(PATIENCE).await else {
        return Err("the statement was written and read".to_owned());
    };
    if let Some(found) = evidence(&said, grant) {
        return Ok(found);
    }
    let function = stage.stack.names().payment_processor(Slot::Primary);
    let region = stage.region(Slot::Primary).to_owned();
    logged(stage, &region, &function, grant).await
}

/// The rounds of a probe, which its schedule calls.
async fn round(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let function = stage.stack.names().health_probe(Slot::Primary);
    let region = stage.region(Slot::Primary).to_owned();
    logged(stage, &region, &function, grant).await
}

pub(super) async fn logged(
    stage: &Stage,
    region: &str,
    function: &str,
    grant: &Grant,
) -> Result<String, String> {
    let until = Instant::now() + TOLD_WITHIN;
    loop {
        let said = stage.logged(region, function).await;
        if let Some(found) = evidence(&said, grant) {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(format!("no line of its log names it: {}", shortened(&said)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the cloud answered to the role, where the service that took the role tells nobody more than that it failed.
fn denied(stage: &Stage, grant: &Grant) -> Option<String> {
    let questions = stage.questions();
    let of_it = |question: &&Authorization| grant.covers(question) && !question.allowed();
    let question = questions.iter().rev().find(of_it)?;
    Some(format!("{grant} on {} was denied", question.resource))
}

/// A new object of the home region's bucket, or its deletion where that is what the action is for, must not arrive in the other.
/// S3 says no more than that the replica failed.
async fn replicated(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let (names, account) = (stage.stack.names(), stage.stack.account.clone());
    let [source, copy] = Slot::SERVING.map(|slot| names.data_bucket(slot, &account));
    let [here, there] = Slot::SERVING.map(|slot| stage.stack.cloud.s3(stage.region(slot)));
    let key = format!("replicated/{}", stage.number());
    let fail = |what: &str, error: &dyn std::fmt::Debug| format!("{what}: {error:?}");
    let put = here.put_object().bucket(&source).key(&key).send().await;
    put.map_err(|error| fail("PutObject", &error))?;
    let until = Instant::now() + PATIENCE;
    loop {
        let head = here.head_object().bucket(&source).key(&key).send().await;
        let head = head.map_err(|error| fail("HeadObject", &error))?;
        match head.replication_status().map(|status| status.as_str()) {
            Some("FAILED") => {
                let why = denied(stage, grant).ok_or("its replica failed, and nobody was denied")?;
                return Ok(format!("the replica of `{key}` in `{source}` is FAILED: {why}"));
            }
            Some("COMPLETED" | "COMPLETE") => break,
            status if Instant::now() > until => return Err(format!("its replication is {status:?}")),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    if grant.action != "s3:ReplicateDelete" {
        return Err(format!("`{key}` came to `{copy}`"));
    }
    let deleted = here.delete_object().bucket(&source).key(&key).send().await;
    deleted.map_err(|error| fail("DeleteObject", &error))?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let versions = there
            .list_object_versions()
            .bucket(&copy)
            .prefix(&key)
            .send()
            .await;
        let versions = versions.map_err(|error| fail("ListObjectVersions", &error))?;
        if !versions.delete_markers().is_empty() {
            return Err(format!("the deletion of `{key}` came to `{copy}`"));
        }
        if let Some(why) = denied(stage, grant) {
            return Ok(format!("the deletion of `{key}` is not in `{copy}`: {why}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(format!(
        "the deletion of `{key}` is not in `{copy}`, and nobody was denied"
    ))
}

/// How long ago the home region's observer wrote what it saw.
async fn silence(stage: &Stage) -> Duration {
    let home = stage.stack.home();
    let seen = stage.stack.control(home).observations(&[home]).await;
    let seen = seen.expect("the control table answers");
    let at_ms = seen.first().map_or(0, |observation| observation.at_ms);
    Duration::from_millis(now_ms().saturating_sub(at_ms))
}

/// A probe that its schedule may not call falls silent when its last invocation has ended.
async fn scheduled_probe(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let until = Instant::now() + SCHEDULED_WITHIN;
    while Instant::now() < until {
        let silence = silence(stage).await;
        if silence > SILENT
            && let Some(why) = denied(stage, grant)
        {
            return Ok(format!("the observer has been silent for {silence:?}: {why}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err("the observer goes on".to_owned())
}

async fn observes_again(stage: &Stage) -> Result<(), String> {
    let until = Instant::now() + SCHEDULED_WITHIN;
    while Instant::now() < until {
        if silence(stage).await < SILENT {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err("the observer stays silent".to_owned())
}

/// A schedule that may not call the function is refused each minute.
async fn scheduled_expiry(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let until = Instant::now() + SCHEDULED_WITHIN;
    while Instant::now() < until {
        if let Some(why) = denied(stage, grant) {
            return Ok(format!("the function was not called: {why}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err("nothing was refused".to_owned())
}

/// Lets the schedule of the home region come round. What is done to it is drift, and mended afterwards.
async fn reconcile_each_minute(stage: &Stage) {
    let scheduler = stage.stack.cloud.scheduler(stage.stack.home());
    let name = "reconcile-primary-dev";
    let now = scheduler.get_schedule().name(name).send().await;
    let now = now.expect("the schedule is there");
    let request = scheduler.update_schedule().name(name).set_target(now.target);
    let request = request.set_flexible_time_window(now.flexible_time_window);
    let changed = request.schedule_expression("rate(1 minute)").send().await;
    changed.expect("the schedule can be changed");
}

/// A schedule that may not start the workflow starts none.
async fn scheduled_reconcile(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let before = stage.executions(Slot::Primary, "reconcile").await;
    let until = Instant::now() + SCHEDULED_WITHIN;
    while Instant::now() < until {
        if let Some(why) = denied(stage, grant) {
            let after = stage.executions(Slot::Primary, "reconcile").await;
            let started = after.difference(&before).next();
            return match started {
                None => Ok(format!("no execution was started: {why}")),
                Some(execution) => Err(format!("`{execution}` was started")),
            };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err("the schedule did not come round".to_owned())
}

fn shortened(text: &str) -> String {
    let end = text.char_indices().nth(600).map_or(text.len(), |(at, _)| at);
    text[..end].to_owned()
}
