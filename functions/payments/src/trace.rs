//! The trace of a request: when X-Ray samples it, its times go to the daemon that Lambda runs beside the function, one subsegment
//! for the request and in it one for each step of acknowledging. Like the line of the log (`telemetry`), it has nothing personal
//! in it, and nothing secret.
//!
//! A subsegment is sent and forgotten: it can neither fail a request nor hold it up. A request that is not sampled costs the
//! reading of its trace header.
//!
//! The rules of AWS: <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html> (the document),
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html> (what the daemon takes),
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html> (the header).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::telemetry::Told;

/// Where Lambda says that the daemon is, as an address with a port
/// (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>).
pub const DAEMON_ADDRESS: &str = "AWS_XRAY_DAEMON_ADDRESS";

/// What comes before each document that the daemon takes.
const DAEMON_HEADER: &str = r#"{"format":"json","version":1}"#;
/// The longest name.
const NAME_CHARS: usize = 200;
/// What a name may have beside letters, digits and spaces.
const NAME_MARKS: &str = r"_.:/%&#=+\-@";

/// The place in a trace of an invocation that is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled<'a> {
    trace_id: &'a str,
    parent_id: &'a str,
}

impl<'a> Sampled<'a> {
    /// From a trace header, `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`. Nothing from one that is
    /// not sampled, or is not understood.
    pub fn read(header: &'a str) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = header.split(';').filter_map(|field| field.trim().split_once('='));
            fields.find_map(|(known, value)| (known == name).then_some(value))
        };
        if field("Sampled")? != "1" {
            return None;
        }
        let (trace_id, parent_id) = (field("Root")?, field("Parent")?);
        let (time, unique) = trace_id.strip_prefix("1-")?.split_once('-')?;
        let understood = is_hex(time, 8) && is_hex(unique, 24) && is_hex(parent_id, 16);
        understood.then_some(Sampled { trace_id, parent_id })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The subsegment of a request that was answered at `now_ms`, milliseconds since the Unix epoch. `id` and the four numbers after
/// it are the ids of the subsegments; a trace may have each but once.
pub fn document(sampled: &Sampled<'_>, told: &Told<'_>, id: u64, now_ms: u64) -> Value {
    let end_us = now_ms.saturating_mul(1_000);
    let begin_us = end_us.saturating_sub(micros(told.took));
    let mut annotations = json!({
        "request_id": told.request_id,
        "route": told.route,
        "status": told.status,
    });
    if let Some(problem) = told.problem {
        annotations["problem"] = json!(problem);
    }
    // No `http`: in a subsegment that is a call of ours to somebody else.
    let mut document = json!({
        "type": "subsegment",
        "trace_id": sampled.trace_id,
        "parent_id": sampled.parent_id,
        "id": hex_id(id),
        "name": name(told.method.as_str(), told.route),
        "start_time": seconds(begin_us),
        "end_time": seconds(end_us),
    });
    let flags: &[&str] = match told.status {
        429 => &["error", "throttle"],
        400..=499 => &["error"],
        500.. => &["fault"],
        _ => &[],
    };
    for flag in flags {
        document[*flag] = json!(true);
    }
    if let Some(acknowledged) = &told.acknowledged {
        annotations["kind"] = json!(acknowledged.kind);
        let took = acknowledged.took;
        let steps = [
            ("check", acknowledged.check),
            ("ledger", took.ledger),
            ("journal", took.journal),
            ("look", took.look),
        ];
        // Only how long each took is known, so each begins where the one before it ended. What comes between them and after
        // them is what is left at the end.
        let mut at_us = begin_us;
        let subsegments = steps.iter().zip(1..).map(|((name, took), number)| {
            let start_us = at_us;
            at_us = at_us.saturating_add(micros(*took));
            json!({
                "id": hex_id(id.wrapping_add(number)),
                "name": name,
                "start_time": seconds(start_us),
                "end_time": seconds(at_us),
            })
        });
        document["subsegments"] = subsegments.collect();
    }
    document["annotations"] = annotations;
    document
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn hex_id(id: u64) -> String {
    format!("{id:016x}")
}

/// Method and route, without what a name must not have: the braces of `{id}`.
fn name(method: &str, route: &str) -> String {
    let allowed = |c: &char| c.is_alphanumeric() || *c == ' ' || NAME_MARKS.contains(*c);
    let name = format!("{method} {route}");
    name.chars().filter(allowed).take(NAME_CHARS).collect()
}

/// The daemon that takes traces.
#[derive(Debug)]
pub struct Daemon {
    address: SocketAddr,
    socket: OnceLock<Option<UdpSocket>>,
}

impl Daemon {
    /// The one at `address`. Nothing is opened before the first document is sent.
    pub fn at(address: SocketAddr) -> Self {
        Daemon {
            address,
            socket: OnceLock::new(),
        }
    }

    /// Sends a document and forgets it. What cannot be sent at once is lost, also one that a datagram cannot hold, and so are all of
    /// a process that gets no socket.
    pub fn send(&self, document: &Value) {
        if let Some(socket) = self.socket.get_or_init(|| socket(self.address)) {
            // Not connected: a connected socket would lose a document for every one that found nobody.
            let _ = socket.send_to(format!("{DAEMON_HEADER}\n{document}").as_bytes(), self.address);
        }
    }
}

fn socket(to: SocketAddr) -> Option<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use continuity::acknowledge::Took;
    use continuity::entry::{EntryKind, EntryStatus};
    use http::Method;

    use super::*;
    use crate::telemetry::Acknowledged;

    const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";
    const PARENT: &str = "Parent=53995c3f42cd8ad8";
    const SAMPLED: Sampled<'static> = Sampled {
        trace_id: "1-5759e988-bd862e3fe1be46a994272793",
        parent_id: "53995c3f42cd8ad8",
    };

