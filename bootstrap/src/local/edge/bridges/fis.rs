//! Bridge: AWS Fault Injection Service, which the emulator does not have at all.
//!
//! What AWS does: a template names actions, their targets and the alarms that stop it; an experiment made from it breaks what
//! the actions say, until its duration is over, somebody stops it, or an alarm goes off. Here templates and experiments are kept
//! in the cloud directory, by region, and an experiment that disrupts the network cuts its region off: nothing enters or
//! leaves, but for the control planes that AWS keeps out of it (see `NetworkState::carries`). A target that is not there makes
//! the experiment fail, or the action be skipped, as the template says. IAM is not asked: calls of FIS end here.
//!
//! CloudWatch evaluates an alarm each minute, also when no data arrives, and what that means is for the alarm to say. The
//! emulator evaluates only when data arrives; so a stop alarm that takes silence for bad is watched for silence here.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::local::{
    Region,
    edge::{
        Shared,
        forward::{self, Body},
        percent,
    },
};

/// What is remembered, in the cloud directory.
const FILE: &str = "fis.json";
/// How often FIS looks at an experiment: its alarms, its end.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The action that cuts a region off.
const CUTS: &str = "aws:network:disrupt-connectivity";
/// The source of a stop condition that is an alarm.
const ALARM: &str = "aws:cloudwatch:alarm";

/// Templates and experiments of all regions.
#[derive(Debug)]
pub(in crate::local::edge) struct Fis {
    path: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// By region and id, as they are shown.
    templates: BTreeMap<Region, BTreeMap<String, Value>>,
    /// By region and id, as they are shown.
    experiments: BTreeMap<Region, BTreeMap<String, Value>>,
    /// The id of what was made for a client token, by region.
    tokens: BTreeMap<Region, BTreeMap<String, String>>,
}

/// What an answer is, and what else must happen.
struct Reply {
    status: StatusCode,
    body: Value,
    /// The experiment that begins now.
    begins: Option<String>,
}

impl Reply {
    fn of(status: StatusCode, body: Value) -> Self {
        Reply {
            status,
            body,
            begins: None,
        }
    }
}

/// An error of the service, by its type.
struct Refusal(StatusCode, &'static str, String);

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, "ValidationException", message.into())
}

fn no_such(what: &str, id: &str) -> Refusal {
    Refusal(
        StatusCode::NOT_FOUND,
        "ResourceNotFoundException",
        format!("{what} {id} was not found."),
    )
}

/// A call.
struct Call<'a> {
    region: Region,
    method: &'a Method,
    path: Vec<String>,
    query: &'a str,
    body: Value,
    now_s: f64,
}

