//! What an operator says about a stack: the configuration file, every field with its default. The blueprint follows from
//! it; it travels to the functions as the `spec` item of the control table.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use continuity::assess::Policy;
use continuity::names::{Names, Regions, Slot};
use serde::{Deserialize, Serialize};

/// A stack's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// Ends every name: `dev`, `prod`. Two stacks of one account differ in it.
    pub suffix: String,
    /// The region of each slot. Fixed once deployed.
    pub regions: Regions,
    /// The domain of the hosted zone. Without one the zone is `dr-payments-{suffix}.test.local`.
    pub domain: Option<String>,
    /// Networks.
    pub network: Network,
    /// The databases.
    pub aurora: Aurora,
    /// The probes.
    pub probe: Probe,
    /// When the active region changes unasked.
    pub failover: Policy,
    /// What an acknowledged payment survives.
    pub durability: Durability,
    /// Days that logs are kept.
    pub log_retention_days: u32,
    /// The functions.
    pub functions: Functions,
    /// The SHA-256 (hex) of each function's package, filled in by `understudy up`.
    pub artifacts: BTreeMap<String, String>,
}

/// Networks of the two serving regions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Addresses of the home region's VPC.
    pub primary_cidr: String,
    /// Addresses of the other serving region's VPC.
    pub dr_cidr: String,
    /// Availability zones used in each region: 2 to 6.
    pub zones: u8,
}

/// Aurora PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aurora {
    /// The engine version, the same in both regions.
    pub engine_version: String,
    /// The class of the instances. A global database needs a memory-optimised one, or `db.serverless`.
    pub instance_class: String,
    /// Instances in each region. The first is the writer while its region is active.
    pub instances: u8,
    /// Days that automated backups are kept.
    pub backup_retention_days: u8,
    /// AWS refuses to delete the clusters until this is switched off.
    pub deletion_protection: bool,
}

/// The probes that look at both regions from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Time between rounds.
    pub interval_ms: u64,
}

/// What an acknowledged payment survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The loss of a region, always: the journal is strongly consistent across regions.
    #[default]
    Strong,
    /// The loss of a region except for the last seconds: for regions outside the sets that MRSC supports.
    Eventual,
}

/// Sizes of the functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Functions {
    /// Concurrent requests that each region's payment-processor is guaranteed and limited to; 0 leaves it to the account.
    pub payment_processor_concurrency: u32,
    /// Memory of the payment-processor; its share of a processor follows from it.
    pub payment_processor_memory_mb: u32,
    /// The level of the functions' logs, as in `RUST_LOG`.
    pub log_level: String,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            suffix: "dev".into(),
            regions: Regions::default(),
            domain: None,
            network: Network::default(),
            aurora: Aurora::default(),
            probe: Probe::default(),
            failover: Policy::default(),
            durability: Durability::default(),
            log_retention_days: 30,
            functions: Functions::default(),
            artifacts: BTreeMap::new(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Network {
            primary_cidr: "10.0.0.0/16".into(),
            dr_cidr: "10.1.0.0/16".into(),
            zones: 2,
        }
    }
}

impl Default for Aurora {
    fn default() -> Self {
        Aurora {
            // The first 16.x with a managed switchover below 30 seconds.
            engine_version: "16.8".into(),
            instance_class: "db.r6g.large".into(),
            instances: 1,
            backup_retention_days: 7,
            deletion_protection: false,
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Probe { interval_ms: 10_000 }
    }
}

impl Default for Functions {
    fn default() -> Self {
        Functions {
            payment_processor_concurrency: 32,
            payment_processor_memory_mb: 512,
            log_level: "info".into(),
        }
    }
}

/// What is wrong with a configuration: the field, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The file is not TOML of the right shape.
    #[error("the configuration cannot be read: {0}")]
    Syntax(String),
    /// A field's value cannot be used.
    #[error("`{field}` is `{value}`: {problem}")]
    Field {
        /// The field, as in the file.
        field: &'static str,
        /// Its value.
        value: String,
        /// What must hold.
        problem: String,
    },
}

fn wrong(field: &'static str, value: impl ToString, problem: impl Into<String>) -> SpecError {
    SpecError::Field {
        field,
        value: value.to_string(),
        problem: problem.into(),
    }
}

impl Spec {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Unknown fields, wrong types, values that cannot be used.
    pub fn from_toml(text: &str) -> Result<Spec, SpecError> {
        let spec: Spec = toml::from_str(text).map_err(|error| SpecError::Syntax(error.to_string()))?;
        spec.validate()?;
        Ok(spec)
    }

    /// Names of this stack.
    pub fn names(&self) -> Names {
        Names::new(&self.suffix)
    }

    /// The hosted zone's name.
    pub fn zone(&self) -> String {
        self.domain.clone().unwrap_or_else(|| self.names().default_zone())
    }

    /// The name that clients use.
    pub fn public_name(&self) -> String {
        Names::public_name(&self.zone())
    }

    /// The VPC's addresses of a serving slot.
    pub fn cidr(&self, slot: Slot) -> &str {
        if slot == Slot::Primary {
            &self.network.primary_cidr
        } else {
            &self.network.dr_cidr
        }
    }

