//! CPU time of a measurement. On a machine that is busy with it all the time it says what a transaction costs, where its rate says
//! how fast the machine was just then.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// CPU time used until now.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    /// By the whole machine.
    machine: Duration,
    /// By this process and its children that have ended.
    client: Duration,
}

/// CPU time of one transaction, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Of the whole machine: client, server, and whatever else it did.
    pub machine_us: f64,
    /// Of the client alone.
    pub client_us: f64,
}

impl Cpu {
    /// Reads both. Nothing where the system does not tell: it takes Linux.
    pub fn now() -> Option<Self> {
        let ticks = busy_ticks(&fs::read_to_string("/proc/stat").ok()?)?;
        let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
        let mut client = Duration::ZERO;
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who).ok()?;
            for time in [usage.user_time(), usage.system_time()] {
                client += Duration::from_secs(u64::try_from(time.tv_sec()).ok()?)
                    + Duration::from_micros(u64::try_from(time.tv_usec()).ok()?);
            }
        }
        Some(Cpu {
            machine: Duration::from_secs_f64(ticks as f64 / per_second as f64),
            client,
        })
    }

    /// What each of so many transactions cost since then.
    pub fn cost_since(self, transactions: f64) -> Option<Cost> {
        let now = Cpu::now()?;
        let each = |used: Duration| used.as_secs_f64() * 1e6 / transactions;
        Some(Cost {
            machine_us: each(now.machine.saturating_sub(self.machine)),
            client_us: each(now.client.saturating_sub(self.client)),
        })
    }
}

/// Everything but idle and waiting for a disk: <https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat>.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Option<Vec<u64>> = line.split_whitespace().map(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields?[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_no_work() {
        let stat = "cpu  10 1 20 4000 500 3 2 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_ticks(stat), Some(36));
        assert_eq!(busy_ticks("intr 5"), None);
    }
}