impl Fis {
    /// Remembers what it knew when the cloud last ran.
    pub(in crate::local::edge) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let kept = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            path,
            kept: Mutex::new(kept),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, kept: &Kept) {
        let written = serde_json::to_vec(kept)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&self.path, text));
        if let Err(error) = written {
            tracing::error!(path = %self.path.display(), %error, "the experiments cannot be kept");
        }
    }

    fn answer(&self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let mut kept = self.lock();
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        let reply = match (call.method.as_str(), path.as_slice()) {
            ("POST", ["experimentTemplates"]) => kept.create_template(call),
            ("GET", ["experimentTemplates"]) => Ok(kept.list_templates(call)),
            ("GET", ["experimentTemplates", id]) => kept.template(call.region, id).map(shown_template),
            ("PATCH", ["experimentTemplates", id]) => kept.update_template(call, id),
            ("DELETE", ["experimentTemplates", id]) => {
                let template = kept.template(call.region, id)?.clone();
                kept.templates.entry(call.region).or_default().remove(*id);
                Ok(shown_template(&template))
            }
            ("POST", ["experiments"]) => kept.start(call),
            ("GET", ["experiments"]) => Ok(kept.list_experiments(call)),
            ("GET", ["experiments", id]) => kept.experiment(call.region, id).map(shown_experiment),
            ("DELETE", ["experiments", id]) => kept.stop(call, id),
            ("GET", ["tags", arn @ ..]) => kept
                .tags(call.region, &arn.join("/"))
                .map(|tags| Reply::of(StatusCode::OK, json!({ "tags": tags }))),
            ("POST" | "DELETE", ["tags", arn @ ..]) => kept.change_tags(call, &arn.join("/")),
            _ => Err(Refusal(
                StatusCode::NOT_FOUND,
                "UnknownOperationException",
                "The local cloud does not have this operation of FIS.".to_owned(),
            )),
        }?;
        if call.method != Method::GET {
            self.save(&kept);
        }
        Ok(reply)
    }

    /// Experiments that were under way when the cloud last stopped.
    fn open_experiments(&self) -> Vec<(Region, String)> {
        let kept = self.lock();
        let all = kept.experiments.iter();
        all.flat_map(|(region, experiments)| {
            experiments
                .iter()
                .filter(|(_, experiment)| !is_over(experiment))
                .map(|(id, _)| (*region, id.clone()))
        })
        .collect()
    }

    /// The experiment as it is now.
    fn now(&self, region: Region, id: &str) -> Option<Value> {
        self.lock().experiments.get(&region)?.get(id).cloned()
    }

    /// Puts the experiment, and those of its actions that `moves` says, into a state.
    fn set(
        &self,
        region: Region,
        id: &str,
        status: &str,
        reason: &str,
        moves: impl Fn(&str, &str) -> Option<String>,
    ) {
        let mut kept = self.lock();
        let found = kept.experiments.get_mut(&region).and_then(|all| all.get_mut(id));
        let Some(experiment) = found else { return };
        experiment["state"] = json!({ "status": status, "reason": reason });
        if is_over(experiment) {
            experiment["endTime"] = json!(now_s());
        }
        for (name, action) in experiment["actions"].as_object_mut().into_iter().flatten() {
            let before = status_of(action).to_owned();
            if let Some(status) = moves(name, &before) {
                action["state"] = json!({ "status": status, "reason": reason });
            }
        }
        self.save(&kept);
    }
}

fn status_of(of: &Value) -> &str {
    of["state"]["status"].as_str().unwrap_or_default()
}

fn is_over(experiment: &Value) -> bool {
    ["completed", "stopped", "failed", "cancelled"].contains(&status_of(experiment))
}

fn shown_template(template: &Value) -> Reply {
    Reply::of(StatusCode::OK, json!({ "experimentTemplate": template }))
}

fn shown_experiment(experiment: &Value) -> Reply {
    Reply::of(StatusCode::OK, json!({ "experiment": experiment }))
}

/// The fields of a summary.
fn summary(of: &Value, fields: &[&str]) -> Value {
    let fields = fields
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), of.get(field)?.clone())));
    Value::Object(fields.collect())
}

fn fresh(prefix: &str) -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}{}", &id[..17])
}

fn account(role_arn: &str) -> &str {
    role_arn.split(':').nth(4).unwrap_or_default()
}

impl Kept {
    fn template(&self, region: Region, id: &str) -> Result<&Value, Refusal> {
        let found = self.templates.get(&region).and_then(|all| all.get(id));
        found.ok_or_else(|| no_such("Experiment template", id))
    }

    fn experiment(&self, region: Region, id: &str) -> Result<&Value, Refusal> {
        let found = self.experiments.get(&region).and_then(|all| all.get(id));
        found.ok_or_else(|| no_such("Experiment", id))
    }

    fn create_template(&mut self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let token = call.body["clientToken"].as_str().unwrap_or_default();
        if let Some(id) = self.tokens.get(&call.region).and_then(|tokens| tokens.get(token)) {
            return self.template(call.region, id).map(shown_template);
        }
        let mut template = call.body.clone();
        if template["stopConditions"].as_array().is_none_or(Vec::is_empty) {
            return Err(invalid(
                "Stop conditions are required: name an alarm, or the source none.",
            ));
        }
        check(&template)?;
        let id = fresh("EXT");
        let Some(fields) = template.as_object_mut() else {
            return Err(invalid("The template is no object."));
        };
        fields.remove("clientToken");
        let account = fields["roleArn"].as_str().map(account).unwrap_or_default();
        let arn = format!("arn:aws:fis:{}:{account}:experiment-template/{id}", call.region);
        fields.insert("arn".into(), json!(arn));
        fields.insert("id".into(), json!(id));
        fields.insert("creationTime".into(), json!(call.now_s));
        fields.insert("lastUpdateTime".into(), json!(call.now_s));
        fields.entry("tags").or_insert_with(|| json!({}));
        let options = fields.entry("experimentOptions").or_insert_with(|| json!({}));
        if options["emptyTargetResolutionMode"].is_null() {
            options["emptyTargetResolutionMode"] = json!("fail");
        }
        if options["accountTargeting"].is_null() {
            options["accountTargeting"] = json!("single-account");
        }
        let token = token.to_owned();
        self.tokens
            .entry(call.region)
            .or_default()
            .insert(token, id.clone());
        self.templates
            .entry(call.region)
            .or_default()
            .insert(id, template.clone());
        Ok(shown_template(&template))
    }

