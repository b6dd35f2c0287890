//! Lambda as a function sees it (the runtime API,
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>), and the AWS calls that a payment makes: a secret, items of
//! the control table and of the journal, the count of requests. Everything is answered at once, so that what is measured is the function.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a function may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The function does not behave.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// There is no port to listen on.
    #[error("there is no port to listen on")]
    Port(#[from] std::io::Error),
    /// It failed, or said that it did.
    #[error("the function failed: {0}")]
    Failed(String),
    /// It does not answer.
    #[error("the function does not answer")]
    Silent,
}

/// A running side of Lambda. It ends with this.
pub struct Lambda {
    address: String,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<String>,
    answers: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Value, String>>>,
    server: JoinHandle<()>,
}

struct Shared {
    asked: watch::Sender<Option<Instant>>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>,
    answers: mpsc::UnboundedSender<Result<Value, String>>,
    secrets: Mutex<HashMap<String, String>>,
    /// Items with an `id`, by table and id.
    items: Mutex<HashMap<(String, String), Value>>,
}

impl Drop for Lambda {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Lambda {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// There is none.
    pub async fn start() -> Result<Self, Broken> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (events, taken) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            asked: watch::Sender::new(None),
            events: tokio::sync::Mutex::new(taken),
            answers: answered,
            secrets: Mutex::default(),
            items: Mutex::default(),
        });
        let serving = shared.clone();
        let server = tokio::spawn(async move {
            // A failure to accept leaves the function without an answer, which is told after its deadline.
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let shared = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let shared = shared.clone();
                        async move { shared.answer(request).await }
                    });
                    // A killed function breaks its connections off.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Lambda {
            address,
            shared,
            events,
            answers: tokio::sync::Mutex::new(answers),
            server,
        })
    }

    /// What Lambda puts into a function's environment, and where AWS is.
    pub fn environment(&self, function: &str, region: &str) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_LAMBDA_RUNTIME_API", self.address.clone()),
            ("AWS_LAMBDA_FUNCTION_NAME", function.to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", function.to_owned()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "bench".to_owned()),
            ("AWS_REGION", region.to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "bench".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "bench".to_owned()),
        ]
    }

    /// A client of the tables.
    pub async fn dynamodb(&self, region: &str) -> aws_sdk_dynamodb::Client {
        let config = continuity::aws::loader(Some(region))
            .endpoint_url(format!("http://{}", self.address))
            .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
            .load()
            .await;
        aws_sdk_dynamodb::Client::new(&config)
    }

    /// Keeps a secret.
    pub fn keep_secret(&self, name: &str, text: String) {
        lock(&self.shared.secrets).insert(name.to_owned(), text);
    }

    /// Forgets that anybody asked for an event.
    pub fn forget(&self) {
        self.shared.asked.send_replace(None);
    }

    /// When an event was asked for, for the first time since [`Lambda::forget`].
    pub async fn asked(&self) -> Instant {
        let mut asked = self.shared.asked.subscribe();
        loop {
            if let Some(at) = *asked.borrow_and_update() {
                return at;
            }
            // The sender is ours.
            let _ = asked.changed().await;
        }
    }

    /// Gives the function an event, and waits for its answer.
    ///
    /// # Errors
    /// It failed or does not answer.
    pub async fn invoke(&self, event: String) -> Result<Value, Broken> {
        let gone = |_| Broken::Silent;
        self.events.send(event).map_err(|_| Broken::Silent)?;
        let mut answers = self.answers.lock().await;
        let answer = timeout(ANSWER_WITHIN, answers.recv()).await.map_err(gone)?;
        answer.ok_or(Broken::Silent)?.map_err(Broken::Failed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Answer = Response<Full<Bytes>>;

fn respond(status: StatusCode, body: &Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
        let (parts, body) = request.into_parts();
        if parts.method == Method::GET && parts.uri.path().ends_with("/runtime/invocation/next") {
            return Ok(self.next().await);
        }
        let body = body.collect().await?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if let Some(target) = parts.headers.get("x-amz-target") {
            let operation = target.to_str().unwrap_or_default().rsplit('.').next();
            return Ok(self.aws(operation.unwrap_or_default(), &body));
        }
        let answer = if parts.uri.path().ends_with("/response") {
            Ok(body)
        } else {
            Err(body.to_string())
        };
        // Nobody listens any more when the measurement is over.
        let _ = self.answers.send(answer);
        Ok(respond(StatusCode::ACCEPTED, &json!({"status": "OK"})))
    }

    async fn next(&self) -> Answer {
        self.asked
            .send_if_modified(|asked| asked.is_none() && asked.replace(Instant::now()).is_none());
        let event = self.events.lock().await.recv().await.unwrap_or_default();
        let deadline = SystemTime::now() + ANSWER_WITHIN;
        let deadline_ms = deadline
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", "bench")
            .header("lambda-runtime-deadline-ms", deadline_ms.to_string())
            .header(
                "lambda-runtime-invoked-function-arn",
                "arn:aws:lambda:us-east-1:000000000000:function:bench",
            )
            .body(Full::new(Bytes::from(event)));
        response.expect("these headers are text")
    }

    fn aws(&self, operation: &str, body: &Value) -> Answer {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let table = || text(&body["TableName"]);
        match operation {
            "GetSecretValue" => match lock(&self.secrets).get(&text(&body["SecretId"])) {
                Some(secret) => respond(StatusCode::OK, &json!({"SecretString": secret})),
                None => respond(
                    StatusCode::BAD_REQUEST,
                    &json!({"__type": "ResourceNotFoundException"}),
                ),
            },
            "PutItem" => {
                // Entries of the journal have no `id`, and are kept by nobody.
                if let Some(id) = body["Item"]["id"]["S"].as_str() {
                    lock(&self.items).insert((table(), id.to_owned()), body["Item"].clone());
                }
                respond(StatusCode::OK, &json!({}))
            }
            "GetItem" => {
                let key = (table(), text(&body["Key"]["id"]["S"]));
                let found = lock(&self.items).get(&key).cloned();
                let answer = found.map_or_else(|| json!({}), |item| json!({"Item": item}));
                respond(StatusCode::OK, &answer)
            }
            // A count of requests: nobody else sends any.
            "UpdateItem" => {
                let requests = &body["ExpressionAttributeValues"][":requests"];
                respond(StatusCode::OK, &json!({"Attributes": {"requests": requests}}))
            }
            other => respond(
                StatusCode::BAD_REQUEST,
                &json!({"__type": "UnknownOperationException", "message": other}),
            ),
        }
    }
}
