-- The ledger: a log of entries, the accounts' balances and the open holds that follow from it.
--
-- Rules that hold whoever writes: entries are append only; accounts and holds change only by appending an entry; one
-- idempotency key, one entry. An entry moves one amount from the account it debits to the account it credits, so that debits
-- equal credits in every entry by construction.
--
-- No check constraints on the tables that every payment writes: PostgreSQL parses each of them again for every statement.
-- Types, `not null` and the functions of 0002 do their work, and `ledger.verify` recomputes everything.

create table ledger.ledger_epoch (
    only_row boolean primary key default true check (only_row),
    epoch    bigint not null check (epoch >= 0)
);
-- Epoch 0 is no epoch: nothing is executed before the first set_epoch.
insert into ledger.ledger_epoch (epoch) values (0);

create sequence ledger.entry_seq;

create type ledger.entry_kind as enum (
    'account-opened', 'account-closed', 'payment', 'authorisation', 'capture', 'void', 'expiry', 'refund');
create type ledger.entry_status as enum ('created', 'declined');
create domain ledger.currency_code as text check (value ~ '^[A-Z]{3}$');

create table ledger.entries (
    epoch           bigint not null,
    seq             bigint not null,
    -- The ledger epoch in which it was posted here; later than `epoch` for an entry that a replay recovered.
    posted_epoch    bigint not null,
    created_at_ms   bigint not null,
    kind            ledger.entry_kind   not null,
    status          ledger.entry_status not null,
    -- Compared by its bytes, whatever the database's own collation is: an index on words in a language's order is slow.
    idempotency_key text   collate "C" not null,
    request_hash    text   not null,
    -- The request that executed it, as API Gateway and every log line name it.
    request_id      text   not null,
    -- The account or payment that it is about.
    subject         uuid   not null,
    -- The accounts it is between: who pays, who is paid. Null for an entry about one account.
    debit_account   uuid,
    credit_account  uuid,
    -- What it moved between them; 0 for a decline, and for what only holds or releases.
    amount_minor    bigint not null,
    currency        text   not null,
    details         jsonb  not null,
    primary key (epoch, seq)
);
create unique index entries_key on ledger.entries (idempotency_key);
create index entries_subject on ledger.entries (subject);
create index entries_debit on ledger.entries (debit_account, epoch, seq);
create index entries_credit on ledger.entries (credit_account, epoch, seq);

create table ledger.accounts (
    id                uuid   primary key,
    currency          ledger.currency_code not null,
    -- The lowest balance that a decided payment may leave; null is no limit.
    limit_minor       bigint,
    -- What was moved: credits less debits.
    balance_minor     bigint  not null default 0,
    -- What open holds may still take from it, and bring to it.
    pending_out_minor bigint  not null default 0,
    pending_in_minor  bigint  not null default 0,
    closed            boolean not null default false,
    -- The entry that opened it. Null only where a replay had to honour a payment of an account whose own, never acknowledged
    -- entry was lost.
    opened_epoch      bigint,
    opened_seq        bigint
) with (fillfactor = 50);

-- Authorised payments that are neither captured, voided nor expired.
create table ledger.holds (
    payment        uuid   primary key,
    debit_account  uuid   not null,
    credit_account uuid   not null,
    amount_minor   bigint not null,
    expires_at_ms  bigint not null
);
create index holds_expiry on ledger.holds (expires_at_ms);

create function ledger.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'ledger.% refuses %: %', tg_table_name, lower(tg_op), tg_argv[0]
        using errcode = 'integrity_constraint_violation';
end $$;

-- ledger.append sets `ledger.appending` while it works. (Not by a `set` clause: that takes a superuser, which no user of Aurora is.)
create function ledger.only_by_entries() returns trigger language plpgsql as $$
begin
    if current_setting('ledger.appending', true) is distinct from 'on' then
        raise exception 'ledger.% refuses %: it changes only by entries', tg_table_name, lower(tg_op)
            using errcode = 'integrity_constraint_violation';
    end if;
    return null;
end $$;

create trigger append_only before update or delete or truncate on ledger.entries
    for each statement execute function ledger.refuse_change('it is append only');
create trigger kept before delete or truncate on ledger.accounts
    for each statement execute function ledger.refuse_change('accounts are kept');
create trigger identity before update of id, currency on ledger.accounts
    for each statement execute function ledger.refuse_change('id and currency are for life');
create trigger by_entries before insert on ledger.accounts
    for each statement execute function ledger.only_by_entries();
create trigger by_entries before insert or update or delete on ledger.holds
    for each statement execute function ledger.only_by_entries();
create trigger kept before truncate on ledger.holds
    for each statement execute function ledger.refuse_change('it changes only by entries');

-- What every payment writes is held to the same rule by policies, also for the owner. They are part of the statement's plan, which
-- is kept; a trigger is a call for each statement, and three of them were a tenth of a payment. What is not appending gets
-- "violates row-level security policy". A dump by the owner needs `pg_dump --enable-row-security`: all rows are seen.
create policy seen on ledger.entries for select using (true);
create policy appended on ledger.entries for insert with check (current_setting('ledger.appending', true) = 'on');
create policy seen on ledger.accounts for select using (true);
create policy opened on ledger.accounts for insert with check (true);
create policy moved_by_entries on ledger.accounts for update using (true)
    with check (current_setting('ledger.appending', true) = 'on');
alter table ledger.entries enable row level security, force row level security;
alter table ledger.accounts enable row level security, force row level security;
