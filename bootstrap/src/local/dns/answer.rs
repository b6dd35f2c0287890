//! What Route 53 answers to a question: a pure function of the zones, of what the health checks say, and of the question.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT},
    },
};

use super::zones::{ExecuteApi, RecordSet, Routing, Snapshot, Zone};
use crate::local::Region;

/// How many names a chain of CNAMEs may have.
const MAX_CHAIN: usize = 8;
/// The TTL of an execute-api host's address.
const EXECUTE_API_TTL: u32 = 60;

/// Which health checks are healthy now. One that is not listed is.
pub(super) type States = BTreeMap<String, bool>;

/// The question's answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    /// Whether the zone is ours to answer for.
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authority: Vec<Record>,
}

/// What the answers depend on besides the question.
#[derive(Debug, Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) states: &'a States,
    /// How long a second of TTL takes here.
    pub(super) time_scale: f64,
}

/// Answers a question.
pub(super) fn answer(world: World<'_>, question: &Name, kind: RecordType) -> Answer {
    let mut name = question.to_lowercase();
    name.set_fqdn(true);
    if let Some(api) = ExecuteApi::parse(&name.to_ascii()) {
        return execute_api(world, &name, &api, kind);
    }
    let Some(mut zone) = zone_of(world.snapshot, &name) else {
        return Answer {
            code: ResponseCode::Refused,
            authoritative: false,
            answers: vec![],
            authority: vec![],
        };
    };
    let mut answers = Vec::new();
    // The name that answers go under: what an alias of Route 53 leads to is shown as the alias's own.
    let mut owner: Option<Name> = None;
    for _ in 0..MAX_CHAIN {
        match lookup(world, zone, &name, kind) {
            Found::Records(records) => {
                answers.extend(owned(records, owner.as_ref()));
                return done(answers);
            }
            Found::Alias(target, records) => {
                if records.is_empty() {
                    owner.get_or_insert_with(|| name.clone());
                } else {
                    answers.extend(owned(records, owner.take().as_ref()));
                }
                if let Some(api) = ExecuteApi::parse(&target.to_ascii()) {
                    let host = execute_api(world, &target, &api, kind).answers;
                    answers.extend(owned(host, owner.as_ref()));
                    return done(answers);
                }
                match zone_of(world.snapshot, &target) {
                    Some(next) => (zone, name) = (next, target),
                    // Whoever asks goes on elsewhere.
                    None => return done(answers),
                }
            }
            Found::NoData => return negative(world, zone, ResponseCode::NoError, answers),
            Found::NoName => return negative(world, zone, ResponseCode::NXDomain, answers),
        }
    }
    Answer {
        code: ResponseCode::ServFail,
        authoritative: true,
        answers: vec![],
        authority: vec![],
    }
}

/// The records under another name.
fn owned(mut records: Vec<Record>, owner: Option<&Name>) -> Vec<Record> {
    if let Some(owner) = owner {
        for record in &mut records {
            record.name = owner.clone();
        }
    }
    records
}

/// The region whose APIs a name leads to now.
pub(super) fn region_behind_now(world: World<'_>, name: &Name) -> Option<Region> {
    let answer = answer(world, name, RecordType::A);
    let mut addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(A(address)) => Some(*address),
        _ => None,
    });
    addresses.find_map(|address| Region::ALL.into_iter().find(|region| region.address() == address))
}

/// The API of this region that a public name has a record for, whether or not it is the one that is answered now.
pub(super) fn api_behind_in(snapshot: &Snapshot, name: &Name, region: Region) -> Option<ExecuteApi> {
    let zone = zone_of(snapshot, name)?;
    zone.records
        .iter()
        .filter(|set| set.name == *name && set.kind == RecordType::CNAME)
        .flat_map(|set| &set.values)
        .filter_map(|target| ExecuteApi::parse(target))
        .find(|api| api.region == region)
}

fn done(answers: Vec<Record>) -> Answer {
    Answer {
        code: ResponseCode::NoError,
        authoritative: true,
        answers,
        authority: vec![],
    }
}

fn negative(world: World<'_>, zone: &Zone, code: ResponseCode, answers: Vec<Record>) -> Answer {
    // A chain that was followed has an answer, whatever its end says (RFC 2308, 2.1).
    let soa = zone
        .records
        .iter()
        .find(|set| set.kind == RecordType::SOA)
        .map(|set| records_of(world, set, &zone.name))
        .unwrap_or_default();
    // How long the absence is believed is the lesser of the SOA's TTL and its last field (RFC 2308, 5).
    let authority = soa
        .into_iter()
        .map(|mut record| {
            if let RData::SOA(soa) = &record.data {
                record.ttl = record.ttl.min(scaled(soa.minimum, world.time_scale));
            }
            record
        })
        .collect();
    Answer {
        code,
        authoritative: true,
        answers,
        authority,
    }
}