    fn told(status: u16) -> Told<'static> {
        Told {
            stack: "dev",
            region: "us-east-1",
            request_id: "r-1",
            method: &Method::POST,
            route: "/v1/payments/{id}/capture",
            status,
            problem: None,
            acknowledged: None,
            took: Duration::from_micros(1_500),
        }
    }

    #[test]
    fn a_header_that_says_sampled_is_read_in_any_order_and_beside_other_fields() {
        for header in [
            format!("{ROOT};{PARENT};Sampled=1"),
            format!("Sampled=1; {PARENT}; {ROOT}"),
            format!(
                "Self=1-5759e988-000000000000000000000000;{ROOT};{PARENT};Sampled=1;Lineage=1:a87bd80c:0"
            ),
        ] {
            assert_eq!(Sampled::read(&header), Some(SAMPLED), "{header}");
        }
    }

    #[test]
    fn a_header_that_is_not_sampled_or_not_whole_gives_nothing() {
        for header in [
            String::new(),
            ROOT.to_owned(),
            format!("{ROOT};{PARENT}"),
            format!("{ROOT};{PARENT};Sampled=0"),
            format!("{ROOT};{PARENT};Sampled=?"),
            format!("{ROOT};{PARENT};Sampled=11"),
            format!("{ROOT};Sampled=1"),
            format!("{PARENT};Sampled=1"),
            format!("{ROOT};Parent=;Sampled=1"),
            format!("{ROOT};Parent=53995c3f42cd8adg;Sampled=1"),
            format!("{ROOT}0;{PARENT};Sampled=1"),
            format!("Root=2-5759e988-bd862e3fe1be46a994272793;{PARENT};Sampled=1"),
            format!("Root=1-5759e988bd862e3fe1be46a994272793;{PARENT};Sampled=1"),
            format!("Root=1-\"}}\n;{PARENT};Sampled=1"),
        ] {
            assert_eq!(Sampled::read(&header), None, "{header}");
        }
    }

    #[test]
    fn an_acknowledged_command_has_its_four_steps_one_after_the_other() {
        let acknowledged = Acknowledged {
            kind: EntryKind::Capture,
            status: EntryStatus::Created,
            check: Duration::from_micros(100),
            took: Took {
                ledger: Duration::from_micros(200),
                journal: Duration::from_micros(300),
                look: Duration::from_micros(400),
            },
        };
        let told = Told {
            acknowledged: Some(acknowledged),
            ..told(200)
        };
        let step = |id: &str, name: &str, from: f64, to: f64| json!({"id": id, "name": name, "start_time": from, "end_time": to});
        assert_eq!(
            document(&SAMPLED, &told, 0xfe, 1_700_000_000_002),
            json!({
                "type": "subsegment",
                "trace_id": "1-5759e988-bd862e3fe1be46a994272793",
                "parent_id": "53995c3f42cd8ad8",
                "id": "00000000000000fe",
                "name": "POST /v1/payments/id/capture",
                "start_time": 1_700_000_000.000_5,
                "end_time": 1_700_000_000.002,
                "annotations": {
                    "request_id": "r-1", "route": "/v1/payments/{id}/capture", "status": 200, "kind": "capture",
                },
                "subsegments": [
                    step("00000000000000ff", "check", 1_700_000_000.000_5, 1_700_000_000.000_6),
                    step("0000000000000100", "ledger", 1_700_000_000.000_6, 1_700_000_000.000_8),
                    step("0000000000000101", "journal", 1_700_000_000.000_8, 1_700_000_000.001_1),
                    step("0000000000000102", "look", 1_700_000_000.001_1, 1_700_000_000.001_5),
                ],
            })
        );
    }

    #[test]
    fn a_refusal_is_an_error_or_a_fault_and_one_for_too_many_requests_a_throttle_as_well() {
        for (status, flags) in [
            (200, vec![]),
            (201, vec![]),
            (400, vec!["error"]),
            (499, vec!["error"]),
            (429, vec!["error", "throttle"]),
            (500, vec!["fault"]),
            (503, vec!["fault"]),
        ] {
            let told = Told {
                problem: Some("some-problem"),
                ..told(status)
            };
            let document = document(&SAMPLED, &told, 1, 2);
            let set = ["error", "throttle", "fault"].into_iter();
            let set: Vec<&str> = set.filter(|flag| document.get(flag).is_some()).collect();
            assert_eq!(set, flags, "{status}");
            assert!(flags.iter().all(|flag| document[flag] == true), "{document}");
            assert_eq!(document["annotations"]["problem"], "some-problem");
            assert_eq!(document.get("subsegments"), None);
        }
    }

    #[test]
    fn a_name_has_only_the_characters_that_it_may_have_and_not_too_many() {
        assert_eq!(name("GET", "/v1/a{b}?c*d\n\"e\""), "GET /v1/abcde");
        assert_eq!(name("GET", &"/x".repeat(200)).chars().count(), NAME_CHARS);
    }
}