    /// Checks what can be checked without AWS.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.validate_names()?;
        self.validate_network()?;
        let aurora = &self.aurora;
        if aurora.instances == 0 || aurora.instances > 15 {
            return Err(wrong("aurora.instances", aurora.instances, "use 1 to 15"));
        }
        if aurora.backup_retention_days == 0 || aurora.backup_retention_days > 35 {
            return Err(wrong(
                "aurora.backup_retention_days",
                aurora.backup_retention_days,
                "use 1 to 35",
            ));
        }
        if !(200..=60_000).contains(&self.probe.interval_ms) {
            return Err(wrong(
                "probe.interval_ms",
                self.probe.interval_ms,
                "use 200 to 60000",
            ));
        }
        const RETENTIONS: [u32; 22] = [
            1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
            3288, 3653,
        ];
        if !RETENTIONS.contains(&self.log_retention_days) {
            let problem = format!("CloudWatch Logs accepts only {RETENTIONS:?}");
            return Err(wrong("log_retention_days", self.log_retention_days, problem));
        }
        for (function, hash) in &self.artifacts {
            if hash.len() != 64
                || !hash
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            {
                return Err(wrong(
                    "artifacts",
                    format!("{function} = {hash}"),
                    "a SHA-256 is 64 lower-case hex digits",
                ));
            }
        }
        Ok(())
    }

    fn validate_names(&self) -> Result<(), SpecError> {
        let bytes = self.suffix.as_bytes();
        let good = (2..=16).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && !self.suffix.ends_with('-')
            // RDS and S3 refuse two hyphens in a row.
            && !self.suffix.contains("--");
        if !good {
            let problem = "use 2 to 16 of a-z, 0-9 and single hyphens, beginning with a letter";
            return Err(wrong("suffix", &self.suffix, problem));
        }
        let regions = [&self.regions.primary, &self.regions.dr, &self.regions.witness];
        for (position, region) in regions.iter().enumerate() {
            let shape =
                region.split('-').count() >= 3 && region.bytes().last().is_some_and(|b| b.is_ascii_digit());
            if !shape {
                return Err(wrong("regions", region, "this is not the name of an AWS region"));
            }
            if regions[..position].contains(region) {
                return Err(wrong(
                    "regions",
                    region,
                    "the three slots need three different regions",
                ));
            }
        }
        if let Some(domain) = &self.domain
            && (!domain.contains('.') || domain.starts_with('.') || domain.ends_with('.'))
        {
            return Err(wrong(
                "domain",
                domain,
                "give a domain like `payments.example.com`, without a final dot",
            ));
        }
        Ok(())
    }

    fn validate_network(&self) -> Result<(), SpecError> {
        let network = &self.network;
        if !(2..=6).contains(&network.zones) {
            return Err(wrong(
                "network.zones",
                network.zones,
                "use 2 to 6; a DB subnet group needs two",
            ));
        }
        let parse = |field, text: &str| {
            Cidr::parse(text)
                .filter(|cidr| (16..=20).contains(&cidr.bits))
                .ok_or_else(|| wrong(field, text, "give an IPv4 network like `10.0.0.0/16`, /16 to /20"))
        };
        let primary = parse("network.primary_cidr", &network.primary_cidr)?;
        let dr = parse("network.dr_cidr", &network.dr_cidr)?;
        if primary.overlaps(dr) {
            let problem = format!("it overlaps `network.primary_cidr` ({})", network.primary_cidr);
            return Err(wrong("network.dr_cidr", &network.dr_cidr, problem));
        }
        Ok(())
    }
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    first: u32,
    bits: u8,
}

impl Cidr {
    /// `10.0.0.0/16`; `None` when it is no network, or has bits beyond its mask.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        let first = u32::from(address.parse::<Ipv4Addr>().ok()?);
        let bits: u8 = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
        (first & !Self::mask(bits) == 0).then_some(Cidr { first, bits })
    }

    fn mask(bits: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
    }

    /// Whether they share an address.
    pub fn overlaps(self, other: Cidr) -> bool {
        let bits = self.bits.min(other.bits);
        self.first & Self::mask(bits) == other.first & Self::mask(bits)
    }

    /// The `index`th /24 in it.
    pub fn slash_24(self, index: u8) -> String {
        format!("{}/24", Ipv4Addr::from(self.first + (u32::from(index) << 8)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(text: &str) -> String {
        Spec::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_the_default_stack() {
        assert_eq!(Spec::from_toml("").unwrap(), Spec::default());
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
    fn what_cannot_work_is_refused_with_the_field_and_the_remedy() {
        assert!(refused("sufix = 'dev'").contains("unknown field `sufix`"));
        for (text, part) in [
            ("suffix = 'Dev'", "`suffix` is `Dev`: use 2 to 16"),
            ("suffix = 'a'", "use 2 to 16"),
            ("suffix = 'a--b'", "single hyphens"),
            ("suffix = 'a-'", "single hyphens"),
            (
                "[regions]\nprimary='us-east-1'\ndr='us-east-1'\nwitness='us-west-2'",
                "three different regions",
            ),
            ("[network]\nzones = 1", "use 2 to 6"),
            ("[network]\nprimary_cidr = '10.0.0.0'", "give an IPv4 network"),
            ("[network]\nprimary_cidr = '10.0.0.1/16'", "give an IPv4 network"),
            (
                "[network]\ndr_cidr = '10.0.0.0/17'",
                "overlaps `network.primary_cidr`",
            ),
            ("log_retention_days = 2", "CloudWatch Logs accepts only"),
            ("[probe]\ninterval_ms = 1", "use 200 to 60000"),
            ("domain = 'example'", "give a domain"),
            ("[artifacts]\nhealth-probe = 'x'", "64 lower-case hex digits"),
        ] {
            let message = refused(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn subnets_lie_in_their_network() {
        let cidr = Cidr::parse("10.1.0.0/16").unwrap();
        assert_eq!(
            [cidr.slash_24(0), cidr.slash_24(5)],
            ["10.1.0.0/24", "10.1.5.0/24"]
        );
    }
}
