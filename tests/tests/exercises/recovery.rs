//! What only the old region's database had when it was taken over from: it is kept, compared with the ledger that serves, and told,
//! entry by entry; then the old region stands by again, and a stack that is deleted leaves nothing of all that.

use std::collections::BTreeMap;

use aws_sdk_lambda::primitives::Blob;
use bootstrap::client::{Client, Endpoint, NewPayment, Payment};
use bootstrap::{down, keys, local, lost_tail};
use continuity::assess::Decider;
use continuity::lost_tail::{Became, Report};
use continuity::names::Slot;
use serde_json::{Value, json};

use super::takeover::{CURRENCY, HOME, PATIENCE, STANDBY, Stage, fit};

/// A payment of this amount, from the first account to the second.
fn payment(stage: &Stage, amount_minor: i64) -> NewPayment {
    NewPayment {
        from_account: stage.accounts[0].clone(),
        to_account: stage.accounts[1].clone(),
        amount_minor,
        currency: CURRENCY.into(),
        reference: format!("order {amount_minor}"),
    }
}

async fn pay(stage: &Stage, amount_minor: i64) -> Payment {
    let key = format!("order-{amount_minor}");
    let payment = payment(stage, amount_minor);
    stage.client.pay(&key, &payment, PATIENCE).await.unwrap()
}

/// Sends a payment from inside the home region, which is cut off: what API Gateway had taken and handed to the function before.
/// Returns when the function executed it and could not journal it, so that its client has no acknowledgement.
async fn pay_unheard(stage: &Stage, api_key: &str, amount_minor: i64) {
    let inside = stage.cloud().region_endpoints[&HOME.parse::<local::Region>().unwrap()].clone();
    let config = stage.stack.cloud.config().to_builder();
    let config = config
        .endpoint_url(inside)
        .region(aws_sdk_lambda::config::Region::new(HOME))
        .build();
    let client = aws_sdk_lambda::Client::new(&config);
    let event = json!({
        "httpMethod": "POST", "path": "/v1/payments", "requestContext": {"stage": "v1", "requestId": "unheard"},
        "multiValueHeaders": {
            "Authorization": [format!("Bearer {api_key}")], "Content-Type": ["application/json"],
            "Idempotency-Key": [format!("order-{amount_minor}")],
        },
        "body": serde_json::to_string(&payment(stage, amount_minor)).unwrap(),
    });
    let function = stage.stack.names().payment_processor(Slot::Primary);
    // Another copy of the function may not know the key or the epoch yet, and asks for it in vain.
    for _ in 0..20 {
        let answer = client
            .invoke()
            .function_name(&function)
            .payload(Blob::new(event.to_string()))
            .send()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(answer.payload().unwrap().as_ref()).unwrap();
        assert_eq!(answer["statusCode"], 503, "nothing is acknowledged: {answer}");
        let problem: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        if problem["type"].as_str().unwrap().ends_with("journal-unavailable") {
            return;
        }
    }
    panic!("the cut-off region executes nothing");
}

/// The evidence of the failover, as a region's bucket has it.
async fn evidence(stage: &Stage, slot: Slot) -> Option<Value> {
    let stack = &stage.stack;
    let client = stack.cloud.s3(stack.spec.regions.of(slot));
    let key = infra::exercise::json_key(&stack.names().failover_execution(2));
    let bucket = stack.names().data_bucket(slot, &stack.account);
    let object = client.get_object().bucket(bucket).key(key).send().await.ok()?;
    serde_json::from_slice(&object.body.collect().await.ok()?.to_vec()).ok()
}

/// Snapshots of any sort that RDS shows.
async fn snapshots(rds: &aws_sdk_rds::Client) -> Vec<String> {
    let found = rds.describe_db_cluster_snapshots().send().await.unwrap();
    let ids = found.db_cluster_snapshots().iter();
    ids.filter_map(|one| one.db_cluster_snapshot_identifier.clone())
        .collect()
}

