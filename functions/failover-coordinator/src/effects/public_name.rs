//! The public name as a client sees it: resolved and connected anew each time, because DNS is what moves the traffic.

use async_trait::async_trait;
use continuity::error::chain;
use serde::Deserialize;

use crate::limits::REQUEST_LIMIT;

/// What the public name answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status of `GET /health`.
    pub status: u16,
    /// The region that answered, if it says so.
    pub region: Option<String>,
}

/// Asks the public name.
#[async_trait]
pub trait PublicName: Send + Sync {
    /// `GET https://{host}/health`.
    ///
    /// # Errors
    /// Why there was no answer, in words.
    async fn ask(&self, host: &str) -> Result<Answer, String>;
}

/// Over HTTPS, with the platform's certificates, through the environment's proxy.
#[derive(Debug, Clone)]
pub struct HttpPublicName {
    client: reqwest::Client,
}

impl HttpPublicName {
    /// A client without idle connections.
    ///
    /// # Errors
    /// The HTTP client cannot be built: no usable root certificates.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(REQUEST_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("understudy-failover-coordinator")
            .build()?;
        Ok(HttpPublicName { client })
    }
}

#[async_trait]
impl PublicName for HttpPublicName {
    async fn ask(&self, host: &str) -> Result<Answer, String> {
        #[derive(Deserialize)]
        struct Body {
            region: Option<String>,
        }
        let answer = self
            .client
            .get(format!("https://{host}/health"))
            .send()
            .await
            .map_err(|error| chain(&error.without_url()))?;
        let status = answer.status().as_u16();
        let body: Option<Body> = answer.json().await.ok();
        Ok(Answer {
            status,
            region: body.and_then(|body| body.region),
        })
    }
}
