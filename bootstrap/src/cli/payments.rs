//! The commands that use the payments API, as a client of it: `pay`, `accounts`, `entries`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format as TimeFormat;
use clap::builder::PossibleValue;
use clap::{Args, Subcommand};
use payments::currency;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::client::{Client, ClientError, Endpoint};
use crate::failure::Failure;
use crate::stack::{Stack, StackOptions};
use crate::ui::Ui;

/// How long a command is tried again while the answer is not final: longer than a takeover.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an attempt at a statement may take: what API Gateway waits.
const STATEMENT_ATTEMPT: Duration = Duration::from_secs(29);

/// Which API, and with which key.
#[derive(Debug, Args)]
struct ApiOptions {
    #[command(flatten)]
    stack: StackOptions,
    /// The API key, as `understudy keys create` showed it.
    #[arg(long, env = "UNDERSTUDY_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: String,
}

impl ApiOptions {
    /// A client that finds the API by its public name, as customers do.
    async fn client(&self) -> Result<Client, Failure> {
        let stack = Stack::open(&self.stack).await?;
        Ok(Client::new(Endpoint::of(&stack, self.api_key.clone()))?)
    }
}

/// Makes a payment, or with `--hold` an authorisation.
///
/// Tries again with the same idempotency key until it has a final answer, also while another region takes over. A decline is an
/// answer: it is printed, and the command fails.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy pay FROM TO 12.50 EUR\n  understudy pay FROM TO 1000 JPY --reference invoice-7\n  understudy pay FROM TO 12.50 EUR --hold 3600\n\nThe key comes from UNDERSTUDY_API_KEY or --api-key; `understudy keys create --name NAME` makes one."
)]
pub struct Pay {
    #[command(flatten)]
    api: ApiOptions,
    /// The account that pays.
    from: Uuid,
    /// The account that is paid.
    to: Uuid,
    /// How much, in units of the currency: `12.50`.
    amount: String,
    /// ISO 4217 code.
    currency: String,
    /// Your own reference.
    #[arg(long)]
    reference: Option<String>,
    /// Hold the money for so many seconds, to be captured later, instead of moving it.
    #[arg(long, value_name = "SECONDS")]
    hold: Option<u32>,
    /// The idempotency key of an earlier attempt; without it, a new one.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Pay {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let amount_minor = minor(&self.amount, &self.currency)?;
        let mut body = json!({
            "from_account": self.from, "to_account": self.to,
            "amount_minor": amount_minor, "currency": self.currency, "reference": self.reference,
        });
        if let Some(hold_s) = self.hold {
            body["capture_method"] = json!("manual");
            body["expires_after_s"] = json!(hold_s);
        }
        let client = self.api.client().await?;
        let payment = command(&client, "/v1/payments", self.idempotency_key, body).await?;
        let text = payment_line(&payment);
        ui.result(&payment, &text);
        if payment["status"] == "declined" {
            return Err(Failure::text(format!(
                "the payment was declined: {}",
                word(&payment["reason"])
            )));
        }
        Ok(())
    }
}

/// Accounts of the ledger.
#[derive(Debug, Args)]
pub struct Accounts {
    #[command(subcommand)]
    command: AccountsCommand,
}

#[derive(Debug, Subcommand)]
enum AccountsCommand {
    /// Lists the accounts, the newest first.
    List {
        #[command(flatten)]
        api: ApiOptions,
        /// At most so many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Shows an account.
    Get {
        #[command(flatten)]
        api: ApiOptions,
        /// Its id.
        account: Uuid,
    },
    /// Opens an account.
    Open {
        #[command(flatten)]
        api: ApiOptions,
        /// ISO 4217 code.
        currency: String,
        /// The lowest balance that a payment may leave, in units of the currency: `-100.00`, or `none`.
        #[arg(long, default_value = "0", allow_hyphen_values = true)]
        limit: String,
        /// A name to recognise it by.
        #[arg(long)]
        name: Option<String>,
        /// The idempotency key of an earlier attempt; without it, a new one.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Writes the statement of an account and a period: all that moved, between two balances.
    ///
    /// The API stores it in the data bucket, which is replicated, and gives a link that is good for a quarter of an hour. With
    /// `--file` it is fetched as well, and compared with the hash that the API told.
    #[command(
        after_help = "Examples:\n  understudy accounts statement ACCOUNT --from 2026-11-01 --until 2026-12-01 --file november.csv\n  understudy accounts statement ACCOUNT --from 2026-11-25T12:00:00Z --format json\n\nTimes are UTC. The end is not part of the period, so that periods that meet share no line."
    )]
    Statement {
        #[command(flatten)]
        api: ApiOptions,
        /// Its id.
        account: Uuid,
        /// When the period begins: a date, or a time as in RFC 3339.
        #[arg(long, value_name = "TIME", value_parser = time_ms)]
        from: u64,
        /// When it ends; now, without it.
        #[arg(long, value_name = "TIME", value_parser = time_ms)]
        until: Option<u64>,
        /// How it is written: for spreadsheets, or for programs.
        #[arg(long, value_parser = [
            PossibleValue::new("csv").help("RFC 4180, amounts in units of the currency"),
            PossibleValue::new("json").help("One document, amounts in minor units"),
        ], default_value = "csv")]
        format: String,
        /// Where to write it.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Closes an empty account.
    Close {
        #[command(flatten)]
        api: ApiOptions,
        /// Its id.
        account: Uuid,
        /// The idempotency key of an earlier attempt; without it, a new one.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
}

