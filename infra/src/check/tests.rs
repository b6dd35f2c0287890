//! Each rule against a stack that breaks it, in one place at a time. The stack is the default one, with something changed in what it
//! wants.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::blueprint::{blueprint, seed};
use crate::resources::secret::Generation;
use crate::spec::{Serverless, Spec};

const ACCOUNT: &str = "000000000000";

fn default_stack() -> Vec<Wanted> {
    blueprint(&Spec::default(), ACCOUNT).wanted().unwrap()
}

/// What the checker finds after a field was changed.
fn with(key: &str, path: &str, value: Value) -> Vec<String> {
    found(|all| {
        let one = all.iter_mut().find(|one| one.key == key).unwrap();
        *one.spec.pointer_mut(path).unwrap() = value;
    })
}

/// What it finds after a resource was left out.
fn without(key: &str) -> Vec<String> {
    found(|all| {
        let before = all.len();
        all.retain(|one| one.key != key);
        assert_eq!(all.len(), before - 1);
    })
}

fn found(change: impl FnOnce(&mut Vec<Wanted>)) -> Vec<String> {
    let mut all = default_stack();
    change(&mut all);
    findings(&all, true).iter().map(ToString::to_string).collect()
}

/// Both slots changed alike, so that parity is content.
fn in_both(key: &str, path: &str, value: &Value) -> Vec<String> {
    found(|all| {
        for slot in ["primary", "dr"] {
            let key = format!("{key}.{slot}");
            let one = all.iter_mut().find(|one| one.key == key).unwrap();
            *one.spec.pointer_mut(path).unwrap() = value.clone();
        }
    })
}

#[test]
fn stacks_as_they_are_made_have_no_findings() {
    let mut large = Spec {
        suffix: "sixteenlettersab".into(),
        domain: Some("payments.example.com".into()),
        ..Spec::default()
    };
    large.network.zones = 3;
    large.aurora.instances = 2;
    large.aurora.instance_class = "db.serverless".into();
    large.aurora.serverless = Some(Serverless {
        min_acu: 8.0,
        max_acu: 64.0,
    });
    large.alerts.address = Some("ops@example.com".into());
    for spec in [Spec::default(), large] {
        for stack in [blueprint(&spec, ACCOUNT), seed(&spec, ACCOUNT)] {
            assert_eq!(check(&stack), Ok(Vec::new()));
        }
    }
}

#[test]
fn of_a_part_of_a_stack_only_what_is_there_is_judged() {
    let all = default_stack();
    let part: Vec<Wanted> = all
        .iter()
        .filter(|one| one.key.ends_with(".dr"))
        .cloned()
        .collect();
    let missing = |whole| {
        let found = findings(&part, whole);
        found
            .iter()
            .filter(|one| one.problem.contains("counterpart") || one.rule == Rule::Replication)
            .count()
    };
    assert_eq!(missing(false), 0);
    assert!(missing(true) > 20);
}

#[test]
fn networks_that_overlap_or_lie_outside_are_found() {
    assert_eq!(
        with("vpc.dr", "/cidr", json!("10.0.128.0/17")),
        [
            "`subnet.a.dr` breaks the rule `network`: its network 10.1.0.0/24 is not inside its VPC's 10.0.128.0/17; AWS refuses \
             the subnet; give it a part of the VPC's network",
            "`subnet.b.dr` breaks the rule `network`: its network 10.1.1.0/24 is not inside its VPC's 10.0.128.0/17; AWS refuses \
             the subnet; give it a part of the VPC's network",
            "`vpc.dr` breaks the rule `network`: its network 10.0.128.0/17 overlaps 10.0.0.0/16 of `vpc.primary`; give them \
             networks that share no address",
        ]
    );
    assert_eq!(
        with("subnet.b.primary", "/cidr", json!("10.0.0.128/25")),
        [
            "`subnet.b.primary` breaks the rule `network`: its network 10.0.0.128/25 overlaps 10.0.0.0/24 of \
             `subnet.a.primary`; give them networks that share no address"
        ]
    );
    assert_eq!(
        with("vpc.primary", "/cidr", json!("10.0.0.1/16")),
        ["`vpc.primary` breaks the rule `network`: `10.0.0.1/16` is no network; use for example 10.0.0.0/16"]
    );
}

