//! Everything that can be wrong, as RFC 9457 problem documents with stable types.

use axum::response::{IntoResponse, Response};
use continuity::entry::LedgerEntry;
use continuity::error::chain;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::command::{BadBody, Invalid};
use crate::context::Unanswered;
use crate::ledger::{LedgerError, Rejection};
use crate::limits::{API_KEY_BYTES, BODY_BYTES, IDEMPOTENCY_KEY_BYTES};
use crate::statement::NoStatement;

/// Where problem types live: `{BASE}/{slug}`.
pub const BASE: &str = "https://understudy.dev/errors";

/// A request that is not answered with what it asked for. In order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// No such route, account or payment.
    NotFound,
    /// The route does not take this method.
    MethodNotAllowed,
    /// No API key, or not a valid one.
    Unauthorized,
    /// The API key's scopes do not cover this.
    Forbidden {
        /// The scope that is missing.
        scope: &'static str,
    },
    /// The API key has sent as many requests in this second as it may.
    RateLimited {
        /// How many that are.
        requests_per_s: u32,
    },
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// No `Idempotency-Key`.
    IdempotencyKeyMissing,
    /// More than one `Idempotency-Key`, or one that cannot be a key.
    IdempotencyKeyInvalid,
    /// The body is not JSON.
    MalformedJson {
        /// What the parser said.
        detail: String,
    },
    /// Well-formed, but not a valid request.
    InvalidRequest {
        /// What is wrong with the whole.
        detail: String,
        /// What is wrong with single members.
        errors: Vec<Invalid>,
    },
    /// The control table does not answer, so nobody may acknowledge here.
    ControlUnavailable {
        /// For the log.
        cause: String,
    },
    /// This region is not the active one, or not serving.
    RegionNotActive,
    /// The database does not answer.
    LedgerUnavailable {
        /// For the log.
        cause: String,
    },
    /// The idempotency key is being executed by another request.
    RequestInFlight,
    /// The idempotency key belongs to another request.
    IdempotencyKeyReuse,
    /// There is no such account.
    AccountUnknown {
        /// Its id.
        account: String,
    },
    /// The account is held in another currency.
    CurrencyMismatch {
        /// Its id.
        account: String,
        /// Its currency.
        currency: String,
    },
    /// The account is closed already.
    AccountClosed,
    /// The account still has money, or a part in an open authorisation.
    AccountNotEmpty,
    /// The payment is not, or no longer, authorised.
    PaymentNotAuthorised {
        /// What it is.
        status: &'static str,
    },
    /// The time of the authorisation has passed.
    AuthorisationExpired,
    /// Nothing of the payment was captured.
    PaymentNotCaptured {
        /// What it is.
        status: &'static str,
    },
    /// More than was authorised, or than was captured and not refunded yet.
    AmountTooLarge {
        /// What there is, in minor units.
        most_minor: i64,
    },
    /// The statement would have more lines than a request can write.
    StatementTooLong {
        /// How many it would have.
        lines: u64,
        /// How many it may have.
        most: u64,
    },
    /// The bucket does not take the statement.
    StorageUnavailable {
        /// For the log.
        cause: String,
    },
    /// The journal does not answer, so nothing may be acknowledged.
    JournalUnavailable {
        /// For the log.
        cause: String,
    },
    /// It took too long; whether it took effect is unknown.
    TimedOut,
    /// A bug.
    Internal {
        /// For the log.
        cause: String,
    },
}

