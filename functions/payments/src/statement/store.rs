//! Where statements are put: the region's data bucket, which is replicated into the other region.
//!
//! Two requests, signed and sent with the SDK's own crates: the client of S3 would make the function's package a third larger
//! (3.6 MB instead of 2.7).

use std::error::Error;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation,
    SigningInstructions, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use continuity::aws::Shared;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt, TryStreamExt};
use http::{Method, StatusCode};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use tokio::sync::OnceCell;

/// A request to the bucket that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of `{key}` failed")]
pub struct StorageError {
    /// The operation of S3.
    pub operation: &'static str,
    /// The object.
    pub key: String,
    /// Why.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// An object that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key in the bucket: ASCII letters, digits, `-`, `.`, and `/` between its parts.
    pub key: String,
    /// What it is.
    pub content_type: &'static str,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of it, in hex.
    pub sha256: String,
}

/// What an object is made of, piece by piece.
pub type Pieces<'a> = BoxStream<'a, Result<Bytes, Box<dyn Error + Send + Sync>>>;

/// A bucket.
#[async_trait]
pub trait Store: Send + Sync {
    /// Puts an object. Whole or not at all: what turns out to be shorter, longer or of another hash is refused.
    async fn put(&self, object: &Object, pieces: Pieces<'_>) -> Result<(), StorageError>;
    /// A link to the object for whoever holds it, good for `valid` at the longest. Asks nobody.
    async fn link(&self, object: &Object, valid: Duration) -> Result<String, StorageError>;
}

/// A bucket of S3.
pub struct S3Store {
    aws: Shared,
    bucket: String,
    /// Made at first use.
    connector: OnceCell<Connector>,
}

/// Bytes on their way to the bucket that are not taken yet.
const PIECES_AHEAD: usize = 4;

impl S3Store {
    /// A bucket of this region.
    pub fn new(aws: Shared, bucket: String) -> Self {
        S3Store {
            aws,
            bucket,
            connector: OnceCell::new(),
        }
    }

    /// Sends an object; answers what is wrong with the answer.
    async fn send(&self, object: &Object, pieces: Pieces<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let connector = async || continuity::aws::connector();
        let connector = self.connector.get_or_init(connector).await;
        let request = http::Request::builder()
            .method(Method::PUT)
            .uri(self.url(&object.key).await?)
            .header("content-type", object.content_type)
            .header("content-length", object.bytes);
        let (mut into, from) = mpsc::channel(PIECES_AHEAD);
        let body = StreamBody::new(from.map_ok(http_body::Frame::data));
        let mut request = request.body(SdkBody::from_body_1_x(BoxBody::new(body)))?;
        let payload = SignableBody::Precomputed(object.sha256.clone());
        self.sign(&request, payload, in_headers())
            .await?
            .apply_to_request_http1x(&mut request);
        let request = aws_smithy_runtime_api::http::Request::try_from(request)?;
        let answered = async {
            let answer = connector.call(request).await?;
            if answer.status().is_success() {
                return Ok(());
            }
            let status = StatusCode::from_u16(answer.status().as_u16())?;
            let body = ByteStream::new(answer.into_body()).collect().await?;
            Err(refusal(status, &body.into_bytes()).into())
        };
        let filled = async move {
            let mut pieces = pieces;
            while let Some(piece) = pieces.next().await {
                // An answer that comes early ends the way for the rest, and says why itself.
                if into.send(piece).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(answered, filled).0
    }

    async fn sign_link(
        &self,
        object: &Object,
        valid: Duration,
    ) -> Result<String, Box<dyn Error + Send + Sync>> {
        let url = self.url(&object.key).await?;
        // A browser saves it under the name that its key ends with.
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let saved_as = format!("{url}?response-content-disposition=attachment%3B%20filename%3D%22{name}%22");
        let mut request = http::Request::get(saved_as).body(())?;
        let signed = self
            .sign(&request, SignableBody::UnsignedPayload, in_a_link(valid))
            .await?;
        signed.apply_to_request_http1x(&mut request);
        Ok(request.uri().to_string())
    }

    /// Where an object is. With an endpoint of its own the bucket is in the path, as the SDK does it for an address.
    async fn url(&self, key: &str) -> Result<String, &'static str> {
        let (config, bucket) = (self.aws.config().await, &self.bucket);
        if let Some(endpoint) = config.endpoint_url() {
            return Ok(format!("{}/{bucket}/{key}", endpoint.trim_end_matches('/')));
        }
        let region = config.region().ok_or("no region is set")?;
        Ok(format!("https://{bucket}.s3.{region}.amazonaws.com/{key}"))
    }

    async fn sign<B>(
        &self,
        request: &http::Request<B>,
        payload: SignableBody<'_>,
        settings: SigningSettings,
    ) -> Result<SigningInstructions, Box<dyn Error + Send + Sync>> {
        let config = self.aws.config().await;
        let provider = config.credentials_provider().ok_or("no credentials are set")?;
        let credentials = provider.provide_credentials().await?;
        let region = config.region().ok_or("no region is set")?;
        signature(
            request,
            payload,
            settings,
            credentials,
            region.as_ref(),
            SystemTime::now(),
        )
    }
}

/// What makes a signed request of a request.
fn signature<B>(
    request: &http::Request<B>,
    payload: SignableBody<'_>,
    settings: SigningSettings,
    credentials: Credentials,
    region: &str,
    time: SystemTime,
) -> Result<SigningInstructions, Box<dyn Error + Send + Sync>> {
    let identity = Identity::from(credentials);
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(time)
        .settings(settings)
        .build()?
        .into();
    let headers: Vec<(&str, &str)> = request
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let uri = request.uri().to_string();
    let signable = SignableRequest::new(request.method().as_str(), uri, headers.into_iter(), payload)?;
    Ok(sign(signable, &parameters)?.into_parts().0)
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, object: &Object, pieces: Pieces<'_>) -> Result<(), StorageError> {
        let sent = self.send(object, pieces).await;
        sent.map_err(|source| failed("PutObject", object, source))
    }

