//! One look at one region: `GET /health` over a connection of its own, and what the answer means.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use continuity::error::chain;
use continuity::observe::{Health, Look};

/// The longest body that is read.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Looks at a region.
#[async_trait]
pub trait Looker: Send + Sync {
    /// One look. Never an error: whatever goes wrong is what was seen.
    async fn look(&self, region: &str) -> Look;
}

/// Looks over HTTPS, with the platform's certificates, through the environment's proxy.
#[derive(Debug, Clone)]
pub struct HttpLooker {
    client: reqwest::Client,
    endpoints: BTreeMap<String, String>,
    limit: Duration,
}

impl HttpLooker {
    /// A looker at these URL bases by region; a look ends after `limit`.
    ///
    /// # Errors
    /// The HTTP client cannot be built: no usable root certificates.
    pub fn new(endpoints: BTreeMap<String, String>, limit: Duration) -> Result<Self, reqwest::Error> {
        // No idle connections: a kept one would outlive a change of DNS and hide a dead listener.
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .connect_timeout(limit)
            .timeout(limit)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("understudy-health-probe")
            .build()?;
        Ok(HttpLooker {
            client,
            endpoints,
            limit,
        })
    }

    async fn get(&self, url: &str) -> Result<(u16, Vec<u8>), reqwest::Error> {
        let mut answer = self.client.get(url).send().await?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BODY_BYTES {
                break;
            }
        }
        Ok((answer.status().as_u16(), body))
    }
}

#[async_trait]
impl Looker for HttpLooker {
    async fn look(&self, region: &str) -> Look {
        let Some(base) = self.endpoints.get(region) else {
            return failing(format!("no endpoint is known for `{region}`"));
        };
        match self.get(&format!("{base}/health")).await {
            Ok((status, body)) => judge(region, status, &body),
            Err(error) if error.is_timeout() => {
                failing(format!("no answer within {} ms", self.limit.as_millis()))
            }
            Err(error) => failing(chain(&error.without_url())),
        }
    }
}

fn failing(reason: String) -> Look {
    Look::Failing {
        reason,
        throttled: false,
    }
}

/// What an answer to `GET /health` means.
pub fn judge(region: &str, status: u16, body: &[u8]) -> Look {
    if status == 429 {
        return Look::Failing {
            reason: "status 429: it answers and takes no more requests".to_owned(),
            throttled: true,
        };
    }
    let Ok(health) = serde_json::from_slice::<Health>(body) else {
        return failing(format!("status {status} without a health report"));
    };
    if health.region != region {
        return failing(format!("`{}` answered in its place", health.region));
    }
    match (status, health.serving, health.epoch) {
        (200, true, Some(epoch)) => Look::Serving { epoch },
        (_, false, _) => Look::Standby { health },
        _ => failing(format!("status {status} contradicts the health report")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use continuity::takeover::LedgerStatus;

    pub(crate) fn health(region: &str, serving: bool, epoch: Option<u64>) -> Health {
        Health {
            region: region.into(),
            slot: "dr".into(),
            serving,
            epoch,
            phase: Some("serving".into()),
            active_region: Some("us-east-1".into()),
            database: LedgerStatus {
                reachable: true,
                in_recovery: !serving,
                ledger_epoch: Some(1),
            },
            reasons: vec![],
        }
    }

    #[test]
    fn answers_as_a_table() {
        let me = "us-east-2";
        let body = |health: &Health| serde_json::to_vec(health).unwrap();
        let standby = health(me, false, Some(1));
        let blind = health(me, false, None);
        let rows = [
            (
                200,
                body(&health(me, true, Some(4))),
                Look::Serving { epoch: 4 },
                "it serves",
            ),
            (
                503,
                body(&standby),
                Look::Standby {
                    health: standby.clone(),
                },
                "a standby",
            ),
            (
                503,
                body(&blind),
                Look::Standby {
                    health: blind.clone(),
                },
                "a region without quorum",
            ),
            (
                502,
                br#"{"message":"Internal server error"}"#.to_vec(),
                failing("status 502 without a health report".into()),
                "the gateway answers for a dead function",
            ),
            (
                429,
                br#"{"message":"Too Many Requests"}"#.to_vec(),
                Look::Failing {
                    reason: "status 429: it answers and takes no more requests".into(),
                    throttled: true,
                },
                "the gateway, or Lambda, sheds load",
            ),
            (
                200,
                b"<html>".to_vec(),
                failing("status 200 without a health report".into()),
                "somebody else's page",
            ),
            (
                200,
                body(&health("us-east-1", true, Some(4))),
                failing("`us-east-1` answered in its place".into()),
                "the wrong region",
            ),
            (
                500,
                body(&health(me, true, Some(4))),
                failing("status 500 contradicts the health report".into()),
                "a contradiction",
            ),
            (
                200,
                body(&health(me, true, None)),
                failing("status 200 contradicts the health report".into()),
                "serving in no epoch",
            ),
        ];
        for (status, body, expected, row) in rows {
            assert_eq!(judge(me, status, &body), expected, "{row}");
        }
    }

    #[tokio::test]
    async fn a_look_opens_a_connection_of_its_own_and_ends_in_time() {
        continuity::aws::install_tls();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let looker = HttpLooker::new(
            BTreeMap::from([("us-east-2".to_owned(), base)]),
            Duration::from_millis(300),
        )
        .unwrap();
        let answer = serde_json::to_string(&health("us-east-2", true, Some(2))).unwrap();
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).await.unwrap();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                stream.write_all((head + &answer).as_bytes()).await.unwrap();
                // The connection stays open: a client that kept it would use it again and never be accepted.
                tokio::spawn(async move {
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
            let (silent, _) = listener.accept().await.unwrap();
            silent
        });
        assert_eq!(looker.look("us-east-2").await, Look::Serving { epoch: 2 });
        assert_eq!(looker.look("us-east-2").await, Look::Serving { epoch: 2 });
        assert_eq!(
            looker.look("us-east-2").await,
            failing("no answer within 300 ms".into())
        );
        drop(server.await.unwrap());
        assert!(matches!(looker.look("us-east-2").await, Look::Failing { .. }));
        assert!(matches!(looker.look("eu-west-1").await, Look::Failing { .. }));
    }
}