/// The zone that a name is in: the one with the longest name.
fn zone_of<'a>(snapshot: &'a Snapshot, name: &Name) -> Option<&'a Zone> {
    snapshot
        .zones
        .iter()
        .filter(|zone| zone.name.zone_of(name))
        .max_by_key(|zone| zone.name.num_labels())
}

enum Found {
    Records(Vec<Record>),
    /// The name is another name for this one; a CNAME is shown, an alias of Route 53 is not.
    Alias(Name, Vec<Record>),
    NoData,
    NoName,
}

fn lookup(world: World<'_>, zone: &Zone, name: &Name, kind: RecordType) -> Found {
    let of_kind = |kind| {
        zone.records
            .iter()
            .filter(move |set| set.name == *name && set.kind == kind)
    };
    if let Some(set) = choose(world.states, of_kind(kind)) {
        return match &set.alias {
            Some(target) => Found::Alias(target.clone(), vec![]),
            None => Found::Records(records_of(world, set, name)),
        };
    }
    if let Some(set) = choose(world.states, of_kind(RecordType::CNAME)) {
        let records = records_of(world, set, name);
        let target = records.iter().find_map(|record| match &record.data {
            RData::CNAME(CNAME(target)) => Some(target.clone()),
            _ => None,
        });
        if let Some(target) = target {
            return Found::Alias(target, records);
        }
    }
    // A name above one that has records exists too.
    let exists = zone.records.iter().any(|set| name.zone_of(&set.name));
    if exists { Found::NoData } else { Found::NoName }
}

/// Chooses among the record sets of one name and type, as Route 53 documents it: the healthy primary, else the healthy
/// secondary, else the primary. A record without a check is healthy.
fn choose<'a>(states: &States, sets: impl Iterator<Item = &'a RecordSet>) -> Option<&'a RecordSet> {
    let sets: Vec<&RecordSet> = sets.collect();
    let healthy = |set: &&&RecordSet| {
        set.health_check
            .as_ref()
            .and_then(|check| states.get(check))
            .copied()
            .unwrap_or(true)
    };
    let of = |routing| sets.iter().filter(move |set| set.routing == routing);
    of(Routing::Simple)
        .next()
        .or_else(|| of(Routing::Primary).find(healthy))
        .or_else(|| of(Routing::Secondary).find(healthy))
        .or_else(|| of(Routing::Primary).next())
        .or_else(|| of(Routing::Other).find(healthy))
        .or_else(|| sets.first())
        .copied()
}

/// The address of an API's host is its region's front door.
fn execute_api(world: World<'_>, name: &Name, api: &ExecuteApi, kind: RecordType) -> Answer {
    let ttl = scaled(EXECUTE_API_TTL, world.time_scale);
    let answers = match kind {
        RecordType::A | RecordType::ANY => {
            vec![Record::from_rdata(
                name.clone(),
                ttl,
                RData::A(A(api.region.address())),
            )]
        }
        _ => vec![],
    };
    done(answers)
}

fn records_of(world: World<'_>, set: &RecordSet, name: &Name) -> Vec<Record> {
    let ttl = scaled(set.ttl, world.time_scale);
    set.values
        .iter()
        .filter_map(|value| parse(set.kind, value))
        .map(|data| Record::from_rdata(name.clone(), ttl, data))
        .collect()
}

/// A duration in whole seconds, rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn scaled(ttl: u32, time_scale: f64) -> u32 {
    (f64::from(ttl) * time_scale) as u32
}

