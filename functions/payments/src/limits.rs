//! Every limit and timeout of the function, and how they relate.

use std::time::Duration;

/// What a number may be, and what it is unless asked otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// At least.
    pub least: u32,
    /// Unless asked otherwise.
    pub default: u32,
    /// At most.
    pub most: u32,
}

/// The longest that API Gateway waits for an answer.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(29);
/// How long a connection to the database may take, TLS and authentication included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_000);
/// How long the server lets a command wait for a lock.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(2_000);
/// How long the server lets a statement of the API run.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_millis(3_000);
/// How long we wait for a statement's answer before the connection counts as lost.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(3_500);
/// How long a request may take, whatever happens: a reconnect and a second attempt fit in.
pub const REQUEST_TIMEOUT: Duration = Duration::from_millis(15_000);
/// How long `/health` may take. Route 53 gives up after two seconds.
pub const HEALTH_TIMEOUT: Duration = Duration::from_millis(1_700);
/// How long it is trusted that the database took a write, or did not: whoever asks for `/health` without a key cannot make more
/// writes than that.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);
/// How long one statement of a task may run: a migration, a verification.
pub const TASK_STATEMENT_TIMEOUT: Duration = Duration::from_secs(50);
/// How long an API key that was found valid is trusted without another look.
pub const API_KEY_CACHE: Duration = Duration::from_secs(30);
/// After how many milliseconds a process tells the table of request rates again what a key has sent. The table takes a thousand
/// writes a second of one item (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html>):
/// those of a hundred processes.
pub const TELL_EVERY_MS: u64 = 100;
/// It tells earlier what is one part in so many of what the key has left, so that a low rate is kept, too.
pub const TELL_SHARE: u64 = 10;
/// How long a request waits for that, from when it is told. Most requests take longer themselves.
pub const TELL_TIMEOUT: Duration = Duration::from_millis(50);

/// The largest request body, in bytes.
pub const BODY_BYTES: usize = 64 * 1024;
/// The longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// The longest API key, in bytes.
pub const API_KEY_BYTES: usize = 256;
/// The longest account name or payment reference, in characters.
pub const TEXT_CHARS: usize = 200;
/// The most members of a client's metadata.
pub const METADATA_MEMBERS: usize = 50;
/// The longest name of one, in characters.
pub const METADATA_NAME_CHARS: usize = 40;
/// The longest value of one, in characters.
pub const METADATA_VALUE_CHARS: usize = 500;
/// How long an authorised payment is held, in seconds: a minute to 31 days, a week unless asked otherwise.
pub const HOLD_S: Range = Range {
    least: 60,
    default: 7 * 24 * 3600,
    most: 31 * 24 * 3600,
};
/// Milliseconds in a second.
pub const MS_PER_S: u64 = 1_000;
/// Items on a page.
pub const PAGE_ITEMS: Range = Range {
    least: 1,
    default: 50,
    most: 500,
};
/// Entries that one page of a filtered list looks at.
pub const PAGE_SCAN: u32 = 1_000;
/// Entries that the traffic of a span is counted from.
pub const TRAFFIC_SCAN: i64 = 320_000;
/// Movements of one statement: what a request has the time to write.
pub const STATEMENT_LINES: u64 = 200_000;
/// How long the link to a statement is good.
pub const STATEMENT_LINK: Duration = Duration::from_secs(15 * 60);
/// After so long every command of a period has its answer, clocks of handlers apart by some seconds.
pub const STATEMENT_SETTLED: Duration = Duration::from_secs(60);
/// About so much of a statement is written and sent at once.
pub const STATEMENT_PIECE_BYTES: usize = 64 * 1024;
/// A statement that is no longer is not read a second time.
pub const STATEMENT_KEPT_BYTES: u64 = 1024 * 1024;
/// API keys that are trusted, and whose requests are counted, at once.
pub const CACHED_API_KEYS: usize = 1_000;
/// Entries that a replay posts in one transaction.
pub const REPLAY_BATCH: usize = 500;
/// Authorisations that one run of the task expires; the next run takes the rest.
pub const EXPIRE_BATCH: u32 = 200;
/// Journal puts that a replay has in flight.
pub const REPLAY_PUTS: usize = 32;
/// No decided payment takes a balance farther from zero. Replay, which does not decide, has room beyond it.
pub const BALANCE_RANGE: i64 = 4_000_000_000_000_000_000;

const _: () = assert!(LOCK_TIMEOUT.as_millis() < STATEMENT_TIMEOUT.as_millis());
const _: () = assert!(STATEMENT_TIMEOUT.as_millis() < ANSWER_TIMEOUT.as_millis());
const _: () =
    assert!(2 * (CONNECT_TIMEOUT.as_millis() + ANSWER_TIMEOUT.as_millis()) < REQUEST_TIMEOUT.as_millis());
const _: () = assert!(REQUEST_TIMEOUT.as_millis() < STATEMENT_SETTLED.as_millis());
const _: () = assert!(REQUEST_TIMEOUT.as_millis() < GATEWAY_TIMEOUT.as_millis());
const _: () = assert!(HEALTH_TIMEOUT.as_millis() < 2_000);
const _: () = assert!(TELL_TIMEOUT.as_millis() <= TELL_EVERY_MS as u128 && TELL_EVERY_MS < MS_PER_S);