    async fn link(&self, object: &Object, valid: Duration) -> Result<String, StorageError> {
        let link = self.sign_link(object, valid).await;
        link.map_err(|source| failed("GetObject", object, source))
    }
}

fn failed(operation: &'static str, object: &Object, source: Box<dyn Error + Send + Sync>) -> StorageError {
    StorageError {
        operation,
        key: object.key.clone(),
        source,
    }
}

/// As S3 wants it: <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
fn in_headers() -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings
}

/// The same for a link: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>.
fn in_a_link(valid: Duration) -> SigningSettings {
    let mut settings = in_headers();
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(valid);
    settings
}

/// A refusal of S3 in its words: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let member = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    match (member("Code"), member("Message")) {
        (Some(code), Some(message)) => format!("{status}: {code}: {message}"),
        _ => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The request of AWS's examples, signed as there.
    fn example(
        range: Option<&str>,
        payload: SignableBody<'_>,
        settings: SigningSettings,
    ) -> http::Request<()> {
        let mut request = http::Request::get("https://examplebucket.s3.amazonaws.com/test.txt");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let mut request = request.body(()).unwrap();
        let (id, secret) = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let credentials = Credentials::new(id, secret, None, None, "the example");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        signature(&request, payload, settings, credentials, "us-east-1", time)
            .unwrap()
            .apply_to_request_http1x(&mut request);
        request
    }

    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>, "Example: GET Object".
    #[test]
    fn a_request_is_signed_as_in_the_example_of_aws() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let payload = SignableBody::Precomputed(nothing.to_owned());
        let signed = example(Some("bytes=0-9"), payload, in_headers());
        let authorization = signed.headers()["authorization"].to_str().unwrap();
        let expected = "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(authorization.ends_with(expected), "{authorization}");
        assert_eq!(signed.headers()["x-amz-content-sha256"], nothing);
    }

    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>, its example.
    #[test]
    fn a_link_is_signed_as_in_the_example_of_aws() {
        let day = Duration::from_secs(86_400);
        let signed = example(None, SignableBody::UnsignedPayload, in_a_link(day));
        let link = signed.uri().to_string();
        let expected = "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(link.contains(expected), "{link}");
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_s3() {
        let body = b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>User: a is not authorized</Message><HostId>x</HostId></Error>";
        assert_eq!(
            refusal(StatusCode::FORBIDDEN, body),
            "403 Forbidden: AccessDenied: User: a is not authorized"
        );
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"<html>"), "502 Bad Gateway");
    }
}
