-- A row that `/health` writes to show that the database takes a commit: storage that answers reads and takes no writes is seen
-- in no other way. Nothing reads it.

create table ledger.heartbeat (
    only_row boolean     primary key default true check (only_row),
    at       timestamptz not null
);
insert into ledger.heartbeat (at) values (now());
