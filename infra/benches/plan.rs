//! How long it takes to plan a stack, by its size: the graph, the desired specs, the checker, and the comparison with what is there, which the
//! engine does against a cloud in memory. Per resource it must take as long in a stack of 10,000 as in one of 1,000.
//!
//! `cargo bench -p infra`. Without `--bench`, as when the tests build it, it only goes through the motions.

#![allow(missing_docs, clippy::print_stdout)]

use std::any::Any;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use infra::check;
use infra::cloud::Cloud;
use infra::engine::{self, Options};
use infra::error::KindError;
use infra::graph::{Blueprint, Group, Handle, Place};
use infra::kind::{Found, Kind, Live, Site};
use infra::outcome::{PlanEntry, PlanOutcome};
use infra::plan::Change;
use infra::resources::cloudwatch_alarm::{self, CloudwatchAlarm, Metric};
use infra::resources::iam_role::{self, IamRole};
use infra::resources::iam_role_policies::{self, IamRolePolicies};
use infra::resources::sns_topic::{self, SnsTopic};
use infra::resources::subnet::{self, Subnet};
use infra::resources::vpc::{self, Vpc};
use serde_json::json;

const SIZES: [usize; 2] = [1_000, 10_000];
/// The larger stack may take this much more per resource: lookups in larger maps, and a cache that is too small.
const LIMIT: f64 = 2.0;
/// The best of so many is what the machine can do.
const ROUNDS: usize = 5;
/// A topic has so many alarms, a network so many subnets.
const FAN: usize = 40;
/// A role policy refers to the role before, and so on: as deep as this.
const CHAIN: usize = 100;

/// Everything that exists: the spec of each resource by its key.
static WORLD: LazyLock<Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>> = LazyLock::new(Mutex::default);
static OBSERVED: AtomicUsize = AtomicUsize::new(0);

/// A kind as it is, but in memory.
struct Memory<K>(PhantomData<fn() -> K>);

impl<K: Kind> Kind for Memory<K> {
    const NAME: &'static str = K::NAME;
    const STATEFUL: bool = K::STATEFUL;
    const IMMUTABLE: &'static [&'static str] = K::IMMUTABLE;
    const ROLES: &'static [&'static str] = K::ROLES;

    type Spec = K::Spec;
    type Outputs = K::Outputs;

    async fn observe(
        site: &Site<'_>,
        _spec: &K::Spec,
    ) -> Result<Option<Live<K::Spec, K::Outputs>>, KindError> {
        OBSERVED.fetch_add(1, Ordering::Relaxed);
        let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = world.get(site.key).and_then(|any| any.downcast_ref::<K::Spec>());
        let outputs = json!({"vpc_id": site.key, "subnet_id": site.key, "arn": arn(site), "name": site.key});
        Ok(stored.map(|spec| Live {
            spec: spec.clone(),
            outputs: serde_json::from_value(outputs).expect("outputs of these kinds are these"),
            settling: None,
        }))
    }

    async fn create(site: &Site<'_>, spec: &K::Spec) -> Result<(), KindError> {
        let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        world.insert(site.key.to_owned(), Arc::new(spec.clone()));
        Ok(())
    }

    async fn update(
        site: &Site<'_>,
        spec: &K::Spec,
        _live: &Live<K::Spec, K::Outputs>,
    ) -> Result<(), KindError> {
        Self::create(site, spec).await
    }

    async fn delete(_site: &Site<'_>, _live: &Live<K::Spec, K::Outputs>) -> Result<(), KindError> {
        Ok(())
    }

    async fn list(_site: &Site<'_>) -> Result<Vec<Found>, KindError> {
        Ok(Vec::new())
    }
}

fn arn(site: &Site<'_>) -> String {
    format!("arn:aws:sns:{}:{}:{}", site.region, site.account, site.key)
}