#[test]
fn names_that_aws_refuses_are_found() {
    let long = "f".repeat(65);
    let bucket = "packages--of-everybody-with-a-name-that-is-longer-than-s3-takes-it";
    for (key, field, name, problem) in [
        (
            "function.health-probe.witness",
            "name",
            long.as_str(),
            "has 65 characters, and AWS takes 1 to 64",
        ),
        (
            "artifacts.witness",
            "bucket",
            bucket,
            "has 66 characters, and AWS takes 3 to 63",
        ),
        (
            "artifacts.witness",
            "bucket",
            "Packages",
            "has 'P', which AWS does not take there",
        ),
        (
            "artifacts.witness",
            "bucket",
            "packages-",
            "does not do: it must have a letter or digit at both ends, and no two dots in a row",
        ),
        (
            "db-cluster.dr",
            "identifier",
            "aurora--dr",
            "does not do: it must begin with a letter, and have no hyphen last nor two in a row",
        ),
        (
            "kms-key.primary",
            "alias",
            "alias/aws/mine",
            "does not do: it must begin with `alias/`, and not with `alias/aws/`",
        ),
        (
            "security-group.database.dr",
            "name",
            "sg-database",
            "does not do: it must not begin with `sg-`",
        ),
        (
            "hosted-zone",
            "domain",
            "payments..example.com",
            "does not do: between its dots it must have 1 to 63 characters, without a hyphen at either end",
        ),
        (
            "state-machine.deploy.dr",
            "name",
            "deploy dr",
            "has ' ', which AWS does not take there",
        ),
    ] {
        let wanted = format!(
            "`{key}` breaks the rule `name`: its {field} `{name}` {problem}; choose another suffix or name"
        );
        let found = with(key, &format!("/{field}"), json!(name));
        assert!(found.contains(&wanted), "{wanted}\n{found:#?}");
    }
}

