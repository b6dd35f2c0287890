//! Time, as far as the rounds need it: a trait, so that tests run a minute of rounds in no time.

use std::time::Duration;

use async_trait::async_trait;

/// Reads the clock and sleeps.
#[async_trait]
pub trait Timer: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Returns when the clock shows `at_ms`, at once when that has passed.
    async fn sleep_until(&self, at_ms: u64);
}

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemTimer;

#[async_trait]
impl Timer for SystemTimer {
    fn now_ms(&self) -> u64 {
        continuity::clock::now_ms()
    }

    async fn sleep_until(&self, at_ms: u64) {
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(self.now_ms()))).await;
    }
}
