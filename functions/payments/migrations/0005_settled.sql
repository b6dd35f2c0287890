-- Up to which entry the log is settled: every entry of epoch `settled_epoch` with the number `settled_seq` or a smaller one that was
-- ever committed is in every database in which this row says so. A replay need not read those in the journal, so it takes as long as
-- a replica is behind, not as long as the epoch lasted.
--
-- Numbers are taken in one order and committed in another, so the newest number in a replica says nothing of the smaller ones. Every
-- command holds the guard from before it takes its number until it has committed. So a look takes the number that was taken last,
-- and then asks who holds the guard; once none of those does any more, that number is settled, and the row that says so stands
-- in the database's own log behind all of them.
alter table ledger.heartbeat
    add column settled_epoch bigint,
    add column settled_seq   bigint,
    add column asked_epoch   bigint, -- The number that was taken last when it was asked,
    add column asked_seq     bigint,
    add column asked_of      text[]; -- and the transactions that held the guard then.

-- The transactions that hold the guard.
create function ledger.at_work() returns text[] language sql volatile as $$
    select array(select l.virtualtransaction from pg_locks l
                  where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                    and l.classid::bigint = ledger.guard() >> 32 and l.objid::bigint = ledger.guard() & 4294967295
                    and l.database = (select d.oid from pg_database d where d.datname = current_database()))
$$;

-- Commits a write, and settles the log of epoch `in_epoch` as far as it is. Waits for no command, and none waits for it. What was asked
-- in another epoch is forgotten: it was asked of another server's transactions, which may be lost with it.
create function ledger.beat(in_epoch bigint) returns void language plpgsql as $$
declare
    beat    ledger.heartbeat;
    now_in  bigint;
    last    bigint;
    at_work text[];
begin
    select * into strict beat from ledger.heartbeat for update;
    select l.epoch into now_in from ledger.ledger_epoch l;
    if now_in = in_epoch then
        -- The number first: whoever took a smaller one holds the guard, or has ended.
        select case when s.is_called then s.last_value else s.last_value - 1 end into strict last from ledger.entry_seq s;
        at_work := ledger.at_work();
        if at_work = '{}' then
            beat.settled_epoch := in_epoch;
            beat.settled_seq := last;
            beat.asked_epoch := null;
            beat.asked_seq := null;
            beat.asked_of := null;
        elsif beat.asked_epoch is distinct from in_epoch or not beat.asked_of && at_work then
            if beat.asked_epoch = in_epoch then
                beat.settled_epoch := in_epoch;
                beat.settled_seq := beat.asked_seq;
            end if;
            beat.asked_epoch := in_epoch;
            beat.asked_seq := last;
            beat.asked_of := at_work;
        end if;
    end if;
    update ledger.heartbeat
       set at = clock_timestamp(), settled_epoch = beat.settled_epoch, settled_seq = beat.settled_seq,
           asked_epoch = beat.asked_epoch, asked_seq = beat.asked_seq, asked_of = beat.asked_of;
end $$;
