//! Bridge: the databases behind the RDS control plane.
//!
//! On AWS a cluster is a database server. In the emulator it is a record. When a call that changes the servers has
//! succeeded there, the mirror does the same to the real servers, before the caller gets the answer. When the servers do not
//! follow, the record is changed back: the caller gets an error, and on AWS an error means that nothing has changed.

use crate::local::{AuroraMirror, MirrorError, Region, edge::percent};

/// The version of the RDS API.
const VERSION: &str = "2014-10-31";

/// What a successful RDS call means for the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::local::edge) enum Change {
    CreateCluster {
        region: Region,
        user: String,
        password: String,
        database: String,
    },
    SetPassword {
        user: String,
        password: String,
    },
    Failover {
        to: Region,
        allow_data_loss: bool,
    },
    Switchover {
        to: Region,
    },
    DeleteCluster {
        region: Region,
    },
}

/// Reads the change out of the call's form and the emulator's answer. `None` for calls that change no server.
pub(in crate::local::edge) fn change(region: Region, form: &str, answer: &str) -> Option<Change> {
    let value = |name| percent::value(form, name).filter(|value| !value.is_empty());
    match value("Action")?.as_str() {
        // A global secondary has no master user: its server follows the writer already.
        "CreateDBCluster" => Some(Change::CreateCluster {
            region,
            user: value("MasterUsername")?,
            password: value("MasterUserPassword")?,
            database: value("DatabaseName").unwrap_or_else(|| "postgres".to_owned()),
        }),
        "ModifyDBCluster" => {
            let password = value("MasterUserPassword")?;
            Some(Change::SetPassword {
                user: element(answer, "MasterUsername")?.to_owned(),
                password,
            })
        }
        "FailoverGlobalCluster" => Some(Change::Failover {
            to: target(&value("TargetDbClusterIdentifier")?, region),
            allow_data_loss: value("AllowDataLoss").is_some_and(|value| value == "true"),
        }),
        "SwitchoverGlobalCluster" => Some(Change::Switchover {
            to: target(&value("TargetDbClusterIdentifier")?, region),
        }),
        "DeleteDBCluster" => Some(Change::DeleteCluster { region }),
        _ => None,
    }
}

impl Change {
    /// The region whose server must do something; none when it is the writer's, wherever that is.
    fn region(&self) -> Option<Region> {
        match self {
            Change::CreateCluster { region, .. } | Change::DeleteCluster { region } => Some(*region),
            Change::Failover { to, .. } | Change::Switchover { to } => Some(*to),
            Change::SetPassword { .. } => None,
        }
    }
}

/// Makes the change on the servers.
pub(in crate::local::edge) async fn apply(
    mirror: &dyn AuroraMirror,
    change: Change,
) -> Result<(), MirrorError> {
    if let Some(region) = change
        .region()
        .filter(|region| !Region::DATABASES.contains(region))
    {
        return Err(MirrorError::Refused(format!(
            "the local cloud has no database server in {region}"
        )));
    }
    match change {
        Change::CreateCluster {
            region,
            user,
            password,
            database,
        } => mirror.create_cluster(region, &user, &password, &database).await,
        Change::SetPassword { user, password } => mirror.set_password(&user, &password).await,
        Change::Failover { to, allow_data_loss } => mirror.failover(to, allow_data_loss).await,
        Change::Switchover { to } => mirror.switchover(to).await,
        Change::DeleteCluster { region } => mirror.delete_cluster(region).await,
    }
}

/// The calls that take a change back in the emulator, in order. None for changes that the caller can simply repeat.
pub(in crate::local::edge) fn undo(form: &str, answer: &str) -> Vec<String> {
    let value = |name| percent::value(form, name).unwrap_or_default();
    let call = |action: &str, parameters: &[(&str, &str)]| {
        let parameters = parameters
            .iter()
            .map(|(name, value)| format!("&{name}={}", percent::encode(value)));
        format!(
            "Action={action}&Version={VERSION}{}",
            parameters.collect::<String>()
        )
    };
    let global = value("GlobalClusterIdentifier");
    match value("Action").as_str() {
        "CreateDBCluster" => {
            let cluster = value("DBClusterIdentifier");
            let leave = [
                ("GlobalClusterIdentifier", global.as_str()),
                ("DbClusterIdentifier", &cluster),
            ];
            let delete = [
                ("DBClusterIdentifier", cluster.as_str()),
                ("SkipFinalSnapshot", "true"),
            ];
            let leave = (!global.is_empty()).then(|| call("RemoveFromGlobalCluster", &leave));
            leave
                .into_iter()
                .chain([call("DeleteDBCluster", &delete)])
                .collect()
        }
        "RestoreDBClusterFromSnapshot" => {
            let cluster = value("DBClusterIdentifier");
            let delete = [
                ("DBClusterIdentifier", cluster.as_str()),
                ("SkipFinalSnapshot", "true"),
            ];
            vec![call("DeleteDBCluster", &delete)]
        }
        "FailoverGlobalCluster" | "SwitchoverGlobalCluster" => {
            let Some(writer) = element(answer, "FromDbClusterArn") else {
                return Vec::new();
            };
            let back = [
                ("GlobalClusterIdentifier", global.as_str()),
                ("TargetDbClusterIdentifier", writer),
                ("AllowDataLoss", "true"),
            ];
            vec![call("FailoverGlobalCluster", &back)]
        }
        _ => Vec::new(),
    }
}