#[test]
fn what_is_open_to_the_world_is_found() {
    let rule = |peer: &str| json!([{"protocol": "tcp", "from_port": 5432, "to_port": 5432, "peer": peer}]);
    for world in ["0.0.0.0/0", "::/0"] {
        assert_eq!(
            with("security-group.database.dr", "/ingress", rule(world)),
            [format!(
                "`security-group.database.dr` breaks the rule `open`: tcp port 5432 is open to {world}; let in a security group \
                 or a network of your own"
            )]
        );
    }
    let everybody = json!({"Statement": [{"Sid": "All", "Effect": "Allow", "Principal": {"AWS": ["*"]},
        "Action": ["sns:Publish"], "Resource": ["arn:aws:sns:us-east-1:000000000000:alerts"]}]});
    assert_eq!(
        in_both("alert-topic", "/policy", &everybody),
        ["primary", "dr"]
            .map(|slot| format!(
                "`alert-topic.{slot}` breaks the rule `open`: statement `All` of its policy lets anybody in; name the principal, \
                 or bound it with a condition"
            ))
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    let mut bounded = everybody;
    bounded["Statement"][0]["Condition"] = json!({"StringEquals": {"aws:SourceAccount": [ACCOUNT]}});
    assert_eq!(in_both("alert-topic", "/policy", &bounded), Vec::<String>::new());
    assert_eq!(
        in_both("subnet.a", "/public_addresses", &json!(true))[0],
        "`subnet.a.dr` breaks the rule `open`: what is started in it would have a public address; set `public_addresses` to false"
    );
    assert_eq!(
        in_both("db-instance.1", "/publicly_accessible", &json!(true))[0],
        "`db-instance.1.dr` breaks the rule `open`: the database would have a public address; set `publicly_accessible` to false"
    );
    assert_eq!(
        with(
            "artifacts-public-access-block.witness",
            "/block_public_acls",
            json!(false)
        ),
        [
            "`artifacts-public-access-block.witness` breaks the rule `open`: `block_public_acls` is off, so the bucket could be \
             made public; switch all four on"
        ]
    );
    assert_eq!(
        without("artifacts-public-access-block.witness"),
        [
            "`artifacts.witness` breaks the rule `open`: nothing keeps it from being made public; add an `s3-public-access-block`"
        ]
    );
    assert_eq!(
        in_both("api-permission", "/source_arn", &json!(""))[0],
        "`api-permission.dr` breaks the rule `open`: anybody's API or resource could call the function; name the service and the \
         ARN that it calls on behalf of"
    );
}

#[test]
fn what_is_not_encrypted_is_found() {
    let line = |key: &str, rest: &str| format!("`{key}` breaks the rule `encryption`: {rest}");
    let no_key = "`kms_key_arn` names no key; encrypt it with the stack's key of its region";
    for key in [
        "db-cluster.dr",
        "data-encryption.primary",
        "alert-topic.dr",
        "secret.database",
    ] {
        assert_eq!(with(key, "/kms_key_arn", json!("")), [line(key, no_key)]);
    }
    assert_eq!(
        with("secret.database", "/replica/kms_key_arn", json!("")),
        [line("secret.database", &no_key.replace("`kms", "`replica.kms"))]
    );
    assert_eq!(
        with("global-cluster", "/storage_encrypted", json!(false)),
        [line(
            "global-cluster",
            "its storage is not encrypted; switch it on"
        )]
    );
    assert_eq!(
        with("kms-key.primary", "/rotation", json!(false)),
        [line("kms-key.primary", "the key is never rotated; switch it on")]
    );
    let parameters = json!({"rds.force_ssl": "0"});
    assert_eq!(
        in_both("db-cluster-parameter-group", "/parameters", &parameters)[0],
        line(
            "db-cluster-parameter-group.dr",
            "the database takes connections without TLS; set `rds.force_ssl` to 1"
        )
    );
    assert!(
        with("data-replication.dr", "/rules/0/replica_kms_key_arn", json!(null)).contains(&line(
            "data-replication.dr",
            "rule \"everything\" leaves replicas without a key; name the key of the other region"
        ))
    );
    assert!(without("data-encryption.dr").contains(&line(
        "data.dr",
        "nothing says which key encrypts it; add an `s3-encryption` with the stack's key"
    )));
    assert_eq!(
        without("artifacts-policy.witness"),
        [line(
            "artifacts.witness",
            "it can be reached without TLS; add an `s3-policy` that denies it"
        )]
    );
    assert_eq!(
        with("artifacts-policy.witness", "/policy/Statement", json!([])),
        [line(
            "artifacts-policy.witness",
            "it does not deny requests without TLS; deny everything where `aws:SecureTransport` is false"
        )]
    );
    let spec = Spec {
        domain: Some("payments.example.com".into()),
        ..Spec::default()
    };
    let mut all = blueprint(&spec, ACCOUNT).wanted().unwrap();
    for one in all.iter_mut().filter(|one| one.kind == "api-domain") {
        one.spec["security_policy"] = json!("TLS_1_0");
    }
    assert_eq!(
        findings(&all, true)[0].to_string(),
        line(
            "api-domain.payments.example.com.dr",
            "`TLS_1_0` lets clients use broken versions of TLS; use TLS_1_2 or later"
        )
    );
}

#[test]
fn policies_that_allow_too_much_are_found() {
    let judged = |statement: Value| {
        let policies = json!({"health-probe": {"Statement": [statement]}});
        let found = with("role-policies.health-probe.witness", "/policies", policies);
        found.first().cloned().unwrap_or_default()
    };
    let line = |rest: &str| {
        format!(
            "`role-policies.health-probe.witness` breaks the rule `policy`: statement `It` {rest}; name the actions, or the \
             resources by their ARN"
        )
    };
    let allow = |action: &str, resource: &str| json!({"Sid": "It", "Effect": "Allow", "Action": [action], "Resource": [resource]});
    for (action, resource) in [
        ("*", "*"),
        ("s3:*", "*"),
        ("s3:Get*", "*"),
        ("dynamodb:*", "arn:aws:dynamodb:us-east-1:000000000000:*"),
        ("s3:*", "arn:aws:s3:::*"),
        ("s3:*", "arn:aws:s3:::*/*"),
    ] {
        assert_eq!(
            judged(allow(action, resource)),
            line(&format!("allows `{action}` on `{resource}`"))
        );
    }
    for (action, resource) in [
        ("ec2:Describe*", "*"),
        ("route53:List*", "*"),
        ("ec2:CreateVpc", "*"),
        ("s3:*", "arn:aws:s3:::mine/*"),
    ] {
        assert_eq!(judged(allow(action, resource)), "", "{action} on {resource}");
    }
    assert_eq!(
        judged(json!({"Sid": "It", "Effect": "Deny", "Action": "*", "Resource": "*"})),
        ""
    );
    assert_eq!(
        judged(json!({"Sid": "It", "Effect": "Allow", "NotAction": ["iam:*"], "Resource": "*"})),
        line("allows everything but what its NotAction names")
    );
    let admin = json!(["arn:aws:iam::aws:policy/AdministratorAccess"]);
    assert_eq!(
        with("role-attachments.health-probe.witness", "/policies", admin),
        [
            "`role-attachments.health-probe.witness` breaks the rule `policy`: `arn:aws:iam::aws:policy/AdministratorAccess` \
             allows every action on every resource of a service or of all; attach a policy that names what the role needs"
        ]
    );
}

#[test]
fn a_key_policy_may_let_the_accounts_root_do_everything_and_nobody_else() {
    let judged = |principal: Value, action: &str| {
        let statement = json!({"Sid": "It", "Effect": "Allow", "Principal": principal, "Action": [action], "Resource": ["*"]});
        let found = in_both("kms-key-policy", "/policy/Statement", &json!([statement]));
        found.first().cloned().unwrap_or_default()
    };
    let root = json!({"AWS": ["arn:aws:iam::000000000000:root"]});
    assert_eq!(judged(root, "kms:*"), "");
    assert_eq!(
        judged(
            json!({"Service": ["cloudwatch.amazonaws.com"]}),
            "kms:GenerateDataKey*"
        ),
        ""
    );
    let problem = "`kms-key-policy.dr` breaks the rule `policy`: statement `It` allows `kms:*` to others than the account's \
                   root; name the actions, or the resources by their ARN";
    for principal in [
        json!({"AWS": ["arn:aws:iam::000000000000:role/somebody"]}),
        json!({"Service": ["cloudwatch.amazonaws.com"]}),
        json!({"AWS": ["arn:aws:iam::000000000000:root"], "Service": ["cloudwatch.amazonaws.com"]}),
    ] {
        assert_eq!(judged(principal, "kms:*"), problem);
    }
}

#[test]
fn what_is_not_replicated_both_ways_is_found() {
    let line = |key: &str, rest: &str| format!("`{key}` breaks the rule `replication`: {rest}");
    let nowhere = "it is replicated to no bucket of the other region; add an `s3-replication` with a rule that is enabled and for \
                   the whole bucket";
    let not_back = "`data.primary` is replicated to it, but not back; add the other direction: after a failover this is the \
                    bucket that is written";
    for found in [
        without("data-replication.dr"),
        with("data-replication.dr", "/rules/0/enabled", json!(false)),
        with(
            "data-replication.dr",
            "/rules/0/destination_arn",
            json!("arn:aws:s3:::elsewhere"),
        ),
    ] {
        assert!(found.contains(&line("data.dr", nowhere)), "{found:#?}");
        assert!(found.contains(&line("data.dr", not_back)), "{found:#?}");
    }
    assert!(without("data-versioning.primary").contains(&line(
        "data.primary",
        "it is not versioned, and S3 replicates versioned buckets only; add an `s3-versioning`"
    )));
    assert_eq!(
        with("secret.database", "/replica/region", json!("us-east-1")),
        [line(
            "secret.database",
            "it has no replica in the other region, whose functions could not log in after a failover; set `replica.region` to \
             the other serving region"
        )]
    );
    assert_eq!(
        with("journal-table", "/replicas", json!([])),
        [line(
            "journal-table",
            "it has no replica in another region; add the other serving region to `replicas`"
        )]
    );
    assert_eq!(
        without("control-table-replica.witness"),
        [line(
            "control-table",
            "nothing looks after its replica in us-west-2, which inherits neither tags nor protection; add a `table-replica` there"
        )]
    );
    assert!(without("db-cluster.dr").contains(&line(
        "global-cluster",
        "it has members in 1 region(s); a global cluster needs a `db-cluster` in each serving region"
    )));
}

#[test]
fn a_standby_that_is_not_what_home_is_is_found() {
    let line = |key: &str, rest: &str| format!("`{key}` breaks the rule `parity`: {rest}");
    for (key, field, value, here, there) in [
        ("db-cluster", "engine_version", json!("16.99"), "\"16.99\"", None),
        (
            "db-instance.1",
            "class",
            json!("db.r9g.mini"),
            "\"db.r9g.mini\"",
            None,
        ),
        ("function.payment-processor", "memory_mb", json!(1), "1", None),
        (
            "function.payment-processor",
            "reserved_concurrency",
            json!(7),
            "7",
            None,
        ),
        (
            "function.payment-processor",
            "code_sha256",
            json!("ab"),
            "\"ab\"",
            Some("\"\""),
        ),
        ("api-stage", "rate_limit", json!(1), "1", None),
        ("alarm.drift", "threshold", json!(9.0), "9.0", Some("0.0")),
        ("log-group.api", "retention_days", json!(1), "1", None),
    ] {
        let there = there.map_or_else(
            || {
                let all = default_stack();
                let home = all
                    .iter()
                    .find(|one| one.key == format!("{key}.primary"))
                    .unwrap();
                home.spec[field].to_string()
            },
            str::to_owned,
        );
        let rest = format!("`{field}` is {here}, and {there} in `{key}.primary`; give both the same value");
        assert_eq!(
            with(&format!("{key}.dr"), &format!("/{field}"), value),
            [line(&format!("{key}.dr"), &rest)]
        );
    }
    assert_eq!(
        with(
            "function.health-probe.dr",
            "/environment",
            json!({"RUST_LOG": "info"})
        ),
        [line(
            "function.health-probe.dr",
            "`environment` is of another shape than in `function.health-probe.primary`; give both the same entries; only names \
             and addresses may differ"
        )]
    );
    assert_eq!(
        without("alarm.drift.dr"),
        [line(
            "alarm.drift.primary",
            "it has no counterpart `alarm.drift.dr`; declare it for both serving slots"
        )]
    );
    assert_eq!(
        without("alarm.drift.primary"),
        [line(
            "alarm.drift.dr",
            "it has no counterpart `alarm.drift.primary`; declare it for both serving slots"
        )]
    );
    assert_eq!(
        without("kms-replica-key.dr"),
        [line(
            "kms-key.primary",
            "there are 1 of `kms-key` and 0 of `kms-replica-key`; the standby needs one for each of the home region"
        )]
    );
}

#[test]
fn weak_and_written_passwords_are_found() {
    let weak = |length, alphabet| passwords::weakness(&Generation { length, alphabet });
    assert_eq!(weakness_of_ours(), None);
    assert_eq!(
        weak(20, "0123456789").as_deref(),
        Some("passwords carry 66 bits, and 128 are needed")
    );
    assert_eq!(
        weak(40, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab").as_deref(),
        Some("passwords carry 40 bits, and 128 are needed")
    );
    assert_eq!(
        weak(40, "abc@").as_deref(),
        Some("passwords may hold '@', which Aurora refuses")
    );
    assert_eq!(
        weak(100, "abcdef").as_deref(),
        Some("passwords have 100 characters, and Aurora takes 8 to 99")
    );
    assert_eq!(
        in_both("db-cluster", "/credentials", &json!("hunter2"))[0],
        "`db-cluster.dr` breaks the rule `password`: its password is in no secret of the stack; name a `secret` in `credentials`"
    );
}

fn weakness_of_ours() -> Option<String> {
    passwords::weakness(&crate::resources::secret::PASSWORD)
}

#[test]
fn alarms_that_tell_nobody_are_found() {
    let line = |rest: &str| {
        format!("`alarm.drift.dr` breaks the rule `alarm`: {rest}; let it tell the region's alert topic")
    };
    let targets = |target: &str| with("alarm.drift.dr", "/alarm_actions", json!([target]));
    let away = "${alert-topic.primary.arn}";
    assert_eq!(
        targets(away),
        [line(&format!("`{away}` is no topic of us-east-2"))]
    );
    let arn = "arn:aws:sns:us-east-1:000000000000:alerts";
    assert_eq!(targets(arn), [line(&format!("`{arn}` is no topic of us-east-2"))]);
    assert_eq!(
        targets("${vpc.dr.vpc_id}"),
        [line("`${vpc.dr.vpc_id}` is no topic of us-east-2")]
    );
    assert_eq!(
        in_both("alarm.drift", "/alarm_actions", &json!([]))[0],
        line("it tells nobody")
    );
    assert_eq!(
        in_both("alarm.drift", "/actions_enabled", &json!(false))[0],
        line("its actions are switched off")
    );
}
