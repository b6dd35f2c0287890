//! What isolates a serving region for a drill: an experiment of AWS Fault Injection Service (FIS), the role that it takes, and
//! the alarm that stops it. Both serving regions have all three, because the active region moves.
//!
//! What is broken, and why this:
//! - The subnets of payment-processor and database let nothing in or out. The function can then read neither control table nor
//!   credentials nor, across zones, the database: `/health` says 503 and no payment is acknowledged.
//! - The region's replicas of control table and journal are cut from all others. So what runs outside the VPC (the observer, a
//!   coordinator that does not know yet) can write nothing and reads no strong answer, as in a region that is lost.
//!
//! Replication of the bucket is left alone: FIS finds buckets by tag only, and goes on replicating for up to an hour, which is
//! longer than the isolation; no failover waits for it. [`NOT_BROKEN`] says what else an isolation does not prove.
//!
//! An experiment ends by itself (`drill.isolation_minutes`), and earlier when the drill is no longer watched: the workflow writes
//! a metric into the region all along. Without it for two minutes, or with a zero, the alarm goes off, and FIS puts everything
//! back. An alarm on what clients see could not do that: the isolated region sees no client, and nobody who is cut off knows
//! whether the standby serves. The alarm must be in the experiment's own region: FIS takes another at creation and refuses to
//! start with it.
//!
//! Sources: <https://docs.aws.amazon.com/fis/latest/userguide/fis-actions-reference.html>,
//! <https://docs.aws.amazon.com/fis/latest/userguide/cross-region-scenario.html>.

use std::collections::{BTreeMap, BTreeSet};

use continuity::names::Slot;
use serde_json::{Value, json};

use super::Context;
use super::observability::{NAMESPACE, STACK_DIMENSION};
use super::roles::{self, Purpose};
use crate::graph::{Blueprint, Handle};
use crate::resources::cloudwatch_alarm::{self, CloudwatchAlarm, Metric};
use crate::resources::fis_template::{self, Action, FisTemplate, Target};
use crate::resources::iam_role;
use crate::resources::subnet::{self, Subnet};

/// The metric of the drill's workflow: 1 while it watches an isolation and all goes as it should.
pub const WATCHED: &str = "DrillWatched";
/// Seconds of the alarm's period. A workflow that is alive writes several times in one.
pub const PERIOD_S: i32 = 60;
/// Periods without a good word, after which the isolation stops: one may be lost to a slow call.
pub const PERIODS: i32 = 2;

/// What goes on in an isolated region, and in a lost one does not: an isolation proves nothing about it.
pub const NOT_BROKEN: [&str; 3] = [
    "The region's control planes, API Gateway and Lambda answer: only the subnets and the two tables are cut off.",
    "Aurora goes on replicating, because its storage is not in the subnets: less is replayed than after a real loss.",
    "The bucket goes on replicating.",
];

const CUT_SUBNETS: &str = "aws:network:disrupt-connectivity";
const CUT_TABLES: &str = "aws:dynamodb:global-table-pause-replication";
/// What FIS is told to do, and all that the coordinator may tell it to.
pub(super) const ACTIONS: [&str; 2] = [CUT_SUBNETS, CUT_TABLES];

/// As many ARNs as FIS takes in one target: <https://docs.aws.amazon.com/fis/latest/userguide/fis-quotas.html>.
const ARNS_PER_TARGET: usize = 5;

/// The blueprint key of a slot's experiment template: the value of its tag.
pub fn key(slot: Slot) -> String {
    format!("isolation.{slot}")
}

