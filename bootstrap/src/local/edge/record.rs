//! What passed: one line per AWS call in the log, and a count by kind in memory.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::EdgeError;
use crate::local::Region;

/// Who called what, as the tally counts it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Call {
    /// Where the caller is: a region's name or `outside`.
    pub source: String,
    /// The region that was called.
    pub region: String,
    /// The service, by its signing name: `dynamodb`, `states`.
    pub service: String,
    /// The operation: `PutItem`, or method and path for services that are addressed so.
    pub operation: String,
    /// The function that called; none outside of functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
}

impl Call {
    pub(super) fn new(source: Option<Region>, region: &str, service: &str, operation: &str) -> Self {
        Self {
            source: source.map_or("outside", Region::name).to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            operation: operation.to_owned(),
            caller: None,
        }
    }

    /// The same, made by a function.
    #[must_use]
    pub(super) fn by(mut self, caller: Option<String>) -> Self {
        self.caller = caller;
        self
    }

    /// Whether it changes nothing, going by its name: AWS calls what only reads by one of a few words, and REST services read
    /// with GET and HEAD.
    pub fn only_reads(&self) -> bool {
        is_read(&self.operation)
    }
}

/// See [`Call::only_reads`].
pub fn is_read(operation: &str) -> bool {
    const WORDS: [&str; 12] = [
        "BatchGet", "Describe", "Get", "Head", "List", "Lookup", "Query", "Scan", "Search", "Select",
        "Simulate", "Test",
    ];
    match operation.split_once(' ') {
        Some((method, _path)) => ["GET", "HEAD"].contains(&method),
        None => WORDS.iter().any(|word| operation.starts_with(word)),
    }
}

/// How many calls of each kind passed. A refused call counts too: it was made.
#[derive(Debug, Default)]
pub struct Tally {
    calls: Mutex<BTreeMap<Call, u64>>,
}

impl Tally {
    /// Every kind of call so far and how often it was made.
    pub fn snapshot(&self) -> BTreeMap<Call, u64> {
        self.lock().clone()
    }

    /// How many calls so far satisfy `which`.
    pub fn count(&self, which: impl Fn(&Call) -> bool) -> u64 {
        self.lock()
            .iter()
            .filter(|(call, _)| which(call))
            .map(|(_, count)| count)
            .sum()
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        self.lock().clear();
    }

    fn add(&self, call: &Call) {
        let mut calls = self.lock();
        match calls.get_mut(call) {
            Some(count) => *count += 1,
            None => {
                calls.insert(call.clone(), 1);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Call, u64>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a call, as the log says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered, with this HTTP status.
    Answered(u16),
    /// The connection was broken: a region is cut off.
    Refused,
}

#[derive(Serialize)]
struct Line {
    at_ms: u64,
    #[serde(flatten)]
    call: Call,
    /// 0 when the connection was broken instead of an answer.
    status: u16,
    ms: u64,
}

/// Counts calls and writes them to the log. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    tally: Arc<Tally>,
    log: Arc<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
}

impl Recorder {
    /// Opens the log for appending.
    pub(super) fn open(path: &Path) -> Result<Self, EdgeError> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|source| EdgeError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            tally: Arc::default(),
            log: Arc::new(Log {
                path: path.to_owned(),
                file,
            }),
        })
    }

    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Records a call that was made at `started` and is over now. The line is in the log when this returns: who records before
    /// it answers has a log in which a caller that was answered finds its call.
    ///
    /// The write does not wait for a disk, only for the page cache, which takes microseconds: less than a change of threads.
    pub(super) fn record(&self, call: Call, started: Instant, outcome: Outcome) {
        self.tally.add(&call);
        let took = started.elapsed();
        let at = SystemTime::now().checked_sub(took).unwrap_or(UNIX_EPOCH);
        let status = match outcome {
            Outcome::Answered(status) => status,
            Outcome::Refused => 0,
        };
        let line = Line {
            at_ms: at
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| millis(since.as_millis())),
            call,
            status,
            ms: millis(took.as_millis()),
        };
        // In one write, so that lines of calls that end at once stay whole: the file is open for appending.
        let written = serde_json::to_string(&line)
            .map_err(std::io::Error::from)
            .and_then(|line| (&self.log.file).write_all((line + "\n").as_bytes()));
        if let Err(error) = written {
            tracing::error!(path = %self.log.path.display(), %error, "the log of calls cannot be written");
        }
    }
}

fn millis(millis: u128) -> u64 {
    u64::try_from(millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_reads_is_known_by_its_name() {
        for read in [
            "DescribeVpcs",
            "GetItem",
            "ListTables",
            "Query",
            "BatchGetItem",
            "GET /restapis",
            "HEAD /bucket",
        ] {
            assert!(is_read(read), "{read}");
        }
        for write in [
            "CreateVpc",
            "PutItem",
            "UpdateItem",
            "TagResource",
            "Invoke",
            "PUT /bucket",
            "POST /bucket?delete",
        ] {
            assert!(!is_read(write), "{write}");
        }
    }

    #[test]
    fn a_call_is_counted_and_in_the_log_when_it_was_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edge.log");
        let recorder = Recorder::open(&path).unwrap();
        let call =
            Call::new(Some(Region::UsEast2), "us-east-1", "dynamodb", "PutItem").by(Some("probe".into()));
        let lines = || -> Vec<serde_json::Value> {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        recorder.record(call.clone(), Instant::now(), Outcome::Answered(200));
        assert_eq!(lines().len(), 1);
        recorder
            .clone()
            .record(call.clone(), Instant::now(), Outcome::Refused);
        let lines = lines();
        assert_eq!(lines.len(), 2);
        assert_eq!(recorder.tally().snapshot(), BTreeMap::from([(call, 2)]));
        assert_eq!(recorder.tally().count(|call| call.operation == "PutItem"), 2);
        assert_eq!(lines[0]["source"], "us-east-2");
        assert_eq!(lines[0]["region"], "us-east-1");
        assert_eq!(lines[0]["operation"], "PutItem");
        assert_eq!(lines[0]["caller"], "probe");
        assert_eq!(lines[0]["status"], 200);
        assert_eq!(lines[1]["status"], 0);
    }
}
