//! Everything that a stack tells anybody: the logs of its functions and APIs, the histories of its workflows, the documents of its
//! control table, and what the local cloud logs of its calls.

use infra::cloud::Cloud;

use crate::CloudFolder;

/// A text, and where it was told.
#[derive(Debug)]
pub struct Told {
    /// A file, a log group, an execution or an item.
    pub by: String,
    /// What it says.
    pub text: String,
}

/// What the stack `dev` has told so far in these regions.
pub async fn told(folder: &CloudFolder, cloud: &Cloud, regions: &[&str]) -> Vec<Told> {
    let mut all = files(folder);
    for region in regions {
        all.extend(logs(cloud, region).await);
        all.extend(histories(cloud, region).await);
    }
    all.extend(items(cloud, regions[0]).await);
    all
}

fn files(folder: &CloudFolder) -> Vec<Told> {
    let logs = std::fs::read_dir(folder.file("logs")).expect("the cloud has logs");
    let paths = logs.map(|entry| entry.expect("it can be read").path());
    let log = |path: std::path::PathBuf| Told {
        text: String::from_utf8_lossy(&std::fs::read(&path).expect("it can be read")).into_owned(),
        by: path.display().to_string(),
    };
    paths.chain([folder.file("edge.log")]).map(log).collect()
}

async fn logs(cloud: &Cloud, region: &str) -> Vec<Told> {
    let client = cloud.logs(region);
    let groups = client.describe_log_groups().into_paginator().items().send();
    let groups = groups
        .collect::<Result<Vec<_>, _>>()
        .await
        .expect("they are listed");
    let mut all = Vec::new();
    for name in groups.iter().filter_map(|group| group.log_group_name()) {
        let events = client
            .filter_log_events()
            .log_group_name(name)
            .into_paginator()
            .send();
        let pages = events
            .collect::<Result<Vec<_>, _>>()
            .await
            .expect("they are listed");
        let messages = pages.iter().flat_map(|page| page.events());
        let lines: Vec<&str> = messages.filter_map(|event| event.message()).collect();
        all.push(Told {
            by: format!("{name} in {region}"),
            text: lines.join("\n"),
        });
    }
    all
}

async fn histories(cloud: &Cloud, region: &str) -> Vec<Told> {
    let client = cloud.sfn(region);
    let machines = client.list_state_machines().into_paginator().items().send();
    let machines = machines
        .collect::<Result<Vec<_>, _>>()
        .await
        .expect("they are listed");
    let mut all = Vec::new();
    for machine in &machines {
        let executions = client
            .list_executions()
            .state_machine_arn(machine.state_machine_arn());
        let executions = executions.into_paginator().items().send();
        let executions = executions
            .collect::<Result<Vec<_>, _>>()
            .await
            .expect("they are listed");
        for execution in &executions {
            let arn = execution.execution_arn();
            let described = client.describe_execution().execution_arn(arn).send().await;
            let history = client
                .get_execution_history()
                .execution_arn(arn)
                .include_execution_data(true);
            let history = history.into_paginator().items().send();
            let history = history.collect::<Result<Vec<_>, _>>().await.expect("it is kept");
            all.push(Told {
                by: arn.to_owned(),
                text: format!("{:?}\n{history:?}", described.expect("it is there")),
            });
        }
    }
    all
}

async fn items(cloud: &Cloud, region: &str) -> Vec<Told> {
    let items = cloud
        .dynamodb(region)
        .scan()
        .table_name("control-dev")
        .into_paginator()
        .items()
        .send();
    let items = items
        .collect::<Result<Vec<_>, _>>()
        .await
        .expect("they are listed");
    let item = |item| Told {
        by: "control-dev".to_owned(),
        text: format!("{item:?}"),
    };
    items.into_iter().map(item).collect()
}
