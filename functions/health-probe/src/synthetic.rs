//! Synthetic payments: during a drill the probe pays like a customer, through the public name, and writes down what it saw.
//! One minor unit of `XTS`, ISO 4217's code for testing, moves from one account to another; no real account is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use continuity::clock::now_ms;
use continuity::error::chain;
use continuity::synthetic::{Payment, Second, Slice};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What synthetic payments are made in.
const CURRENCY: &str = "XTS";
/// The idempotency keys of the two accounts: opened once per stack, and found again ever after.
const PAYER: &str = "synthetic-payer";
const PAYEE: &str = "synthetic-payee";
/// The longest slice.
pub const SLICE_LIMIT_MS: u64 = 40_000;
/// A payment sent at the slice's end is still answered within this.
pub const GRACE_MS: u64 = 1_500;
/// The most payments a second: a slice's data must fit into an item of the control table (400 KB).
pub const MOST_PER_SECOND: u32 = 20;
/// One attempt takes no longer than this.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// The pause after the first failed attempt; it doubles up to [`PAUSE_MOST`].
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MOST: Duration = Duration::from_millis(400);
/// Time for the answer before the function's own end.
const MARGIN_MS: u64 = 2_000;
/// Payments on a page of a list: the API's most.
const PAGE: usize = 500;
/// Payments that are named of each fault; all are counted.
const NAMED: usize = 50;

/// An API key: never printed.
#[derive(Clone, Deserialize)]
pub struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What the coordinator asks of a probe beside its rounds.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Pay for a while.
    SyntheticPayments(Part),
    /// Look each acknowledged payment up where the stack serves now.
    CheckPayments(Check),
}

/// A part of a drill's payments.
#[derive(Debug, Clone, Deserialize)]
pub struct Part {
    /// The drill's id.
    pub drill: String,
    /// The public name.
    pub host: String,
    /// An API key with `payments:read` and `payments:write`.
    pub key: Key,
    /// Payments a second, at most [`MOST_PER_SECOND`].
    pub per_second: u32,
    /// No payment is sent later than this, milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// Which part: it is in the payments' idempotency keys.
    pub slice: u32,
    /// The accounts, payer and payee, if they are known from an earlier part.
    #[serde(default)]
    pub accounts: Option<[String; 2]>,
}

/// What to look up.
#[derive(Debug, Clone, Deserialize)]
pub struct Check {
    /// The public name.
    pub host: String,
    /// An API key with `payments:read`.
    pub key: Key,
    /// The account that paid.
    pub payer: String,
    /// No payment of the drill was made before this, milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// The acknowledged payments: id by idempotency key, which is also the reference.
    pub acknowledged: BTreeMap<String, String>,
    /// The idempotency keys of the drill begin so.
    pub prefix: String,
}

/// What became of the acknowledged payments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Acknowledged payments looked for.
    pub acknowledged: usize,
    /// Payments of the drill in the ledger: also those whose answer never came.
    pub found: usize,
    /// Acknowledged ones that are not there.
    pub lost: usize,
    /// Acknowledged ones that are there with another id, amount or status.
    pub different: usize,
    /// Idempotency keys with more than one payment.
    pub duplicated: usize,
    /// The first keys of these.
    pub named: Vec<String>,
}

/// Why a task could not be done. It never holds the API key.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// The event cannot be read. What was in it is not said: it holds a key.
    #[error("the event is no task of the probe")]
    NoTask,
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built: {0}")]
    Client(String),
    /// The API refuses for good.
    #[error("{what} was refused with {status}: {body}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The status.
        status: u16,
        /// The problem document.
        body: String,
    },
    /// The time was over.
    #[error("{what} got no final answer in time; last: {last}")]
    Unanswered {
        /// What was asked.
        what: &'static str,
        /// What was seen last.
        last: String,
    },
}

/// What one request came to.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Answer(Value),
    Unavailable,
    Again(String),
    Final { status: u16, body: String },
}