    /// What is given replaces what was there.
    fn update_template(&mut self, call: &Call<'_>, id: &str) -> Result<Reply, Refusal> {
        let mut template = self.template(call.region, id)?.clone();
        for field in [
            "description",
            "stopConditions",
            "targets",
            "actions",
            "roleArn",
            "logConfiguration",
        ] {
            if let Some(given) = call.body.get(field) {
                template[field] = given.clone();
            }
        }
        for (option, given) in call.body["experimentOptions"].as_object().into_iter().flatten() {
            template["experimentOptions"][option] = given.clone();
        }
        check(&template)?;
        template["lastUpdateTime"] = json!(call.now_s);
        self.templates
            .entry(call.region)
            .or_default()
            .insert(id.to_owned(), template.clone());
        Ok(shown_template(&template))
    }

    fn list_templates(&self, call: &Call<'_>) -> Reply {
        let fields = [
            "id",
            "arn",
            "description",
            "creationTime",
            "lastUpdateTime",
            "tags",
        ];
        let all = self
            .templates
            .get(&call.region)
            .into_iter()
            .flat_map(BTreeMap::values);
        let list: Vec<Value> = all.map(|template| summary(template, &fields)).collect();
        Reply::of(StatusCode::OK, json!({ "experimentTemplates": list }))
    }

    fn list_experiments(&self, call: &Call<'_>) -> Reply {
        let of = percent::value(call.query, "experimentTemplateId");
        let fields = [
            "id",
            "arn",
            "experimentTemplateId",
            "state",
            "creationTime",
            "tags",
        ];
        let all = self
            .experiments
            .get(&call.region)
            .into_iter()
            .flat_map(BTreeMap::values);
        let list: Vec<Value> = all
            .filter(|one| of.as_deref().is_none_or(|id| one["experimentTemplateId"] == id))
            .map(|experiment| summary(experiment, &fields))
            .collect();
        Reply::of(StatusCode::OK, json!({ "experiments": list }))
    }

    fn start(&mut self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let token = call.body["clientToken"].as_str().unwrap_or_default();
        if let Some(id) = self.tokens.get(&call.region).and_then(|tokens| tokens.get(token)) {
            return self.experiment(call.region, id).map(shown_experiment);
        }
        let template_id = call.body["experimentTemplateId"].as_str().unwrap_or_default();
        let template = self.template(call.region, template_id)?;
        let alarms = template["stopConditions"].as_array().into_iter().flatten();
        let elsewhere = alarms
            .filter(|condition| condition["source"] == ALARM)
            .filter_map(|condition| condition["value"].as_str())
            .find(|arn| arn.split(':').nth(3) != Some(call.region.name()));
        if let Some(arn) = elsewhere {
            // Seen on AWS: it is taken with the template, and refused here.
            return Err(invalid(format!("The alarm {arn} is not in this region.")));
        }
        let id = fresh("EXP");
        let role = template["roleArn"].as_str().unwrap_or_default();
        let arn = format!("arn:aws:fis:{}:{}:experiment/{id}", call.region, account(role));
        let mut experiment = summary(
            template,
            &[
                "roleArn",
                "stopConditions",
                "targets",
                "actions",
                "experimentOptions",
                "logConfiguration",
            ],
        );
        for action in experiment["actions"]
            .as_object_mut()
            .into_iter()
            .flatten()
            .map(|(_, action)| action)
        {
            action["state"] = json!({ "status": "pending", "reason": "Initial state" });
        }
        for (field, value) in [
            ("id", json!(id)),
            ("arn", json!(arn)),
            ("experimentTemplateId", json!(template_id)),
            (
                "state",
                json!({ "status": "initiating", "reason": "Experiment is initiating." }),
            ),
            ("creationTime", json!(call.now_s)),
            ("startTime", json!(call.now_s)),
            (
                "tags",
                call.body.get("tags").cloned().unwrap_or_else(|| json!({})),
            ),
        ] {
            experiment[field] = value;
        }
        let token = token.to_owned();
        self.tokens
            .entry(call.region)
            .or_default()
            .insert(token, id.clone());
        self.experiments
            .entry(call.region)
            .or_default()
            .insert(id.clone(), experiment.clone());
        Ok(Reply {
            begins: Some(id),
            ..shown_experiment(&experiment)
        })
    }

