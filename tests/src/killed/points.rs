//! The moments at which somebody is killed: every call of a command, or of the coordinator while the command runs.

use std::collections::BTreeMap;
use std::fmt;

use bootstrap::local::edge::{Strike, is_read};
use serde::{Deserialize, Serialize};

use crate::EdgeCall;

/// What is run when somebody is killed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// `understudy up`.
    Up,
    /// `understudy down`.
    Down,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Up => "up",
            Command::Down => "down",
        })
    }
}

/// Who is killed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    /// The command itself.
    CommandLine,
    /// The coordinator, in whichever region it works.
    Coordinator,
}

impl Victim {
    /// How the coordinator's functions are called in every region.
    const COORDINATOR: &'static str = "failover-coordinator-";

    /// Who made a call, if it is somebody that can be killed here.
    fn of(call: &EdgeCall) -> Option<Victim> {
        match &call.caller {
            None if call.is_by_hand() => Some(Victim::CommandLine),
            Some(caller) if caller.starts_with(Victim::COORDINATOR) => Some(Victim::Coordinator),
            _ => None,
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Victim::CommandLine => "command-line",
            Victim::Coordinator => "coordinator",
        })
    }
}

/// The four series, in the order in which they are told.
pub const SERIES: [(Command, Victim); 4] = [
    (Command::Up, Victim::CommandLine),
    (Command::Up, Victim::Coordinator),
    (Command::Down, Victim::CommandLine),
    (Command::Down, Victim::Coordinator),
];

/// A call that is its caller's last. It is told by what it is, not by its place among all calls: resources are made side by
/// side, so that the place of a call differs from run to run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// What is run.
    pub command: Command,
    /// Who is killed.
    pub victim: Victim,
    /// Its place in its series, from 1.
    pub position: usize,
    /// The region that is called.
    pub region: String,
    /// The service that is called.
    pub service: String,
    /// The operation, with stars for ids.
    pub operation: String,
    /// Which of the calls of this operation by this victim, from 1.
    pub nth: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}: {} {} #{} in {}",
            self.command, self.victim, self.position, self.service, self.operation, self.nth, self.region
        )
    }
}

impl Point {
    /// What the edge is told.
    pub fn strike(&self) -> Strike {
        let (source, caller) = match self.victim {
            Victim::CommandLine => (Some("outside".to_owned()), String::new()),
            Victim::Coordinator => (None, Victim::COORDINATOR.to_owned()),
        };
        Strike {
            source,
            caller: Some(caller),
            region: Some(self.region.clone()),
            service: Some(self.service.clone()),
            operation: Some(self.operation.clone()),
            nth: self.nth,
            ..Strike::default()
        }
    }
}

/// Every point of a command, from the calls that were made while it ran undisturbed, in the order in which they were made.
pub fn points(command: Command, calls: &[EdgeCall], reads: bool) -> Vec<Point> {
    let mut places: BTreeMap<Victim, usize> = BTreeMap::new();
    let mut seen: BTreeMap<(Victim, &str, &str, String), u64> = BTreeMap::new();
    let mut points = Vec::new();
    for call in calls.iter().filter(|call| reads || !is_read(&call.operation)) {
        let Some(victim) = Victim::of(call) else { continue };
        let operation = without_ids(&call.service, &call.operation);
        let place = places.entry(victim).or_default();
        let nth = seen
            .entry((victim, &call.region, &call.service, operation.clone()))
            .or_default();
        *place += 1;
        *nth += 1;
        points.push(Point {
            command,
            victim,
            position: *place,
            region: call.region.clone(),
            service: call.service.clone(),
            operation,
            nth: *nth,
        });
    }
    points
}

/// Parts of a path after which an id follows that differs from one deployment to the next.
const BEFORE_IDS: [(&str, &str); 6] = [
    ("apigateway", "restapis"),
    ("apigateway", "deployments"),
    ("apigateway", "tags"),
    ("route53", "hostedzone"),
    ("route53", "healthcheck"),
    ("route53", "change"),
];

