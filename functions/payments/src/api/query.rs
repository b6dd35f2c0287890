//! Query parameters, read strictly: unknown ones, repeated ones and values out of range are refused.

use std::collections::BTreeMap;
use std::str::FromStr;

use continuity::entry::EntryId;
use uuid::Uuid;

use super::problem::Problem;
use crate::command::{Invalid, body};
use crate::ledger::{PaymentFilter, PaymentStatus};
use crate::limits::{PAGE_ITEMS, TEXT_CHARS};
use crate::statement::{Format, Period};

/// The parameters of one request.
#[derive(Debug)]
pub struct Query(BTreeMap<&'static str, String>);

/// What part of a list is asked for; `C` tells a place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<C> {
    /// Only what comes after this one in the list.
    pub after: Option<C>,
    /// How many items at most.
    pub limit: u32,
}

impl Query {
    /// Reads parameters of these names.
    ///
    /// # Errors
    /// `InvalidRequest`: another name, or one twice.
    pub fn parse(query: Option<&str>, names: &[&'static str]) -> Result<Query, Problem> {
        let mut found = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let Some(known) = names.iter().find(|known| **known == name) else {
                let names = names.join("`, `");
                let must = format!("have no parameters but `{names}`");
                return Err(invalid("query", must));
            };
            if found.insert(*known, value.into_owned()).is_some() {
                return Err(invalid(known, "be given once".to_owned()));
            }
        }
        Ok(Query(found))
    }

    fn value<T>(
        &self,
        name: &'static str,
        must: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        read(text).map(Some).ok_or_else(|| invalid(name, must.to_owned()))
    }

    /// `limit` and `cursor`.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn part<C>(&self, cursor: impl FnOnce(&str) -> Option<C>) -> Result<Part<C>, Problem> {
        let limit = |text: &str| {
            text.parse()
                .ok()
                .filter(|limit| (PAGE_ITEMS.least..=PAGE_ITEMS.most).contains(limit))
        };
        let must = format!("be a number from {} to {}", PAGE_ITEMS.least, PAGE_ITEMS.most);
        Ok(Part {
            limit: self.value("limit", &must, limit)?.unwrap_or(PAGE_ITEMS.default),
            after: self.value("cursor", "be a `next_cursor` of this list", cursor)?,
        })
    }

    /// The members of a [`PaymentFilter`].
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn filter(&self) -> Result<PaymentFilter, Problem> {
        let text = |text: &str| {
            (text.chars().count() <= TEXT_CHARS && !text.contains('\0')).then(|| text.to_owned())
        };
        let words = PaymentStatus::ALL.map(PaymentStatus::as_str).join("`, `");
        let time = "be milliseconds since the Unix epoch";
        Ok(PaymentFilter {
            account: self.value("account", "be an account id", body::id)?,
            reference: self.value(
                "reference",
                &format!("have at most {TEXT_CHARS} characters"),
                text,
            )?,
            status: self.value("status", &format!("be one of `{words}`"), PaymentStatus::parse)?,
            created_from_ms: self.value("created_from_ms", time, number)?,
            created_before_ms: self.value("created_before_ms", time, number)?,
        })
    }
}

impl Query {
    /// A period and a format.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn statement(&self) -> Result<(Period, Format), Problem> {
        let time = "be given, in milliseconds since the Unix epoch";
        let asked = |name| {
            self.value(name, time, number)?
                .ok_or_else(|| invalid(name, time.to_owned()))
        };
        let period = Period {
            from_ms: asked("from_ms")?,
            until_ms: asked("until_ms")?,
        };
        if period.until_ms <= period.from_ms {
            return Err(invalid("until_ms", "be later than `from_ms`".to_owned()));
        }
        let words = Format::ALL.map(Format::as_str).join("`, `");
        let format = self.value("format", &format!("be one of `{words}`"), Format::parse)?;
        Ok((period, format.unwrap_or(Format::Json)))
    }
}

/// The names that [`Query::part`] reads.
pub const PART: [&str; 2] = ["limit", "cursor"];
/// The names that [`Query::part`] and [`Query::filter`] read.
pub const PAYMENTS: [&str; 7] = [
    "limit",
    "cursor",
    "account",
    "reference",
    "status",
    "created_from_ms",
    "created_before_ms",
];

