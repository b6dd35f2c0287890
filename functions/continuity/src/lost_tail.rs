//! The lost tail of a takeover: what the old region's ledger had committed and not yet replicated when the other took over,
//! and what became of each of its entries.
//!
//! The old ledger is read backwards, newest first. What a database replicates arrives in the order of its log: as soon as a
//! whole page holds nothing that only the old region had, nothing before it is lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::entry::{EntryId, EntryKind, EntryStatus};

/// Entries of one page. More than commands are ever under way at once, so that numbers taken by those that committed out of
/// order do not hide a lost entry behind a page of replicated ones.
pub const PAGE: u32 = 1_000;
/// Entries that one report lists, the newest; its totals count all of them.
pub const LISTED: usize = 10_000;

/// An entry of the old region's ledger, with what a report tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailEntry {
    /// Identity.
    #[serde(flatten)]
    pub id: EntryId,
    /// The ledger epoch in which the old region posted it.
    pub posted_epoch: u64,
    /// The client's idempotency key, by which the serving ledger is asked. It may identify a customer: no report holds it.
    pub idempotency_key: String,
    /// The kind of command.
    pub kind: EntryKind,
    /// How the command ended.
    pub status: EntryStatus,
    /// The id of the account or payment that it is about.
    pub subject: String,
    /// Who pays, where it is between two accounts.
    #[serde(default)]
    pub debit_account: Option<String>,
    /// Who is paid.
    #[serde(default)]
    pub credit_account: Option<String>,
    /// How much it was about, in minor units: also for what only held, or was declined. 0 for an account.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// When it was executed, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// What the serving ledger has under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Identity of its entry.
    #[serde(flatten)]
    pub id: EntryId,
    /// The ledger epoch in which it was posted there.
    pub posted_epoch: u64,
    /// The account or payment that it is about.
    pub subject: String,
}

/// What became of an entry that only the old region had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Became {
    /// It is in the serving ledger: a takeover posted it from the journal.
    Recovered {
        /// In this ledger epoch.
        posted_epoch: u64,
    },
    /// Its client tried again, and the serving ledger executed the command anew, once.
    ExecutedAgain {
        /// Identity of the entry that stands in its place.
        #[serde(rename = "as")]
        id: EntryId,
        /// The account or payment that this one is about.
        as_subject: String,
    },
    /// It is nowhere else: it was never acknowledged, and its client has not tried again.
    Gone,
}

impl Became {
    /// The word in the report.
    pub fn as_str(&self) -> &'static str {
        match self {
            Became::Recovered { .. } => "recovered",
            Became::ExecutedAgain { .. } => "executed-again",
            Became::Gone => "gone",
        }
    }
}

/// What became of an entry of the old ledger, when the serving one holds `held` under its key; `None` when it was not lost.
///
/// An entry that was replicated was posted in the same epoch on both sides; one that a takeover recovered was posted later.
pub fn became(entry: &TailEntry, held: Option<&Held>) -> Option<Became> {
    match held {
        None => Some(Became::Gone),
        Some(held) if held.id != entry.id => Some(Became::ExecutedAgain {
            id: held.id,
            as_subject: held.subject.clone(),
        }),
        Some(held) if held.posted_epoch > entry.posted_epoch => Some(Became::Recovered {
            posted_epoch: held.posted_epoch,
        }),
        Some(_) => None,
    }
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Identity in the old ledger.
    #[serde(flatten)]
    pub id: EntryId,
    /// The kind of command.
    pub kind: EntryKind,
    /// How the command had ended.
    pub status: EntryStatus,
    /// The id of the account or payment that it was about.
    pub subject: String,
    /// Who was to pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debit_account: Option<String>,
    /// Who was to be paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_account: Option<String>,
    /// How much, in minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// When it was executed, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// What became of it.
    #[serde(flatten)]
    pub became: Became,
}