impl Accounts {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let account = match self.command {
            AccountsCommand::Statement {
                api,
                account,
                from,
                until,
                format,
                file,
            } => {
                let until = until.unwrap_or_else(continuity::clock::now_ms);
                let path = format!(
                    "/v1/accounts/{account}/statement?from_ms={from}&until_ms={until}&format={format}"
                );
                let client = api.client().await?.with_attempts_of(STATEMENT_ATTEMPT);
                let statement = refused(client.request("GET", &path, None, PATIENCE).await)?;
                if let Some(file) = &file {
                    fetch(&statement, file).await?;
                }
                ui.result(&statement, statement_text(&statement, file.as_deref()));
                return Ok(());
            }
            AccountsCommand::List { api, limit } => {
                let accounts = list(&api.client().await?, "/v1/accounts", limit).await?;
                let lines: Vec<String> = accounts.iter().map(account_line).collect();
                let text = if lines.is_empty() {
                    "no accounts; `understudy accounts open CURRENCY` opens one".to_owned()
                } else {
                    lines.join("\n")
                };
                ui.result(&accounts, text);
                return Ok(());
            }
            AccountsCommand::Get { api, account } => {
                let path = format!("/v1/accounts/{account}");
                refused(api.client().await?.request("GET", &path, None, PATIENCE).await)?
            }
            AccountsCommand::Open {
                api,
                currency,
                limit,
                name,
                idempotency_key,
            } => {
                let limit_minor = match limit.as_str() {
                    "none" => None,
                    limit => Some(minor(limit, &currency)?),
                };
                let body = json!({"currency": currency, "limit_minor": limit_minor, "name": name});
                command(&api.client().await?, "/v1/accounts", idempotency_key, body).await?
            }
            AccountsCommand::Close {
                api,
                account,
                idempotency_key,
            } => {
                let path = format!("/v1/accounts/{account}/close");
                command(&api.client().await?, &path, idempotency_key, json!({})).await?
            }
        };
        ui.result(&account, account_line(&account));
        Ok(())
    }
}

