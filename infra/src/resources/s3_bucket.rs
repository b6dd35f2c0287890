//! An S3 bucket: its existence and its tags. Everything else about a bucket (versioning, encryption, replication, ...) is a
//! resource of its own. Deleting a bucket empties it first: all versions and delete markers, and unfinished uploads.

use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier, Tag, Tagging,
};
use continuity::names::{Names, Slot};
use serde::{Deserialize, Serialize};

use super::s3_replication::S3Replication;
use super::tagging::{key_of, listing, tagged};
use crate::error::{KindError, absent, code};
use crate::kind::{Found, Kind, Live, Site, tags};

const NO_BUCKET: &[&str] = &["NoSuchBucket"];
/// The most that S3 lists or deletes in one call.
const PAGE: i32 = 1_000;
/// Pages that are deleted before the caller is asked whether there is still time: some ten seconds.
const PAGES_AT_ONCE: usize = 20;

/// The kind.
#[derive(Debug)]
pub struct S3Bucket;

/// What we want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The bucket's name, unique in the world.
    pub bucket: String,
    /// It carries our tags.
    pub tagged: bool,
}

/// What others refer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The bucket's name.
    pub bucket: String,
    /// Its ARN.
    pub arn: String,
}

impl Kind for S3Bucket {
    const NAME: &'static str = "s3-bucket";
    const STATEFUL: bool = true;
    const IMMUTABLE: &'static [&'static str] = &["bucket"];
    const ARNS: &'static [&'static str] = &["s3:"];

    type Spec = Spec;
    type Outputs = Outputs;

    /// One call tells both existence and tags.
    async fn observe(site: &Site<'_>, spec: &Spec) -> Result<Option<Live<Spec, Outputs>>, KindError> {
        let bucket = &spec.bucket;
        let answer = site
            .cloud
            .s3(site.region)
            .get_bucket_tagging()
            .bucket(bucket)
            .send()
            .await;
        let tagged = match answer {
            Ok(output) => tagged(site, output.tag_set().iter().map(|tag| (tag.key(), tag.value()))),
            Err(error) => match code(&error) {
                Some("NoSuchTagSet") => false,
                Some("NoSuchBucket") => return Ok(None),
                _ => return Err(site.fail("GetBucketTagging", bucket, error)),
            },
        };
        Ok(Some(Live {
            spec: Spec {
                bucket: bucket.clone(),
                tagged,
            },
            outputs: Outputs {
                bucket: bucket.clone(),
                arn: arn(bucket),
            },
            settling: None,
        }))
    }

    /// The bucket, then its tags. A bucket that is already ours is a success; it is found by its name, so a crash in
    /// between is repaired by `update`.
    async fn create(site: &Site<'_>, spec: &Spec) -> Result<(), KindError> {
        let place = (site.region != "us-east-1").then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(site.region))
                .build()
        });
        let result = site
            .cloud
            .s3(site.region)
            .create_bucket()
            .bucket(&spec.bucket)
            .set_create_bucket_configuration(place)
            .send()
            .await;
        absent(result, &["BucketAlreadyOwnedByYou"])
            .map_err(|e| site.fail("CreateBucket", &spec.bucket, e))?;
        put_tags(site, &spec.bucket).await
    }

    async fn update(site: &Site<'_>, spec: &Spec, _live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        put_tags(site, &spec.bucket).await
    }

    async fn delete(site: &Site<'_>, live: &Live<Spec, Outputs>) -> Result<(), KindError> {
        Self::discard(site, &live.spec.bucket).await
    }

    /// 1. Replication off, or the markers that emptying makes would wander between two buckets.
    /// 2. Empties it, a part at a time: the engine asks again while it is still there.
    /// 3. Deletes it.
    async fn discard(site: &Site<'_>, bucket: &str) -> Result<(), KindError> {
        S3Replication::discard(site, bucket).await?;
        if empty(site, bucket).await? == Emptied::Partly {
            return Ok(());
        }
        let result = site
            .cloud
            .s3(site.region)
            .delete_bucket()
            .bucket(bucket)
            .send()
            .await;
        absent(result, NO_BUCKET).map_err(|e| site.fail("DeleteBucket", bucket, e))?;
        Ok(())
    }

    /// By name, which carries suffix and account; or by tag.
    async fn list(site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        let names = Names::new(site.suffix);
        let ours: Vec<_> = Slot::ALL
            .into_iter()
            .flat_map(|slot| {
                [
                    names.artifact_bucket(slot, site.account),
                    names.data_bucket(slot, site.account),
                ]
            })
            .collect();
        let s3 = site.cloud.s3(site.region);
        let pages = s3.list_buckets().bucket_region(site.region).into_paginator();
        let pages: Result<Vec<_>, _> = pages.send().collect().await;
        let pages = pages.map_err(|e| site.fail("ListBuckets", site.suffix, e))?;
        let listing = listing(site).await;
        let mut found = Vec::new();
        for bucket in pages.iter().flat_map(|page| page.buckets()) {
            let here = bucket.bucket_region().is_none_or(|region| region == site.region);
            let Some(name) = bucket.name().filter(|_| here) else {
                continue;
            };
            if let Some(key) = listing.key(&arn(name)) {
                found.push(site.found::<S3Bucket>(name, Some(key)));
            } else if ours.iter().any(|our| our == name) {
                let result = s3.get_bucket_tagging().bucket(name).send().await;
                let tags = absent(result, &["NoSuchTagSet", "NoSuchBucket"])
                    .map_err(|e| site.fail("GetBucketTagging", name, e))?
                    .map(|answer| answer.tag_set)
                    .unwrap_or_default();
                let key = key_of(site, tags.iter().map(|tag| (tag.key(), tag.value())));
                found.push(site.found::<S3Bucket>(name, key));
            }
        }
        Ok(found)
    }
}

