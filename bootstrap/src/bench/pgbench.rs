//! PostgreSQL's own benchmark, on the same server.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::cpu::Cpu;
use super::report::Row;
use load::EPOCH;

use super::{LEDGER, TPCB, output};
use crate::failure::Failure;
use crate::local::throwaway::Server;

/// Threads of pgbench, at most: it needs few.
pub const THREADS: u32 = 2;

/// What it runs.
pub enum Script {
    /// Its TPC-B-like script.
    TpcB,
    /// A file of ours in the ledger's database.
    File(PathBuf),
}

/// The files.
pub struct Scripts {
    bare: PathBuf,
    hot_row: PathBuf,
}

impl Scripts {
    /// Writes them beside the server's data.
    pub fn write(server: &Server, accounts: u32) -> Result<Self, Failure> {
        let directory = server.directory().join("scripts");
        fs::create_dir_all(&directory)?;
        let (bare, hot_row) = (directory.join("bare.sql"), directory.join("hot_row.sql"));
        let first = load::FIRST_ACCOUNT;
        let last = first + accounts - 1;
        let prefix = load::ACCOUNT_PREFIX;
        let call = format!(
            "\\set payer random({first}, {last})\n\
             \\set other random({first}, {last} - 1)\n\
             \\set payee case when :other >= :payer then :other + 1 else :other end\n\
             \\set key random(1, 9000000000000000000)\n\
             select ledger.pay({EPOCH}, 'pgbench-' || :key, '{hash}', gen_random_uuid(), ('{prefix}' || :payer)::uuid,\n\
             ('{prefix}' || :payee)::uuid, 7, 'EUR', ('{{\"from_account\": \"{prefix}' || :payer || '\", \"to_account\": \"{prefix}' || :payee ||\n\
             '\", \"amount_minor\": 7, \"currency\": \"EUR\", \"reference\": null, \"metadata\": {{}}}}')::jsonb, null, 1, 'pgbench');\n",
            hash = "0".repeat(64),
        );
        fs::write(&bare, call)?;
        fs::write(&hot_row, "update hot set number = number + 1 where id = 1;\n")?;
        Ok(Scripts { bare, hot_row })
    }

    /// Makes the row that everybody updates.
    pub async fn prepare_hot_row(&self, server: &Server) -> Result<(), Failure> {
        let client = server.client(TPCB).await?;
        let table = "create table hot (id integer primary key, number bigint) with (fillfactor = 50);
                     insert into hot values (1, 0)";
        Ok(client.batch_execute(table).await?)
    }

    /// The ledger's function, bare.
    pub fn bare(&self) -> Script {
        Script::File(self.bare.clone())
    }

    /// One row that everybody updates.
    pub fn hot_row(&self) -> Script {
        Script::File(self.hot_row.clone())
    }
}

/// Makes pgbench's tables, as many branches as there are connections, so that they do not wait for each other.
pub fn initialise(server: &Server, database: &str, scale: u32) -> Result<(), Failure> {
    let mut command = server.program("pgbench");
    command.args(["--initialize", "--quiet", "--scale", &scale.to_string(), database]);
    output(command).map(|_| ())
}

/// What it came to.
pub fn run(
    server: &Server,
    script: &Script,
    connections: u32,
    scale: u32,
    time: Duration,
) -> Result<Row, Failure> {
    let mut command = server.program("pgbench");
    command.args(["--no-vacuum", "--protocol=prepared"]);
    command.args(["--client", &connections.to_string()]);
    command.args(["--jobs", &connections.min(THREADS).to_string()]);
    command.args(["--time", &time.as_secs().max(1).to_string()]);
    match script {
        Script::TpcB => command.args(["--builtin=tpcb-like", "--scale", &scale.to_string(), TPCB]),
        Script::File(file) => {
            let database = if file.ends_with("hot_row.sql") {
                TPCB
            } else {
                LEDGER
            };
            command.arg("--file").arg(file).arg(database)
        }
    };
    let before = Cpu::now();
    let text = output(command)?;
    let measured = rate(&text).zip(transactions(&text));
    let (per_second, transactions) =
        measured.ok_or_else(|| Failure::text(format!("pgbench does not say how fast it was: {text}")))?;
    Ok(Row {
        per_second,
        cpu: before.and_then(|before| before.cost_since(transactions)),
    })
}

/// Deadlocks of the ledger's database since it was made.
pub async fn deadlocks(server: &Server) -> Result<i64, Failure> {
    let client = server.client(LEDGER).await?;
    let count = "select deadlocks from pg_stat_database where datname = current_database()";
    Ok(client.query_one(count, &[]).await?.get(0))
}

fn rate(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split_whitespace().next()?.parse().ok()
}

fn transactions(text: &str) -> Option<f64> {
    let wanted = "number of transactions actually processed: ";
    let line = text.lines().find_map(|line| line.strip_prefix(wanted))?;
    line.split('/').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_number_are_read_from_what_pgbench_prints() {
        let text = "number of transactions actually processed: 5963\nlatency average = 0.5 ms\ninitial connection time = 9 ms\ntps = 1987.25 (without initial connection time)\n";
        assert_eq!(rate(text), Some(1987.25));
        assert_eq!(transactions(text), Some(5963.0));
        assert_eq!(
            (rate("pgbench: error"), transactions("pgbench: error")),
            (None, None)
        );
    }
}
