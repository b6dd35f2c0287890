//! A client of the payments API as a customer would write one: it asks for the way to the public name at every attempt, and retries
//! with the same idempotency key until it has a final answer.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::stack::Stack;

/// How requests travel: as the environment says, by its proxy and with the authorities that it trusts (`HTTPS_PROXY`,
/// `SSL_CERT_FILE`), unless something stands here in its place.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// The proxy for HTTPS.
    pub proxy: Option<String>,
    /// Certificate authorities to trust beside the platform's, PEM.
    pub authorities: Option<Vec<u8>>,
}

/// Where the API is.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Scheme and public name: `https://api.dr-payments-dev.test.local`.
    pub url: String,
    /// How to get there.
    pub way: Way,
    /// The API key.
    pub api_key: String,
}

impl Endpoint {
    /// The API of a stack by its public name.
    pub fn of(stack: &Stack, api_key: String) -> Self {
        Endpoint {
            url: format!("https://{}", stack.spec.public_name()),
            way: stack.way.clone(),
            api_key,
        }
    }
}

/// A payment to make.
#[derive(Debug, Clone, Serialize)]
pub struct NewPayment {
    /// The account that pays.
    pub from_account: String,
    /// The account that receives.
    pub to_account: String,
    /// Minor units.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// The client's own reference.
    pub reference: String,
}

/// A payment as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Its id.
    pub id: String,
    /// `captured` or `declined`, unless it was authorised first.
    pub status: String,
    /// The account that pays.
    pub from_account: String,
    /// The account that receives.
    pub to_account: String,
    /// Minor units.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// The client's own reference.
    pub reference: Option<String>,
    /// The epoch that executed it.
    pub epoch: u64,
    /// Its position in that epoch's ledger.
    pub seq: u64,
    /// The epoch in which this ledger posted it: later than `epoch` when replay recovered it from the journal.
    pub posted_epoch: u64,
}

/// An account as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// ISO 4217.
    pub currency: String,
    /// Minor units.
    pub balance_minor: i64,
}

/// A page of a listing.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Where the next page starts.
    pub next_cursor: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client could not be made.
    #[error("the HTTP client could not be made: {0}")]
    Setup(String),
    /// The API refused, finally.
    #[error("{method} {path} was refused with {status}: {body}")]
    Refused {
        /// The method.
        method: &'static str,
        /// The path.
        path: String,
        /// The status.
        status: u16,
        /// The problem document.
        body: String,
    },
    /// No final answer before the deadline.
    #[error("{method} {path} got no final answer in {seconds} s; last: {last}")]
    Timeout {
        /// The method.
        method: &'static str,
        /// The path.
        path: String,
        /// How long it was tried.
        seconds: u64,
        /// The last thing that went wrong.
        last: String,
    },
}

/// How long one attempt may take, unless told otherwise.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The pause after the first failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// A client of the API.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    attempt: Duration,
}

