//! The rate of an API key: how many requests it may send in a second, counted by all handlers of a region together.

use async_trait::async_trait;

use crate::error::StoreError;

/// Requests a second of a key that was made without saying how many.
pub const DEFAULT: u32 = 100;
/// The highest rate of a key: what API Gateway takes from an account in a region unless AWS raised the quota
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html>).
pub const MOST: u32 = 10_000;

const _: () = assert!(1 <= DEFAULT && DEFAULT <= MOST);

/// Where the handlers of one region count together. Another region counts by itself: of the two, one serves.
#[async_trait]
pub trait RateStore: Send + Sync {
    /// Adds `requests` of the key with this SHA-256 (hex) to those of the second `window_s`, counted from the Unix epoch, and
    /// answers how many there are now. If a later second is being counted already, nothing is added and the answer is `requests`.
    async fn add(&self, sha256_hex: &str, window_s: u64, requests: u64) -> Result<u64, StoreError>;
}
