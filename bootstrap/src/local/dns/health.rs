//! The state of a health check: results in, healthy or not out. No clock, no network.

use super::zones::Policy;

/// What a health check knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    /// What the results so far say. A new check counts as healthy.
    up: bool,
    /// How many results in a row contradict it.
    contrary: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            up: true,
            contrary: 0,
        }
    }
}

impl Health {
    /// Takes a result: `threshold` results in a row against the state change it.
    pub(super) fn observe(&mut self, success: bool, policy: Policy) {
        if success == self.up {
            self.contrary = 0;
            return;
        }
        self.contrary += 1;
        if self.contrary >= policy.threshold {
            *self = Self {
                up: success,
                contrary: 0,
            };
        }
    }

    /// Whether Route 53 considers the check healthy: a new one is, a disabled one is, and an inverted one is the opposite
    /// of what it would be.
    pub(super) fn is_healthy(&self, policy: Policy) -> bool {
        let healthy = policy.disabled || self.up;
        healthy != policy.inverted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Policy = Policy {
        threshold: 3,
        inverted: false,
        disabled: false,
    };
    const INVERTED: Policy = Policy {
        inverted: true,
        ..PLAIN
    };
    const DISABLED: Policy = Policy {
        disabled: true,
        ..PLAIN
    };
    const BOTH: Policy = Policy {
        inverted: true,
        ..DISABLED
    };

    fn after(results: &[bool], policy: Policy) -> bool {
        let mut health = Health::default();
        for &result in results {
            health.observe(result, policy);
        }
        health.is_healthy(policy)
    }

    #[test]
    fn results_become_a_state() {
        let (up, down) = (true, false);
        let cases: [(&[bool], Policy, bool); 15] = [
            (&[], PLAIN, true),
            (&[], INVERTED, false),
            (&[], DISABLED, true),
            (&[], BOTH, false),
            (&[up], PLAIN, true),
            (&[down, down], PLAIN, true),
            (&[down, down, down], PLAIN, false),
            (&[up, down, down], PLAIN, true),
            (&[up, down, down, down], PLAIN, false),
            (&[up, down, down, up, down, down], PLAIN, true),
            (&[up, down, down, down, up, up], PLAIN, false),
            (&[up, down, down, down, up, up, up], PLAIN, true),
            (&[up, down, down, down], INVERTED, true),
            (&[up, down, down, down], DISABLED, true),
            (
                &[up, down],
                Policy {
                    threshold: 1,
                    ..PLAIN
                },
                false,
            ),
        ];
        for (results, policy, healthy) in cases {
            assert_eq!(after(results, policy), healthy, "{results:?} {policy:?}");
        }
    }
}
