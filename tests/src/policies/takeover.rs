//! The actions that only a region needs which takes over: its probe's to start the workflow, its coordinator's to promote the
//! database, its payment-processor's to read the journal that the lost region left.

use std::time::Duration;

use bootstrap::local::Region;
use continuity::names::Slot;

use super::grants::Grant;
use super::series::Removal;
use super::stage::Stage;
use super::steps::logged;

/// The stack that loses its home region: it may decide by itself, and its home is not where IAM is, which gives the actions back.
pub const CONFIGURATION: &str =
    "[regions]\nprimary = \"us-east-2\"\ndr = \"us-east-1\"\nwitness = \"us-west-2\"\n";
/// So many actions are taken away.
pub const ACTIONS: usize = 3;
/// How long a payment may take.
const COMES_THROUGH: Duration = Duration::from_secs(60);

/// The home region is lost while the standby's roles lack all three actions; they are given back one after the other, and the standby
/// takes over. Leaves the home region as the standby. The stack is one of [`CONFIGURATION`].
pub async fn run(stage: &mut Stage) -> Vec<Removal> {
    let region = stage.region(Slot::Dr).to_owned();
    let names = stage.stack.names();
    let needed: [(_, Grant); ACTIONS] = [
        (
            "failover (start)",
            names.health_probe(Slot::Dr),
            "states:StartExecution",
        ),
        (
            "failover (promote)",
            names.failover_coordinator(Slot::Dr),
            "rds:FailoverGlobalCluster",
        ),
        (
            "failover (replay)",
            names.payment_processor(Slot::Dr),
            "dynamodb:Query",
        ),
    ]
    .map(|(step, role, action)| {
        let action = action.to_owned();
        (step, Grant { role, action })
    });
    let home: Region = stage.stack.home().parse().expect("a region of the local cloud");
    stage.pay(COMES_THROUGH).await.expect("nothing is missing yet");
    for (_, grant) in &needed {
        stage.remove(grant).await;
    }
    stage.local().outage(home, true).await.expect("the cloud answers");
    let mut removals = Vec::new();
    for (step, grant) in needed {
        // The function has the role's name.
        let outcome = logged(stage, &region, &grant.role, &grant).await;
        stage.give_back(&grant).await;
        removals.push(Removal { grant, step, outcome });
    }
    stage.taken_over().await;
    stage
        .pay(COMES_THROUGH)
        .await
        .expect("nothing is missing any more");
    stage.local().heal(home).await.expect("the cloud answers");
    removals
}