/// How many, and how much in each currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Entries.
    pub entries: u64,
    /// Sum of the amounts of those that were not declined, in minor units, per currency.
    pub amounts_minor: BTreeMap<String, i128>,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Entries of the old ledger that were looked at.
    pub looked_at: u64,
    /// Totals per outcome.
    pub totals: BTreeMap<String, Total>,
    /// The lost entries, newest first.
    pub entries: Vec<Line>,
    /// Lost entries that are in the totals and not listed.
    pub omitted: u64,
}

impl Comparison {
    /// Adds a page of the old ledger with what the serving one holds for each of its entries, in the same order. Says
    /// whether older pages can hold lost entries.
    pub fn add(&mut self, page: Vec<TailEntry>, held: &[Option<Held>]) -> bool {
        let mut any = false;
        for (entry, held) in page.into_iter().zip(held) {
            self.looked_at += 1;
            let Some(became) = became(&entry, held.as_ref()) else {
                continue;
            };
            any = true;
            let total = self.totals.entry(became.as_str().to_owned()).or_default();
            total.entries += 1;
            if entry.status == EntryStatus::Created && entry.amount_minor > 0 {
                *total.amounts_minor.entry(entry.currency.clone()).or_default() +=
                    i128::from(entry.amount_minor);
            }
            if self.entries.len() == LISTED {
                self.omitted += 1;
                continue;
            }
            self.entries.push(Line {
                id: entry.id,
                kind: entry.kind,
                status: entry.status,
                subject: entry.subject,
                debit_account: entry.debit_account,
                credit_account: entry.credit_account,
                amount_minor: entry.amount_minor,
                currency: entry.currency,
                created_at_ms: entry.created_at_ms,
                became,
            });
        }
        any
    }
}

/// Entries that the item of the control table lists: an item has 400 KB.
pub const LISTED_IN_ITEM: usize = 500;

/// What a recovery found out about a takeover's lost tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The epoch that the takeover began.
    pub epoch: u64,
    /// The region that was taken over from.
    pub from_region: String,
    /// The region that took over.
    pub to_region: String,
    /// The snapshot of the old ledger that is kept; none when Aurora made none, and nothing was lost.
    pub snapshot: Option<String>,
    /// When this was found out, milliseconds since the Unix epoch.
    pub compared_ms: u64,
    /// False when the time ended before the comparison: older entries may be lost that are not told here.
    pub complete: bool,
    /// What only the old region had.
    pub comparison: Comparison,
}

impl Report {
    /// The item of the control table.
    pub fn item(epoch: u64) -> String {
        format!("lost-tail#{epoch}")
    }

    /// The same with as few lines as an item can hold.
    #[must_use]
    pub fn for_item(&self) -> Report {
        self.shortened(LISTED_IN_ITEM)
    }

    /// The same with the newest lines, so many at most. The totals count all.
    #[must_use]
    pub fn shortened(&self, lines: usize) -> Report {
        let mut short = self.clone();
        let cut = short.comparison.entries.len().saturating_sub(lines);
        short.comparison.entries.truncate(lines);
        short.comparison.omitted += cut as u64;
        short
    }

