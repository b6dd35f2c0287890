//! How long payments took.

use std::time::Duration;

use hdrhistogram::Histogram;
use payments::telemetry::Acknowledged;
use serde::{Deserialize, Serialize};

use crate::Done;

/// Times of payments: the whole and the four steps.
#[derive(Debug)]
pub struct Latency {
    whole: Histogram<u64>,
    steps: [Histogram<u64>; 4],
}

const STEPS: [&str; 4] = ["check", "ledger", "journal", "look"];

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

impl Default for Latency {
    fn default() -> Self {
        Latency {
            whole: histogram(),
            steps: [histogram(), histogram(), histogram(), histogram()],
        }
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Latency {
    /// Counts one payment.
    pub fn add(&mut self, whole: Duration, told: &Acknowledged) {
        self.whole.record(us(whole)).expect("it grows as needed");
        let steps = [told.check, told.took.ledger, told.took.journal, told.took.look];
        for (histogram, step) in self.steps.iter_mut().zip(steps) {
            histogram.record(us(step)).expect("it grows as needed");
        }
    }

    /// Adds what another connection counted.
    pub fn merge(&mut self, other: &Latency) {
        let all = self.steps.iter_mut().zip(&other.steps);
        for (mine, theirs) in all.chain([(&mut self.whole, &other.whole)]) {
            mine.add(theirs).expect("they grow as needed");
        }
    }

    /// What they all came to.
    pub fn done(&self) -> Done {
        let steps = STEPS.into_iter().map(str::to_owned);
        Done {
            payments: self.whole.len(),
            latency: (&self.whole).into(),
            steps: steps.zip(self.steps.iter().map(Quantiles::from)).collect(),
        }
    }
}

/// Quantiles, in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of them took no longer.
    pub p50_us: u64,
    /// Nine of ten.
    pub p90_us: u64,
    /// Ninety-nine of a hundred.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        Quantiles {
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            max_us: histogram.max(),
        }
    }
}