impl Client {
    /// A client of `endpoint`. Connections are not kept: each attempt asks DNS where to go, or has the proxy ask.
    pub fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let setup = |error: reqwest::Error| ClientError::Setup(continuity::error::chain(&error));
        let mut builder = reqwest::Client::builder().pool_max_idle_per_host(0);
        if let Some(pem) = &endpoint.way.authorities {
            builder = builder.tls_certs_merge([reqwest::Certificate::from_pem(pem).map_err(setup)?]);
        }
        if let Some(proxy) = &endpoint.way.proxy {
            builder = builder.proxy(reqwest::Proxy::https(proxy).map_err(setup)?);
        }
        Ok(Client {
            http: builder.build().map_err(setup)?,
            endpoint,
            attempt: ATTEMPT,
        })
    }

    /// The same client, one attempt of which may take so long.
    #[must_use]
    pub fn with_attempts_of(self, attempt: Duration) -> Self {
        Client { attempt, ..self }
    }

    /// Opens an account. A `limit_minor` of `None` means no lower limit.
    pub async fn open_account(
        &self,
        key: &str,
        currency: &str,
        limit_minor: Option<i64>,
        patience: Duration,
    ) -> Result<Account, ClientError> {
        let body = serde_json::json!({ "currency": currency, "limit_minor": limit_minor });
        self.send("POST", "/v1/accounts", Some((key, body)), patience)
            .await
    }

    /// Makes a payment.
    pub async fn pay(
        &self,
        key: &str,
        payment: &NewPayment,
        patience: Duration,
    ) -> Result<Payment, ClientError> {
        let body = serde_json::to_value(payment).map_err(|error| ClientError::Setup(error.to_string()))?;
        self.send("POST", "/v1/payments", Some((key, body)), patience)
            .await
    }

    /// One account.
    pub async fn account(&self, id: &str, patience: Duration) -> Result<Account, ClientError> {
        self.send("GET", &format!("/v1/accounts/{id}"), None, patience)
            .await
    }

    /// All payments, page by page.
    pub async fn payments(&self, patience: Duration) -> Result<Vec<Payment>, ClientError> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let path = match &cursor {
                Some(cursor) => format!("/v1/payments?limit=100&cursor={cursor}"),
                None => "/v1/payments?limit=100".to_owned(),
            };
            let page: Page<Payment> = self.send("GET", &path, None, patience).await?;
            all.extend(page.data);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// `/health` as the public name answers it now: status and body.
    pub async fn health(&self) -> Result<(u16, Value), String> {
        let url = format!("{}/health", self.endpoint.url);
        let answer = self
            .http
            .get(url)
            .timeout(self.attempt)
            .send()
            .await
            .map_err(|error| continuity::error::chain(&error))?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await.unwrap_or(Value::Null)))
    }

    /// Scheme and name of the API.
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// The HTTP client underneath, for requests that this one would never send.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A request as JSON: a command with its idempotency key and body, or a read.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request(
        &self,
        method: &'static str,
        path: &str,
        command: Option<(&str, Value)>,
        patience: Duration,
    ) -> Result<Value, ClientError> {
        self.send(method, path, command, patience).await
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Option<(&str, Value)>,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        let mut pause = PAUSE;
        loop {
            let (last, wait) = match self.attempt(method, path, body.as_ref()).await {
                Ok(Answer::Final(value)) => return Ok(value),
                Ok(Answer::Refused { status, body }) => {
                    return Err(ClientError::Refused {
                        method,
                        path: path.to_owned(),
                        status,
                        body,
                    });
                }
                Ok(Answer::Again { why, wait }) => (why, wait),
                Err(error) => (continuity::error::chain(&error), None),
            };
            if started.elapsed() > patience {
                return Err(ClientError::Timeout {
                    method,
                    path: path.to_owned(),
                    seconds: patience.as_secs(),
                    last,
                });
            }
            tokio::time::sleep(wait.unwrap_or(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt<T: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&(&str, Value)>,
    ) -> Result<Answer<T>, reqwest::Error> {
        let url = format!("{}{path}", self.endpoint.url);
        let request = match body {
            Some((key, json)) => self.http.post(url).header("idempotency-key", *key).json(json),
            None => self.http.get(url),
        };
        let request = request.timeout(self.attempt).bearer_auth(&self.endpoint.api_key);
        let answer = request.send().await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Answer::Final(answer.json().await?));
        }
        let wait = told_to_wait(status, answer.headers());
        let body = answer.text().await.unwrap_or_default();
        Ok(if retryable(status) {
            let why = format!("{method} {path}: {status} {body}");
            Answer::Again { why, wait }
        } else {
            Answer::Refused {
                status: status.as_u16(),
                body,
            }
        })
    }
}

enum Answer<T> {
    Final(T),
    Refused { status: u16, body: String },
    Again { why: String, wait: Option<Duration> },
}

/// Answers that are not final: the command may be retried with the same key.
fn retryable(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::CONFLICT
        || status == StatusCode::REQUEST_TIMEOUT
}

/// How long a client waits that has sent too much. Where something else is not available the pauses are shorter: it may be back,
/// or elsewhere, any moment.
fn told_to_wait(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let wait = value.parse().ok().map(Duration::from_secs)?;
    (status == StatusCode::TOO_MANY_REQUESTS).then_some(wait)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn who_has_sent_too_much_waits_as_long_as_it_is_told() {
        let headers = |value| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
        let second = Some(Duration::from_secs(1));
        for (status, headers, wait) in [
            (429, headers("1"), second),
            (429, headers("soon"), None),
            (429, HeaderMap::new(), None),
            (503, headers("1"), None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(told_to_wait(status, &headers), wait, "{status} {headers:?}");
        }
    }

    #[test]
    fn only_answers_that_may_change_are_retried() {
        for (status, again) in [
            (503, true),
            (502, true),
            (429, true),
            (409, true),
            (422, false),
            (400, false),
            (401, false),
        ] {
            assert_eq!(
                retryable(StatusCode::from_u16(status).unwrap()),
                again,
                "{status}"
            );
        }
    }
}