/// The names that [`Query::statement`] reads.
pub const STATEMENT: [&str; 3] = ["from_ms", "until_ms", "format"];

/// A number that the database can hold.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    i64::from_str(text)
        .ok()
        .filter(|_| digits)
        .and_then(|number| u64::try_from(number).ok())
}

/// An entry's place as a cursor, which clients treat as opaque.
pub fn entry_cursor(id: EntryId) -> String {
    format!("{}.{}", id.epoch, id.seq)
}

/// The place of [`entry_cursor`].
pub fn read_entry_cursor(text: &str) -> Option<EntryId> {
    let (epoch, seq) = text.split_once('.')?;
    Some(EntryId {
        epoch: number(epoch)?,
        seq: number(seq)?,
    })
}

/// An account's place as a cursor.
pub fn account_cursor(id: Uuid) -> String {
    id.to_string()
}

/// The place of [`account_cursor`].
pub fn read_account_cursor(text: &str) -> Option<Uuid> {
    body::id(text)
}

fn invalid(field: &'static str, must: String) -> Problem {
    Problem::InvalidRequest {
        detail: "A parameter cannot be taken.".to_owned(),
        errors: vec![Invalid { field, must }],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn part(query: &str) -> Result<Part<EntryId>, Problem> {
        Query::parse(Some(query), &PART)?.part(read_entry_cursor)
    }

    #[test]
    fn only_a_limit_and_a_cursor_in_range_are_taken() {
        assert_eq!(
            Query::parse(None, &PART)
                .unwrap()
                .part(read_entry_cursor)
                .unwrap(),
            Part {
                after: None,
                limit: 50
            }
        );
        assert_eq!(
            part("limit=2&cursor=3.17").unwrap(),
            Part {
                after: Some(EntryId { epoch: 3, seq: 17 }),
                limit: 2
            }
        );
        for query in [
            "limit=0",
            "limit=501",
            "limit=-1",
            "limit=",
            "limit=x",
            "limit=1&limit=1",
            "cursor=",
            "cursor=1",
            "cursor=1.2.3",
            "cursor=-1.2",
            "cursor=%2B1.2",
            "cursor=99999999999999999999.1",
            "sort=asc",
        ] {
            assert!(part(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_statement_is_of_a_period_that_has_a_length() {
        let asked = |query| Query::parse(Some(query), &STATEMENT).and_then(|query| query.statement());
        let period = Period {
            from_ms: 5,
            until_ms: 9,
        };
        assert_eq!(asked("from_ms=5&until_ms=9").unwrap(), (period, Format::Json));
        assert_eq!(
            asked("from_ms=5&until_ms=9&format=csv").unwrap(),
            (period, Format::Csv)
        );
        for query in [
            "",
            "from_ms=5",
            "until_ms=5",
            "from_ms=5&until_ms=5",
            "from_ms=9&until_ms=5",
            "from_ms=a&until_ms=9",
            "from_ms=5&until_ms=9&format=pdf",
            "from_ms=5&until_ms=9&limit=1",
        ] {
            assert!(asked(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_filter_takes_what_its_members_can_be() {
        let filter = |query| Query::parse(Some(query), &PAYMENTS).and_then(|query| query.filter());
        let found = filter(
            "reference=a%20b%2Bc&status=voided&created_from_ms=5&created_before_ms=9&account=0190a000-0000-7000-8000-000000000001",
        )
        .unwrap();
        assert_eq!(found.reference.as_deref(), Some("a b+c"));
        assert_eq!(found.status, Some(PaymentStatus::Voided));
        assert_eq!(
            (found.created_from_ms, found.created_before_ms),
            (Some(5), Some(9))
        );
        assert!(found.account.is_some());
        for query in [
            "status=created",
            "status=",
            "account=x",
            "created_from_ms=-1",
            "created_from_ms=9223372036854775808",
            "reference=%00",
        ] {
            assert!(filter(query).is_err(), "{query}");
        }
    }
}