fn arn(bucket: &str) -> String {
    format!("arn:aws:s3:::{bucket}")
}

async fn put_tags(site: &Site<'_>, bucket: &str) -> Result<(), KindError> {
    let set = tags(site)
        .into_iter()
        .map(|(key, value)| {
            Tag::builder()
                .key(key)
                .value(value)
                .build()
                .expect("key and value are set")
        })
        .collect();
    let tagging = Tagging::builder()
        .set_tag_set(Some(set))
        .build()
        .expect("the tag set is given");
    site.cloud
        .s3(site.region)
        .put_bucket_tagging()
        .bucket(bucket)
        .tagging(tagging)
        .send()
        .await
        .map_err(|e| site.fail("PutBucketTagging", bucket, e))?;
    Ok(())
}

/// How far [`empty`] came.
#[derive(Debug, PartialEq, Eq)]
enum Emptied {
    Wholly,
    Partly,
}

/// Deletes versions, delete markers and unfinished uploads: all of them, or as many as one call may take time for.
async fn empty(site: &Site<'_>, bucket: &str) -> Result<Emptied, KindError> {
    let s3 = site.cloud.s3(site.region);
    // Always the first page: what it showed is gone when it is asked for again.
    for _ in 0..PAGES_AT_ONCE {
        let page = s3.list_object_versions().bucket(bucket).max_keys(PAGE).send();
        let page = absent(page.await, NO_BUCKET).map_err(|e| site.fail("ListObjectVersions", bucket, e))?;
        let doomed = page.as_ref().map(doomed).unwrap_or_default();
        if doomed.is_empty() {
            return abort_uploads(site, bucket).await;
        }
        let delete = Delete::builder()
            .set_objects(Some(doomed))
            .quiet(true)
            .build()
            .expect("objects are given");
        let answer = s3
            .delete_objects()
            .bucket(bucket)
            .delete(delete)
            .send()
            .await
            .map_err(|e| site.fail("DeleteObjects", bucket, e))?;
        if let Some(refused) = answer.errors().first() {
            let why = format!(
                "{}: {}",
                refused.key().unwrap_or_default(),
                refused.message().unwrap_or_default()
            );
            return Err(site.refuse("DeleteObjects", bucket, refused.code(), why));
        }
    }
    Ok(Emptied::Partly)
}

/// Versions and delete markers alike: a pass over the versions alone would leave the markers.
fn doomed(page: &ListObjectVersionsOutput) -> Vec<ObjectIdentifier> {
    let versions = page.versions().iter().map(|one| (one.key(), one.version_id()));
    let markers = page
        .delete_markers()
        .iter()
        .map(|one| (one.key(), one.version_id()));
    versions
        .chain(markers)
        .filter_map(|(key, version)| {
            ObjectIdentifier::builder()
                .key(key?)
                .set_version_id(version.map(str::to_owned))
                .build()
                .ok()
        })
        .collect()
}

async fn abort_uploads(site: &Site<'_>, bucket: &str) -> Result<Emptied, KindError> {
    let s3 = site.cloud.s3(site.region);
    let page = absent(s3.list_multipart_uploads().bucket(bucket).send().await, NO_BUCKET)
        .map_err(|e| site.fail("ListMultipartUploads", bucket, e))?;
    let Some(page) = page else {
        return Ok(Emptied::Wholly);
    };
    for upload in page.uploads() {
        let result = s3
            .abort_multipart_upload()
            .bucket(bucket)
            .set_key(upload.key().map(str::to_owned))
            .set_upload_id(upload.upload_id().map(str::to_owned))
            .send()
            .await;
        absent(result, &["NoSuchUpload", "NoSuchBucket"])
            .map_err(|e| site.fail("AbortMultipartUpload", bucket, e))?;
    }
    Ok(if page.is_truncated() == Some(true) {
        Emptied::Partly
    } else {
        Emptied::Wholly
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{DeleteMarkerEntry, ObjectVersion};

    use super::*;

    #[test]
    fn delete_markers_are_deleted_with_the_versions() {
        let page = ListObjectVersionsOutput::builder()
            .versions(ObjectVersion::builder().key("a").version_id("1").build())
            .delete_markers(DeleteMarkerEntry::builder().key("a").version_id("2").build())
            .build();
        let versions: Vec<_> = doomed(&page).iter().map(|one| one.version_id.clone()).collect();
        assert_eq!(versions, [Some("1".to_owned()), Some("2".to_owned())]);
    }
}