/// The payments API by its public name, as a customer's client uses it: connections are kept while they work. When an attempt
/// fails or is answered with 503, the next ones ask for the way anew, each over its own connection, until one succeeds.
#[derive(Debug)]
pub struct Api {
    base: String,
    key: Key,
    kept: Mutex<Option<reqwest::Client>>,
    fresh: reqwest::Client,
}

fn client(idle: usize) -> Result<reqwest::Client, SyntheticError> {
    reqwest::Client::builder()
        .pool_max_idle_per_host(idle)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent("understudy-synthetic-payments")
        .build()
        .map_err(|error| SyntheticError::Client(chain(&error)))
}

impl Api {
    /// The API at this scheme and host.
    ///
    /// # Errors
    /// `Client`.
    pub fn new(base: impl Into<String>, key: Key) -> Result<Self, SyntheticError> {
        Ok(Api {
            base: base.into(),
            key,
            kept: Mutex::new(None),
            fresh: client(0)?,
        })
    }

    fn kept(&self) -> Option<reqwest::Client> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, client: Option<reqwest::Client>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// One request.
    async fn attempt(
        &self,
        method: Method,
        path: &str,
        command: Option<(&str, &Value)>,
        limit: Duration,
    ) -> Seen {
        let kept = self.kept();
        let is_kept = kept.is_some();
        let http = kept.unwrap_or_else(|| self.fresh.clone());
        let mut request = http
            .request(method, format!("{}{path}", self.base))
            .timeout(limit.min(ATTEMPT_LIMIT))
            .bearer_auth(&self.key.0);
        if let Some((key, body)) = command {
            request = request.header("idempotency-key", key).json(body);
        }
        let seen = match request.send().await {
            Ok(answer) => read(answer).await,
            Err(error) => Seen::Again(chain(&error.without_url())),
        };
        match seen {
            Seen::Answer(_) if !is_kept => self.keep(client(32).ok()),
            Seen::Unavailable | Seen::Again(_) if is_kept => self.keep(None),
            _ => {}
        }
        seen
    }

    /// Asks until there is a final answer or the time is over.
    async fn ask(
        &self,
        what: &'static str,
        method: &Method,
        path: &str,
        command: Option<(&str, &Value)>,
        until_ms: u64,
    ) -> Result<Value, SyntheticError> {
        let mut pause = PAUSE;
        loop {
            let last = match self.attempt(method.clone(), path, command, ATTEMPT_LIMIT).await {
                Seen::Answer(value) => return Ok(value),
                Seen::Final { status, body } => return Err(SyntheticError::Refused { what, status, body }),
                Seen::Unavailable => "503".to_owned(),
                Seen::Again(last) => last,
            };
            if now_ms() >= until_ms {
                return Err(SyntheticError::Unanswered { what, last });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }
}

async fn read(answer: reqwest::Response) -> Seen {
    let status = answer.status().as_u16();
    match status {
        200 | 201 => match answer.json().await {
            Ok(body) => Seen::Answer(body),
            Err(error) => Seen::Again(chain(&error.without_url())),
        },
        503 => Seen::Unavailable,
        408 | 409 | 429 | 500.. => Seen::Again(format!("status {status}")),
        status => Seen::Final {
            status,
            body: answer.text().await.unwrap_or_default(),
        },
    }
}

/// Attempts counted by second.
#[derive(Debug, Default)]
struct Counts(Mutex<BTreeMap<u64, Second>>);

impl Counts {
    fn note(&self, seen: &Seen) {
        let at_ms = now_ms() / 1000 * 1000;
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let second = counts.entry(at_ms).or_insert(Second {
            at_ms,
            ..Second::default()
        });
        match seen {
            Seen::Answer(_) => second.acknowledged += 1,
            Seen::Unavailable => second.refused += 1,
            Seen::Again(_) | Seen::Final { .. } => second.failed += 1,
        }
    }
}

async fn sleep_until(at_ms: u64) {
    tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(now_ms()))).await;
}

