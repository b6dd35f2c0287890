//! Changes of the active region, end to end: each test has a local cloud of its own. A few run side by side: more of them on a small
//! machine, and a region is too slow to count as well.

#![allow(clippy::unwrap_used)]

mod drill;
mod interrupted;
mod readiness;
mod recovery;
mod takeover;

/// Local clouds at once.
static TURNS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

/// Waits until a test may start its local cloud; until the guard is dropped it has its place.
async fn turn() -> tokio::sync::SemaphorePermit<'static> {
    TURNS.acquire().await.unwrap()
}