async fn report(stage: &Stage) -> Report {
    stage
        .until("the recovery does not end", async |stage| {
            lost_tail::lost_tail(&stage.stack, None).await.ok()
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_that_only_the_old_region_had_is_told_and_the_region_stands_by_again() {
    let _turn = crate::turn().await;
    let stage = Stage::new("tail", |spec| spec.failover.decider = Decider::Approve).await;
    let none = lost_tail::lost_tail(&stage.stack, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(none.contains("no failover"), "{none}");
    let key = keys::create(
        &stage.stack.control(HOME),
        "inside",
        &keys::SCOPES.map(str::to_owned),
        100,
        continuity::clock::now_ms(),
    )
    .await
    .unwrap();
    let inside = Client::new(Endpoint::of(&stage.stack, key.reveal().to_owned())).unwrap();

    // Replicated: nothing that can be lost.
    for amount in [1, 2, 3] {
        pay(&stage, amount).await;
    }
    inside.account(&stage.accounts[0], PATIENCE).await.unwrap();
    stage
        .until("the standby does not catch up", async |stage| {
            let status = stage.cloud().status().await.unwrap();
            let home = &status.databases[&HOME.parse().unwrap()];
            (home.standby_lag_bytes == Some(0)).then_some(())
        })
        .await;
    // Acknowledged, and in the old region's database only: the journal has them.
    stage.cloud().lag(STANDBY.parse().unwrap(), true).await.unwrap();
    let mut acknowledged = BTreeMap::new();
    for amount in [10, 20, 30] {
        acknowledged.insert(amount, pay(&stage, amount).await);
    }
    // Executed there and acknowledged to nobody: the region is cut off from the journal.
    stage.cloud().outage(HOME.parse().unwrap(), false).await.unwrap();
    pay_unheard(&stage, key.reveal(), 400).await;
    pay_unheard(&stage, key.reveal(), 500).await;

    let record = stage.lose(HOME).await;
    assert_eq!((record.epoch, record.active_region.as_str()), (2, STANDBY));
    stage.cloud().lag(STANDBY.parse().unwrap(), false).await.unwrap();
    // Its client tries again, and the other client does not.
    let again = pay(&stage, 500).await;
    assert_eq!(again.epoch, 2);
    let waits = stage
        .until("the recovery does not begin", async |stage| {
            let waits = lost_tail::lost_tail(&stage.stack, None)
                .await
                .unwrap_err()
                .to_string();
            waits.contains("find-tail").then_some(waits)
        })
        .await;
    assert!(waits.contains(HOME), "{waits}");

    // Its execution is killed, which the command tells, and started again, once.
    let runs = lost_tail::again(&stage.stack, Some(2)).await.unwrap();
    assert!(!runs.new);
    let workflows = stage.stack.cloud.sfn(STANDBY);
    workflows
        .stop_execution()
        .execution_arn(&runs.execution)
        .send()
        .await
        .unwrap();
    let broken = lost_tail::lost_tail(&stage.stack, Some(2)).await.unwrap_err();
    assert!(broken.to_string().contains("broke off"), "{broken}");
    let started = lost_tail::again(&stage.stack, Some(2)).await.unwrap();
    assert!(started.new && started.execution != runs.execution);

    stage.heal(HOME).await;
    let report = report(&stage).await;
    let told: BTreeMap<i64, (&str, String)> = report
        .comparison
        .entries
        .iter()
        .map(|line| (line.amount_minor, (line.became.as_str(), line.subject.clone())))
        .collect();
    assert_eq!(
        told.keys().copied().collect::<Vec<_>>(),
        [10, 20, 30, 400, 500],
        "{told:?}"
    );
    for (amount, payment) in &acknowledged {
        assert_eq!(told[amount], ("recovered", payment.id.clone()));
    }
    assert_eq!(told[&400].0, "gone");
    assert_eq!(told[&500].0, "executed-again");
    let line = |amount| {
        report
            .comparison
            .entries
            .iter()
            .find(|line| line.amount_minor == amount)
    };
    let Became::ExecutedAgain { as_subject, .. } = &line(500).unwrap().became else {
        panic!("{report:?}");
    };
    assert_eq!(as_subject, &again.id);
    assert_eq!((report.complete, report.comparison.omitted), (true, 0));
    assert_eq!(report.comparison.totals["recovered"].amounts_minor[CURRENCY], 60);
    let text = lost_tail::describe(&report);
    for part in ["4.00 EUR", "gone", &again.id, "recovered"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // What the report says is what the serving ledger has.
    let ledger = stage.client.payments(PATIENCE).await.unwrap();
    let paid = |amount: i64| {
        ledger
            .iter()
            .filter(move |paid| paid.amount_minor == amount)
            .collect::<Vec<_>>()
    };
    for (amount, payment) in &acknowledged {
        let paid = paid(*amount);
        assert_eq!(
            (paid.len(), paid[0].posted_epoch, &paid[0].id),
            (1, 2, &payment.id)
        );
    }
    assert_eq!((paid(400).len(), paid(500).len()), (0, 1));

    // The evidence of the failover is completed, in both buckets.
    stage
        .until("the evidence is not completed in both regions", async |stage| {
            for slot in Slot::SERVING {
                let evidence = evidence(stage, slot).await?;
                let tail = evidence["lost_tail"]["comparison"]["totals"].as_object()?.clone();
                assert_eq!(tail["gone"]["entries"], 1, "{tail:?}");
            }
            Some(())
        })
        .await;

    // The old region follows, and nothing of the comparison runs on.
    stage
        .until("the old region is not fit", async |stage| fit(stage, HOME).await)
        .await;
    let names = stage.stack.names();
    let rds = stage.stack.cloud.rds(HOME);
    stage
        .until("the restored database stays", async |_| {
            let clusters = rds.describe_db_clusters().send().await.unwrap();
            let ids: Vec<&str> = clusters
                .db_clusters()
                .iter()
                .filter_map(|cluster| cluster.db_cluster_identifier())
                .collect();
            (ids == [names.aurora_cluster(Slot::Primary)]).then_some(())
        })
        .await;
    let kept = names.tail_snapshot(Slot::Primary, 2);
    assert_eq!(report.snapshot.as_deref(), Some(kept.as_str()));
    assert!(
        snapshots(&rds).await.contains(&kept),
        "what was kept stays while the stack lives"
    );

    // And with the stack all of it goes.
    let gone = down::down(&stage.stack, &stage.ui).await.unwrap();
    assert!(gone.left_over.is_empty(), "{:?}", gone.left_over);
    assert_eq!(snapshots(&rds).await, Vec::<String>::new());
    stage.cloud.stop().await;
}