    /// How many entries only the old region had.
    pub fn entries(&self) -> u64 {
        self.comparison.totals.values().map(|total| total.entries).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(seq: u64, posted_epoch: u64, amount_minor: i64) -> TailEntry {
        TailEntry {
            id: EntryId { epoch: 1, seq },
            posted_epoch,
            idempotency_key: format!("order of Jane Doe {seq}"),
            kind: EntryKind::Payment,
            status: EntryStatus::Created,
            subject: format!("payment-{seq}"),
            debit_account: Some("payer".into()),
            credit_account: Some("payee".into()),
            amount_minor,
            currency: "EUR".into(),
            created_at_ms: seq,
        }
    }

    fn held(epoch: u64, seq: u64, posted_epoch: u64) -> Held {
        Held {
            id: EntryId { epoch, seq },
            posted_epoch,
            subject: "payment-now".into(),
        }
    }

    #[test]
    fn what_became_of_an_entry_as_a_table() {
        let again = Became::ExecutedAgain {
            id: EntryId { epoch: 2, seq: 9 },
            as_subject: "payment-now".into(),
        };
        let recovered = |posted_epoch| Some(Became::Recovered { posted_epoch });
        // (posted in the old ledger, what the serving one has, what became of it)
        let rows = [
            (1, None, Some(Became::Gone)),
            (1, Some(held(1, 5, 1)), None),
            (1, Some(held(1, 5, 2)), recovered(2)),
            // Two takeovers later.
            (1, Some(held(1, 5, 3)), recovered(3)),
            // The old region had recovered it itself, and replicated that, or not.
            (2, Some(held(1, 5, 2)), None),
            (2, Some(held(1, 5, 3)), recovered(3)),
            (1, Some(held(2, 9, 2)), Some(again)),
        ];
        for (posted, held, expected) in rows {
            assert_eq!(
                became(&entry(5, posted, 10), held.as_ref()),
                expected,
                "{posted} {held:?}"
            );
        }
    }

    #[test]
    fn totals_are_per_outcome_and_currency_and_count_no_decline() {
        let declined = TailEntry {
            status: EntryStatus::Declined,
            ..entry(7, 1, 500)
        };
        let yen = TailEntry {
            currency: "JPY".into(),
            ..entry(6, 1, 3)
        };
        let mut found = Comparison::default();
        let page = vec![declined, yen, entry(5, 1, 10), entry(4, 1, 20), entry(3, 1, 40)];
        let there = [None, None, None, Some(held(1, 4, 2)), Some(held(1, 3, 1))];
        assert!(found.add(page, &there));
        assert_eq!((found.looked_at, found.entries.len(), found.omitted), (5, 4, 0));
        let gone = &found.totals["gone"];
        assert_eq!(gone.entries, 3);
        let sums = [("EUR".to_owned(), 10), ("JPY".to_owned(), 3)];
        assert_eq!(gone.amounts_minor, BTreeMap::from(sums));
        assert_eq!(
            found.totals["recovered"].amounts_minor,
            BTreeMap::from([("EUR".to_owned(), 20)])
        );
        assert!(!found.add(vec![entry(2, 1, 80)], &[Some(held(1, 2, 1))]));
    }

    #[test]
    fn the_item_lists_the_newest_and_counts_what_it_leaves_out() {
        let mut comparison = Comparison::default();
        let seqs = (1..=600u64).rev();
        comparison.add(seqs.map(|seq| entry(seq, 1, 10)).collect(), &vec![None; 600]);
        let report = Report {
            epoch: 2,
            from_region: "us-east-1".into(),
            to_region: "us-east-2".into(),
            snapshot: Some("kept".into()),
            compared_ms: 9,
            complete: true,
            comparison,
        };
        let item = report.for_item();
        assert_eq!(
            (item.comparison.entries.len(), item.comparison.omitted),
            (500, 100)
        );
        assert_eq!(item.comparison.entries[0].id.seq, 600);
        assert_eq!(item.comparison.totals, report.comparison.totals);
        let text = serde_json::to_string(&item).unwrap();
        assert!(text.len() < 400_000, "{}", text.len());
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), item);
    }

    #[test]
    fn a_report_holds_no_idempotency_key_and_tells_the_outcome_beside_the_entry() {
        let mut found = Comparison::default();
        found.add(vec![entry(5, 1, 10)], &[Some(held(2, 9, 2))]);
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("Jane"), "{text}");
        let line = serde_json::to_value(&found.entries[0]).unwrap();
        assert_eq!(
            (&line["seq"], &line["outcome"], &line["as"]["seq"]),
            (&5.into(), &"executed-again".into(), &9.into())
        );
        assert_eq!(serde_json::from_value::<Line>(line).unwrap(), found.entries[0]);
    }
}