/// The experiment template of a serving slot, with its role and its alarm.
pub fn isolation(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot, subnets: &[Handle<Subnet>]) {
    let place = context.place(slot);
    let alarm = unwatched(blueprint, context, slot);
    let purpose = Purpose {
        what: "isolate",
        slot,
        description: "Isolates the region in a drill.",
        service: "fis.amazonaws.com",
    };
    let may = permissions(context, slot);
    let role = roles::service(blueprint, context, purpose, [].into(), (), move |()| may.clone());
    let name = context.names.isolation(slot);
    let (region, account) = (context.region(slot).to_owned(), context.account.to_owned());
    let tables: BTreeSet<String> = tables(context, slot).into();
    let duration = format!("PT{}M", context.spec.drill.isolation_minutes);
    let template: Handle<FisTemplate> = blueprint.add(
        key(slot),
        &place,
        (role.role.clone(), alarm, subnets.to_vec()),
        move |(role, alarm, subnets): (
            iam_role::Outputs,
            cloudwatch_alarm::Outputs,
            Vec<subnet::Outputs>,
        )| {
            let mut targets = BTreeMap::from([(
                "tables".to_owned(),
                Target {
                    resource_type: "aws:dynamodb:global-table".into(),
                    arns: tables.clone(),
                },
            )]);
            let mut actions = BTreeMap::from([(
                "cut-tables".to_owned(),
                action(CUT_TABLES, &[("duration", &duration)], ("Tables", "tables")),
            )]);
            for (part, subnets) in (1..).zip(subnets.chunks(ARNS_PER_TARGET)) {
                let arn = |subnet: &subnet::Outputs| {
                    format!("arn:aws:ec2:{region}:{account}:subnet/{}", subnet.subnet_id)
                };
                let target = format!("subnets-{part}");
                let parameters = [("duration", duration.as_str()), ("scope", "all")];
                actions.insert(
                    format!("cut-{target}"),
                    action(CUT_SUBNETS, &parameters, ("Subnets", &target)),
                );
                targets.insert(
                    target,
                    Target {
                        resource_type: "aws:ec2:subnet".into(),
                        arns: subnets.iter().map(arn).collect(),
                    },
                );
            }
            fis_template::Spec {
                name: name.clone(),
                description: "Isolates the region in a drill.".into(),
                targets,
                actions,
                stop_alarms: BTreeSet::from([alarm.arn]),
                role_arn: role.arn,
                // The scenarios that AWS offers skip what they do not find: such a drill would test nothing.
                fails_without_target: true,
                tagged: true,
            }
        },
    );
    role.before(blueprint, &template);
}

fn action(id: &str, parameters: &[(&str, &str)], (word, target): (&str, &str)) -> Action {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Action {
        action: id.into(),
        parameters: parameters.iter().map(pair).collect(),
        targets: BTreeMap::from([pair(&(word, target))]),
    }
}

/// It tells nobody but FIS: it is in alarm whenever there is no drill, which is no news.
fn unwatched(blueprint: &mut Blueprint, context: &Context<'_>, slot: Slot) -> Handle<CloudwatchAlarm> {
    let spec = cloudwatch_alarm::Spec {
        name: context.names.unwatched_alarm(slot),
        description: "Stops the isolation of this region when no drill watches it. In alarm whenever there is no such drill: \
                      nothing needs to be done."
            .into(),
        metric: Metric {
            namespace: NAMESPACE.into(),
            name: WATCHED.into(),
            dimensions: BTreeMap::from([(STACK_DIMENSION.to_owned(), context.spec.suffix.clone())]),
        },
        // One zero is enough.
        statistic: "Minimum".into(),
        period_s: PERIOD_S,
        evaluation_periods: PERIODS,
        datapoints_to_alarm: PERIODS,
        threshold: 1.0,
        comparison: "LessThanThreshold".into(),
        missing_data: "breaching".into(),
        alarm_actions: BTreeSet::new(),
        ok_actions: BTreeSet::new(),
        actions_enabled: false,
        tagged: true,
    };
    blueprint.add(
        format!("alarm.drill-unwatched.{slot}"),
        &context.place(slot),
        (),
        move |()| spec.clone(),
    )
}

fn tables(context: &Context<'_>, slot: Slot) -> [String; 2] {
    let (region, account) = (context.region(slot), context.account);
    [context.names.control_table(), context.names.journal_table()]
        .map(|table| format!("arn:aws:dynamodb:{region}:{account}:table/{table}"))
}

