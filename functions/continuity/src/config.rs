//! What a function is told through its environment.

use crate::names::{Names, Regions, Slot};

/// The environment common to all functions.
#[derive(Debug, Clone)]
pub struct FunctionConfig {
    /// Names of the stack.
    pub names: Names,
    /// The slot this function runs in.
    pub slot: Slot,
    /// The region of each slot.
    pub regions: Regions,
}

/// A variable that is missing or cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("environment variable `{name}` {problem}")]
pub struct ConfigError {
    /// The variable.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FunctionConfig {
    /// Reads `UNDERSTUDY_SUFFIX`, `UNDERSTUDY_SLOT` and the three `UNDERSTUDY_*_REGION` variables through `lookup`.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let slot_text = required(&lookup, "UNDERSTUDY_SLOT")?;
        let slot = Slot::parse(&slot_text).ok_or_else(|| ConfigError {
            name: "UNDERSTUDY_SLOT".into(),
            problem: format!("is `{slot_text}`, not one of primary, dr, witness"),
        })?;
        Ok(FunctionConfig {
            names: Names::new(required(&lookup, "UNDERSTUDY_SUFFIX")?),
            slot,
            regions: Regions {
                primary: required(&lookup, "UNDERSTUDY_PRIMARY_REGION")?,
                dr: required(&lookup, "UNDERSTUDY_DR_REGION")?,
                witness: required(&lookup, "UNDERSTUDY_WITNESS_REGION")?,
            },
        })
    }

    /// The same from the process environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(env)
    }

    /// The region this function runs in.
    pub fn region(&self) -> &str {
        self.regions.of(self.slot)
    }
}

/// A variable of the process environment, if set.
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable that must be set and not empty.
pub fn required(lookup: &impl Fn(&str) -> Option<String>, name: &str) -> Result<String, ConfigError> {
    lookup(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| ConfigError {
            name: name.into(),
            problem: "is not set".into(),
        })
}