/// The error that RDS answers when the servers did not follow.
pub(in crate::local::edge) fn error(error: &MirrorError) -> (http::StatusCode, String) {
    let (status, side, code) = match error {
        MirrorError::Refused(_) => (
            http::StatusCode::BAD_REQUEST,
            "Sender",
            "InvalidDBClusterStateFault",
        ),
        MirrorError::Failed(_) => (
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "Receiver",
            "InternalFailure",
        ),
    };
    let message = quick_xml::escape::escape(error.to_string()).into_owned();
    let text = format!(
        "<ErrorResponse xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><Error><Type>{side}</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>local</RequestId></ErrorResponse>"
    );
    (status, text)
}

/// The region of a cluster's ARN; a bare name is a cluster of the region that is called.
fn target(cluster: &str, called: Region) -> Region {
    cluster
        .split(':')
        .nth(3)
        .and_then(|region| region.parse().ok())
        .unwrap_or(called)
}

/// The text of the first element of that name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Region::{UsEast1, UsEast2};

    #[test]
    fn calls_that_change_a_server_are_understood() {
        let arn = "arn%3Aaws%3Ards%3Aus-east-2%3A000000000000%3Acluster%3Aaurora-dr-dev";
        let cases = [
            (
                "Action=CreateDBCluster&MasterUsername=u&MasterUserPassword=p%2Bq&DatabaseName=payments"
                    .to_owned(),
                Some(Change::CreateCluster {
                    region: UsEast1,
                    user: "u".into(),
                    password: "p+q".into(),
                    database: "payments".into(),
                }),
            ),
            (
                "Action=CreateDBCluster&GlobalClusterIdentifier=aurora-dev".to_owned(),
                None,
            ),
            (
                "Action=ModifyDBCluster&DBClusterIdentifier=c&MasterUserPassword=new".to_owned(),
                Some(Change::SetPassword {
                    user: "understudy".into(),
                    password: "new".into(),
                }),
            ),
            (
                "Action=ModifyDBCluster&DBClusterIdentifier=c&BackupRetentionPeriod=7".to_owned(),
                None,
            ),
            (
                format!("Action=FailoverGlobalCluster&TargetDbClusterIdentifier={arn}&AllowDataLoss=true"),
                Some(Change::Failover {
                    to: UsEast2,
                    allow_data_loss: true,
                }),
            ),
            (
                format!("Action=FailoverGlobalCluster&TargetDbClusterIdentifier={arn}"),
                Some(Change::Failover {
                    to: UsEast2,
                    allow_data_loss: false,
                }),
            ),
            (
                format!("Action=SwitchoverGlobalCluster&TargetDbClusterIdentifier={arn}"),
                Some(Change::Switchover { to: UsEast2 }),
            ),
            (
                "Action=DeleteDBCluster&DBClusterIdentifier=c".to_owned(),
                Some(Change::DeleteCluster { region: UsEast1 }),
            ),
            ("Action=DescribeDBClusters".to_owned(), None),
        ];
        let answer = "<DBCluster><MasterUsername>understudy</MasterUsername></DBCluster>";
        for (form, expected) in cases {
            assert_eq!(change(UsEast1, &form, answer), expected, "{form}");
        }
    }

    #[test]
    fn a_change_that_the_servers_refused_is_taken_back() {
        let create =
            "Action=CreateDBCluster&DBClusterIdentifier=c&GlobalClusterIdentifier=g&MasterUsername=u";
        assert_eq!(
            undo(create, ""),
            [
                "Action=RemoveFromGlobalCluster&Version=2014-10-31&GlobalClusterIdentifier=g&DbClusterIdentifier=c",
                "Action=DeleteDBCluster&Version=2014-10-31&DBClusterIdentifier=c&SkipFinalSnapshot=true",
            ]
        );
        let switch = "Action=SwitchoverGlobalCluster&GlobalClusterIdentifier=g&TargetDbClusterIdentifier=new";
        let answer =
            "<FailoverState><FromDbClusterArn>arn:aws:rds:r:1:cluster:old</FromDbClusterArn></FailoverState>";
        assert_eq!(
            undo(switch, answer),
            [
                "Action=FailoverGlobalCluster&Version=2014-10-31&GlobalClusterIdentifier=g\
              &TargetDbClusterIdentifier=arn%3Aaws%3Ards%3Ar%3A1%3Acluster%3Aold&AllowDataLoss=true"
            ]
        );
        assert_eq!(
            undo("Action=ModifyDBCluster&MasterUserPassword=x", ""),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_refusal_and_a_failure_are_errors_of_rds() {
        let (status, text) = error(&MirrorError::Refused("`b` < c".into()));
        assert_eq!(status, 400);
        assert!(
            text.contains("<Code>InvalidDBClusterStateFault</Code><Message>`b` &lt; c</Message>"),
            "{text}"
        );
        assert_eq!(error(&MirrorError::Failed("x".into())).0, 500);
    }
}
