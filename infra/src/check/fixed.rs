//! Fixed: some settings are what a stack was deployed with, for good. Another region is another stack, a table keeps its consistency,
//! and another network takes the database with it. A database goes to later minor versions only.

use serde_json::Value;

use super::{Finding, Rule};
use crate::change;
use crate::spec::{Aurora, Spec};

/// The settings, each with the reason.
const FIXED: [(&str, &str); 6] = [
    (
        "regions.primary",
        "the names of everything in it say which region is home",
    ),
    ("regions.dr", "it has the replicas of everything"),
    ("regions.witness", "it is the third of the tables' regions"),
    (
        "durability",
        "a table keeps the consistency that it was made with",
    ),
    ("network.primary_cidr", "another network is another database"),
    ("network.dr_cidr", "another network is another database"),
];

/// What of the configuration cannot be deployed, because a stack is deployed with another one.
pub fn fixed(deployed: &Spec, now: &Spec) -> Vec<Finding> {
    let changes = change::settings(deployed, now);
    let finding = |(setting, reason): (&str, &str)| {
        let change = changes.iter().find(|change| change.field == setting)?;
        let before = match &change.from {
            Value::String(text) => format!("\"{text}\""),
            other => other.to_string(),
        };
        Some(Finding {
            key: setting.to_owned(),
            rule: Rule::Fixed,
            problem: format!("it cannot be changed once a stack is deployed: {reason}"),
            remedy: format!("leave it {before}, or deploy a stack with another suffix"),
        })
    };
    let mut findings: Vec<Finding> = FIXED.into_iter().filter_map(finding).collect();
    findings.extend(version(&deployed.aurora, &now.aurora));
    findings
}

/// AWS takes no database back to an earlier version. A major one is upgraded in all regions at once, while nobody serves, and its
/// parameter groups are made anew: that is no change that rolls.
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-global-database-upgrade.html>
fn version(deployed: &Aurora, now: &Aurora) -> Option<Finding> {
    let (before, after) = (deployed.version()?, now.version()?);
    let problem = if after.0 != before.0 {
        "another major version cannot be rolled out: AWS upgrades it in all regions at once, and none serves meanwhile"
    } else if after.1 < before.1 {
        "AWS takes no database back to an earlier version"
    } else {
        return None;
    };
    Some(Finding {
        key: "aurora.engine_version".to_owned(),
        rule: Rule::Fixed,
        problem: problem.to_owned(),
        remedy: format!(
            "use \"{}\" or a later {}, or deploy a stack with another suffix",
            deployed.engine_version, before.0
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Durability;

    #[test]
    fn a_database_goes_to_later_minor_versions_only() {
        let told = |deployed: &str, now: &str| {
            let spec = |version: &str| {
                let mut spec = Spec::default();
                spec.aurora.engine_version = version.to_owned();
                spec
            };
            fixed(&spec(deployed), &spec(now))
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(told("16.8", "16.8"), Vec::<String>::new());
        assert_eq!(told("16.8", "16.10"), Vec::<String>::new());
        assert_eq!(
            told("16.10", "16.9"),
            [
                "`aurora.engine_version` breaks the rule `fixed`: AWS takes no database back to an earlier version; use \"16.10\" \
                 or a later 16, or deploy a stack with another suffix"
            ]
        );
        for other in ["17.4", "15.12"] {
            let told = told("16.8", other);
            assert!(
                told[0].contains("another major version cannot be rolled out"),
                "{told:?}"
            );
        }
    }

    #[test]
    fn what_a_stack_was_deployed_with_for_good_is_not_changed() {
        let deployed = Spec::default();
        let mut now = Spec::default();
        now.api.rate_limit += 1;
        now.network.zones += 1;
        now.domain = Some("payments.example.com".into());
        assert_eq!(fixed(&deployed, &now), []);
        now.regions.witness = "us-west-1".into();
        now.durability = Durability::Eventual;
        now.network.primary_cidr = "10.70.0.0/16".into();
        now.network.dr_cidr = "10.71.0.0/16".into();
        let told: Vec<String> = fixed(&deployed, &now).iter().map(ToString::to_string).collect();
        assert_eq!(
            told[2],
            "`network.primary_cidr` breaks the rule `fixed`: it cannot be changed once a stack is deployed: another network is \
             another database; leave it \"10.0.0.0/16\", or deploy a stack with another suffix"
        );
        let keys: Vec<String> = fixed(&deployed, &now).into_iter().map(|one| one.key).collect();
        assert_eq!(
            keys,
            [
                "regions.witness",
                "durability",
                "network.primary_cidr",
                "network.dr_cidr"
            ]
        );
    }
}