/// Networks with fans of subnets, topics with fans of alarms, and chains of roles, in equal parts, with order between them.
fn synthetic(size: usize) -> Blueprint {
    let mut blueprint = Blueprint::new("bench", "000000000000");
    let place = Place {
        group: Group::Primary,
        region: "us-east-1".into(),
    };
    let mut last: Option<Handle<Memory<IamRole>>> = None;
    for block in 0.. {
        if blueprint.nodes().len() >= size {
            break;
        }
        network(&mut blueprint, &place, block);
        let alarm = alerts(&mut blueprint, &place, block);
        let role = roles(&mut blueprint, &place, block, last.filter(|_| block % CHAIN != 0));
        blueprint.order(&role, &alarm);
        last = Some(role);
    }
    let keys = blueprint.nodes()[..size].iter().map(|node| node.key.clone());
    blueprint.only(&keys.collect())
}

fn network(blueprint: &mut Blueprint, place: &Place, block: usize) {
    let (second, third) = (block / 4, block % 4 * 64);
    let cidr = format!("10.{second}.{third}.0/18");
    let vpc: Handle<Memory<Vpc>> = blueprint.add(format!("vpc-{block}"), place, (), move |()| vpc::Spec {
        name: format!("vpc-{block}"),
        cidr: cidr.clone(),
        dns_support: true,
        dns_hostnames: true,
        tagged: true,
    });
    for number in 0..FAN {
        let cidr = format!("10.{second}.{}.0/24", third + number);
        let _: Handle<Memory<Subnet>> = blueprint.add(
            format!("subnet-{block}-{number}"),
            place,
            vpc.clone(),
            move |vpc: vpc::Outputs| subnet::Spec {
                name: format!("subnet-{block}-{number}"),
                vpc_id: vpc.vpc_id,
                cidr: cidr.clone(),
                zone: "us-east-1a".into(),
                public_addresses: false,
                tagged: true,
            },
        );
    }
}

fn alerts(blueprint: &mut Blueprint, place: &Place, block: usize) -> Handle<Memory<CloudwatchAlarm>> {
    let topic: Handle<Memory<SnsTopic>> =
        blueprint.add(format!("topic-{block}"), place, (), move |()| sns_topic::Spec {
            name: format!("topic-{block}"),
            kms_key_arn: "arn:aws:kms:us-east-1:000000000000:key/1".into(),
            policy: json!({"Statement": []}),
            subscriptions: [].into(),
            tagged: true,
        });
    let mut add = |number: usize| {
        blueprint.add(
            format!("alarm-{block}-{number}"),
            place,
            topic.clone(),
            move |topic: sns_topic::Outputs| cloudwatch_alarm::Spec {
                name: format!("alarm-{block}-{number}"),
                description: "Something is wrong.".into(),
                metric: Metric {
                    namespace: "Bench".into(),
                    name: "Errors".into(),
                    dimensions: [("Stack".to_owned(), "bench".to_owned())].into(),
                },
                statistic: "Sum".into(),
                period_s: 60,
                evaluation_periods: 3,
                datapoints_to_alarm: 3,
                threshold: 1.0,
                comparison: "GreaterThanThreshold".into(),
                missing_data: "notBreaching".into(),
                alarm_actions: [topic.arn.clone()].into(),
                ok_actions: [topic.arn].into(),
                actions_enabled: true,
                tagged: true,
            },
        )
    };
    (1..FAN).for_each(|number| drop(add(number)));
    add(0)
}

/// A role that may take the role before it, with its policy. Each block's roles go on from those of the block before.
fn roles(
    blueprint: &mut Blueprint,
    place: &Place,
    block: usize,
    mut before: Option<Handle<Memory<IamRole>>>,
) -> Handle<Memory<IamRole>> {
    let mut number = 0;
    loop {
        let role: Handle<Memory<IamRole>> = blueprint.add(
            format!("role-{block}-{number}"),
            place,
            before,
            move |before: Option<iam_role::Outputs>| {
                let description = before.map_or_else(String::new, |before| before.arn);
                let service = "lambda.amazonaws.com";
                iam_role::Spec::for_service(
                    format!("role-{block}-{number}"),
                    description,
                    service,
                    json!(null),
                )
            },
        );
        let _: Handle<Memory<IamRolePolicies>> = blueprint.add(
            format!("policy-{block}-{number}"),
            place,
            role.clone(),
            move |role: iam_role::Outputs| iam_role_policies::Spec {
                policies: [(
                    "own".to_owned(),
                    json!({"Version": "2012-10-17", "Statement": [
                        {"Sid": "Own", "Effect": "Allow", "Action": ["sts:AssumeRole"], "Resource": [role.arn]}]}),
                )]
                .into(),
                role: role.name,
            },
        );
        number += 1;
        if number == FAN / 2 {
            return role;
        }
        before = Some(role);
    }
}

