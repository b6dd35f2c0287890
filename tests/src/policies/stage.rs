//! A deployed stack in a local cloud that enforces policies, and what an operator does to it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::primitives::Blob;
use bootstrap::client::{Client, NewPayment};
use bootstrap::local;
use bootstrap::stack::{Stack, StackOptions};
use bootstrap::takeover::{self, Mode, Wish};
use bootstrap::ui::Ui;
use continuity::control::{ControlStore, Phase};
use continuity::names::Slot;
use infra::change::ITEM as CHANGE;
use serde_json::{Value, json};

use super::grants::Grant;
use crate::{Authorization, CloudFolder, run_json_within};

/// The schedule must not repair in between; alerts go somewhere, so that the subscription is used; what is granted only with tracing
/// on is granted.
const CONFIGURATION: &str = "[functions]\ntracing = true\n[reconcile]\ninterval_minutes = 1440\n[alerts]\naddress = \"oncall@example.com\"\n[tags]\nTeam = \"payments\"\n";
/// Nobody takes over while the home region's roles are being crippled: a stack that is left alone would go on elsewhere.
pub const NO_TAKEOVER: &str = "[failover]\ndecider = \"approve\"\n";
/// How long a deployment may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The policy that is the boundary of a role that lacks an action.
const BOUNDARY: &str = "all-but-one-action";

/// The stack.
pub struct Stage {
    folder: CloudFolder,
    configuration: tempfile::TempDir,
    /// As the command line opens it.
    pub stack: Stack,
    local: local::Cloud,
    customer: Option<(Client, [String; 2])>,
    /// Makes names unique.
    count: u32,
}

impl Stage {
    /// Starts a cloud and deploys the stack there, with more configuration.
    pub async fn deploy(more: &str) -> Stage {
        let folder = CloudFolder::new();
        let configuration = tempfile::tempdir().expect("a temporary folder");
        let text = format!("{CONFIGURATION}{more}");
        std::fs::write(configuration.path().join("stack.toml"), text).expect("the folder is ours");
        up(&folder, &configuration, &["--enforce-policies"]);
        continuity::aws::install_tls();
        let options = StackOptions {
            config: configuration.path().join("stack.toml"),
            suffix: None,
            local: true,
            dir: folder.path().into(),
        };
        let stack = Stack::open(&options).await.expect("the stack is there");
        let local = stack.local.clone().expect("it is local");
        Stage {
            folder,
            configuration,
            stack,
            local,
            customer: None,
            count: 0,
        }
    }

    /// Runs `up`, with more arguments.
    pub fn up(&self, more: &[&str]) -> Value {
        up(&self.folder, &self.configuration, more)
    }

    /// Runs `down`.
    pub fn down(&self) -> Value {
        let file = self.configuration.path().join("stack.toml");
        let config = file.to_str().expect("a path is text");
        let arguments = [
            "down",
            "--local",
            "--yes",
            "--dir",
            self.folder.path(),
            "--config",
            config,
            "--output",
            "json",
        ];
        run_json_within(PATIENCE, &arguments)
    }

    /// Changes the configuration; `up` applies it.
    pub fn configure(&self, more: &str) {
        let text = format!("{CONFIGURATION}{more}");
        std::fs::write(self.configuration.path().join("stack.toml"), text).expect("the folder is ours");
    }

