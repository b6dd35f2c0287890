//! What became of the acknowledged payments: a pure comparison of what clients were told with the serving ledger.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::load::Acknowledged;
use crate::client::{Account, Payment};

/// The comparison's result. All of `lost`, `duplicated` and `wrong_balances` must be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Payments that clients were told of.
    pub acknowledged: usize,
    /// Acknowledged payments that only the journal held when the database was promoted.
    pub database_alone_would_lose: usize,
    /// References of acknowledged payments that the ledger lacks or has differently.
    pub lost: Vec<String>,
    /// References that the ledger has more than once.
    pub duplicated: Vec<String>,
    /// Accounts whose balance is not the sum of their payments.
    pub wrong_balances: Vec<String>,
}

/// Compares. `ledger` is every payment, `accounts` every account of the serving ledger that the run opened.
pub fn tally(acknowledged: &[Acknowledged], ledger: &[Payment], accounts: &[Account]) -> Tally {
    let by_id: HashMap<&str, &Payment> = ledger
        .iter()
        .map(|payment| (payment.id.as_str(), payment))
        .collect();
    let mut result = Tally {
        acknowledged: acknowledged.len(),
        ..Tally::default()
    };

    for answer in acknowledged {
        let told = &answer.payment;
        match by_id.get(told.id.as_str()) {
            Some(found) if same(told, found) => {
                if found.posted_epoch > found.epoch {
                    result.database_alone_would_lose += 1;
                }
            }
            _ => result.lost.push(answer.asked.reference.clone()),
        }
    }

    let mut per_reference: BTreeMap<&str, usize> = BTreeMap::new();
    for payment in ledger {
        if let Some(reference) = &payment.reference {
            *per_reference.entry(reference).or_default() += 1;
        }
    }
    result.duplicated = per_reference
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(reference, _)| reference.to_owned())
        .collect();

    let mut balances: HashMap<&str, i64> = HashMap::new();
    for payment in ledger.iter().filter(|payment| payment.status == "captured") {
        *balances.entry(&payment.from_account).or_default() -= payment.amount_minor;
        *balances.entry(&payment.to_account).or_default() += payment.amount_minor;
    }
    result.wrong_balances = accounts
        .iter()
        .filter(|account| balances.get(account.id.as_str()).copied().unwrap_or(0) != account.balance_minor)
        .map(|account| account.id.clone())
        .collect();
    result
}

/// The ledger holds what the client was told. `posted_epoch` may differ: it says when this ledger got it.
fn same(told: &Payment, found: &Payment) -> bool {
    Payment {
        posted_epoch: 0,
        ..told.clone()
    } == Payment {
        posted_epoch: 0,
        ..found.clone()
    }
}

/// The interruption that customers saw: the longest time between two acknowledgements in a row of which the later came after
/// the fault. Neither the fault's own moment nor the epoch of an answer would do: answers under way still arrive after the
/// fault, and a retry after the takeover is answered with what the old epoch recorded.
pub fn recovery_seconds(acknowledged: &[Acknowledged], fault: Instant) -> Option<f64> {
    let mut times: Vec<Instant> = acknowledged.iter().map(|answer| answer.at).collect();
    times.sort();
    times
        .windows(2)
        .filter(|pair| pair[1] > fault)
        .map(|pair| pair[1].saturating_duration_since(pair[0]).as_secs_f64())
        .reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::NewPayment;

    fn payment(id: &str, reference: &str, epoch: u64, posted_epoch: u64) -> Payment {
        Payment {
            id: id.into(),
            status: "captured".into(),
            from_account: "a".into(),
            to_account: "b".into(),
            amount_minor: 5,
            currency: "EUR".into(),
            reference: Some(reference.into()),
            epoch,
            seq: 1,
            posted_epoch,
        }
    }

    fn told(payment: Payment) -> Acknowledged {
        Acknowledged {
            at: Instant::now(),
            asked: NewPayment {
                from_account: "a".into(),
                to_account: "b".into(),
                amount_minor: 5,
                currency: "EUR".into(),
                reference: payment.reference.clone().unwrap(),
            },
            payment,
        }
    }

    fn account(id: &str, balance_minor: i64) -> Account {
        Account {
            id: id.into(),
            currency: "EUR".into(),
            balance_minor,
        }
    }

    #[test]
    fn a_recovered_payment_is_one_that_the_database_alone_would_have_lost() {
        let acknowledged = [told(payment("1", "r1", 1, 1)), told(payment("2", "r2", 1, 1))];
        let ledger = [payment("1", "r1", 1, 1), payment("2", "r2", 1, 2)];
        let result = tally(&acknowledged, &ledger, &[account("a", -10), account("b", 10)]);
        assert_eq!(
            result,
            Tally {
                acknowledged: 2,
                database_alone_would_lose: 1,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn a_missing_or_altered_payment_is_lost() {
        let altered = Payment {
            amount_minor: 6,
            ..payment("2", "r2", 1, 1)
        };
        let acknowledged = [told(payment("1", "r1", 1, 1)), told(payment("2", "r2", 1, 1))];
        assert_eq!(tally(&acknowledged, &[altered], &[]).lost, ["r1", "r2"]);
    }

    #[test]
    fn one_reference_twice_is_a_duplicate() {
        let ledger = [payment("1", "r1", 1, 1), payment("2", "r1", 2, 2)];
        assert_eq!(
            tally(&[told(payment("1", "r1", 1, 1))], &ledger, &[]).duplicated,
            ["r1"]
        );
    }

    #[test]
    fn a_balance_must_be_the_sum_of_its_payments() {
        let ledger = [payment("1", "r1", 1, 1)];
        assert_eq!(
            tally(&[], &ledger, &[account("a", -5), account("b", 6)]).wrong_balances,
            ["b"]
        );
    }

    #[test]
    fn recovery_time_is_the_longest_gap_after_the_fault() {
        let start = Instant::now();
        let at = |ms: u64, epoch: u64| Acknowledged {
            at: start + Duration::from_millis(ms),
            ..told(payment("1", "r1", epoch, epoch))
        };
        // An early gap, the fault at 5 s, one answer still under way, a retry answered with the old epoch's outcome.
        let answers = [
            at(0, 1),
            at(4_000, 1),
            at(4_900, 1),
            at(5_100, 1),
            at(8_100, 1),
            at(8_200, 2),
        ];
        assert_eq!(
            recovery_seconds(&answers, start + Duration::from_millis(5_000)),
            Some(3.0)
        );
        assert_eq!(recovery_seconds(&answers[..1], start), None);
    }
}