fn without_ids(service: &str, operation: &str) -> String {
    let parts: Vec<&str> = operation.split('/').collect();
    let mut shown = parts.clone();
    for place in 1..parts.len() {
        if BEFORE_IDS.contains(&(service, parts[place - 1])) {
            shown[place] = "*";
        }
    }
    shown.join("/")
}

/// As many of the points as wanted, the same share of every series, chosen by the seed and in order.
pub fn sample(points: &[Point], wanted: usize, seed: u64) -> Vec<Point> {
    let mut chance = Chance(seed);
    let mut left = wanted;
    let mut chosen = Vec::new();
    // The shortest first: what a series cannot give, the others do.
    let mut series: Vec<Vec<&Point>> = SERIES
        .iter()
        .map(|&(command, victim)| {
            let of_it = |point: &&Point| (point.command, point.victim) == (command, victim);
            points.iter().filter(of_it).collect()
        })
        .collect();
    series.sort_by_key(Vec::len);
    let count = series.len();
    for (rank, mut one) in series.into_iter().enumerate() {
        let share = left.div_ceil(count - rank).min(one.len());
        left -= share;
        for _ in 0..share {
            let at = usize::try_from(chance.below(one.len() as u64)).unwrap_or(0);
            chosen.push(one.swap_remove(at).clone());
        }
    }
    chosen.sort();
    chosen
}

/// Numbers that look random, the same on every machine for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(caller: Option<&str>, service: &str, operation: &str) -> EdgeCall {
        EdgeCall {
            at_ms: 0,
            source: if caller.is_some() { "us-east-1" } else { "outside" }.into(),
            region: "us-east-1".into(),
            service: service.into(),
            operation: operation.into(),
            caller: caller.map(str::to_owned),
            status: 200,
        }
    }

    const COORDINATOR: Option<&str> = Some("failover-coordinator-primary-dev");

    #[test]
    fn every_write_of_either_victim_is_a_point() {
        let calls = [
            call(None, "s3", "PUT /bucket"),
            call(COORDINATOR, "ec2", "CreateVpc"),
            call(COORDINATOR, "ec2", "DescribeVpcs"),
            call(Some("health-probe-dr-dev"), "dynamodb", "PutItem"),
            call(COORDINATOR, "ec2", "CreateVpc"),
            call(COORDINATOR, "apigateway", "POST /restapis/a1b2/deployments"),
            call(COORDINATOR, "apigateway", "POST /restapis/c3d4/deployments"),
        ];
        let told: Vec<String> = points(Command::Up, &calls, false)
            .iter()
            .map(Point::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "up command-line 1: s3 PUT /bucket #1 in us-east-1",
                "up coordinator 1: ec2 CreateVpc #1 in us-east-1",
                "up coordinator 2: ec2 CreateVpc #2 in us-east-1",
                "up coordinator 3: apigateway POST /restapis/*/deployments #1 in us-east-1",
                "up coordinator 4: apigateway POST /restapis/*/deployments #2 in us-east-1",
            ]
        );
        assert_eq!(points(Command::Up, &calls, true).len(), told.len() + 1);
    }

    #[test]
    fn a_sample_takes_from_every_series_and_is_the_same_for_the_same_seed() {
        let calls: Vec<EdgeCall> = (0..3)
            .map(|_| call(None, "s3", "PUT /bucket"))
            .chain((0..100).map(|_| call(COORDINATOR, "ec2", "CreateVpc")))
            .collect();
        let all: Vec<Point> = [Command::Up, Command::Down]
            .into_iter()
            .flat_map(|command| points(command, &calls, false))
            .collect();
        let chosen = sample(&all, 20, 7);
        let of = |command, victim| {
            let wanted = (command, victim);
            chosen
                .iter()
                .filter(|point| (point.command, point.victim) == wanted)
                .count()
        };
        assert_eq!(SERIES.map(|(command, victim)| of(command, victim)), [3, 7, 3, 7]);
        assert!(chosen.is_sorted() && chosen.windows(2).all(|two| two[0] != two[1]));
        assert_eq!(chosen, sample(&all, 20, 7));
        assert_ne!(chosen, sample(&all, 20, 8));
        assert_eq!(sample(&all, 1_000, 7).len(), all.len());
    }
}
