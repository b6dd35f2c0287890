//! An SNS topic with its policy and its subscriptions. Found by its name, which its ARN follows from. The subscriptions are
//! part of it, because SNS cannot take back one that nobody has confirmed yet: it goes by itself after some days, or with the
//! topic. Subscriptions that others made are theirs.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_sns::types::Tag;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tagging::{key_of, listed_tagged, named_ours, tagged};
use crate::documents::normal_policy;
use crate::error::{KindError, absent};
use crate::kind::{Found, Kind, Live, Site, tags};

const GONE: &[&str] = &["NotFound", "NotFoundException"];
const POLICY: &str = "Policy";
const KEY: &str = "KmsMasterKeyId";

/// The kind.
#[derive(Debug)]
pub struct SnsTopic;

/// What we want.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The key that encrypts it.
    pub kms_key_arn: String,
    /// Who may publish, in the policy's normal form.
    pub policy: Value,
    /// Who must be subscribed. Confirmed or not: the answer to SNS's question is the subscriber's business.
    pub subscriptions: BTreeSet<Subscription>,
    /// It carries our tags.
    pub tagged: bool,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Subscription {
    /// `email` or `https`.
    pub protocol: String,
    /// The address or URL.
    pub endpoint: String,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// Its ARN.
    pub arn: String,
}

/// A topic's ARN follows from its name.
pub fn arn(region: &str, account: &str, name: &str) -> String {
    format!("arn:aws:sns:{region}:{account}:{name}")
}

impl Kind for SnsTopic {
    const NAME: &'static str = "sns-topic";
    const IMMUTABLE: &'static [&'static str] = &["name"];
    const ARNS: &'static [&'static str] = &["sns:"];

    type Spec = Spec;
    type Outputs = Outputs;

    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let arn = arn(site.region, site.account, &spec.name);
        let request = site.cloud.sns(site.region).get_topic_attributes().topic_arn(&arn);
        let answer =
            absent(request.send().await, GONE).map_err(|e| site.fail("GetTopicAttributes", &spec.name, e))?;
        let Some(attributes) = answer.map(|answer| answer.attributes.unwrap_or_default()) else {
            return Ok(None);
        };
        let subscribed = match spec.subscriptions.is_empty() {
            true => BTreeSet::new(),
            false => subscriptions(site, &arn).await?,
        };
        Ok(Some(Live {
            spec: Spec {
                name: spec.name.clone(),
                kms_key_arn: attributes.get(KEY).cloned().unwrap_or_default(),
                policy: policy_in(&attributes),
                subscriptions: spec.subscriptions.intersection(&subscribed).cloned().collect(),
                tagged: is_tagged(site, &arn).await?,
            },
            outputs: Outputs { arn },
            settling: None,
        }))
    }

    /// Subscriptions come with the first update.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        site.cloud
            .sns(site.region)
            .create_topic()
            .name(&spec.name)
            .attributes(KEY, &spec.kms_key_arn)
            .attributes(POLICY, spec.policy.to_string())
            .set_tags(Some(tag_list(site)))
            .send()
            .await
            .map_err(|e| site.fail("CreateTopic", &spec.name, e))?;
        Ok(())
    }

    async fn update(site: &Site<'_>, spec: &Spec, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        let sns = site.cloud.sns(site.region);
        let arn = &live.outputs.arn;
        if spec.kms_key_arn != live.spec.kms_key_arn {
            set(site, arn, KEY, &spec.kms_key_arn).await?;
        }
        if spec.policy != live.spec.policy {
            set(site, arn, POLICY, &spec.policy.to_string()).await?;
        }
        for missing in spec.subscriptions.difference(&live.spec.subscriptions) {
            let request = sns.subscribe().topic_arn(arn).protocol(&missing.protocol);
            let result = request.endpoint(&missing.endpoint).send().await;
            result.map_err(|e| site.fail("Subscribe", &spec.name, e))?;
        }
        if !live.spec.tagged {
            let request = sns.tag_resource().resource_arn(arn);
            let result = request.set_tags(Some(tag_list(site))).send().await;
            result.map_err(|e| site.fail("TagResource", &spec.name, e))?;
        }
        Ok(())
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.outputs.arn).await
    }

    async fn discard(site: &Site<'_>, arn: &str) -> Result<(), KindError> {
        let result = site
            .cloud
            .sns(site.region)
            .delete_topic()
            .topic_arn(arn)
            .send()
            .await;
        absent(result, GONE).map_err(|e| site.fail("DeleteTopic", arn, e))?;
        Ok(())
    }

    /// By name.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let mut topics = site
            .cloud
            .sns(site.region)
            .list_topics()
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(topic) = topics.next().await {
            let topic = topic.map_err(|e| site.fail("ListTopics", site.suffix, e))?;
            let arn = topic.topic_arn().unwrap_or_default();
            let name = arn.rsplit_once(':').map_or(arn, |(_, name)| name);
            if named_ours(name, site.suffix) {
                let live = read_tags(site, arn).await?;
                let key = key_of(site, live.iter().map(|tag| (tag.key(), tag.value())));
                found.push(site.found::<SnsTopic>(arn, key));
            }
        }
        Ok(found)
    }
}