/// Reads a value as Route 53 writes it. `None` for what cannot be read and for types that nobody needs here.
fn parse(kind: RecordType, value: &str) -> Option<RData> {
    let name = |text: &str| super::zones::parse_name(text).ok();
    let mut fields = value.split_ascii_whitespace();
    match kind {
        RecordType::A => value.parse::<Ipv4Addr>().ok().map(|address| RData::A(A(address))),
        RecordType::AAAA => match value.parse().ok()? {
            IpAddr::V6(address) => Some(RData::AAAA(AAAA(address))),
            IpAddr::V4(_) => None,
        },
        RecordType::CNAME => Some(RData::CNAME(CNAME(name(value)?))),
        RecordType::NS => Some(RData::NS(NS(name(value)?))),
        RecordType::PTR => Some(RData::PTR(PTR(name(value)?))),
        RecordType::TXT => {
            let texts: Vec<String> = value.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            Some(RData::TXT(TXT::new(if texts.is_empty() {
                vec![value.to_owned()]
            } else {
                texts
            })))
        }
        RecordType::MX => Some(RData::MX(MX::new(
            fields.next()?.parse().ok()?,
            name(fields.next()?)?,
        ))),
        RecordType::SRV => {
            let mut number = || fields.next()?.parse().ok();
            let (priority, weight, port) = (number()?, number()?, number()?);
            Some(RData::SRV(SRV::new(
                priority,
                weight,
                port,
                name(fields.next()?)?,
            )))
        }
        RecordType::SOA => {
            let (primary, mailbox) = (name(fields.next()?)?, name(fields.next()?)?);
            let serial = fields.next()?.parse().ok()?;
            let mut seconds = || fields.next()?.parse::<i32>().ok();
            let (refresh, retry, expire) = (seconds()?, seconds()?, seconds()?);
            let minimum = fields.next()?.parse().ok()?;
            Some(RData::SOA(SOA::new(
                primary, mailbox, serial, refresh, retry, expire, minimum,
            )))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "home1.execute-api.us-east-1.amazonaws.com";
    const DR: &str = "dr1.execute-api.us-east-2.amazonaws.com";

    fn name(text: &str) -> Name {
        super::super::zones::parse_name(text).unwrap()
    }

    fn set(at: &str, kind: RecordType, values: &[&str]) -> RecordSet {
        RecordSet {
            name: name(at),
            kind,
            ttl: 60,
            values: values.iter().map(|&value| value.to_owned()).collect(),
            alias: None,
            routing: Routing::Simple,
            health_check: None,
        }
    }

    fn failover(routing: Routing, target: &str, check: Option<&str>) -> RecordSet {
        RecordSet {
            routing,
            health_check: check.map(str::to_owned),
            ..set("api.example.test", RecordType::CNAME, &[target])
        }
    }

    fn snapshot(secondary_check: Option<&str>) -> Snapshot {
        let soa = "ns-1.awsdns-01.com. hostmaster.example.test. 1 7200 900 1209600 86400";
        let mut apex = set("example.test", RecordType::SOA, &[soa]);
        apex.ttl = 900;
        let zone = Zone {
            name: name("example.test"),
            records: vec![
                apex,
                set(
                    "example.test",
                    RecordType::NS,
                    &["ns-1.awsdns-01.com.", "ns-2.awsdns-02.net."],
                ),
                failover(Routing::Secondary, DR, secondary_check),
                failover(Routing::Primary, HOME, Some("home")),
                set("www.example.test", RecordType::CNAME, &["api.example.test"]),
                set("away.example.test", RecordType::CNAME, &["elsewhere.invalid"]),
                set("deep.below.example.test", RecordType::A, &["192.0.2.7"]),
                set("text.example.test", RecordType::TXT, &["\"one\" \"two\""]),
                RecordSet {
                    alias: Some(name(DR)),
                    values: vec![],
                    ..set("alias.example.test", RecordType::A, &[])
                },
                set("loop.example.test", RecordType::CNAME, &["loop.example.test"]),
            ],
        };
        Snapshot {
            zones: vec![zone],
            checks: BTreeMap::new(),
        }
    }

    /// The answer section as `dig +short` would show it.
    fn ask(states: &[(&str, bool)], question: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let snapshot = snapshot(Some("dr"));
        let states = states
            .iter()
            .map(|&(check, healthy)| (check.to_owned(), healthy))
            .collect();
        let world = World {
            snapshot: &snapshot,
            states: &states,
            time_scale: 0.05,
        };
        let answer = answer(world, &name(question), kind);
        (
            answer.code,
            answer
                .answers
                .iter()
                .map(|record| record.data.to_string())
                .collect(),
        )
    }

    #[test]
    fn failover_follows_the_health_checks() {
        let (home, dr) = (format!("{HOME}."), format!("{DR}."));
        type Case<'a> = (&'a [(&'a str, bool)], &'a str, &'a str);
        let cases: [Case; 6] = [
            // A new check is healthy until data arrives.
            (&[], &home, "127.0.1.1"),
            (&[("home", true), ("dr", true)], &home, "127.0.1.1"),
            (&[("home", true), ("dr", false)], &home, "127.0.1.1"),
            (&[("home", false), ("dr", true)], &dr, "127.0.2.1"),
            (&[("home", false)], &dr, "127.0.2.1"),
            // Both unhealthy: the primary.
            (&[("home", false), ("dr", false)], &home, "127.0.1.1"),
        ];
        for (states, target, address) in cases {
            let expected = (ResponseCode::NoError, vec![target.to_owned(), address.to_owned()]);
            assert_eq!(
                ask(states, "api.example.test", RecordType::A),
                expected,
                "{states:?}"
            );
            let expected = (ResponseCode::NoError, vec![target.to_owned()]);
            assert_eq!(
                ask(states, "API.Example.Test", RecordType::CNAME),
                expected,
                "{states:?}"
            );
        }
    }

    #[test]
    fn a_secondary_without_a_check_is_healthy() {
        let snapshot = snapshot(None);
        let states = States::from([("home".to_owned(), false)]);
        let world = World {
            snapshot: &snapshot,
            states: &states,
            time_scale: 1.0,
        };
        let region = region_behind_now(world, &name("www.example.test"));
        assert_eq!(region, Some(Region::UsEast2));
    }

    #[test]
    fn an_alias_is_answered_under_its_own_name() {
        let snapshot = snapshot(None);
        let states = States::new();
        let world = World {
            snapshot: &snapshot,
            states: &states,
            time_scale: 1.0,
        };
        let alias = name("alias.example.test");
        let records = answer(world, &alias, RecordType::A).answers;
        assert_eq!(records.len(), 1);
        assert_eq!(
            records[0].name, alias,
            "nothing else would a resolver take for an answer"
        );
        assert_eq!(region_behind_now(world, &alias), Some(Region::UsEast2));
        assert_eq!(region_behind_now(world, &name("deep.below.example.test")), None);
    }

    #[test]
    fn other_questions_are_answered_from_the_zone() {
        use ResponseCode::{NXDomain, NoError, Refused, ServFail};
        let home = format!("{HOME}.");
        let cases: [(&str, RecordType, ResponseCode, &[&str]); 13] = [
            (
                "example.test",
                RecordType::NS,
                NoError,
                &["ns-1.awsdns-01.com.", "ns-2.awsdns-02.net."],
            ),
            (
                "www.example.test",
                RecordType::A,
                NoError,
                &["api.example.test.", &home, "127.0.1.1"],
            ),
            (
                "away.example.test",
                RecordType::A,
                NoError,
                &["elsewhere.invalid."],
            ),
            ("text.example.test", RecordType::TXT, NoError, &["onetwo"]),
            ("alias.example.test", RecordType::A, NoError, &["127.0.2.1"]),
            ("deep.below.example.test", RecordType::A, NoError, &["192.0.2.7"]),
            ("below.example.test", RecordType::A, NoError, &[]),
            ("api.example.test", RecordType::AAAA, NoError, &[&home]),
            ("example.test", RecordType::A, NoError, &[]),
            ("none.example.test", RecordType::A, NXDomain, &[]),
            ("example.org", RecordType::A, Refused, &[]),
            (DR, RecordType::A, NoError, &["127.0.2.1"]),
            ("loop.example.test", RecordType::A, ServFail, &[]),
        ];
        for (question, kind, code, answers) in cases {
            let expected = answers.iter().map(|&answer| answer.to_owned()).collect();
            assert_eq!(ask(&[], question, kind), (code, expected), "{question} {kind}");
        }
    }

    #[test]
    fn an_absent_name_comes_with_the_zones_soa_and_ttls_are_scaled_down() {
        let snapshot = snapshot(None);
        let world = World {
            snapshot: &snapshot,
            states: &States::new(),
            time_scale: 0.05,
        };
        let absent = answer(world, &name("none.example.test"), RecordType::A);
        assert_eq!(absent.authority.len(), 1);
        assert_eq!(absent.authority[0].record_type(), RecordType::SOA);
        assert_eq!(absent.authority[0].ttl, 45);
        assert!(absent.authoritative);
        let api = answer(world, &name("api.example.test"), RecordType::A);
        assert_eq!(
            api.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(),
            [3, 3]
        );
        let quick = World {
            time_scale: 0.001,
            ..world
        };
        assert_eq!(
            answer(quick, &name("api.example.test"), RecordType::A).answers[0].ttl,
            0
        );
    }

    #[test]
    fn each_regions_api_is_found_whatever_the_checks_say() {
        let snapshot = snapshot(None);
        let api = |region| api_behind_in(&snapshot, &name("api.example.test"), region);
        assert_eq!(api(Region::UsEast1), ExecuteApi::parse(HOME));
        assert_eq!(api(Region::UsEast2), ExecuteApi::parse(DR));
        assert_eq!(api(Region::UsWest2), None);
    }
}