/// Fetches a statement into a file, which appears whole or not at all.
async fn fetch(statement: &Value, file: &Path) -> Result<(), Failure> {
    let cannot = |error: &dyn std::error::Error| {
        Failure::text(format!(
            "the statement is in the bucket, but cannot be fetched: {}",
            continuity::error::chain(error)
        ))
    };
    // The link is a secret as long as it is good: an error must not repeat it.
    let get = reqwest::Client::new().get(word(&statement["url"])).send().await;
    let answer = get.and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(|error| cannot(&error.without_url()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut written = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    let mut hash = Sha256::new();
    while let Some(piece) = answer
        .chunk()
        .await
        .map_err(|error| cannot(&error.without_url()))?
    {
        hash.update(&piece);
        written.write_all(&piece)?;
    }
    if hex::encode(hash.finalize()) != word(&statement["sha256"]) {
        return Err(
            Failure::text("what was fetched is not what the API wrote: the hashes differ")
                .help("run the same again"),
        );
    }
    written.persist(file).map_err(|error| cannot(&error.error))?;
    Ok(())
}

fn statement_text(statement: &Value, file: Option<&Path>) -> String {
    let balance = |name: &str| major(&statement[name], &statement["currency"]);
    let place = match file {
        Some(file) => format!("in {}", file.display()),
        None => format!("at {}", word(&statement["url"])),
    };
    let unsettled = if statement["settled"] == true {
        ""
    } else {
        "\nthe period is not over for a minute yet: more may come to it"
    };
    format!(
        "{} lines from {} to {}, {} bytes {place}{unsettled}",
        statement["lines"],
        balance("opening_balance_minor"),
        balance("closing_balance_minor"),
        statement["bytes"],
    )
}

/// A date, or a time as in RFC 3339, as milliseconds since the Unix epoch.
fn time_ms(text: &str) -> Result<u64, String> {
    let with_time = if text.contains('T') {
        text.to_owned()
    } else {
        format!("{text}T00:00:00Z")
    };
    DateTime::from_str(&with_time, TimeFormat::DateTimeWithOffset)
        .ok()
        .and_then(|time| time.to_millis().ok())
        .and_then(|ms| u64::try_from(ms).ok())
        .ok_or_else(|| "write a date as 2026-11-01, or a time as 2026-11-01T12:00:00Z".to_owned())
}

/// Lists what moved an account's balance, the newest first.
#[derive(Debug, Args)]
pub struct Entries {
    #[command(flatten)]
    api: ApiOptions,
    /// The account.
    account: Uuid,
    /// At most so many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Entries {
    /// Runs the command.
    pub async fn run(self, ui: &Arc<Ui>) -> Result<(), Failure> {
        let path = format!("/v1/accounts/{}/entries", self.account);
        let entries = list(&self.api.client().await?, &path, self.limit).await?;
        let lines: Vec<String> = entries.iter().map(entry_line).collect();
        let text = if lines.is_empty() {
            "no entries".to_owned()
        } else {
            lines.join("\n")
        };
        ui.result(&entries, text);
        Ok(())
    }
}

/// A command, with its idempotency key or a new one. If there is no final answer, the failure says how to go on.
async fn command(client: &Client, path: &str, key: Option<String>, body: Value) -> Result<Value, Failure> {
    let key = key.unwrap_or_else(|| Uuid::new_v4().to_string());
    let answer = client.request("POST", path, Some((&key, body)), PATIENCE).await;
    match answer {
        Err(error @ ClientError::Timeout { .. }) => Err(Failure::new(&error).help(format!(
            "it may have been executed: run the same again with `--idempotency-key {key}`, which cannot execute it twice"
        ))),
        answer => refused(answer),
    }
}

/// The parts of a list, until there are so many or no more.
async fn list(client: &Client, path: &str, limit: u32) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let rest = limit as usize - all.len();
        let asked = format!("{path}?limit={}{cursor}", rest.min(100));
        let page = refused(client.request("GET", &asked, None, PATIENCE).await)?;
        all.extend(page["data"].as_array().into_iter().flatten().take(rest).cloned());
        match page["next_cursor"].as_str() {
            Some(next) if all.len() < limit as usize => cursor = format!("&cursor={next}"),
            _ => return Ok(all),
        }
    }
}

