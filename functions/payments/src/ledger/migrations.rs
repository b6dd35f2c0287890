//! The schema, versioned and forward only. A migration that has been released is never edited.

use sha2::{Digest, Sha256};

/// Number, name and statements, in order.
pub(super) const MIGRATIONS: &[(u32, &str, &str)] = &[
    (1, "tables", include_str!("../../migrations/0001_tables.sql")),
    (2, "commands", include_str!("../../migrations/0002_commands.sql")),
    (
        3,
        "heartbeat",
        include_str!("../../migrations/0003_heartbeat.sql"),
    ),
    (
        4,
        "recovered",
        include_str!("../../migrations/0004_recovered.sql"),
    ),
    (5, "settled", include_str!("../../migrations/0005_settled.sql")),
];

/// What must exist before migrations can be counted. Idempotent; run under [`LOCK`].
pub(super) const PREPARE: &str = "
    create schema if not exists ledger;
    create table if not exists ledger.migrations (
        version    integer     primary key,
        name       text        not null,
        sha256     text        not null,
        applied_at timestamptz not null default now()
    )";

/// Advisory lock, until the end of the transaction: one migration at a time.
pub(super) const LOCK: &str = "select pg_advisory_xact_lock(7165844)";

/// SHA-256 (hex) of a migration's statements.
pub(super) fn checksum(statements: &str) -> String {
    hex::encode(Sha256::digest(statements))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_gaps() {
        let numbers: Vec<u32> = MIGRATIONS.iter().map(|(version, _, _)| *version).collect();
        assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>());
    }
}