/// What a stack of one size takes.
struct Figures {
    size: usize,
    build: Duration,
    wanted: Duration,
    check: Duration,
    compare: Duration,
    converge: Duration,
}

impl Figures {
    fn plan(&self) -> Duration {
        self.build + self.wanted + self.check + self.compare
    }

    fn per_resource_us(&self, of: Duration) -> f64 {
        of.as_secs_f64() * 1e6 / f64::from(u32::try_from(self.size).unwrap_or(u32::MAX))
    }
}

/// The shortest of some rounds.
fn best(rounds: usize, mut work: impl FnMut()) -> Duration {
    let once = |()| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    std::iter::repeat_n((), rounds)
        .map(once)
        .min()
        .unwrap_or_default()
}

fn measure(runtime: &tokio::runtime::Runtime, size: usize, rounds: usize) -> Figures {
    let build = best(rounds, || drop(synthetic(size)));
    let blueprint = synthetic(size);
    assert_eq!(blueprint.nodes().len(), size);
    let cloud = Cloud::new(SdkConfig::builder().build());
    let told = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&told);
    let options = Options {
        on_progress: Some(Arc::new(move |_| {
            heard.fetch_add(1, Ordering::Relaxed);
        })),
        ..Options::default()
    };
    let converge = best(1, || {
        let report = runtime.block_on(engine::converge(&blueprint, &cloud, &options));
        let report = report.expect("a graph without findings");
        assert_eq!(report.changes().count(), size, "everything was made");
    });
    assert!(told.load(Ordering::Relaxed) >= size, "progress was told");
    let wanted = best(rounds, || {
        assert_eq!(blueprint.wanted().map(|all| all.len()), Ok(size))
    });
    let both = best(rounds, || assert_eq!(check::check(&blueprint), Ok(Vec::new())));
    let compare = best(rounds, || {
        OBSERVED.store(0, Ordering::Relaxed);
        let entries = runtime.block_on(engine::plan(&blueprint, &cloud, &options));
        assert!(entries.expect("a graph").iter().all(unchanged));
        assert_eq!(OBSERVED.load(Ordering::Relaxed), size, "each was looked at once");
    });
    WORLD.lock().unwrap_or_else(PoisonError::into_inner).clear();
    Figures {
        size,
        build,
        wanted,
        check: both.saturating_sub(wanted),
        compare,
        converge,
    }
}

fn unchanged(entry: &PlanEntry) -> bool {
    matches!(&entry.plan, PlanOutcome::Planned(planned) if planned.change == Change::Unchanged)
}

fn main() -> ExitCode {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (sizes, rounds) = if measured {
        (SIZES, ROUNDS)
    } else {
        ([100, 300], 1)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let all = sizes.map(|size| measure(&runtime, size, rounds));
    println!("resources    build   wanted    check  compare     plan   per resource   converge (all new)");
    for one in &all {
        let ms = |span: Duration| format!("{:.1} ms", span.as_secs_f64() * 1e3);
        println!(
            "{:9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>11.2} us {:>20}",
            one.size,
            ms(one.build),
            ms(one.wanted),
            ms(one.check),
            ms(one.compare),
            ms(one.plan()),
            one.per_resource_us(one.plan()),
            ms(one.converge),
        );
    }
    let ratio = |of: fn(&Figures) -> Duration| {
        all[1].per_resource_us(of(&all[1])) / all[0].per_resource_us(of(&all[0]))
    };
    let (plan, converge) = (ratio(Figures::plan), ratio(|one| one.converge));
    println!(
        "per resource, {} against {}: plan {plan:.2}, converge {converge:.2}",
        sizes[1], sizes[0]
    );
    if measured && plan > LIMIT {
        println!("planning is not linear: at most {LIMIT} was expected");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