impl Problem {
    /// One of each, in order of precedence, for those who must know every type.
    pub fn all() -> Vec<Problem> {
        let (cause, detail) = (|| "a cause".to_owned(), || "detail".to_owned());
        vec![
            Problem::NotFound,
            Problem::MethodNotAllowed,
            Problem::Unauthorized,
            Problem::Forbidden {
                scope: "payments:read",
            },
            Problem::RateLimited { requests_per_s: 100 },
            Problem::UnsupportedMediaType,
            Problem::BodyTooLarge,
            Problem::IdempotencyKeyMissing,
            Problem::IdempotencyKeyInvalid,
            Problem::MalformedJson { detail: detail() },
            Problem::InvalidRequest {
                detail: detail(),
                errors: Vec::new(),
            },
            Problem::ControlUnavailable { cause: cause() },
            Problem::RegionNotActive,
            Problem::LedgerUnavailable { cause: cause() },
            Problem::RequestInFlight,
            Problem::IdempotencyKeyReuse,
            Problem::AccountUnknown {
                account: "a".to_owned(),
            },
            Problem::CurrencyMismatch {
                account: "a".to_owned(),
                currency: "EUR".to_owned(),
            },
            Problem::AccountClosed,
            Problem::AccountNotEmpty,
            Problem::PaymentNotAuthorised { status: "voided" },
            Problem::AuthorisationExpired,
            Problem::PaymentNotCaptured { status: "voided" },
            Problem::AmountTooLarge { most_minor: 1 },
            Problem::StatementTooLong { lines: 2, most: 1 },
            Problem::StorageUnavailable { cause: cause() },
            Problem::JournalUnavailable { cause: cause() },
            Problem::TimedOut,
            Problem::Internal { cause: cause() },
        ]
    }

    /// An entry that does not record what its kind should.
    pub fn misrecorded(entry: &LedgerEntry) -> Self {
        Problem::Internal {
            cause: format!("entry {:?} does not record its {:?}", entry.id, entry.kind),
        }
    }

    /// Slug, status and title.
    pub fn kind(&self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Problem::NotFound => ("not-found", StatusCode::NOT_FOUND, "Not found"),
            Problem::MethodNotAllowed => (
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
            ),
            Problem::Unauthorized => (
                "unauthorized",
                StatusCode::UNAUTHORIZED,
                "A valid API key is required",
            ),
            Problem::Forbidden { .. } => (
                "forbidden",
                StatusCode::FORBIDDEN,
                "The API key does not allow this",
            ),
            Problem::RateLimited { .. } => (
                "rate-limited",
                StatusCode::TOO_MANY_REQUESTS,
                "The API key sends too many requests",
            ),
            Problem::UnsupportedMediaType => (
                "unsupported-media-type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON",
            ),
            Problem::BodyTooLarge => (
                "body-too-large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large",
            ),
            Problem::IdempotencyKeyMissing => (
                "idempotency-key-missing",
                StatusCode::BAD_REQUEST,
                "An Idempotency-Key is required",
            ),
            Problem::IdempotencyKeyInvalid => (
                "idempotency-key-invalid",
                StatusCode::BAD_REQUEST,
                "The Idempotency-Key cannot be used",
            ),
            Problem::MalformedJson { .. } => (
                "malformed-json",
                StatusCode::BAD_REQUEST,
                "The body is not valid JSON",
            ),
            Problem::InvalidRequest { .. } => (
                "invalid-request",
                StatusCode::BAD_REQUEST,
                "The request is not valid",
            ),
            Problem::ControlUnavailable { .. } => (
                "control-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The control table does not answer",
            ),
            Problem::RegionNotActive => (
                "region-not-active",
                StatusCode::SERVICE_UNAVAILABLE,
                "This region is not serving",
            ),
            Problem::LedgerUnavailable { .. } => (
                "ledger-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The ledger does not answer",
            ),
            Problem::RequestInFlight => (
                "request-in-flight",
                StatusCode::CONFLICT,
                "A request with this Idempotency-Key is being executed",
            ),
            Problem::IdempotencyKeyReuse => (
                "idempotency-key-reuse",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The Idempotency-Key was used for another request",
            ),
            Problem::AccountUnknown { .. } => (
                "account-unknown",
                StatusCode::UNPROCESSABLE_ENTITY,
                "There is no such account",
            ),
            Problem::CurrencyMismatch { .. } => (
                "currency-mismatch",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The account is held in another currency",
            ),
            Problem::AccountClosed => (
                "account-closed",
                StatusCode::CONFLICT,
                "The account is closed already",
            ),
            Problem::AccountNotEmpty => (
                "account-not-empty",
                StatusCode::CONFLICT,
                "The account is not empty",
            ),
            Problem::PaymentNotAuthorised { .. } => (
                "payment-not-authorised",
                StatusCode::CONFLICT,
                "The payment is not authorised",
            ),
            Problem::AuthorisationExpired => (
                "authorisation-expired",
                StatusCode::CONFLICT,
                "The authorisation has expired",
            ),
            Problem::PaymentNotCaptured { .. } => (
                "payment-not-captured",
                StatusCode::CONFLICT,
                "Nothing of the payment was captured",
            ),
            Problem::AmountTooLarge { .. } => (
                "amount-too-large",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The amount is too large",
            ),
            Problem::StatementTooLong { .. } => (
                "statement-too-long",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The statement is too long",
            ),
            Problem::StorageUnavailable { .. } => (
                "storage-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The bucket does not answer",
            ),
            Problem::JournalUnavailable { .. } => (
                "journal-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The journal does not answer",
            ),
            Problem::TimedOut => (
                "timed-out",
                StatusCode::SERVICE_UNAVAILABLE,
                "The request took too long",
            ),
            Problem::Internal { .. } => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }

    fn detail(&self) -> Option<String> {
        let retry = "Nothing was acknowledged. Send the same request with the same Idempotency-Key again.";
        match self {
            Problem::Forbidden { scope } => Some(format!("The scope `{scope}` is needed.")),
            Problem::RateLimited { requests_per_s } => Some(format!(
                "It may send {requests_per_s} a second. Nothing was executed."
            )),
            Problem::Unauthorized => Some(format!(
                "Send `Authorization: Bearer KEY`, at most {API_KEY_BYTES} bytes."
            )),
            Problem::BodyTooLarge => Some(format!("At most {BODY_BYTES} bytes are taken.")),
            Problem::IdempotencyKeyInvalid => Some(format!(
                "Send one key of 1 to {IDEMPOTENCY_KEY_BYTES} visible ASCII characters."
            )),
            Problem::MalformedJson { detail } | Problem::InvalidRequest { detail, .. } => {
                Some(detail.clone())
            }
            Problem::AccountUnknown { account } => Some(format!("Account `{account}` does not exist.")),
            Problem::CurrencyMismatch { account, currency } => Some(format!(
                "Account `{account}` is held in {currency}; amounts are not converted."
            )),
            Problem::RequestInFlight => {
                Some("Send the same request with the same Idempotency-Key again for its outcome.".to_owned())
            }
            Problem::AccountNotEmpty => {
                Some("Its balance must be zero, and no authorisation may be open.".to_owned())
            }
            Problem::PaymentNotAuthorised { status } | Problem::PaymentNotCaptured { status } => {
                Some(format!("It is {status}."))
            }
            Problem::AmountTooLarge { most_minor } => {
                Some(format!("At most {most_minor} minor units can be taken."))
            }
            Problem::StatementTooLong { lines, most } => Some(format!(
                "It would have {lines} lines, and at most {most} are written. Ask for shorter periods."
            )),
            Problem::StorageUnavailable { .. } => Some("Nothing was written. Ask again.".to_owned()),
            Problem::RegionNotActive
            | Problem::ControlUnavailable { .. }
            | Problem::LedgerUnavailable { .. }
            | Problem::JournalUnavailable { .. }
            | Problem::TimedOut => Some(retry.to_owned()),
            Problem::NotFound
            | Problem::MethodNotAllowed
            | Problem::UnsupportedMediaType
            | Problem::IdempotencyKeyMissing
            | Problem::IdempotencyKeyReuse
            | Problem::AccountClosed
            | Problem::AuthorisationExpired
            | Problem::Internal { .. } => None,
        }
    }

    fn log(&self) {
        match self {
            Problem::ControlUnavailable { cause }
            | Problem::LedgerUnavailable { cause }
            | Problem::StorageUnavailable { cause }
            | Problem::JournalUnavailable { cause } => {
                tracing::warn!(problem = self.kind().0, cause, "request not answered");
            }
            Problem::Internal { cause } => {
                tracing::error!(problem = self.kind().0, cause, "request not answered")
            }
            _ => {}
        }
    }
}

