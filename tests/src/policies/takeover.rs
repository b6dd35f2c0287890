//! The actions that only a region needs which takes over: its probe's to start the workflow, its payment-processor's to read the
//! journal that the lost region left.

use std::time::Duration;

use bootstrap::local::Region;
use continuity::names::Slot;

use super::grants::Grant;
use super::series::Removal;
use super::stage::Stage;
use super::steps::logged;

/// How long a payment may take.
const COMES_THROUGH: Duration = Duration::from_secs(60);

/// The home region is lost while the standby's roles lack both actions; they are given back one after the other, and the standby
/// takes over. Leaves the home region as the standby. The stack must be allowed to decide by itself.
pub async fn run(stage: &mut Stage) -> [Removal; 2] {
    let region = stage.region(Slot::Dr).to_owned();
    let names = stage.stack.names();
    let [start, replay] = [
        (names.health_probe(Slot::Dr), "states:StartExecution"),
        (names.payment_processor(Slot::Dr), "dynamodb:Query"),
    ]
    .map(|(role, action)| Grant {
        role,
        action: action.to_owned(),
    });
    let home: Region = stage.stack.home().parse().expect("a region of the local cloud");
    stage.pay(COMES_THROUGH).await.expect("nothing is missing yet");
    stage.remove(&start).await;
    stage.remove(&replay).await;
    stage.local().outage(home, true).await.expect("the cloud answers");
    let started = logged(stage, &region, &start.role, &start).await;
    stage.give_back(&start).await;
    let replayed = logged(stage, &region, &replay.role, &replay).await;
    stage.give_back(&replay).await;
    stage.taken_over().await;
    stage
        .pay(COMES_THROUGH)
        .await
        .expect("nothing is missing any more");
    stage.local().heal(home).await.expect("the cloud answers");
    [
        Removal {
            grant: start,
            step: "failover (start)",
            outcome: started,
        },
        Removal {
            grant: replay,
            step: "failover (replay)",
            outcome: replayed,
        },
    ]
}