fn policy_in(attributes: &HashMap<String, String>) -> Value {
    let policy = attributes
        .get(POLICY)
        .and_then(|text| serde_json::from_str(text).ok());
    normal_policy(&policy.unwrap_or(Value::Null))
}

async fn subscriptions(site: &Site<'_>, arn: &str) -> Result<BTreeSet<Subscription>, KindError> {
    let request = site
        .cloud
        .sns(site.region)
        .list_subscriptions_by_topic()
        .topic_arn(arn);
    let mut pages = request.into_paginator().items().send();
    let mut found = BTreeSet::new();
    while let Some(subscription) = pages.next().await {
        let subscription = subscription.map_err(|e| site.fail("ListSubscriptionsByTopic", arn, e))?;
        // What SNS shows for some time after somebody unsubscribed.
        if subscription.subscription_arn() == Some("Deleted") {
            continue;
        }
        found.insert(Subscription {
            protocol: subscription.protocol().unwrap_or_default().to_owned(),
            endpoint: subscription.endpoint().unwrap_or_default().to_owned(),
        });
    }
    Ok(found)
}

async fn set(site: &Site<'_>, arn: &str, name: &str, value: &str) -> Result<(), KindError> {
    site.cloud
        .sns(site.region)
        .set_topic_attributes()
        .topic_arn(arn)
        .attribute_name(name)
        .attribute_value(value)
        .send()
        .await
        .map_err(|e| site.fail("SetTopicAttributes", arn, e))?;
    Ok(())
}

fn tag_list(site: &Site<'_>) -> Vec<Tag> {
    let tag = |(key, value)| {
        Tag::builder()
            .key(key)
            .value(value)
            .build()
            .expect("key and value are set")
    };
    tags(site).into_iter().map(tag).collect()
}

async fn read_tags(site: &Site<'_>, arn: &str) -> Result<Vec<Tag>, KindError> {
    let request = site
        .cloud
        .sns(site.region)
        .list_tags_for_resource()
        .resource_arn(arn);
    let answer = absent(
        request.send().await,
        &["ResourceNotFound", "ResourceNotFoundException"],
    )
    .map_err(|e| site.fail("ListTagsForResource", arn, e))?;
    Ok(answer.and_then(|answer| answer.tags).unwrap_or_default())
}

async fn is_tagged(site: &Site<'_>, arn: &str) -> Result<bool, KindError> {
    if listed_tagged(site, arn).await {
        return Ok(true);
    }
    let live = read_tags(site, arn).await?;
    Ok(tagged(site, live.iter().map(|tag| (tag.key(), tag.value()))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_in_another_spelling_is_no_difference() {
        let live = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"cloudwatch.amazonaws.com"},
            "Action":"sns:Publish","Resource":"t"}}"#;
        let ours = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"Service": ["cloudwatch.amazonaws.com"]}, "Action": ["sns:Publish"], "Resource": ["t"]}]});
        let attributes = HashMap::from([(POLICY.to_owned(), live.to_owned())]);
        assert_eq!(policy_in(&attributes), normal_policy(&ours));
        assert_ne!(policy_in(&HashMap::new()), normal_policy(&ours));
    }
}
