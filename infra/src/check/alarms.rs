//! Alarms: each is on and tells a topic of its own region, which is the only one that CloudWatch can tell. Or it stops an
//! experiment, which looks at the alarm itself.

use serde_json::Value;

use super::{Finding, Rule, Stack};
use crate::placeholder;
use crate::wanted::Wanted;

#[cfg(test)]
pub(super) const KINDS: &[&str] = &["cloudwatch-alarm"];

/// The rule.
pub(super) fn check(stack: &Stack<'_>, findings: &mut Vec<Finding>) {
    for alarm in stack.of("cloudwatch-alarm") {
        if stops_an_experiment(stack, alarm) {
            continue;
        }
        let problem = if !alarm.is_set("actions_enabled") {
            Some("its actions are switched off".to_owned())
        } else if alarm.list("alarm_actions").is_empty() {
            Some("it tells nobody".to_owned())
        } else {
            let targets = alarm.list("alarm_actions").iter().filter_map(Value::as_str);
            targets
                .filter(|target| !is_topic_here(stack, alarm, target))
                .map(|target| format!("`{target}` is no topic of {}", alarm.region))
                .next()
        };
        findings.extend(
            problem
                .map(|problem| alarm.finding(Rule::Alarm, problem, "let it tell the region's alert topic")),
        );
    }
}

/// An experiment of its own region: FIS stops for no other.
fn stops_an_experiment(stack: &Stack<'_>, alarm: &Wanted) -> bool {
    stack.of("fis-template").any(|template| {
        let watched = template.list("stop_alarms").iter().filter_map(Value::as_str);
        template.region == alarm.region
            && watched
                .flat_map(placeholder::all_in)
                .any(|(key, _)| key == alarm.key)
    })
}

fn is_topic_here(stack: &Stack<'_>, alarm: &Wanted, target: &str) -> bool {
    match placeholder::all_in(target).next() {
        Some((key, _)) => stack
            .get(key)
            .is_some_and(|one| one.kind == "sns-topic" && one.region == alarm.region),
        None => target.starts_with(&format!("arn:aws:sns:{}:", alarm.region)),
    }
}