/// Opens the two accounts, or finds them open. `None` when nobody answered in time: then there is nothing to pay from.
async fn accounts(api: &Api, until_ms: u64, counts: &Counts) -> Result<Option<[String; 2]>, SyntheticError> {
    // No lower limit: the payer only ever pays.
    let body = json!({"currency": CURRENCY, "limit_minor": null, "name": "synthetic payments"});
    let mut ids = Vec::new();
    for key in [PAYER, PAYEE] {
        match api
            .ask(
                "opening an account",
                &Method::POST,
                "/v1/accounts",
                Some((key, &body)),
                until_ms,
            )
            .await
        {
            Ok(account) => ids.push(account["id"].as_str().unwrap_or_default().to_owned()),
            Err(SyntheticError::Unanswered { last, .. }) => {
                counts.note(&Seen::Again(last));
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(<[String; 2]>::try_from(ids).ok())
}

/// Pays, `per_second` times a second, until the slice's time is over. Each payment has its own key and is tried until it is
/// answered for good, or [`GRACE_MS`] after the slice's end.
///
/// # Errors
/// The accounts are refused, or there is no HTTP client. What becomes of a payment is no error, it is what was seen.
pub async fn pay(api: &Api, part: &Part, deadline_ms: u64) -> Result<Slice, SyntheticError> {
    let began_ms = now_ms();
    let until_ms = part
        .until_ms
        .min(began_ms + SLICE_LIMIT_MS)
        .min(deadline_ms.saturating_sub(MARGIN_MS + GRACE_MS));
    let counts = Counts::default();
    let accounts = match &part.accounts {
        Some(known) => Some(known.clone()),
        None => accounts(api, until_ms, &counts).await?,
    };
    let every_ms = 1000 / u64::from(part.per_second.clamp(1, MOST_PER_SECOND));
    let mut payments = Vec::new();
    if let Some([payer, payee]) = &accounts {
        let begin_ms = now_ms();
        let sends = (0..)
            .map(|n| begin_ms + n * every_ms)
            .take_while(|at_ms| *at_ms < until_ms);
        let all = sends.zip(0_u32..).map(|(at_ms, n)| {
            let key = format!("synthetic-{}-{}-{n}", part.drill, part.slice);
            let body = json!({"from_account": payer, "to_account": payee, "amount_minor": 1, "currency": CURRENCY,
                "reference": key});
            one(api, key, body, (at_ms, until_ms + GRACE_MS), &counts)
        });
        payments = futures::future::join_all(all).await;
    }
    let seconds = counts.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Slice {
        slice: part.slice,
        began_ms,
        ended_ms: now_ms(),
        accounts,
        payments,
        seconds: seconds.into_values().collect(),
    })
}

/// One payment, from its first attempt to its answer.
async fn one(api: &Api, key: String, body: Value, (at_ms, end_ms): (u64, u64), counts: &Counts) -> Payment {
    sleep_until(at_ms).await;
    let mut payment = Payment {
        key,
        sent_ms: now_ms(),
        answered_ms: None,
        id: None,
        epoch: None,
        attempts: 0,
        refused: None,
    };
    let mut pause = PAUSE;
    loop {
        let left = Duration::from_millis(end_ms.saturating_sub(now_ms()));
        if left.is_zero() {
            return payment;
        }
        payment.attempts += 1;
        let seen = api
            .attempt(Method::POST, "/v1/payments", Some((&payment.key, &body)), left)
            .await;
        counts.note(&seen);
        match seen {
            Seen::Answer(answer) => {
                payment.answered_ms = Some(now_ms());
                payment.id = answer["id"].as_str().map(str::to_owned);
                payment.epoch = answer["epoch"].as_u64();
                return payment;
            }
            Seen::Final { status, body } => {
                payment.refused = Some(format!("{status}: {body}"));
                return payment;
            }
            Seen::Unavailable | Seen::Again(_) => {}
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// Lists the drill's payments where the stack serves now, and compares them with what was acknowledged.
///
/// # Errors
/// The list cannot be read to its end in time: then nothing is known.
pub async fn check(api: &Api, check: &Check, deadline_ms: u64) -> Result<Checked, SyntheticError> {
    let until_ms =
        deadline_ms.saturating_sub(MARGIN_MS + u64::try_from(ATTEMPT_LIMIT.as_millis()).unwrap_or(0));
    let first = format!(
        "/v1/payments?account={}&created_from_ms={}&limit={PAGE}",
        check.payer, check.from_ms
    );
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let path = match &cursor {
            Some(cursor) => format!("{first}&cursor={cursor}"),
            None => first.clone(),
        };
        let page = api
            .ask("the list of payments", &Method::GET, &path, None, until_ms)
            .await?;
        for payment in page["data"].as_array().into_iter().flatten() {
            if let Some(reference) = payment["reference"]
                .as_str()
                .filter(|text| text.starts_with(&check.prefix))
            {
                found
                    .entry(reference.to_owned())
                    .or_default()
                    .push(payment.clone());
            }
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(compare(&check.acknowledged, &found));
        }
        if now_ms() >= until_ms {
            return Err(SyntheticError::Unanswered {
                what: "the list of payments",
                last: format!("{} payments were read", found.len()),
            });
        }
    }
}

fn compare(acknowledged: &BTreeMap<String, String>, found: &BTreeMap<String, Vec<Value>>) -> Checked {
    let of = |key: &String| found.get(key).map_or(&[][..], Vec::as_slice);
    let lost: BTreeSet<&String> = acknowledged.keys().filter(|key| of(key).is_empty()).collect();
    let differs = |id: &str, payment: &Value| {
        payment["id"] != *id || payment["amount_minor"] != 1 || payment["status"] != "captured"
    };
    let different: BTreeSet<&String> = acknowledged
        .iter()
        .filter(|(key, id)| of(key).first().is_some_and(|payment| differs(id, payment)))
        .map(|(key, _)| key)
        .collect();
    let duplicated: BTreeSet<&String> = found
        .iter()
        .filter(|(_, payments)| payments.len() > 1)
        .map(|(key, _)| key)
        .collect();
    let faults = lost.iter().chain(&different).chain(&duplicated);
    Checked {
        acknowledged: acknowledged.len(),
        found: found.values().map(Vec::len).sum(),
        lost: lost.len(),
        different: different.len(),
        duplicated: duplicated.len(),
        named: faults.take(NAMED).map(|key| (*key).clone()).collect(),
    }
}

/// Whether an event asks for a task, and not for rounds.
pub fn is_task(event: &Value) -> bool {
    event.get("task").is_some()
}

/// Does a task of the event.
///
/// # Errors
/// [`SyntheticError`].
pub async fn run(event: Value, deadline_ms: u64) -> Result<Value, SyntheticError> {
    let task = Task::deserialize(event).map_err(|_| SyntheticError::NoTask)?;
    let answer = match &task {
        Task::SyntheticPayments(part) => {
            let api = Api::new(format!("https://{}", part.host), part.key.clone())?;
            serde_json::to_value(pay(&api, part, deadline_ms).await?)
        }
        Task::CheckPayments(wanted) => {
            let api = Api::new(format!("https://{}", wanted.host), wanted.key.clone())?;
            serde_json::to_value(check(&api, wanted, deadline_ms).await?)
        }
    };
    answer.map_err(|error| SyntheticError::Client(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const FAR_MS: u64 = u64::MAX;

    /// A payments API in memory. It refuses a number of payments, and loses the answer of some.
    #[derive(Default)]
    struct Ledger {
        payments: BTreeMap<String, Value>,
        accounts: usize,
        requests: usize,
        refuse: std::ops::Range<usize>,
        lose: std::ops::Range<usize>,
    }

    impl Ledger {
        fn answer(&mut self, line: &str, key: &str, mut body: Value) -> (u16, Value) {
            let path = line.split(' ').nth(1).unwrap();
            if path == "/v1/accounts" {
                assert_eq!(
                    (&body["currency"], &body["limit_minor"]),
                    (&json!("XTS"), &Value::Null)
                );
                self.accounts += 1;
                return (201, json!({"id": key}));
            }
            if line.starts_with("GET ") {
                assert!(path.contains("account=synthetic-payer"), "{path}");
                let cursor = path.split_once("cursor=").map_or("0", |(_, cursor)| cursor);
                let from: usize = cursor.parse().unwrap();
                let page: Vec<Value> = self.payments.values().skip(from).take(3).cloned().collect();
                let next = (from + 3 < self.payments.len()).then(|| (from + 3).to_string());
                return (200, json!({"data": page, "next_cursor": next}));
            }
            self.requests += 1;
            let number = self.requests - 1;
            if self.refuse.contains(&number) {
                return (503, json!({"type": "region-not-active"}));
            }
            body["id"] = json!(format!("id-{key}"));
            body["epoch"] = json!(1);
            body["status"] = json!("captured");
            let payment = self.payments.entry(key.to_owned()).or_insert(body).clone();
            if self.lose.contains(&number) {
                return (502, json!({}));
            }
            (201, payment)
        }
    }

    /// Requests of one connection, one after the other.
    async fn talk(stream: TcpStream, ledger: Arc<Mutex<Ledger>>) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let (mut length, mut key, mut is_authorised) = (0, String::new(), false);
            loop {
                let mut header = String::new();
                stream.read_line(&mut header).await?;
                let Some((name, value)) = header.trim().split_once(": ") else {
                    break;
                };
                match name {
                    "content-length" => length = value.parse().unwrap(),
                    "idempotency-key" => key = value.to_owned(),
                    "authorization" => is_authorised = value == "Bearer usk_test",
                    _ => {}
                }
            }
            assert!(is_authorised);
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (status, answer) = ledger.lock().unwrap().answer(&line, &key, body);
            let answer = answer.to_string();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all(format!("{head}{answer}").as_bytes()).await?;
        }
    }

    async fn serve(ledger: Ledger) -> (Arc<Mutex<Ledger>>, Api) {
        continuity::aws::install_tls();
        let ledger = Arc::new(Mutex::new(ledger));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&ledger);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, Arc::clone(&shared)));
            }
        });
        (ledger, Api::new(base, Key("usk_test".into())).unwrap())
    }

    fn part(ms: u64) -> Part {
        Part {
            drill: "drill-dev-1".into(),
            host: "api.test".into(),
            key: Key("usk_test".into()),
            per_second: 20,
            until_ms: now_ms() + ms,
            slice: 3,
            accounts: None,
        }
    }

    fn wanted(traffic: &Slice) -> Check {
        Check {
            host: "api.test".into(),
            key: Key("usk_test".into()),
            payer: "synthetic-payer".into(),
            from_ms: 0,
            acknowledged: traffic
                .payments
                .iter()
                .filter_map(|payment| Some((payment.key.clone(), payment.id.clone()?)))
                .collect(),
            prefix: "synthetic-drill-dev-1-".into(),
        }
    }

    #[tokio::test]
    async fn every_payment_is_acknowledged_once_and_found_again() {
        let (ledger, api) = serve(Ledger::default()).await;
        let traffic = pay(&api, &part(2_500), FAR_MS).await.unwrap();
        assert!(traffic.payments.len() >= 2, "{}", traffic.payments.len());
        assert!(
            traffic
                .payments
                .iter()
                .all(|payment| payment.answered_ms.is_some() && payment.attempts == 1)
        );
        assert!(
            traffic
                .payments
                .windows(2)
                .all(|pair| pair[0].sent_ms <= pair[1].sent_ms)
        );
        let acknowledged: u32 = traffic.seconds.iter().map(|second| second.acknowledged).sum();
        assert_eq!(acknowledged as usize, traffic.payments.len());
        let checked = check(&api, &wanted(&traffic), FAR_MS).await.unwrap();
        assert_eq!(
            (checked.acknowledged, checked.found),
            (traffic.payments.len(), traffic.payments.len())
        );
        assert_eq!((checked.lost, checked.different, checked.duplicated), (0, 0, 0));
        assert_eq!(ledger.lock().unwrap().accounts, 2);
        // A later part knows the accounts.
        let known = Part {
            accounts: traffic.accounts.clone(),
            slice: 4,
            ..part(100)
        };
        pay(&api, &known, FAR_MS).await.unwrap();
        assert_eq!(ledger.lock().unwrap().accounts, 2);
    }

    #[tokio::test]
    async fn a_payment_that_is_refused_or_whose_answer_is_lost_is_tried_again_with_its_key() {
        let (ledger, api) = serve(Ledger {
            refuse: 1..4,
            lose: 4..6,
            ..Ledger::default()
        })
        .await;
        let known = Part {
            accounts: Some([PAYER.into(), PAYEE.into()]),
            ..part(500)
        };
        let traffic = pay(&api, &known, FAR_MS).await.unwrap();
        assert!(
            traffic
                .payments
                .iter()
                .all(|payment| payment.answered_ms.is_some())
        );
        let attempts: u32 = traffic.payments.iter().map(|payment| payment.attempts).sum();
        assert_eq!(attempts as usize, traffic.payments.len() + 5);
        assert_eq!(ledger.lock().unwrap().payments.len(), traffic.payments.len());
        let sum = |of: fn(&Second) -> u32| traffic.seconds.iter().map(of).sum::<u32>();
        assert_eq!(
            (sum(|second| second.refused), sum(|second| second.failed)),
            (3, 2)
        );
    }

    #[tokio::test]
    async fn what_is_not_answered_when_the_time_is_over_is_not_acknowledged() {
        let (_, api) = serve(Ledger {
            refuse: 2..usize::MAX,
            ..Ledger::default()
        })
        .await;
        let known = Part {
            accounts: Some([PAYER.into(), PAYEE.into()]),
            ..part(500)
        };
        let traffic = pay(&api, &known, FAR_MS).await.unwrap();
        let unanswered = traffic
            .payments
            .iter()
            .filter(|payment| payment.answered_ms.is_none())
            .count();
        assert_eq!(traffic.payments.len() - unanswered, 2);
        assert!(
            traffic
                .payments
                .iter()
                .all(|payment| payment.id.is_some() == payment.answered_ms.is_some())
        );
    }

    #[tokio::test]
    async fn where_nobody_answers_nothing_is_paid_and_the_failure_is_counted() {
        continuity::aws::install_tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let api = Api::new(base, Key("usk_test".into())).unwrap();
        let traffic = pay(&api, &part(100), FAR_MS).await.unwrap();
        assert!(traffic.payments.is_empty() && traffic.accounts.is_none());
        assert_eq!(traffic.seconds.iter().map(|second| second.failed).sum::<u32>(), 1);
    }

    #[test]
    fn faults_as_a_table() {
        let payment = |id: &str, status: &str| json!({"id": id, "amount_minor": 1, "status": status});
        let rows = [
            (vec![payment("i", "captured")], (0, 0, 0), "as acknowledged"),
            (vec![], (1, 0, 0), "not there"),
            (vec![payment("j", "captured")], (0, 1, 0), "with another id"),
            (vec![payment("i", "declined")], (0, 1, 0), "with another outcome"),
            (
                vec![payment("i", "captured"), payment("j", "captured")],
                (0, 0, 1),
                "twice",
            ),
        ];
        for (found, expected, row) in rows {
            let found = BTreeMap::from([("k".to_owned(), found)]);
            let checked = compare(&BTreeMap::from([("k".into(), "i".into())]), &found);
            assert_eq!(
                (checked.lost, checked.different, checked.duplicated),
                expected,
                "{row}"
            );
            assert_eq!(checked.named.is_empty(), expected == (0, 0, 0), "{row}");
        }
        let unasked = BTreeMap::from([("k".to_owned(), vec![payment("i", "captured")])]);
        assert_eq!(compare(&BTreeMap::new(), &unasked).found, 1);
    }

    #[tokio::test]
    async fn a_key_is_in_no_error_and_in_no_debug_output() {
        let event = json!({"task": "synthetic-payments", "key": "usk_secret", "per_second": "many"});
        assert!(is_task(&event) && !is_task(&json!({})));
        let error = run(event, FAR_MS).await.unwrap_err();
        assert!(!error.to_string().contains("usk_secret"), "{error}");
        let part = Part {
            key: Key("usk_secret".into()),
            ..part(0)
        };
        assert!(!format!("{part:?}").contains("usk_secret"));
    }
}