    fn stop(&mut self, call: &Call<'_>, id: &str) -> Result<Reply, Refusal> {
        let mut experiment = self.experiment(call.region, id)?.clone();
        if is_over(&experiment) {
            return Err(invalid("The experiment has ended and cannot be stopped."));
        }
        experiment["state"] = json!({ "status": "stopping", "reason": "Experiment is stopping." });
        self.experiments
            .entry(call.region)
            .or_default()
            .insert(id.to_owned(), experiment.clone());
        Ok(shown_experiment(&experiment))
    }

    fn tagged(&mut self, region: Region, arn: &str) -> Result<&mut Value, Refusal> {
        let id = arn.rsplit('/').next().unwrap_or(arn);
        let templates = self.templates.get_mut(&region).and_then(|all| all.get_mut(id));
        let experiments = self.experiments.get_mut(&region).and_then(|all| all.get_mut(id));
        templates.or(experiments).ok_or_else(|| no_such("Resource", arn))
    }

    fn tags(&mut self, region: Region, arn: &str) -> Result<Value, Refusal> {
        Ok(self.tagged(region, arn)?["tags"].clone())
    }

    fn change_tags(&mut self, call: &Call<'_>, arn: &str) -> Result<Reply, Refusal> {
        let tagged = self.tagged(call.region, arn)?;
        let Some(tags) = tagged["tags"].as_object_mut() else {
            return Err(no_such("Resource", arn));
        };
        if call.method == Method::POST {
            tags.extend(call.body["tags"].as_object().cloned().unwrap_or_default());
        } else {
            for (name, key) in percent::pairs(call.query) {
                if name == "tagKeys" {
                    tags.remove(&key);
                }
            }
        }
        Ok(Reply::of(StatusCode::OK, json!({})))
    }
}

/// What FIS checks of a template: every action has its target, and lasts.
fn check(template: &Value) -> Result<(), Refusal> {
    let none = Map::new();
    let of = |field: &str| template[field].as_object().unwrap_or(&none);
    if of("actions").is_empty() {
        return Err(invalid("A template has at least one action."));
    }
    for (name, action) in of("actions") {
        for target in action["targets"].as_object().unwrap_or(&none).values() {
            let target = target.as_str().unwrap_or_default();
            if !of("targets").contains_key(target) {
                return Err(invalid(format!("Action {name} has no target {target}.")));
            }
        }
        if duration(action).is_none() {
            return Err(invalid(format!(
                "Action {name} has no duration of minutes, like PT10M."
            )));
        }
    }
    for (name, target) in of("targets") {
        let arns = target["resourceArns"].as_array().map_or(0, Vec::len);
        if arns > 5 {
            return Err(invalid(format!("Target {name} has more than five resources.")));
        }
    }
    Ok(())
}

/// `PT10M`, `PT1H` or `PT90S`.
fn duration(action: &Value) -> Option<Duration> {
    let text = action["parameters"]["duration"].as_str()?.strip_prefix("PT")?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "S" => 1,
        "M" => 60,
        "H" => 3600,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()? * seconds))
}

fn now_s() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Answers a call of FIS in `region`.
pub(in crate::local::edge) fn answer(
    shared: &Arc<Shared>,
    region: Region,
    parts: &http::request::Parts,
    body: &[u8],
) -> Response<Body> {
    let body = match body {
        [] => Ok(Value::Null),
        text => serde_json::from_slice(text),
    };
    let Ok(body) = body else {
        return forward::error(
            StatusCode::BAD_REQUEST,
            "SerializationException",
            "The body is no JSON.",
        );
    };
    // An ARN in the path is one part of it, encoded.
    let path = parts.uri.path().split('/').skip(1).map(percent::decode).collect();
    let call = Call {
        region,
        method: &parts.method,
        path,
        query: parts.uri.query().unwrap_or_default(),
        body,
        now_s: now_s(),
    };
    match shared.fis.answer(&call) {
        Ok(reply) => {
            if let Some(id) = reply.begins {
                conduct(shared, region, id);
            }
            forward::answer(reply.status, "application/json", reply.body.to_string())
        }
        Err(Refusal(status, kind, message)) => forward::error(status, kind, &message),
    }
}

