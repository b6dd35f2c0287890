//! Requests for payments, as API Gateway sends them.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The number of the first account; all have as many digits.
pub const FIRST_ACCOUNT: u32 = 1_000_000;
/// What an account's id begins with; its number follows.
pub const ACCOUNT_PREFIX: &str = "01900000-0000-7000-8000-00000";

/// Between which accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Any two.
    Any,
    /// The first one pays or is paid, in turn.
    OneHot,
}

/// The id of an account.
pub fn account(number: u32) -> Uuid {
    Uuid::try_parse(&format!("{ACCOUNT_PREFIX}{number}"))
        .expect("a prefix of 29 and a number of 7 characters")
}

/// Makes the events.
pub struct Events {
    key: String,
    accounts: u32,
    turn: u64,
}

impl Events {
    /// With this API key, between the first so many accounts.
    pub fn new(key: String, accounts: u32) -> Self {
        Events {
            key,
            accounts,
            turn: 0,
        }
    }

    /// The next one, in JSON.
    pub fn next(&mut self, choice: Choice) -> String {
        let mut random = rand::rng();
        self.turn += 1;
        let mut payer = match choice {
            Choice::Any => random.random_range(0..self.accounts),
            Choice::OneHot => 0,
        };
        let mut payee = (payer + random.random_range(1..self.accounts)) % self.accounts;
        if self.turn.is_multiple_of(2) {
            std::mem::swap(&mut payer, &mut payee);
        }
        let (payer, payee) = (FIRST_ACCOUNT + payer, FIRST_ACCOUNT + payee);
        let body = format!(
            r#"{{\"from_account\":\"{ACCOUNT_PREFIX}{payer}\",\"to_account\":\"{ACCOUNT_PREFIX}{payee}\",\"amount_minor\":7,\"currency\":\"EUR\"}}"#
        );
        format!(
            r#"{{"resource":"/v1/payments","path":"/v1/payments","httpMethod":"POST","headers":null,"multiValueHeaders":{{
               "Authorization":["Bearer {key}"],"Idempotency-Key":["{id:032x}"],"Content-Type":["application/json"],
               "User-Agent":["understudy-bench"],"X-Forwarded-For":["127.0.0.1"]}},"queryStringParameters":null,
               "multiValueQueryStringParameters":null,"pathParameters":null,"stageVariables":null,
               "requestContext":{{"stage":"live","httpMethod":"POST","requestId":"{id:032x}"}},
               "body":"{body}","isBase64Encoded":false}}"#,
            key = self.key,
            id = random.random::<u128>(),
        )
    }
}
