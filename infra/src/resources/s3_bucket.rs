//! An S3 bucket: its existence and its tags. Everything else about a bucket (versioning, encryption, replication, ...) is a
//! resource of its own. Deleting a bucket empties it first: all versions and delete markers, and unfinished uploads.

use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier, Tag, Tagging,
};
use continuity::names::{Names, Slot};
use serde::{Deserialize, Serialize};

use super::tagging::{key_of, tagged};
use crate::error::{KindError, absent, code};
use crate::kind::{Found, Kind, Live, Site, tags};

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
                arn: format!("arn:aws:s3:::{bucket}"),
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
        let bucket = &live.spec.bucket;
        empty(site, bucket).await?;
        let result = site
            .cloud
            .s3(site.region)
            .delete_bucket()
            .bucket(bucket)
            .send()
            .await;
        absent(result, &["NoSuchBucket"]).map_err(|e| site.fail("DeleteBucket", bucket, e))?;
        Ok(())
    }

    /// By name: it carries suffix and account.
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
        let mut pages = s3
            .list_buckets()
            .bucket_region(site.region)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| site.fail("ListBuckets", site.suffix, e))?;
            for bucket in page.buckets() {
                let here = bucket.bucket_region().is_none_or(|region| region == site.region);
                if let Some(name) = bucket
                    .name()
                    .filter(|name| here && ours.iter().any(|our| our == name))
                {
                    let result = s3.get_bucket_tagging().bucket(name).send().await;
                    let tags = absent(result, &["NoSuchTagSet", "NoSuchBucket"])
                        .map_err(|e| site.fail("GetBucketTagging", name, e))?
                        .map(|answer| answer.tag_set)
                        .unwrap_or_default();
                    let key = key_of(site, tags.iter().map(|tag| (tag.key(), tag.value())));
                    found.push(site.found::<S3Bucket>(name, key));
                }
            }
        }
        Ok(found)
    }
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

/// Deletes every version, every delete marker and every unfinished upload.
///
/// Assumes: replication from this bucket has been removed, or markers would wander between the two buckets.
async fn empty(site: &Site<'_>, bucket: &str) -> Result<(), KindError> {
    let s3 = site.cloud.s3(site.region);
    // Always the first page: what it showed is gone when it is asked for again.
    while let Some(page) = absent(
        s3.list_object_versions()
            .bucket(bucket)
            .max_keys(1_000)
            .send()
            .await,
        &["NoSuchBucket"],
    )
    .map_err(|e| site.fail("ListObjectVersions", bucket, e))?
    {
        let versions = page.versions().iter().map(|one| (one.key(), one.version_id()));
        let markers = page
            .delete_markers()
            .iter()
            .map(|one| (one.key(), one.version_id()));
        let doomed: Vec<_> = versions
            .chain(markers)
            .filter_map(|(key, version)| {
                ObjectIdentifier::builder()
                    .key(key?)
                    .set_version_id(version.map(str::to_owned))
                    .build()
                    .ok()
            })
            .collect();
        if doomed.is_empty() {
            break;
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
        if !answer.errors().is_empty() {
            // Some objects were refused: DeleteBucket says so with an error that the engine knows how to treat.
            break;
        }
    }
    let uploads = absent(
        s3.list_multipart_uploads().bucket(bucket).send().await,
        &["NoSuchBucket"],
    )
    .map_err(|e| site.fail("ListMultipartUploads", bucket, e))?;
    for upload in uploads.iter().flat_map(|page| page.uploads()) {
        let result = s3
            .abort_multipart_upload()
            .bucket(bucket)
            .set_key(upload.key().map(str::to_owned))
            .set_upload_id(upload.upload_id().map(str::to_owned))
            .send()
            .await;
        absent(result, &["NoSuchUpload"]).map_err(|e| site.fail("AbortMultipartUpload", bucket, e))?;
    }
    Ok(())
}
