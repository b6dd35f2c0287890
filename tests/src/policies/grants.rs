//! What the roles of a deployed stack may do, as IAM has it. The managed policies of AWS are left out: they are judged as a whole.

use std::collections::BTreeSet;

use infra::cloud::Cloud;
use infra::resources::iam_role::PATH;
use serde_json::Value;

use crate::Authorization;

/// An action that a role is granted. The action may be a pattern: `ec2:Describe*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The role's name.
    pub role: String,
    /// The action.
    pub action: String,
}

impl std::fmt::Display for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.role, self.action)
    }
}

impl Grant {
    /// What the role is for, without slot and suffix: `health-probe`.
    pub fn purpose(&self) -> &str {
        purpose(&self.role)
    }

    /// Whether the grant is what a question was about.
    pub fn covers(&self, question: &Authorization) -> bool {
        question.role == self.role && matches(&self.action, &question.action)
    }
}

/// The role's name without slot and suffix.
pub fn purpose(role: &str) -> &str {
    let mut parts = role.rsplitn(3, '-').skip(2);
    parts.next().unwrap_or(role)
}

/// Whether an action is what a pattern, whose only star is its end, says.
pub fn matches(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => action.starts_with(beginning),
        None => action == pattern,
    }
}

/// Every grant of the stack's roles, once for each role and action, however many statements give it.
pub async fn of_stack(cloud: &Cloud, home: &str) -> BTreeSet<Grant> {
    let iam = cloud.iam(home);
    let roles = iam
        .list_roles()
        .path_prefix(PATH)
        .send()
        .await
        .expect("IAM answers");
    let mut grants = BTreeSet::new();
    for role in roles.roles() {
        let name = role.role_name();
        let inline = iam
            .list_role_policies()
            .role_name(name)
            .send()
            .await
            .expect("IAM answers");
        for policy in inline.policy_names() {
            let request = iam.get_role_policy().role_name(name).policy_name(policy);
            let answer = request.send().await.expect("the policy is there");
            add(&mut grants, name, answer.policy_document());
        }
        let request = iam.list_attached_role_policies().role_name(name);
        let attached = request.send().await.expect("IAM answers");
        let arns = attached
            .attached_policies()
            .iter()
            .filter_map(|policy| policy.policy_arn());
        for arn in arns.filter(|arn| arn.contains(&format!(":policy{PATH}"))) {
            let policy = iam
                .get_policy()
                .policy_arn(arn)
                .send()
                .await
                .expect("the policy is there");
            let version = policy.policy.and_then(|policy| policy.default_version_id);
            let request = iam.get_policy_version().policy_arn(arn).set_version_id(version);
            let answer = request.send().await.expect("the version is there");
            let document = answer.policy_version.and_then(|version| version.document);
            add(&mut grants, name, &document.expect("a version has a document"));
        }
    }
    grants
}

fn add(grants: &mut BTreeSet<Grant>, role: &str, document: &str) {
    let document: Value = serde_json::from_str(document)
        .or_else(|_| serde_json::from_str(&decoded(document)))
        .expect("a policy is JSON");
    for statement in document["Statement"].as_array().expect("statements") {
        if statement["Effect"] != "Allow" {
            continue;
        }
        let listed = statement["Action"].as_array().cloned();
        for action in listed.unwrap_or_else(|| vec![statement["Action"].clone()]) {
            grants.insert(Grant {
                role: role.to_owned(),
                action: action.as_str().expect("an action is text").to_owned(),
            });
        }
    }
}

/// IAM answers with percent-encoded documents.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex
            .filter(|_| *first == b'%')
            .and_then(|two| u8::from_str_radix(two, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).expect("a policy is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_from_encoded_documents_and_patterns_match_their_actions() {
        let mut grants = BTreeSet::new();
        let document = "%7B%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22ec2%3ADescribe%2A%22%7D%2C\
                        %7B%22Effect%22%3A%22Deny%22%2C%22Action%22%3A%22a%3Ab%22%7D%5D%7D";
        add(&mut grants, "health-probe-dr-dev", document);
        let grant = grants.first().expect("one");
        assert_eq!(
            (grants.len(), grant.purpose(), grant.action.as_str()),
            (1, "health-probe", "ec2:Describe*")
        );
        assert!(matches(&grant.action, "ec2:DescribeVpcs") && !matches(&grant.action, "ec2:CreateVpc"));
        assert!(!matches("s3:GetObject", "s3:GetObjectVersion"));
    }
}
