-- The ledger: a log of entries, the postings they made, and the accounts' balances that follow from them.
--
-- Rules that hold whoever writes: entries and postings are append only; the postings of an entry are inserted in one
-- statement and sum to zero in each currency; a balance changes only by postings; one idempotency key, one entry.

create table ledger.ledger_epoch (
    only_row boolean primary key default true check (only_row),
    epoch    bigint not null check (epoch >= 0)
);
-- Epoch 0 is no epoch: nothing is executed before the first set_epoch.
insert into ledger.ledger_epoch (epoch) values (0);

create sequence ledger.entry_seq;

create table ledger.entries (
    epoch           bigint not null check (epoch > 0),
    seq             bigint not null check (seq > 0),
    idempotency_key text   not null unique,
    request_hash    text   not null,
    kind            text   not null check (kind in ('account-opened', 'payment')),
    status          text   not null check (status in ('created', 'declined')),
    subject         uuid   not null,
    -- The accounts that it posted to, in the order of its postings.
    accounts        uuid[] not null,
    details         jsonb  not null,
    created_at_ms   bigint not null,
    -- The ledger epoch in which it was posted here; later than `epoch` for an entry that a replay recovered.
    posted_epoch    bigint not null check (posted_epoch >= epoch),
    primary key (epoch, seq)
);
create index entries_subject on ledger.entries (subject);

create table ledger.accounts (
    id            uuid   primary key,
    currency      text   not null check (currency ~ '^[A-Z]{3}$'),
    -- The lowest balance that a decided payment may leave; null is no limit.
    limit_minor   bigint check (limit_minor <= 0),
    name          text,
    balance_minor bigint not null default 0,
    -- Null only where a replay had to honour a payment of an account whose own, never acknowledged entry was lost.
    opened_epoch  bigint,
    opened_seq    bigint
) with (fillfactor = 50);

create table ledger.postings (
    account_id   uuid   not null,
    epoch        bigint not null,
    seq          bigint not null,
    amount_minor bigint not null check (amount_minor <> 0),
    currency     text   not null,
    primary key (account_id, epoch, seq)
);

create function ledger.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'ledger.% refuses %: %', tg_table_name, lower(tg_op), tg_argv[0]
        using errcode = 'integrity_constraint_violation';
end $$;

create trigger append_only before update or delete or truncate on ledger.entries
    for each statement execute function ledger.refuse_change('it is append only');
create trigger append_only before update or delete or truncate on ledger.postings
    for each statement execute function ledger.refuse_change('it is append only');
create trigger kept before delete or truncate on ledger.accounts
    for each statement execute function ledger.refuse_change('accounts are kept');
create trigger identity before update of id, currency on ledger.accounts
    for each statement execute function ledger.refuse_change('id and currency are for life');
create trigger balance_by_postings before update of balance_minor on ledger.accounts
    for each statement when (pg_trigger_depth() = 0)
    execute function ledger.refuse_change('a balance changes only by postings');

create function ledger.post() returns trigger language plpgsql as $$
declare
    posted integer;
begin
    if exists (select from added group by epoch, seq, currency having sum(amount_minor) <> 0) then
        raise exception 'postings do not sum to zero' using errcode = 'integrity_constraint_violation';
    end if;
    update ledger.accounts a
       set balance_minor = a.balance_minor + p.amount_minor
      from added p
      join ledger.entries e on e.epoch = p.epoch and e.seq = p.seq
     where a.id = p.account_id and a.currency = p.currency;
    get diagnostics posted = row_count;
    if posted <> (select count(*) from added) then
        raise exception 'a posting without its entry, or without an account of its currency'
            using errcode = 'integrity_constraint_violation';
    end if;
    return null;
end $$;

create trigger post after insert on ledger.postings
    referencing new table as added for each statement execute function ledger.post();