    /// Moves the active region home without loss, as soon as its database follows again.
    pub async fn fail_back(&self) {
        let wish = Wish {
            to_region: self.stack.home().to_owned(),
            mode: Mode::Graceful,
            or_ungraceful: false,
            reason: "a test".to_owned(),
        };
        let patience = Instant::now() + PATIENCE;
        loop {
            match takeover::move_to(&self.stack, &wish, &Ui::silent()).await {
                Ok(moved) => {
                    assert_eq!(moved.active_region, wish.to_region);
                    return;
                }
                Err(held) => assert!(Instant::now() < patience, "{held}"),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Every question so far.
    pub fn questions(&self) -> Vec<Authorization> {
        Authorization::read(&self.folder)
    }

    /// The local cloud.
    pub fn local(&self) -> &local::Cloud {
        &self.local
    }

    /// The name of the region of a slot.
    pub fn region(&self, slot: Slot) -> &str {
        self.stack.spec.regions.of(slot)
    }

    /// Takes an action from a role.
    pub async fn remove(&self, grant: &Grant) {
        let iam = self.stack.cloud.iam(self.stack.home());
        let document = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "NotAction": grant.action, "Resource": "*"}]});
        let request = iam
            .create_policy()
            .policy_name(boundary_of(grant))
            .policy_document(document.to_string());
        request.send().await.expect("the boundary can be made");
        let request = iam.put_role_permissions_boundary().role_name(&grant.role);
        let request = request.permissions_boundary(self.boundary(grant));
        request.send().await.expect("the role is there");
    }

    /// Gives it back.
    pub async fn give_back(&self, grant: &Grant) {
        let iam = self.stack.cloud.iam(self.stack.home());
        let request = iam.delete_role_permissions_boundary().role_name(&grant.role);
        request.send().await.expect("the role is there");
        let request = iam.delete_policy().policy_arn(self.boundary(grant));
        request.send().await.expect("the boundary is there");
    }

    fn boundary(&self, grant: &Grant) -> String {
        format!(
            "arn:aws:iam::{}:policy/{}",
            self.stack.account,
            boundary_of(grant)
        )
    }

    /// A number that was not given before.
    pub fn number(&mut self) -> u32 {
        self.count += 1;
        self.count
    }

    /// Invokes a function and returns what it answered, errors of the function included.
    pub async fn invoke(&self, region: &str, function: &str, event: &Value) -> String {
        let request = self.stack.cloud.lambda(region).invoke().function_name(function);
        let patient = TimeoutConfig::builder()
            .operation_timeout(PATIENCE)
            .operation_attempt_timeout(PATIENCE)
            .read_timeout(PATIENCE);
        let patient = aws_sdk_lambda::config::Builder::new().timeout_config(patient.build());
        let answer = request
            .payload(Blob::new(event.to_string()))
            .customize()
            .config_override(patient)
            .send()
            .await
            .expect("the function is there");
        let payload = answer
            .payload()
            .map(|blob| blob.as_ref().to_vec())
            .unwrap_or_default();
        String::from_utf8_lossy(&payload).into_owned()
    }

    /// One step of the coordinator of a slot, as its workflow calls it, within a time.
    pub async fn step(&mut self, slot: Slot, kind: &str, step: &str, budget: Duration) -> Value {
        self.step_with(slot, kind, step, budget, json!({})).await
    }

    /// The same, of an execution with this input.
    pub async fn step_with(
        &mut self,
        slot: Slot,
        kind: &str,
        step: &str,
        budget: Duration,
        input: Value,
    ) -> Value {
        let region = self.region(slot).to_owned();
        // Nobody holds the change: what held it was another step of this harness.
        let control = self.stack.control(&region);
        control
            .put_document(CHANGE, "nobody")
            .await
            .expect("the table is there");
        let names = self.stack.names();
        let name = format!("{kind}-by-hand-{}", self.number());
        let machine = names.state_machine(kind, slot);
        let event = json!({
            "step": step,
            "execution": name,
            "execution_arn": format!("arn:aws:states:{region}:{}:execution:{machine}:{name}", self.stack.account),
            "input": input,
            "budget_ms": budget.as_millis() as u64,
        });
        let answer = self
            .invoke(&region, &names.failover_coordinator(slot), &event)
            .await;
        serde_json::from_str(&answer).unwrap_or(Value::String(answer))
    }

    /// The ARNs of the executions of a workflow of a slot, of which there are a few dozen at most.
    pub async fn executions(&self, slot: Slot, kind: &str) -> BTreeSet<String> {
        let region = self.region(slot);
        let name = self.stack.names().state_machine(kind, slot);
        let machine = infra::resources::state_machine::arn(region, &self.stack.account, &name);
        let request = self.stack.cloud.sfn(region).list_executions();
        let request = request.state_machine_arn(machine).max_results(1000);
        let answer = request.send().await.expect("the workflow is there");
        let arns = answer.executions.into_iter().map(|one| one.execution_arn);
        arns.collect()
    }

    /// Runs a workflow of a slot to its end, and returns how it ended: status, error, cause.
    pub async fn execute(&self, slot: Slot, kind: &str) -> String {
        let region = self.region(slot);
        let client = self.stack.cloud.sfn(region);
        let name = self.stack.names().state_machine(kind, slot);
        let machine = infra::resources::state_machine::arn(region, &self.stack.account, &name);
        let request = client.start_execution().state_machine_arn(machine).input("{}");
        let execution = request.send().await.expect("it starts").execution_arn;
        let until = Instant::now() + PATIENCE;
        loop {
            let request = client.describe_execution().execution_arn(&execution);
            let seen = request.send().await.expect("it is there");
            if seen.status().as_str() != "RUNNING" {
                return format!("{} {:?} {:?}", seen.status(), seen.error(), seen.cause());
            }
            assert!(Instant::now() < until, "`{execution}` does not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs the reconcile workflow, which must succeed.
    pub async fn reconcile(&self, slot: Slot) {
        let ended = self.execute(slot, "reconcile").await;
        assert!(
            ended.starts_with("SUCCEEDED"),
            "{ended}\n{}",
            self.told(slot).await
        );
    }

    /// Waits until the standby has taken over.
    pub async fn taken_over(&self) {
        let control = self.stack.control(self.region(Slot::Dr));
        let until = Instant::now() + PATIENCE;
        loop {
            let record = control.read().await.expect("the standby's table answers");
            let record = record.expect("the stack is deployed");
            if record.epoch == 2 && record.phase == Phase::Serving {
                return;
            }
            assert!(Instant::now() < until, "nobody took over: {record:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the control table tells an operator: progress and drift.
    pub async fn told(&self, slot: Slot) -> String {
        let control = self.stack.control(self.region(slot));
        let mut text = String::new();
        for item in ["deployment", infra::drift::ITEM] {
            text.push_str(
                &control
                    .document(item)
                    .await
                    .expect("the table is there")
                    .unwrap_or_default(),
            );
        }
        text
    }

    /// What a function has logged.
    pub async fn logged(&self, region: &str, function: &str) -> String {
        let request = self.stack.cloud.logs(region).filter_log_events();
        let request = request.log_group_name(format!("/aws/lambda/{function}"));
        let answer = request.send().await.expect("the log group is there");
        let lines: Vec<&str> = answer
            .events()
            .iter()
            .filter_map(|event| event.message())
            .collect();
        lines.join("\n")
    }

    /// Puts something into the home region's bucket: what replication carries, and what a teardown has to empty.
    pub async fn fill_the_bucket(&self) {
        let s3 = self.stack.cloud.s3(self.stack.home());
        let bucket = self.stack.names().data_bucket(Slot::Primary, &self.stack.account);
        let request = s3.put_object().bucket(&bucket).key("evidence");
        request.send().await.expect("the bucket is there");
        let request = s3.delete_object().bucket(&bucket).key("evidence");
        request.send().await.expect("the object is there");
        let request = s3.create_multipart_upload().bucket(&bucket).key("unfinished");
        request.send().await.expect("the bucket is there");
    }

    /// A payment by a customer who gives up after `patience`.
    pub async fn pay(&mut self, patience: Duration) -> Result<(), String> {
        let key = format!("payment-{}", self.number());
        let (client, [from, to]) = self.customer().await;
        let payment = NewPayment {
            from_account: from.clone(),
            to_account: to.clone(),
            amount_minor: 100,
            currency: "EUR".to_owned(),
            reference: key.clone(),
        };
        client
            .pay(&key, &payment, patience)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// A customer asks for the statement of an account, and follows the link.
    ///
    /// # Errors
    /// What the API said in that time, or the bucket.
    pub async fn export(&mut self, patience: Duration) -> Result<(), String> {
        let (client, [account, _]) = self.customer().await;
        let path = format!("/v1/accounts/{account}/statement?from_ms=0&until_ms=1");
        let statement = client.request("GET", &path, None, patience).await;
        let statement = statement.map_err(|error| error.to_string())?;
        let link = statement["url"].as_str().expect("a statement has a link");
        let answer = reqwest::get(link).await.map_err(|error| error.to_string())?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(answer.text().await.map_err(|error| error.to_string())?)
    }

    /// A customer with two accounts, who is there from the first use on.
    async fn customer(&mut self) -> &(Client, [String; 2]) {
        if self.customer.is_none() {
            let client = bootstrap::demo::customer(&self.stack)
                .await
                .expect("a key can be made");
            let mut accounts = Vec::new();
            for number in 0..2 {
                let key = format!("account-{number}");
                let opened = client.open_account(&key, "EUR", None, PATIENCE).await;
                accounts.push(opened.expect("an account can be opened").id);
            }
            self.customer = Some((client, accounts.try_into().expect("two")));
        }
        self.customer.as_ref().expect("it is there")
    }
}

fn boundary_of(grant: &Grant) -> String {
    format!("{BOUNDARY}-{}", grant.role)
}

fn up(folder: &CloudFolder, configuration: &tempfile::TempDir, more: &[&str]) -> Value {
    let file = configuration.path().join("stack.toml");
    let config = file.to_str().expect("a path is text");
    let mut arguments = vec![
        "up",
        "--local",
        "--dir",
        folder.path(),
        "--config",
        config,
        "--output",
        "json",
    ];
    arguments.extend(more);
    run_json_within(PATIENCE, &arguments)
}
