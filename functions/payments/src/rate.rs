//! How many requests a second an API key may send. Every process decides by what it knows: what it served itself, and what the
//! region's table of request rates answered it last. It tells the table of its own requests now and then, beside a request.
//!
//! The limit fails open: while the table does not answer, a process counts for itself. And it is not exact: what processes have
//! not told yet they do not know of each other, which is what each serves in [`TELL_EVERY_MS`], or a part of what the key has left.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use continuity::error::chain;
use continuity::rate::RateStore;
use futures::future::{Either, select};
use tokio::time::{Instant, timeout_at};

use crate::limits::{CACHED_API_KEYS, MS_PER_S, TELL_EVERY_MS, TELL_SHARE, TELL_TIMEOUT};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// The key has sent enough in this second.
    Refuse,
    /// It is served.
    Serve,
    /// It is served, and the table is told meanwhile.
    ServeAndTell(Part),
}

/// Requests of one second that the table was not told of yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    window_s: u64,
    requests: u64,
}

/// What became of telling the table of a part, which it may have counted in any case: it is not told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// So many requests of all handlers are counted in that second.
    Counted(u64),
    /// There was no answer in time.
    Late,
    /// It failed.
    Failed,
}

/// What this process knows of a key in one second of the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    /// The second, from the Unix epoch.
    window_s: u64,
    /// Requests in it that the table was told of, by anybody.
    known: u64,
    /// Our own that it was not told of.
    untold: u64,
    /// The table is told from then on, milliseconds since the Unix epoch.
    tell_at_ms: u64,
    /// The table was late in this second, and is not told out of turn.
    is_late: bool,
    /// The table failed in this second, and is told nothing more.
    has_failed: bool,
}

impl Count {
    /// Counts a request, unless the key has sent enough. The first of a second is told at once, and so are the last ones.
    fn decide(&mut self, now_ms: u64, most: u64) -> Decision {
        let window_s = now_ms / MS_PER_S;
        if self.window_s != window_s {
            *self = Count {
                window_s,
                ..Count::default()
            };
        }
        if self.known + self.untold >= most {
            return Decision::Refuse;
        }
        self.untold += 1;
        let is_much = self.untold * TELL_SHARE >= most - self.known && !self.is_late;
        if self.has_failed || (now_ms < self.tell_at_ms && !is_much) {
            return Decision::Serve;
        }
        self.tell_at_ms = now_ms + TELL_EVERY_MS;
        let requests = std::mem::take(&mut self.untold);
        self.known += requests;
        Decision::ServeAndTell(Part { window_s, requests })
    }

    /// Notes what became of telling a part; that of an earlier second says nothing.
    fn note(&mut self, part: Part, told: Told) {
        if self.window_s != part.window_s {
            return;
        }
        match told {
            Told::Counted(all) => self.known = self.known.max(all),
            Told::Late => self.is_late = true,
            Told::Failed => self.has_failed = true,
        }
    }
}

/// The rates of all keys that this process serves.
pub(crate) struct Rates {
    store: Arc<dyn RateStore>,
    counts: Mutex<HashMap<[u8; 32], Count>>,
}

impl Rates {
    pub(crate) fn new(store: Arc<dyn RateStore>) -> Self {
        Rates {
            store,
            counts: Mutex::default(),
        }
    }

    /// Does `work` for a request of the key with this SHA-256, unless the key has sent `most` in this second: then nothing is
    /// done, and there is no answer.
    ///
    /// The work is not delayed: the table is told beside it, and waited for until [`TELL_TIMEOUT`] at most, so that nothing is
    /// under way when Lambda freezes the process.
    pub(crate) async fn serve<T>(
        &self,
        key: &[u8; 32],
        most: u32,
        now_ms: u64,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let part = match self.decide(key, most, now_ms) {
            Decision::Refuse => return None,
            Decision::Serve => return Some(work.await),
            Decision::ServeAndTell(part) => part,
        };
        let until = Instant::now() + TELL_TIMEOUT;
        // The work goes first: while it waits for the ledger there is time to tell.
        match select(pin!(work), pin!(self.tell(key, part))).await {
            Either::Left((answer, tell)) => {
                if timeout_at(until, tell).await.is_err() {
                    tracing::warn!("the table of request rates did not answer in time");
                    self.note(key, part, Told::Late);
                }
                Some(answer)
            }
            Either::Right(((), work)) => Some(work.await),
        }
    }