/// The slug of the problem that a response tells, for the log.
#[derive(Debug, Clone, Copy)]
pub struct Slug(pub &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log();
        let (slug, status, title) = self.kind();
        let mut body = json!({ "type": format!("{BASE}/{slug}"), "title": title, "status": status.as_u16() });
        if let Some(detail) = self.detail() {
            body["detail"] = json!(detail);
        }
        if let Problem::InvalidRequest { errors, .. } = &self
            && !errors.is_empty()
        {
            body["errors"] = json!(errors);
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let again = matches!(self, Problem::RequestInFlight | Problem::RateLimited { .. });
        if status == StatusCode::SERVICE_UNAVAILABLE || again {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Slug(slug));
        response
    }
}

impl From<BadBody> for Problem {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::Malformed(detail) => Problem::MalformedJson { detail },
            BadBody::Shape(detail) => Problem::InvalidRequest {
                detail,
                errors: Vec::new(),
            },
            BadBody::Values(errors) => Problem::InvalidRequest {
                detail: "Some members cannot be taken.".to_owned(),
                errors,
            },
        }
    }
}

impl From<NoStatement> for Problem {
    fn from(why: NoStatement) -> Self {
        match why {
            NoStatement::NotFound => Problem::NotFound,
            NoStatement::TooLong { lines, most } => Problem::StatementTooLong { lines, most },
            NoStatement::Storage(source) => Problem::StorageUnavailable {
                cause: chain(&source),
            },
            error @ NoStatement::DoesNotAddUp(_) => Problem::Internal { cause: chain(&error) },
            NoStatement::Unanswered(why) => why.into(),
        }
    }
}

impl From<Unanswered> for Problem {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::NotActive => Problem::RegionNotActive,
            Unanswered::Rejected(rejection) => rejection.into(),
            Unanswered::Control(source) => Problem::ControlUnavailable {
                cause: chain(&source),
            },
            Unanswered::Journal(source) => Problem::JournalUnavailable {
                cause: chain(&source),
            },
            Unanswered::Ledger(source @ LedgerError::Refused { .. }) => Problem::Internal {
                cause: chain(&source),
            },
            Unanswered::Ledger(source) => Problem::LedgerUnavailable {
                cause: chain(&source),
            },
            Unanswered::TimedOut => Problem::TimedOut,
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::InFlight => Problem::RequestInFlight,
            Rejection::KeyReuse => Problem::IdempotencyKeyReuse,
            Rejection::NotFound => Problem::NotFound,
            Rejection::AccountUnknown { account } => Problem::AccountUnknown {
                account: account.to_string(),
            },
            Rejection::CurrencyMismatch { account, currency } => Problem::CurrencyMismatch {
                account: account.to_string(),
                currency,
            },
            Rejection::AccountClosed => Problem::AccountClosed,
            Rejection::AccountNotEmpty => Problem::AccountNotEmpty,
            Rejection::PaymentNotAuthorised { status } => Problem::PaymentNotAuthorised {
                status: status.as_str(),
            },
            Rejection::AuthorisationExpired => Problem::AuthorisationExpired,
            // No route expires a payment.
            Rejection::AuthorisationNotExpired => Problem::Internal {
                cause: "the authorisation has not expired yet".to_owned(),
            },
            Rejection::PaymentNotCaptured { status } => Problem::PaymentNotCaptured {
                status: status.as_str(),
            },
            Rejection::AmountTooLarge { most_minor } => Problem::AmountTooLarge { most_minor },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_problem_has_a_type_of_its_own_and_keeps_its_cause_to_the_log() {
        let slugs: BTreeSet<&str> = Problem::all().iter().map(|problem| problem.kind().0).collect();
        assert_eq!(slugs.len(), Problem::all().len());
        for problem in Problem::all() {
            assert!(
                !format!("{:?}", problem.detail()).contains("a cause"),
                "{problem:?}"
            );
        }
    }

    #[test]
    fn only_a_bug_is_a_500_and_what_may_be_sent_again_says_when() {
        for problem in Problem::all() {
            let status = problem.clone().kind().1;
            let again = matches!(problem, Problem::RequestInFlight | Problem::RateLimited { .. });
            assert_eq!(
                status == StatusCode::INTERNAL_SERVER_ERROR,
                matches!(problem, Problem::Internal { .. })
            );
            let response = problem.into_response();
            assert_eq!(
                response.headers().contains_key(RETRY_AFTER),
                status == StatusCode::SERVICE_UNAVAILABLE || again
            );
        }
    }
}
