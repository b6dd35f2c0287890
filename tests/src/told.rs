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

/// Everything that a paged listing shows.
macro_rules! all {
    ($pages:expr) => {
        $pages
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .expect("it is listed")
    };
}

async fn logs(cloud: &Cloud, region: &str) -> Vec<Told> {
    let client = cloud.logs(region);
    let groups = all!(client.describe_log_groups().into_paginator().items());
    let mut all = Vec::new();
    for name in groups.iter().filter_map(|group| group.log_group_name()) {
        let events = client.filter_log_events().log_group_name(name);
        let pages = all!(events.into_paginator());
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
    let machines = all!(client.list_state_machines().into_paginator().items());
    let mut all = Vec::new();
    for machine in &machines {
        let executions = client
            .list_executions()
            .state_machine_arn(machine.state_machine_arn());
        for execution in &all!(executions.into_paginator().items()) {
            let arn = execution.execution_arn();
            let described = client.describe_execution().execution_arn(arn).send().await;
            let history = client
                .get_execution_history()
                .execution_arn(arn)
                .include_execution_data(true);
            let history = all!(history.into_paginator().items());
            all.push(Told {
                by: arn.to_owned(),
                text: format!("{:?}\n{history:?}", described.expect("it is there")),
            });
        }
    }
    all
}

async fn items(cloud: &Cloud, region: &str) -> Vec<Told> {
    let scan = cloud.dynamodb(region).scan().table_name("control-dev");
    let item = |item| Told {
        by: "control-dev".to_owned(),
        text: format!("{item:?}"),
    };
    all!(scan.into_paginator().items())
        .into_iter()
        .map(item)
        .collect()
}