/// Goes on with the experiments that were under way when the cloud last stopped.
pub(in crate::local::edge) fn resume(shared: &Arc<Shared>) {
    for (region, id) in shared.fis.open_experiments() {
        conduct(shared, region, id);
    }
}

fn conduct(shared: &Arc<Shared>, region: Region, id: String) {
    let work = shared.clone();
    shared
        .tasks
        .spawn(async move { experiment(&work, region, &id).await });
}

/// An experiment from its beginning to its end.
///
/// 1. Find the targets: what is missing makes it fail, or the action be skipped.
/// 2. A stop alarm that is in alarm ends it before it breaks anything.
/// 3. Break, and look each second: is it to stop, is an alarm in alarm, is the time over?
/// 4. Put everything back.
async fn experiment(shared: &Arc<Shared>, region: Region, id: &str) {
    let Some(begun) = shared.fis.now(region, id) else {
        return;
    };
    let mut skipped = Vec::new();
    for (name, action) in begun["actions"].as_object().into_iter().flatten() {
        if !found(shared, region, &begun, action).await {
            skipped.push(name.clone());
        }
    }
    if !skipped.is_empty() && begun["experimentOptions"]["emptyTargetResolutionMode"] != "skip" {
        let reason = "Target resolution returned empty set";
        shared
            .fis
            .set(region, id, "failed", reason, |_, _| Some("cancelled".into()));
        return;
    }
    if let Some(alarm) = in_alarm(shared, region, &begun).await {
        let reason = format!("Experiment halted by stop condition: {alarm}");
        shared
            .fis
            .set(region, id, "stopped", &reason, |_, _| Some("cancelled".into()));
        return;
    }
    let runs =
        |name: &str, action: &Value| !skipped.iter().any(|one| one == name) && action["actionId"] == CUTS;
    let cuts = begun["actions"]
        .as_object()
        .into_iter()
        .flatten()
        .any(|(name, action)| runs(name, action));
    // Stopped before it began.
    if shared
        .fis
        .now(region, id)
        .is_some_and(|now| status_of(&now) == "initiating")
    {
        if cuts {
            shared.network.isolate(region);
        }
        shared
            .fis
            .set(region, id, "running", "Experiment is running.", |name, _| {
                let status = if skipped.iter().any(|one| one == name) {
                    "skipped"
                } else {
                    "running"
                };
                Some(status.into())
            });
    }
    let lasts = begun["actions"].as_object().into_iter().flatten();
    let lasts = lasts
        .filter_map(|(_, action)| duration(action))
        .max()
        .unwrap_or_default();
    let until_s = begun["startTime"].as_f64().unwrap_or_default() + lasts.as_secs_f64();
    let (status, reason) = loop {
        let Some(now) = shared.fis.now(region, id) else {
            break ("stopped", "The experiment is gone.".to_owned());
        };
        if status_of(&now) == "stopping" {
            break ("stopped", "Experiment stopped.".to_owned());
        }
        if now_s() >= until_s {
            break ("completed", "Experiment completed.".to_owned());
        }
        if let Some(alarm) = in_alarm(shared, region, &now).await {
            break ("stopped", format!("Experiment halted by stop condition: {alarm}"));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    if cuts {
        shared.network.rejoin(region);
        if let Err(error) = shared.mirror.joined().await {
            tracing::error!(%region, error = %error, "the database servers are not what they should be");
        }
    }
    shared.fis.set(region, id, status, &reason, |_, before| {
        (before == "running").then(|| status.into())
    });
}

/// Whether the emulator has all that the action is to hit.
async fn found(shared: &Arc<Shared>, region: Region, experiment: &Value, action: &Value) -> bool {
    for target in action["targets"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, target)| target)
    {
        let target = &experiment["targets"][target.as_str().unwrap_or_default()];
        let arns: Vec<&str> = (target["resourceArns"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        if arns.is_empty() {
            return false;
        }
        for arn in arns {
            let name = arn.rsplit('/').next().unwrap_or(arn);
            let exists = match target["resourceType"].as_str() {
                Some("aws:ec2:subnet") => {
                    let form = format!("Action=DescribeSubnets&Version=2016-11-15&SubnetId.1={name}");
                    let request =
                        Request::post("/").header("content-type", "application/x-www-form-urlencoded");
                    ask(shared, region, "ec2", request, form).await.is_some()
                }
                Some("aws:dynamodb:global-table") => {
                    let request = json_call("DynamoDB_20120810.DescribeTable");
                    let body = json!({ "TableName": name }).to_string();
                    ask(shared, region, "dynamodb", request, body).await.is_some()
                }
                _ => true,
            };
            if !exists {
                return false;
            }
        }
    }
    true
}

/// The first of the experiment's stop alarms that is in alarm, or would be if the emulator evaluated it when no data arrives.
async fn in_alarm(shared: &Arc<Shared>, region: Region, experiment: &Value) -> Option<String> {
    let conditions = experiment["stopConditions"].as_array().into_iter().flatten();
    for condition in conditions.filter(|condition| condition["source"] == ALARM) {
        let name = condition["value"].as_str()?.rsplit(':').next()?;
        let request = json_call("GraniteServiceVersion20100801.DescribeAlarms");
        let body = json!({ "AlarmNames": [name] }).to_string();
        let described = ask(shared, region, "monitoring", request, body).await?;
        let described: Value = serde_json::from_slice(&described).ok()?;
        let alarm = &described["MetricAlarms"][0];
        if alarm["StateValue"] == "ALARM" || is_silent(shared, region, alarm).await {
            return Some(name.to_owned());
        }
    }
    None
}

async fn is_silent(shared: &Arc<Shared>, region: Region, alarm: &Value) -> bool {
    if alarm["TreatMissingData"] != "breaching" {
        return false;
    }
    let period = alarm["Period"].as_f64().unwrap_or(60.0);
    let window = period * alarm["EvaluationPeriods"].as_f64().unwrap_or(1.0);
    let request = json_call("GraniteServiceVersion20100801.GetMetricStatistics");
    let body = json!({ "Namespace": alarm["Namespace"], "MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"],
        "StartTime": now_s() - window, "EndTime": now_s() + 1.0, "Period": period, "Statistics": ["SampleCount"] });
    let Some(answer) = ask(shared, region, "monitoring", request, body.to_string()).await else {
        return false;
    };
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    answer["Datapoints"].as_array().is_some_and(Vec::is_empty)
}

fn json_call(target: &str) -> http::request::Builder {
    Request::post("/")
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", target)
}

/// Asks the emulator in FIS's own name. `None` for an error.
async fn ask(
    shared: &Arc<Shared>,
    region: Region,
    service: &str,
    request: http::request::Builder,
    body: String,
) -> Option<Bytes> {
    let signature = format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
    );
    let request = request
        .header("authorization", signature)
        .header("content-length", body.len());
    let (parts, ()) = request.body(()).ok()?.into_parts();
    let path = http::uri::PathAndQuery::from_static("/");
    let answer = shared
        .emulator
        .send(parts, path, forward::full(body))
        .await
        .ok()?;
    let (head, body) = answer.into_parts();
    let body = forward::read(body).await.ok()?;
    head.status.is_success().then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Region::{UsEast1, UsEast2};

    fn fis() -> (tempfile::TempDir, Fis) {
        let directory = tempfile::tempdir().unwrap();
        let fis = Fis::open(directory.path()).unwrap();
        (directory, fis)
    }

    fn call(
        fis: &Fis,
        region: Region,
        method: &Method,
        path: &str,
        body: Value,
    ) -> Result<Value, &'static str> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let call = Call {
            region,
            method,
            path: path.split('/').skip(1).map(percent::decode).collect(),
            query,
            body,
            now_s: 1.0,
        };
        match fis.answer(&call) {
            Ok(reply) => Ok(reply.body),
            Err(Refusal(_, kind, _)) => Err(kind),
        }
    }

    fn template(alarm_region: Region) -> Value {
        json!({
            "clientToken": "t", "description": "d", "roleArn": "arn:aws:iam::000000000000:role/r", "tags": {"a": "b"},
            "targets": {"subnets": {"resourceType": "aws:ec2:subnet", "resourceArns": ["arn:s"], "selectionMode": "ALL"}},
            "actions": {"cut": {"actionId": CUTS, "parameters": {"duration": "PT1M"}, "targets": {"Subnets": "subnets"}}},
            "stopConditions": [
                {"source": ALARM, "value": format!("arn:aws:cloudwatch:{alarm_region}:000000000000:alarm:a")}],
        })
    }

    fn create(fis: &Fis, region: Region, template: Value) -> Result<String, &'static str> {
        let made = call(fis, region, &Method::POST, "/experimentTemplates", template)?;
        Ok(made["experimentTemplate"]["id"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_template_is_one_regions_and_is_remembered() {
        let (directory, fis) = fis();
        let id = create(&fis, UsEast1, template(UsEast1)).unwrap();
        assert_eq!(
            create(&fis, UsEast1, template(UsEast1)).unwrap(),
            id,
            "the same token"
        );
        let again = Fis::open(directory.path()).unwrap();
        let path = format!("/experimentTemplates/{id}");
        let seen = call(&again, UsEast1, &Method::GET, &path, Value::Null).unwrap();
        let arn = format!("arn:aws:fis:us-east-1:000000000000:experiment-template/{id}");
        assert_eq!(seen["experimentTemplate"]["arn"], arn);
        assert_eq!(
            call(&again, UsEast2, &Method::GET, &path, Value::Null),
            Err("ResourceNotFoundException")
        );
        let tags = format!("/tags/{}", percent::encode(&arn));
        call(&again, UsEast1, &Method::POST, &tags, json!({"tags": {"c": "d"}})).unwrap();
        call(
            &again,
            UsEast1,
            &Method::DELETE,
            &format!("{tags}?tagKeys=a"),
            Value::Null,
        )
        .unwrap();
        let tags = call(&again, UsEast1, &Method::GET, &tags, Value::Null).unwrap();
        assert_eq!(tags, json!({"tags": {"c": "d"}}));
        call(&again, UsEast1, &Method::DELETE, &path, Value::Null).unwrap();
        let left = call(&again, UsEast1, &Method::GET, "/experimentTemplates", Value::Null).unwrap();
        assert_eq!(left, json!({"experimentTemplates": []}));
    }

    #[test]
    fn what_fis_refuses_is_refused() {
        let (_directory, fis) = fis();
        let without = |field: &str| {
            let mut template = template(UsEast1);
            template.as_object_mut().unwrap().remove(field);
            template
        };
        for field in ["stopConditions", "actions", "targets"] {
            assert_eq!(
                create(&fis, UsEast1, without(field)),
                Err("ValidationException"),
                "{field}"
            );
        }
        // The alarm of another region is taken with the template and refused at the start.
        let id = create(&fis, UsEast1, template(UsEast2)).unwrap();
        let start = json!({"experimentTemplateId": id, "clientToken": "drill"});
        assert_eq!(
            call(&fis, UsEast1, &Method::POST, "/experiments", start),
            Err("ValidationException")
        );
    }

    #[test]
    fn an_experiment_begins_once_for_a_token_and_stops_once() {
        let (_directory, fis) = fis();
        let id = create(&fis, UsEast1, template(UsEast1)).unwrap();
        let start = json!({"experimentTemplateId": id, "clientToken": "drill", "tags": {"x": "y"}});
        let first = call(&fis, UsEast1, &Method::POST, "/experiments", start.clone()).unwrap();
        let second = call(&fis, UsEast1, &Method::POST, "/experiments", start).unwrap();
        assert_eq!(first["experiment"]["id"], second["experiment"]["id"]);
        assert_eq!(
            first["experiment"]["actions"]["cut"]["state"]["status"],
            "pending"
        );
        let path = format!("/experiments/{}", first["experiment"]["id"].as_str().unwrap());
        let stopping = call(&fis, UsEast1, &Method::DELETE, &path, Value::Null).unwrap();
        assert_eq!(stopping["experiment"]["state"]["status"], "stopping");
        let id = first["experiment"]["id"].as_str().unwrap();
        fis.set(UsEast1, id, "stopped", "", |_, _| None);
        assert_eq!(
            call(&fis, UsEast1, &Method::DELETE, &path, Value::Null),
            Err("ValidationException")
        );
        assert!(fis.open_experiments().is_empty());
    }
}