    async fn tell(&self, key: &[u8; 32], part: Part) {
        let hex = hex::encode(key);
        let told = self.store.add(&hex, part.window_s, part.requests).await;
        let told = told.map_or_else(
            |error| {
                let error = chain(&error);
                tracing::warn!(error, "requests were not counted with those of other handlers");
                Told::Failed
            },
            Told::Counted,
        );
        self.note(key, part, told);
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<[u8; 32], Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, key: &[u8; 32], most: u32, now_ms: u64) -> Decision {
        let mut counts = self.counts();
        if counts.len() >= CACHED_API_KEYS && !counts.contains_key(key) {
            counts.clear();
        }
        counts.entry(*key).or_default().decide(now_ms, most.into())
    }

    fn note(&self, key: &[u8; 32], part: Part, told: Told) {
        if let Some(count) = self.counts().get_mut(key) {
            count.note(part, told);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use continuity::error::StoreError;
    use continuity::memory::MemoryRates;

    use super::*;

    /// The beginning of a second.
    const BEGIN_MS: u64 = 7 * MS_PER_S;
    const KEY: [u8; 32] = [1; 32];

    fn tell(requests: u64) -> Decision {
        Decision::ServeAndTell(Part {
            window_s: 7,
            requests,
        })
    }

    #[test]
    fn a_key_is_refused_from_its_rate_on_until_the_next_second() {
        let mut count = Count::default();
        for later_ms in [0, 1, 900] {
            assert_eq!(count.decide(BEGIN_MS + later_ms, 3), tell(1));
        }
        for later_ms in [900, 999] {
            assert_eq!(count.decide(BEGIN_MS + later_ms, 3), Decision::Refuse);
        }
        let next = Part {
            window_s: 8,
            requests: 1,
        };
        assert_eq!(count.decide(BEGIN_MS + MS_PER_S, 3), Decision::ServeAndTell(next));
    }

    #[test]
    fn the_table_is_told_ten_times_a_second_and_of_every_tenth_of_what_is_left() {
        let mut count = Count::default();
        assert_eq!(count.decide(BEGIN_MS, 101), tell(1));
        for _ in 0..9 {
            assert_eq!(count.decide(BEGIN_MS + 1, 101), Decision::Serve);
        }
        assert_eq!(count.decide(BEGIN_MS + 2, 101), tell(10));
        assert_eq!(count.decide(BEGIN_MS + 3, 101), Decision::Serve);
        assert_eq!(count.decide(BEGIN_MS + 1 + TELL_EVERY_MS, 101), Decision::Serve);
        assert_eq!(count.decide(BEGIN_MS + 2 + TELL_EVERY_MS, 101), tell(3));
        // Of 900 requests at once few are told.
        let mut count = Count::default();
        let tells = (0..900).filter(|_| count.decide(BEGIN_MS, 1_000) != Decision::Serve);
        assert!((20..30).contains(&tells.count()));
    }

    #[test]
    fn what_others_have_sent_counts_from_the_answer_on_and_never_less_than_our_own() {
        let part = Part {
            window_s: 7,
            requests: 1,
        };
        for (answer, then) in [(1, tell(1)), (2, Decision::Refuse), (90, Decision::Refuse)] {
            let mut count = Count::default();
            assert_eq!(count.decide(BEGIN_MS, 2), tell(1));
            count.note(part, Told::Counted(answer));
            assert_eq!(count.decide(BEGIN_MS + 1, 2), then, "after {answer}");
        }
        // A table that was emptied meanwhile.
        let mut count = Count::default();
        assert_eq!(count.decide(BEGIN_MS, 1), tell(1));
        count.note(part, Told::Counted(0));
        assert_eq!(count.decide(BEGIN_MS + 1, 1), Decision::Refuse);
    }

    #[test]
    fn the_answer_about_an_earlier_second_changes_nothing() {
        let mut count = Count::default();
        count.decide(BEGIN_MS, 9);
        count.decide(BEGIN_MS + MS_PER_S, 9);
        let before = count;
        let earlier = Part {
            window_s: 7,
            requests: 1,
        };
        for told in [Told::Counted(9), Told::Late, Told::Failed] {
            count.note(earlier, told);
        }
        assert_eq!(count, before);
    }

    #[test]
    fn a_table_that_fails_is_left_alone_until_the_next_second() {
        let mut count = Count::default();
        let part = Part {
            window_s: 7,
            requests: 1,
        };
        assert_eq!(count.decide(BEGIN_MS, 4), tell(1));
        count.note(part, Told::Failed);
        for later_ms in [100, 500, 999] {
            assert_eq!(count.decide(BEGIN_MS + later_ms, 4), Decision::Serve);
        }
        assert_eq!(count.decide(BEGIN_MS + 999, 4), Decision::Refuse, "our own count");
        assert!(matches!(
            count.decide(BEGIN_MS + MS_PER_S, 4),
            Decision::ServeAndTell(_)
        ));
    }

    #[test]
    fn a_table_that_is_late_is_told_in_its_turn_only() {
        let mut count = Count::default();
        let part = Part {
            window_s: 7,
            requests: 1,
        };
        assert_eq!(count.decide(BEGIN_MS, 9), tell(1));
        count.note(part, Told::Late);
        assert_eq!(count.decide(BEGIN_MS + 1, 9), Decision::Serve);
        assert_eq!(count.decide(BEGIN_MS + TELL_EVERY_MS, 9), tell(2));
    }

    #[tokio::test]
    async fn handlers_that_share_a_table_share_the_rate() {
        let store = Arc::new(MemoryRates::default());
        let handlers = [(); 2].map(|()| Rates::new(store.clone()));
        let mut served = 0;
        for later_ms in (0..1_000).step_by(10) {
            for handler in &handlers {
                let answer = handler.serve(&KEY, 40, BEGIN_MS + later_ms, async {}).await;
                served += usize::from(answer.is_some());
            }
        }
        // Towards the end every request is told, and what one has told the other sees with its next one.
        assert!((40..=42).contains(&served), "{served}");
        assert!(
            handlers[0]
                .serve(&[2; 32], 40, BEGIN_MS, async {})
                .await
                .is_some()
        );
    }

    /// A table that never answers.
    struct Stuck;

    #[async_trait]
    impl RateStore for Stuck {
        async fn add(&self, _: &str, _: u64, _: u64) -> Result<u64, StoreError> {
            std::future::pending().await
        }
    }

    /// How long an answer waits after the work for it has ended.
    async fn waits_after(rates: &Rates, now_ms: u64, work: Duration) -> Duration {
        let work = async {
            tokio::time::sleep(work).await;
            Instant::now()
        };
        let ended = rates.serve(&KEY, 9, now_ms, work).await.expect("it is served");
        ended.elapsed()
    }

    #[tokio::test]
    async fn an_answer_waits_for_the_table_until_a_deadline_that_the_work_is_part_of() {
        let short = waits_after(&Rates::new(Arc::new(Stuck)), BEGIN_MS, Duration::ZERO).await;
        assert!(short > TELL_TIMEOUT / 2, "{short:?}");
        // Whoever waits anew after the work never waits less than the whole time; a busy machine does not delay every try.
        let mut longs = Vec::new();
        for _ in 0..5 {
            let rates = Rates::new(Arc::new(Stuck));
            longs.push(waits_after(&rates, BEGIN_MS, TELL_TIMEOUT * 2).await);
            // Right after that nobody is asked.
            longs.push(waits_after(&rates, BEGIN_MS + 1, Duration::ZERO).await);
        }
        for kind in [0, 1] {
            let least = longs.iter().skip(kind).step_by(2).min();
            assert!(least.is_some_and(|least| *least < TELL_TIMEOUT), "{longs:?}");
        }
    }
}