/// A refusal in the words of its problem document.
fn refused(answer: Result<Value, ClientError>) -> Result<Value, Failure> {
    let error = match answer {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let ClientError::Refused { status, body, .. } = &error else {
        return Err(Failure::new(&error));
    };
    let Ok(problem) = serde_json::from_str::<Value>(body) else {
        return Err(Failure::new(&error));
    };
    let mut text = word(&problem["title"]);
    if let Some(detail) = problem["detail"].as_str() {
        let _ = write!(text, ": {}", detail.trim_end_matches('.'));
    }
    for wrong in problem["errors"].as_array().into_iter().flatten() {
        let _ = write!(
            text,
            "; `{}` must {}",
            word(&wrong["field"]),
            word(&wrong["must"])
        );
    }
    let failure = Failure::text(text);
    Err(match *status {
        401 => failure.help("`understudy keys create --name NAME` makes a key; `understudy keys list` shows which are revoked"),
        403 => failure.help("`understudy keys list` shows what each key may do"),
        _ => failure,
    })
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// An amount in minor units. As many decimals as ISO 4217 gives the currency, or fewer.
fn minor(amount: &str, code: &str) -> Result<i64, Failure> {
    let decimals = currency::decimals(code).ok_or_else(|| {
        Failure::text(format!("`{code}` is not an ISO 4217 code in use"))
            .help("write it in upper case: EUR, USD, JPY")
    })?;
    let wrong = || {
        Failure::text(format!("`{amount}` is not an amount of {code}")).help(format!(
            "write digits, with a point and at most {decimals} decimals"
        ))
    };
    let (negative, digits) = match amount.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, amount),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let with_point = digits.contains('.');
    if whole.is_empty()
        || !is_digits(whole)
        || !is_digits(part)
        || part.len() > usize::from(decimals)
        || (with_point && part.is_empty())
    {
        return Err(wrong());
    }
    let sign = if negative { "-" } else { "" };
    format!("{sign}{whole}{part:0<width$}", width = usize::from(decimals))
        .parse()
        .map_err(|_| wrong())
}

/// An amount in units of its currency.
fn major(amount_minor: &Value, code: &Value) -> String {
    let (Some(amount), code) = (amount_minor.as_i64(), word(code)) else {
        return "-".to_owned();
    };
    format!("{} {code}", currency::in_units(amount, &code))
}

fn account_line(account: &Value) -> String {
    let available = major(&account["available_minor"], &account["currency"]);
    let name = account["name"].as_str().unwrap_or_default();
    format!(
        "{}  {:<6}  {:>20}  {available:>20} available  {name}",
        word(&account["id"]),
        word(&account["status"]),
        major(&account["balance_minor"], &account["currency"]),
    )
    .trim_end()
    .to_owned()
}

fn payment_line(payment: &Value) -> String {
    format!(
        "{}  {:<10}  {:>20}  {} to {}",
        word(&payment["id"]),
        word(&payment["status"]),
        major(&payment["amount_minor"], &payment["currency"]),
        word(&payment["from_account"]),
        word(&payment["to_account"]),
    )
}

fn entry_line(entry: &Value) -> String {
    format!(
        "{:>8}  {:<8}  {:>20}  payment {}  with {}",
        format!("{}/{}", entry["epoch"], entry["seq"]),
        word(&entry["kind"]),
        major(&entry["amount_minor"], &entry["currency"]),
        word(&entry["payment"]),
        word(&entry["counterparty"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_as_many_decimals_as_the_currency_has_and_no_more() {
        for (amount, code, expected) in [
            ("12.50", "EUR", Some(1_250)),
            ("12.5", "EUR", Some(1_250)),
            ("12", "EUR", Some(1_200)),
            ("0.07", "EUR", Some(7)),
            ("-100.00", "USD", Some(-10_000)),
            ("1000", "JPY", Some(1_000)),
            ("1.234", "BHD", Some(1_234)),
            ("92233720368547758.07", "EUR", Some(i64::MAX)),
            ("92233720368547758.08", "EUR", None),
            ("12.505", "EUR", None),
            ("1000.0", "JPY", None),
            ("12,50", "EUR", None),
            ("12.", "EUR", None),
            (".5", "EUR", None),
            ("", "EUR", None),
            ("-", "EUR", None),
            ("1e3", "EUR", None),
            ("+1", "EUR", None),
            ("1", "eur", None),
            ("1", "XXY", None),
        ] {
            assert_eq!(minor(amount, code).ok(), expected, "{amount} {code}");
        }
    }

    #[test]
    fn times_are_dates_or_as_in_rfc_3339() {
        for (text, expected) in [
            ("1970-01-02", Some(86_400_000)),
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T01:00:00.5+01:00", Some(500)),
            ("1969-12-31", None),
            ("2026-13-01", None),
            ("2026-11-1", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(time_ms(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_with_their_currency() {
        assert_eq!(major(&json!(-1_250), &json!("EUR")), "-12.50 EUR");
        assert_eq!(major(&Value::Null, &json!("EUR")), "-");
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_its_problem() {
        let refusal = |status, body: Value| {
            let error = ClientError::Refused {
                method: "POST",
                path: "/v1/payments".to_owned(),
                status,
                body: body.to_string(),
            };
            refused(Err(error)).unwrap_err()
        };
        let problem = json!({"title": "The request is not valid", "detail": "Two members are wrong.",
            "errors": [{"field": "amount_minor", "must": "be positive"}]});
        assert_eq!(
            refusal(422, problem).message(),
            "The request is not valid: Two members are wrong; `amount_minor` must be positive"
        );
        assert!(refusal(401, json!({"title": "No"})).next().is_some());
    }
}