/// What the two actions ask for, on what is ours. FIS works on a copy of each subnet's network ACL, which it marks.
fn permissions(context: &Context<'_>, slot: Slot) -> Vec<Value> {
    let (region, account) = (context.region(slot), context.account);
    let ec2 = |what: &str| format!("arn:aws:ec2:{region}:{account}:{what}/*");
    let stack = json!({"StringEquals": {"aws:ResourceTag/understudy:stack": context.spec.suffix}});
    let marked = |key: &str| json!({"StringEquals": {format!("aws:{key}/managedByFIS"): "true"}});
    let allow = |sid: &str, actions: &[&str], resources: Value| json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources});
    let allow_if = |sid: &str, actions: &[&str], resources: Value, condition: Value| {
        let mut statement = allow(sid, actions, resources);
        statement["Condition"] = condition;
        statement
    };
    vec![
        allow(
            "Look",
            &[
                "ec2:DescribeManagedPrefixLists",
                "ec2:DescribeNetworkAcls",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
                "tag:GetResources",
            ],
            json!("*"),
        ),
        allow_if(
            "CopyAcl",
            &["ec2:CreateNetworkAcl"],
            json!(ec2("network-acl")),
            marked("RequestTag"),
        ),
        allow_if(
            "CopyAclInVpc",
            &["ec2:CreateNetworkAcl"],
            json!(ec2("vpc")),
            stack.clone(),
        ),
        allow_if(
            "MarkCopy",
            &["ec2:CreateTags"],
            json!(ec2("network-acl")),
            json!({"StringEquals": {"ec2:CreateAction": "CreateNetworkAcl", "aws:RequestTag/managedByFIS": "true"}}),
        ),
        allow_if(
            "ChangeCopy",
            &["ec2:CreateNetworkAclEntry", "ec2:DeleteNetworkAcl"],
            json!(ec2("network-acl")),
            marked("ResourceTag"),
        ),
        // The original comes back in the same way, and has no mark.
        allow(
            "UseAcl",
            &["ec2:ReplaceNetworkAclAssociation"],
            json!(ec2("network-acl")),
        ),
        allow_if(
            "UseAclInSubnets",
            &["ec2:ReplaceNetworkAclAssociation"],
            json!(ec2("subnet")),
            stack,
        ),
        allow(
            "CutTables",
            &[
                "dynamodb:DeleteResourcePolicy",
                "dynamodb:DescribeTable",
                "dynamodb:GetResourcePolicy",
                "dynamodb:PutResourcePolicy",
            ],
            json!(tables(context, slot)),
        ),
        // Of strongly consistent tables. It knows no resource; only FIS can use it.
        allow("CutStrongTables", &["dynamodb:InjectError"], json!("*")),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::blueprint::blueprint;
    use crate::spec::Spec;
    use crate::wanted::Wanted;

    fn wanted(spec: &Spec, key: &str) -> Wanted {
        let all = blueprint(spec, "000000000000").wanted().unwrap();
        all.into_iter().find(|one| one.key == key).unwrap()
    }

    #[test]
    fn the_isolation_is_what_was_reviewed() {
        let text = |key| serde_json::to_string_pretty(&wanted(&Spec::default(), key).spec).unwrap();
        insta::assert_snapshot!("isolation", text("isolation.primary"));
        insta::assert_snapshot!("isolation-role", text("role-policies.isolate.primary"));
        insta::assert_snapshot!("isolation-alarm", text("alarm.drill-unwatched.primary"));
    }

    #[test]
    fn an_experiment_stays_in_its_region_ends_by_itself_and_has_a_stop_alarm_there() {
        let mut spec = Spec::default();
        spec.drill.isolation_minutes = 7;
        for slot in Slot::SERVING {
            let (region, other) = match slot {
                Slot::Primary => ("us-east-1", "us-east-2"),
                _ => ("us-east-2", "us-east-1"),
            };
            for key in ["isolation", "role-policies.isolate"] {
                let text = wanted(&spec, &format!("{key}.{slot}")).spec.to_string();
                assert!(text.contains(region) && !text.contains(other), "{text}");
            }
            let template = wanted(&spec, &format!("isolation.{slot}"));
            for action in template.spec["actions"].as_object().unwrap().values() {
                assert_eq!(action["parameters"]["duration"], "PT7M");
            }
            let alarm = format!("${{alarm.drill-unwatched.{slot}.arn}}");
            assert_eq!(template.spec["stop_alarms"], json!([alarm]));
        }
    }

    #[test]
    fn every_subnet_is_cut_off_also_where_there_are_more_than_a_target_takes() {
        let mut spec = Spec::default();
        spec.network.zones = 6;
        let template = wanted(&spec, "isolation.primary").spec;
        let mut subnets = 0;
        for target in template["targets"].as_object().unwrap().values() {
            let arns = target["arns"].as_array().unwrap().len();
            assert!(arns <= ARNS_PER_TARGET);
            subnets += usize::from(target["resource_type"] == "aws:ec2:subnet") * arns;
        }
        assert_eq!(subnets, 6);
        let hit: BTreeSet<&str> = (template["actions"].as_object().unwrap().values())
            .flat_map(|action| action["targets"].as_object().unwrap().values())
            .map(|target| target.as_str().unwrap())
            .collect();
        let targets: BTreeSet<&str> = (template["targets"].as_object().unwrap().keys())
            .map(String::as_str)
            .collect();
        assert_eq!(hit, targets, "no target without an action");
    }
}
