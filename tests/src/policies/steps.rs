//! The step that needs an action, and how its failure is read: what an operator sees, not the emulator's log of decisions.

use std::time::{Duration, Instant};

use continuity::names::Slot;
use serde_json::Value;

use super::damage::{self, Damage, Live};
use super::grants::{Grant, matches};
use super::reviewed::UNUSED;
use super::stage::Stage;

/// How long a pass that compares or mends may take here. It gives up on a refusal only after ten seconds, or with the pass.
const LOOK: Duration = Duration::from_secs(8);
/// How long a pass may take that makes or removes the whole stack: to where the action is needed, and ten seconds more.
const PASS: Duration = Duration::from_secs(45);
/// Passes until everything is mended or removed.
const PASSES: usize = 20;
/// How long a customer tries before a payment counts as failed.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a payment may take that nothing hinders; the function may just have been restarted.
const COMES_THROUGH: Duration = Duration::from_secs(60);
/// How long a failure may take to be written down.
const TOLD_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What needs an action.
#[derive(Clone, Copy)]
pub enum Step {
    /// The coordinator compares everything with the configuration.
    Look,
    /// The coordinator mends this.
    Mend(&'static Damage),
    /// The coordinator takes the stack down.
    Teardown,
    /// The coordinator makes the stack anew.
    Deploy,
    /// A customer pays.
    Pay,
    /// A probe makes a round.
    Round,
    /// A workflow calls its function.
    Workflow,
}

impl Step {
    /// Its name, as the workflows and the series call it.
    pub fn name(self) -> &'static str {
        match self {
            Step::Look => "repair (look)",
            Step::Mend(_) => "repair (mend)",
            Step::Teardown => "teardown",
            Step::Deploy => "reconcile",
            Step::Pay => "payment",
            Step::Round => "probe round",
            Step::Workflow => "workflow task",
        }
    }

    /// The step that needs a grant; none where the series has no way to need it.
    pub fn of(grant: &Grant) -> Option<Step> {
        if !grant.role.ends_with("-primary-dev") {
            return None;
        }
        let this = (grant.purpose(), grant.action.as_str());
        if UNUSED.iter().any(|(role, action, _)| (*role, *action) == this) {
            return None;
        }
        match this {
            ("failover-coordinator", action) => of_coordinator(action),
            (
                "payment-processor",
                "dynamodb:GetItem" | "dynamodb:PutItem" | "secretsmanager:GetSecretValue" | "kms:Decrypt",
            ) => Some(Step::Pay),
            ("health-probe", "dynamodb:GetItem" | "dynamodb:PutItem") => Some(Step::Round),
            ("workflows", "lambda:InvokeFunction") => Some(Step::Workflow),
            _ => None,
        }
    }

    /// Runs it while the role lacks the action, and returns what an operator can read about it.
    ///
    /// # Errors
    /// It did not fail, or no word of it names the action, the role and a resource; with what was said.
    pub async fn fails(self, stage: &mut Stage, grant: &Grant) -> Result<String, String> {
        let live = Live::of(&stage.stack);
        match self {
            Step::Mend(damage) => (damage.make)(live).await,
            Step::Deploy => self.until_done(stage, "teardown", "teardown").await?,
            // With nothing missing it comes through, so that a failure says something.
            Step::Pay => stage.pay(COMES_THROUGH).await?,
            _ => {}
        }
        stage.remove(grant).await;
        let outcome = self.run(stage, grant).await;
        stage.give_back(grant).await;
        let mended = match self {
            Step::Look | Step::Mend(_) => self.until_done(stage, "reconcile", "repair").await,
            Step::Teardown | Step::Deploy => self.until_done(stage, "deploy", "reconcile").await,
            Step::Pay | Step::Round | Step::Workflow => Ok(()),
        };
        outcome.and_then(|evidence| mended.map(|()| evidence))
    }

    async fn run(self, stage: &mut Stage, grant: &Grant) -> Result<String, String> {
        let said = match self {
            Step::Look | Step::Mend(_) => pass(stage, "reconcile", "repair", LOOK).await,
            Step::Teardown => pass(stage, "teardown", "teardown", PASS).await,
            Step::Deploy => pass(stage, "deploy", "reconcile", PASS).await,
            Step::Pay => return pay(stage, grant).await,
            Step::Round => return round(stage, grant).await,
            Step::Workflow => workflow(stage).await,
        };
        evidence(&said, grant).ok_or_else(|| format!("nothing names it: {}", shortened(&said)))
    }

    /// Runs passes until one has nothing left to do.
    async fn until_done(self, stage: &mut Stage, kind: &str, step: &str) -> Result<(), String> {
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
}

/// By the verb: what reads is needed to compare, what removes for the teardown, what only mends has its damage; all else makes.
fn of_coordinator(action: &str) -> Option<Step> {
    if let Some(damage) = damage::ALL.iter().find(|damage| damage.action == action) {
        return Some(Step::Mend(damage));
    }
    let verb = action.split(':').nth(1).unwrap_or_default();
    let begins = |words: &[&str]| words.iter().any(|word| verb.starts_with(word));
    Some(match action {
        "apigateway:DELETE" | "ec2:DisassociateRouteTable" => Step::Teardown,
        "apigateway:GET" => Step::Look,
        _ if begins(&["Describe", "List"]) || (begins(&["Get"]) && !begins(&["GetObject"])) => Step::Look,
        _ if begins(&["Delete", "Remove", "Untag", "Detach", "Schedule"]) => Step::Teardown,
        _ => Step::Deploy,
    })
}

async fn pass(stage: &mut Stage, kind: &str, step: &str, budget: Duration) -> String {
    let answer = stage.step(Slot::Primary, kind, step, budget).await;
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
    let function = stage.stack.names().payment_processor(Slot::Primary);
    // Credentials are kept as long as a process lives: a new one reads them.
    let region = stage.region(Slot::Primary).to_owned();
    let request = stage.stack.cloud.lambda(&region).update_function_configuration();
    let request = request.function_name(&function).description("another process");
    request.send().await.map_err(|error| format!("{error:?}"))?;
    if stage.pay(PATIENCE).await.is_ok() {
        return Err("the payment came through".to_owned());
    }
    logged(stage, &region, &function, grant).await
}

/// A round of a probe; its invocation goes on for a minute, so it is not waited for.
async fn round(stage: &mut Stage, grant: &Grant) -> Result<String, String> {
    let function = stage.stack.names().health_probe(Slot::Primary);
    let region = stage.region(Slot::Primary).to_owned();
    let request = stage
        .stack
        .cloud
        .lambda(&region)
        .invoke()
        .function_name(&function);
    let request = request.invocation_type(aws_sdk_lambda::types::InvocationType::Event);
    request.send().await.map_err(|error| format!("{error:?}"))?;
    logged(stage, &region, &function, grant).await
}

async fn logged(stage: &Stage, region: &str, function: &str, grant: &Grant) -> Result<String, String> {
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

/// An execution to its end: its cause.
async fn workflow(stage: &Stage) -> String {
    stage.execute(Slot::Primary, "reconcile").await
}

fn shortened(text: &str) -> String {
    let end = text.char_indices().nth(600).map_or(text.len(), |(at, _)| at);
    text[..end].to_owned()
}
