#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::settings::{FILLED_IN, keys_of};
use super::*;

/// The message about a file.
fn refused(text: &str) -> String {
    match Spec::from_toml(text) {
        Ok(_) => panic!("it was taken:\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// A configuration with one setting, as a file.
fn file_with(setting: &str, value: &str) -> String {
    match setting.rsplit_once('.') {
        Some((table, key)) => format!("[{table}]\n{key} = {value}\n"),
        None => format!("{setting} = {value}\n"),
    }
}

#[test]
fn an_empty_file_is_the_default_stack() {
    assert_eq!(Spec::from_toml("").unwrap(), Spec::default());
}

#[test]
fn the_template_is_the_default_stack() {
    assert_eq!(Spec::from_toml(TEMPLATE).unwrap(), Spec::default());
}

/// A commented setting, `# domain = "..."`, or the head of a commented table.
fn is_commented_setting(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("# ") else {
        return false;
    };
    let key = rest.split_once(" = ").map(|(key, _)| key);
    rest == "[aurora.serverless]" || key.is_some_and(|key| !key.contains(' '))
}

#[test]
fn what_the_template_comments_out_can_be_used_too() {
    let everything: Vec<&str> = TEMPLATE
        .lines()
        .map(|line| {
            if is_commented_setting(line) {
                &line[2..]
            } else {
                line
            }
        })
        .collect();
    let text = everything.join("\n").replace("db.r6g.large", "db.serverless");
    let spec = Spec::from_toml(&text).unwrap();
    assert_eq!(spec.domain.as_deref(), Some("payments.example.com"));
    assert_eq!(spec.alerts.address.as_deref(), Some("oncall@example.com"));
    assert_eq!(spec.aurora.serverless.unwrap().min_acu, 8.0);
    assert_eq!(spec.tags["Team"], "payments");
}

#[test]
fn the_template_shows_every_setting() {
    let mut table = String::new();
    let mut shown = BTreeSet::new();
    for line in TEMPLATE.lines() {
        let line = if is_commented_setting(line) {
            &line[2..]
        } else {
            line
        };
        if let Some(head) = line.strip_prefix('[') {
            table = format!("{}.", head.trim_end_matches(']'));
            shown.insert(head.trim_end_matches(']').to_owned());
        } else if let Some((key, _)) = line.split_once(" = ")
            && !line.starts_with('#')
        {
            shown.insert(format!("{table}{key}"));
        }
    }
    for setting in SETTINGS {
        assert!(
            shown.contains(setting.path),
            "{} is not in stack.toml",
            setting.path
        );
    }
}

/// Every leaf of the type, as the table of settings names it.
fn leaves(prefix: &str, json: &serde_json::Value, into: &mut BTreeSet<String>) {
    let texts = SETTINGS
        .iter()
        .chain(FILLED_IN)
        .any(|s| s.path == prefix && s.shape == Shape::Texts);
    match json {
        serde_json::Value::Object(map) if !texts => {
            for (key, value) in map {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                leaves(&path, value, into);
            }
        }
        _ => {
            into.insert(prefix.to_owned());
        }
    }
}

#[test]
fn the_table_of_settings_is_the_type() {
    let mut spec = Spec::default();
    spec.aurora.serverless = Some(Serverless {
        min_acu: 8.0,
        max_acu: 32.0,
    });
    let mut fields = BTreeSet::new();
    leaves("", &serde_json::to_value(spec).unwrap(), &mut fields);
    let settings: BTreeSet<String> = SETTINGS
        .iter()
        .chain(FILLED_IN)
        .map(|s| s.path.to_owned())
        .collect();
    assert_eq!(fields, settings);
}

#[test]
fn the_default_survives_toml_and_json() {
    let spec = Spec::default();
    assert_eq!(Spec::from_toml(&toml::to_string(&spec).unwrap()).unwrap(), spec);
    assert_eq!(
        serde_json::from_str::<Spec>(&serde_json::to_string(&spec).unwrap()).unwrap(),
        spec
    );
}

#[test]
fn a_problem_has_its_line_and_column_the_reason_and_the_fix() {
    let text = "suffix = \"dev\"\n\n[network]\nprimary_cidr = \"10.0.0.0/16\"\nzones = 3\n\n  dr_cidr = \"10.0.0.0/16\"\n";
    assert_eq!(
        refused(text),
        "stack.toml:7:13: network.dr_cidr is \"10.0.0.0/16\": it overlaps network.primary_cidr, which is \
         \"10.0.0.0/16\"; use for example \"10.1.0.0/16\""
    );
}

#[test]
fn a_default_that_collides_is_reported_at_what_was_set() {
    assert_eq!(
        refused("[network]\nprimary_cidr = \"10.1.0.0/16\"\n"),
        "stack.toml:2:16: network.dr_cidr is \"10.1.0.0/16\" by default: it overlaps network.primary_cidr, which is \
         \"10.1.0.0/16\"; use for example \"10.0.0.0/16\""
    );
}

#[test]
fn everything_wrong_is_reported_at_once_in_the_order_of_the_file() {
    let text = "sufix = \"dev\"\ndomain = \"https://pay.example.com/v1\"\n\n[network]\nzones = \"two\"\n\n[api]\nrate_limit = 0\n\n[drill]\nschedule = \"cron(0 6 * * TUE *)\"\n";
    let message = refused(text);
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 6, "{message}");
    assert_eq!(lines[0], "the configuration has 5 problems");
    for (line, part) in lines[1..].iter().zip([
        "stack.toml:1:1: sufix: there is no such setting; did you mean `suffix`?",
        "stack.toml:2:10: domain is \"https://pay.example.com/v1\": it must be a domain, not an address; use \"pay.example.com\"",
        "stack.toml:5:9: network.zones is \"two\": it must be a whole number; write a number from 2 to 6, without quotes",
        "stack.toml:8:14: api.rate_limit is 0: that is too little; use 1 to 100000",
        "stack.toml:11:12: drill.schedule is \"cron(0 6 * * TUE *)\": day of month and day of week are both given; write \"?\" for one of the two",
    ]) {
        assert_eq!(line.trim_start(), part);
    }
}

#[test]
fn a_suffix_of_the_command_line_is_named_as_such() {
    let source = Source::file("stack.toml", "suffix = \"dev\"\n").suffix(Some("x-dev"));
    assert_eq!(
        Spec::load(&source).unwrap_err().to_string(),
        "--suffix: suffix is \"x-dev\": a hyphen would make names end like those of the stack that is called by what \
         follows it; leave the hyphens out"
    );
    let good = Source::file("stack.toml", "suffix = \"not good\"\n").suffix(Some("prod"));
    assert_eq!(Spec::load(&good).unwrap().suffix, "prod");
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    let message = refused("suffix = \"dev\"\n[network\nzones = 2\n");
    assert!(
        message.contains("stack.toml:2:") && message.contains("this is no TOML"),
        "{message}"
    );
    let twice = refused("suffix = \"dev\"\nsuffix = \"prod\"\n");
    assert!(twice.contains("stack.toml:2:1: this is no TOML"), "{twice}");
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let message = refused("tags = { \"Größe\" = \"a\", \"é\" = 3 }\n");
    assert!(message.starts_with("stack.toml:1:31: tags.é is 3"), "{message}");
}

#[test]
fn unknown_settings_are_refused_with_what_was_meant() {
    for (text, part) in [
        (
            "sufix = 'dev'",
            "stack.toml:1:1: sufix: there is no such setting; did you mean `suffix`?",
        ),
        ("[netwrok]\nzones = 2", "did you mean `network`?"),
        (
            "[network]\nzone = 2",
            "there is no such setting in [network]; did you mean `zones`?",
        ),
        ("zones = 2", "`network.zones` exists: did you mean that one?"),
        (
            "[network]\nengine_version = '16.8'",
            "`aurora.engine_version` exists",
        ),
        ("[reconcile]\nxyz = 2", "known are interval_minutes, repair"),
        (
            "network = 3",
            "network is 3: this is a table; write `[network]` on a line of its own",
        ),
    ] {
        let message = refused(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn what_cannot_work_is_refused_with_the_field_and_the_remedy() {
    for (setting, value, part) in [
        (
            "suffix",
            "'Dev'",
            "suffix is \"Dev\": names of buckets and databases cannot have 'D'; use a-z and 0-9",
        ),
        ("suffix", "'a'", "too short"),
        ("suffix", "''", "too short"),
        ("suffix", "'abcdefghijklmnopq'", "17 characters make names longer"),
        ("suffix", "'a-b'", "leave the hyphens out"),
        ("suffix", "'1a'", "begin with a letter"),
        ("suffix", "'dr'", "the name of a place in every stack"),
        ("suffix", "'aws'", "for its own"),
        ("suffix", "3", "it must be text; write \"3\""),
        ("domain", "'example'", "two parts or more"),
        ("domain", "'example.com.'", "use \"example.com\""),
        ("domain", "'Example.com'", "use \"example.com\""),
        ("domain", "'a_b.example.com'", "\"a_b\" is not a part of a domain"),
        ("domain", "'10.0.0.1'", "an address, not a domain"),
        ("durability", "'strng'", "did you mean \"strong\"?"),
        ("durability", "'best'", "use \"strong\" or \"eventual\""),
        ("deletion_protection", "'yes'", "write true or false"),
        ("network.zones", "1", "use 2 to 6"),
        ("network.zones", "300", "use 2 to 6"),
        ("network.primary_cidr", "'10.0.0.0'", "it must be an IPv4 network"),
        ("network.primary_cidr", "'10.0.3.1/16'", "use \"10.0.0.0/16\""),
        ("network.primary_cidr", "'10.0.0.0/15'", "a VPC is a /16 at most"),
        (
            "network.primary_cidr",
            "'10.0.0.0/24'",
            "each of 2 zones gets a /24, which takes a /23",
        ),
        (
            "network.primary_cidr",
            "'8.8.0.0/16'",
            "those addresses are not private",
        ),
        (
            "network.primary_cidr",
            "'169.254.0.0/16'",
            "those addresses are not private",
        ),
        (
            "network.primary_cidr",
            "'172.17.0.0/16'",
            "AWS services use 172.17.0.0/16",
        ),
        (
            "network.dr_cidr",
            "'10.0.0.0/17'",
            "it overlaps network.primary_cidr",
        ),
        ("aurora.engine_version", "'16'", "use \"16.8\" or later"),
        (
            "aurora.engine_version",
            "'16.7'",
            "no fast managed switchover; use \"16.8\" or later",
        ),
        (
            "aurora.engine_version",
            "'9.6'",
            "Aurora PostgreSQL 9 is not supported",
        ),
        (
            "aurora.engine_version",
            "'16.9-limitless'",
            "Limitless has no global databases",
        ),
        ("aurora.engine_version", "16.8", "it must be text; write \"16.8\""),
        (
            "aurora.instance_class",
            "'db.t4g.medium'",
            "no burstable instances",
        ),
        ("aurora.instance_class", "'db.m6g.large'", "memory-optimised"),
        (
            "aurora.instance_class",
            "'db.r6g.larg'",
            "did you mean \"db.r6g.large\"?",
        ),
        (
            "aurora.instance_class",
            "'large'",
            "a class of database instances",
        ),
        (
            "aurora.instance_class",
            "'db.serverless'",
            "add a table `[aurora.serverless]`",
        ),
        ("aurora.instances", "16", "use 1 to 15"),
        ("probe.interval_ms", "1", "use 200 to 60000"),
        ("failover.decider", "'automtic'", "did you mean \"automatic\"?"),
        ("failover.observers", "3", "use 1 to 2"),
        ("failover.rounds_to_fail", "31", "use 1 to 30"),
        ("failover.stale_after_ms", "15000", "use at least 20000"),
        ("failover.rounds_to_recover", "0", "use 1 to 30"),
        ("failover.approval_expires_ms", "1000", "use 60000 to 86400000"),
        (
            "failover.blocked_windows",
            "'Sat:20:30-Sat:21:30'",
            "write [\"Sat:20:30-Sat:21:30\"]",
        ),
        (
            "failover.blocked_windows",
            "['Sat:20:30']",
            "it has no `-` between its ends",
        ),
        (
            "failover.blocked_windows",
            "['Sat:20:30-Sat:21:30', 'Sun:25:00-Sun:26:00']",
            "`Sun:25:00-Sun:26:00` is no window of the week: an hour is 00 to 23",
        ),
        ("failover.blocked_windows", "[7]", "write each in quotes"),
        ("failover.grey.decider", "'aprove'", "did you mean \"approve\"?"),
        ("failover.grey.window_rounds", "31", "use 2 to 30"),
        ("failover.grey.failing_percent", "0", "use 1 to 100"),
        ("failover.grey.slow_ms", "2000", "use 1 to 1900"),
        ("failover.grey.slow_percent", "101", "use 1 to 100"),
        ("retention.log_days", "2", "use 3"),
        ("retention.backup_days", "36", "use 1 to 35"),
        ("retention.old_version_days", "-1", "that is too little"),
        ("functions.payment_processor_memory_mb", "64", "use 128 to 10240"),
        ("functions.log_level", "'inof'", "did you mean \"info\"?"),
        ("functions.log_level", "'infra=loud'", "or levels by module"),
        ("functions.tracing", "'active'", "write true or false"),
        ("api.burst_limit", "5001", "use at most 5000"),
        ("alerts.address", "'oncall'", "neither an e-mail address nor"),
        (
            "alerts.address",
            "'http://example.com/x'",
            "alerts go over https only",
        ),
        (
            "alerts.address",
            "'https://localhost'",
            "no URL that SNS can call",
        ),
        ("reconcile.interval_minutes", "0", "use 1 to 1440"),
        ("readiness.interval_minutes", "4", "use 5 to 1440"),
        ("drill.schedule", "'weekly'", "it is no schedule expression"),
        ("drill.isolation_minutes", "0", "use 1 to 60"),
        ("tags", "'x'", "it must be a table of texts"),
        ("tags.\"aws:x\"", "'y'", "AWS's own"),
        ("tags.\"understudy:stack\"", "'y'", "say whose a resource is"),
        (
            "tags.costcenter",
            "'y'",
            "IAM does not tell it from \"CostCenter\"",
        ),
        ("tags.\"a*b\"", "'y'", "its name has '*'"),
        ("tags.Team", "'a;b'", "its value has ';'"),
        ("tags.Team", "3", "tags.Team is 3: it must be text"),
        ("artifacts.health-probe", "'x'", "64 lower-case hex digits"),
    ] {
        let message = refused(&file_with(setting, value));
        assert!(message.contains(part), "{setting} = {value}: {message}");
        assert!(
            message.starts_with("stack.toml:"),
            "{setting} = {value}: {message}"
        );
    }
}

#[test]
fn regions_are_three_known_ones_of_one_set() {
    let file = |primary, dr, witness, durability: &str| {
        format!(
            "durability = '{durability}'\n[regions]\nprimary = '{primary}'\ndr = '{dr}'\nwitness = '{witness}'\n"
        )
    };
    for (regions, part) in [
        (
            ("us-east-1", "us-east-1", "us-west-2"),
            "stack.toml:4:6: regions.dr is \"us-east-1\": regions.primary is the same",
        ),
        (
            ("us-east-1", "us-esat-2", "us-west-2"),
            "did you mean \"us-east-2\"?",
        ),
        (
            ("us-east-1", "us-gov-west-1", "us-west-2"),
            "only the commercial regions",
        ),
        (
            ("us-east-1", "us-east-2", "us-west-1"),
            "stack.toml:5:11: regions.witness is \"us-west-1\": durability is \"strong\"",
        ),
        (
            ("eu-west-1", "eu-central-1", "us-east-1"),
            "regions.witness is \"us-east-1\"",
        ),
    ] {
        let message = refused(&file(regions.0, regions.1, regions.2, "strong"));
        assert!(message.contains(part), "{regions:?}: {message}");
    }
    for (primary, dr, witness, durability) in [
        ("eu-central-1", "eu-west-1", "eu-west-3", "strong"),
        ("ap-northeast-3", "ap-northeast-1", "ap-northeast-2", "strong"),
        ("us-east-1", "eu-west-1", "sa-east-1", "eventual"),
    ] {
        Spec::from_toml(&file(primary, dr, witness, durability)).unwrap();
    }
    let message = refused("[regions]\nprimary = 'eu-west-1'\n");
    assert!(
        message.contains(
            "stack.toml:1:2: regions: this table needs all of its settings; set `dr` and `witness` as well"
        ),
        "{message}"
    );
}

#[test]
fn serverless_capacity_has_its_rules() {
    let file = |min: &str, max: &str, class: &str| {
        format!(
            "[aurora]\ninstance_class = '{class}'\n[aurora.serverless]\nmin_acu = {min}\nmax_acu = {max}\n"
        )
    };
    for (min, max, class, part) in [
        (
            "8",
            "4",
            "db.serverless",
            "stack.toml:5:11: aurora.serverless.max_acu is 4: it is less than min_acu",
        ),
        ("0", "4", "db.serverless", "a database that sleeps"),
        ("0.75", "4", "db.serverless", "steps of 0.5"),
        ("8", "257", "db.serverless", "outside what Aurora takes"),
        ("8", "nan", "db.serverless", "it must be a number"),
        (
            "8",
            "16",
            "db.r6g.large",
            "a capacity is for serverless instances",
        ),
    ] {
        let message = refused(&file(min, max, class));
        assert!(message.contains(part), "{min} to {max}, {class}: {message}");
        assert!(
            !message.contains("problems"),
            "one mistake, one message: {message}"
        );
    }
    assert!(Spec::from_toml(&file("0.5", "1", "db.serverless")).is_ok());
    let message = refused("[aurora]\ninstance_class = 'db.serverless'\n[aurora.serverless]\nmin_acu = 8\n");
    assert!(message.contains("set `max_acu` as well"), "{message}");
}

#[test]
fn more_tags_than_aws_takes_are_refused() {
    let tags = |count: usize| {
        let lines: Vec<String> = (0..count).map(|number| format!("tag{number} = 'x'")).collect();
        format!("[tags]\n{}\n", lines.join("\n"))
    };
    assert!(Spec::from_toml(&tags(45)).is_ok());
    assert!(refused(&tags(46)).contains("use at most 45"));
}

#[test]
fn a_value_that_was_set_aside_causes_no_second_message() {
    // The relation of the two is not judged by a default that nobody asked for.
    let message = refused("[probe]\ninterval_ms = 60001\n[failover]\nstale_after_ms = 15000\n");
    assert!(
        message.starts_with("stack.toml:2:15: probe.interval_ms is 60001"),
        "{message}"
    );
    assert!(!message.contains("stale_after_ms"), "{message}");
}

#[test]
fn a_spec_made_in_code_is_checked_too() {
    let mut spec = Spec::default();
    spec.network.zones = 9;
    assert_eq!(
        spec.validate().unwrap_err().to_string(),
        "network.zones is 9: that is too much; use 2 to 6"
    );
}

#[test]
fn every_table_has_keys() {
    assert!(keys_of("").contains(&"suffix") && keys_of("network").contains(&"zones"));
}

prop_compose! {
    fn settings_of_any_stack()(
        suffix in "[a-z][a-z0-9]{1,15}",
        second in 0u8..=255, other in 0u8..=255, bits in 16u8..=23, zones in 2u8..=6,
        instances in 1u8..=15, rate in 1u32..=100_000, burst in 1u32..=50_000,
        set in 0usize..3, domain in proptest::option::of("[a-z]{1,20}\\.[a-z]{2,10}"),
        tags in proptest::collection::btree_map("[A-Za-z]{1,20}", "[ -~]{0,20}", 0..5),
    ) -> Spec {
        let regions = [
            ["us-east-1", "us-east-2", "us-west-2"],
            ["eu-central-1", "eu-west-1", "eu-west-2"],
            ["ap-northeast-1", "ap-northeast-2", "ap-northeast-3"],
        ][set];
        let mut spec = Spec { suffix, domain, tags, ..Spec::default() };
        spec.regions = Regions { primary: regions[0].into(), dr: regions[1].into(), witness: regions[2].into() };
        spec.network.primary_cidr = format!("10.{second}.0.0/{bits}");
        spec.network.dr_cidr = format!("10.{other}.0.0/{bits}");
        spec.network.zones = zones;
        spec.aurora.instances = instances;
        (spec.api.rate_limit, spec.api.burst_limit) = (rate, burst);
        spec
    }
}

/// Lower case, digits and single hyphens, a letter first, no hyphen last: what RDS and S3 have in common.
fn is_plain_name(name: &str, most: usize) -> bool {
    (3..=most).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_validates_makes_a_stack_whose_names_aws_takes(spec in settings_of_any_stack()) {
        prop_assume!(spec.validate().is_ok());
        let account = "123456789012";
        let stack = crate::blueprint::blueprint(&spec, account);
        prop_assert!(stack.validate().is_ok());
        prop_assert!(crate::blueprint::seed(&spec, account).validate().is_ok());
        let names = spec.names();
        for slot in Slot::SERVING {
            // RDS identifiers have at most 63 characters, and an instance's number comes after the cluster's name.
            let last_instance = format!("{}-15", names.aurora_cluster(slot));
            prop_assert!(is_plain_name(&last_instance, 63));
            prop_assert!(is_plain_name(&names.data_bucket(slot, account), 63));
            let cidr = Cidr::parse(spec.cidr(slot)).unwrap();
            for zone in 0..spec.network.zones {
                prop_assert!(Cidr::parse(&cidr.slash_24(zone)).unwrap().within(cidr));
            }
        }
        for slot in Slot::ALL {
            prop_assert!(is_plain_name(&names.artifact_bucket(slot, account), 63));
            // Functions and roles have at most 64 characters.
            prop_assert!(is_plain_name(&names.failover_coordinator(slot), 64));
            prop_assert!(is_plain_name(&names.regional("payment-processor-schedule", slot), 64));
        }
        prop_assert!(is_plain_name(&names.aurora_global(), 63));
        for node in stack.nodes() {
            // A key is the value of a tag.
            prop_assert!(node.key.len() <= 256);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z\\[\\]\"'=.0-9 \n]{0,60}") {
        let _ = Spec::from_toml(&text);
    }

    #[test]
    fn a_configuration_that_validates_survives_its_file(spec in settings_of_any_stack()) {
        prop_assume!(spec.validate().is_ok());
        prop_assert_eq!(Spec::from_toml(&toml::to_string(&spec).unwrap()).unwrap(), spec);
    }
}
