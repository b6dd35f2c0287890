//! Time as the engine sees it, so that a test can run an hour of waiting in a moment.

use std::time::{Duration, Instant};

use async_trait::async_trait;

/// A monotonic clock that can be slept on.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Returns when `span` has passed.
    async fn sleep(&self, span: Duration);
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock {
            started: Instant::now(),
        }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}
