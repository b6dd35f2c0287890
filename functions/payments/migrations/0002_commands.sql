-- What is done to the ledger: pay and submit (one command, one round trip), append (shared with replay), set_epoch, verify.
--
-- Every function is `volatile`, so that under READ COMMITTED each of its statements sees what had been committed when it
-- began: what is read after a lock was taken is what the lock protects.
--
-- Speed: an assignment evaluates an expression, `perform` runs a query, which costs several times as much; hence the variables
-- `none`. Every expression is prepared anew in each transaction, so that few large ones cost less than many small ones. Rows
-- as arguments, and as answers that are selected from, cost more than columns and one jsonb.
--
-- Locks, all advisory, until the end of the transaction, always in this order: the guard, the idempotency key, the payment,
-- the accounts in the order of their hashes. So two commands wait for each other, never in a circle.

-- The guard: every command holds it shared until it commits, set_epoch and replay exclusively. So once set_epoch has
-- returned, no command of an older epoch can commit any more.
create function ledger.guard() returns bigint language sql immutable parallel safe as $$ select 7165843 $$;

-- How a command ended. Callers get it as jsonb.
create type ledger.submitted as (
    result    text,    -- see ledger.pay
    seq       bigint,  -- of a new entry
    reason    text,    -- of a new decline
    account   uuid,    -- that a rejection is about
    currency  text,    -- that a rejection is about
    deferred  boolean, -- see ledger.wait_for_accounts
    entry     jsonb,   -- stored, or new where the caller cannot know it
    relies_on jsonb    -- with `entry`: the entries of its payment that it would not be without, or null
);

-- A stored entry, in the form in which it was journaled and will be replayed.
create function ledger.entry_json(e ledger.entries) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'epoch', e.epoch, 'seq', e.seq, 'idempotency_key', e.idempotency_key, 'request_hash', e.request_hash, 'request_id', e.request_id,
        'kind', e.kind, 'status', e.status, 'subject', e.subject, 'details', e.details,
        'created_at_ms', e.created_at_ms)
        || case when e.amount_minor > 0
                then jsonb_build_object('posting', jsonb_build_object(
                    'debit_account', e.debit_account, 'credit_account', e.credit_account,
                    'amount_minor', e.amount_minor, 'currency', e.currency))
                else '{}' end
$$;

-- Appends an entry with what follows from it. It decides nothing and may overdraw. The caller holds the locks.
create function ledger.append(
    epoch bigint, seq bigint, posted_epoch bigint, created_at_ms bigint, kind ledger.entry_kind, status ledger.entry_status,
    idempotency_key text, request_hash text, request_id text, subject uuid, debit_account uuid, credit_account uuid,
    amount_minor bigint, currency text, details jsonb) returns void language plpgsql as $$
#variable_conflict use_variable
declare
    none text;
    held ledger.holds;
begin
    none := set_config('ledger.appending', 'on', true);
    insert into ledger.entries
    values (epoch, seq, posted_epoch, created_at_ms, kind, status, idempotency_key, request_hash, request_id, subject,
            debit_account, credit_account, amount_minor, currency, details);
    if amount_minor > 0 then
        update ledger.accounts a set balance_minor = a.balance_minor - amount_minor where a.id = debit_account;
        update ledger.accounts a set balance_minor = a.balance_minor + amount_minor where a.id = credit_account;
    end if;
    if kind in ('payment', 'refund') or status = 'declined' then
        null; -- That is all of it.
    elsif kind = 'account-opened' then
        insert into ledger.accounts as a (id, currency, limit_minor, opened_epoch, opened_seq)
        values (subject, currency, (details ->> 'limit_minor')::bigint, epoch, seq)
        on conflict (id) do update set limit_minor = excluded.limit_minor, opened_epoch = excluded.opened_epoch,
               opened_seq = excluded.opened_seq
         where a.opened_epoch is null;
    elsif kind = 'account-closed' then
        update ledger.accounts a set closed = true where a.id = subject;
    elsif kind = 'authorisation' then
        -- A replay may find the authorisation after what ended it.
        if not exists (select from ledger.entries o where o.subject = append.subject and o.kind in ('capture', 'void', 'expiry')) then
            held := row(subject, debit_account, credit_account,
                        (details ->> 'amount_minor')::bigint, (details ->> 'expires_at_ms')::bigint);
            insert into ledger.holds select held.*;
            update ledger.accounts a set pending_out_minor = a.pending_out_minor + held.amount_minor
             where a.id = held.debit_account;
            update ledger.accounts a set pending_in_minor = a.pending_in_minor + held.amount_minor
             where a.id = held.credit_account;
        end if;
    else
        delete from ledger.holds h where h.payment = subject returning h.* into held;
        update ledger.accounts a set pending_out_minor = a.pending_out_minor - held.amount_minor where a.id = held.debit_account;
        update ledger.accounts a set pending_in_minor = a.pending_in_minor - held.amount_minor where a.id = held.credit_account;
    end if;
    none := set_config('ledger.appending', 'off', true);
end $$;

-- Takes the guard and the key if they are free; otherwise the answer is false, and ledger.wait_for_key is next.
create function ledger.try_key(key text) returns boolean language sql volatile as $$
    select case when pg_try_advisory_xact_lock_shared(ledger.guard())
                then pg_try_advisory_xact_lock(hashtextextended(key, 1)) else false end
$$;

-- Waits for the guard and for the key; false when another transaction executes the key and takes longer than lock_timeout.
create function ledger.wait_for_key(key text) returns boolean language plpgsql as $$
declare
    none text;
begin
    none := pg_advisory_xact_lock_shared(ledger.guard());
    begin
        none := pg_advisory_xact_lock(hashtextextended(key, 1));
        return true;
    exception when lock_not_available then
        return false;
    end;
end $$;

-- Takes the locks of two accounts (or one, with a null) if nobody holds them; otherwise the answer is false, and
-- ledger.wait_for_accounts is next.
create function ledger.try_accounts(one uuid, other uuid) returns boolean language sql volatile as $$
    select case when pg_try_advisory_xact_lock(least(uuid_hash_extended(one, 2), uuid_hash_extended(other, 2)))
                then pg_try_advisory_xact_lock(greatest(uuid_hash_extended(one, 2), uuid_hash_extended(other, 2)))
                else false end
$$;

-- Waits for them; the answer is true. The command that had to wait commits without waiting for its own log flush, so that the
-- next in the queue for the account need not wait for it either; it answers `deferred`, and its caller must call ledger.flush
-- before it believes the answer. One flush serves all that committed before it, whoever they are: log records become durable in
-- the order of the log.
create function ledger.wait_for_accounts(one uuid, other uuid) returns boolean language sql volatile as $$
    select case
        when pg_advisory_xact_lock(least(uuid_hash_extended(one, 2), uuid_hash_extended(other, 2))) is null then false
        when pg_advisory_xact_lock(greatest(uuid_hash_extended(one, 2), uuid_hash_extended(other, 2))) is null then false
        else set_config('synchronous_commit', 'off', true) = 'off' end
$$;

-- Returns once everything that had been committed before the call is durable.
create function ledger.flush() returns pg_lsn language sql volatile as $$
    select pg_logical_emit_message(true, 'ledger', '')
$$;

-- What an entry about a payment relies on: what the payment was before.
create function ledger.relies_on(made ledger.entries) returns jsonb language sql stable as $$
    select jsonb_agg(ledger.entry_json(e) order by e.epoch, e.seq)
      from ledger.entries e
     where made.kind in ('capture', 'void', 'expiry', 'refund') and e.subject = made.subject
       and e.kind in ('payment', 'authorisation', 'capture') and (e.epoch, e.seq) <> (made.epoch, made.seq)
$$;

-- What a key that is taken answers to a request. The stored entry may be of a command whose caller ended before its flush, so
-- it is always to be flushed.
create function ledger.outcome_of_key(key text, hash text) returns ledger.submitted language plpgsql as $$
declare
    stored ledger.entries;
    answer ledger.submitted;
begin
    select * into strict stored from ledger.entries e where e.idempotency_key = key;
    if stored.request_hash = hash then
        answer.result := 'entry';
        answer.deferred := true;
        answer.entry := ledger.entry_json(stored);
        answer.relies_on := ledger.relies_on(stored);
    else
        answer.result := 'key-reuse';
    end if;
    return answer;
end $$;

-- Why `amount` cannot be moved from one account to another, in order of precedence; null when it can.
create function ledger.decline_reason(payer ledger.accounts, payee ledger.accounts, amount bigint) returns text
language plpgsql immutable as $$
declare
    available bigint := payer.balance_minor - payer.pending_out_minor;
    farthest  constant bigint := 4000000000000000000;
begin
    return case
        when payer.closed or payee.closed then 'account-closed'
        when amount > farthest or available < amount - farthest
          or payee.balance_minor + payee.pending_in_minor > farthest - amount then 'balance-out-of-range'
        when available - amount < payer.limit_minor then 'insufficient-funds'
    end;
end $$;

-- Decides an authorisation, or a payment that ledger.pay did not see through, and appends its entry. The caller holds the
-- locks and knows that the epoch is right and the key is free.
create function ledger.decide(in_epoch bigint, key text, hash text, id uuid, payer uuid, payee uuid, amount bigint,
                              in_currency text, details jsonb, expires_ms bigint, now_ms bigint, request_id text,
                              deferred boolean)
returns ledger.submitted language plpgsql as $$
declare
    answer   ledger.submitted;
    none     text;
    one      ledger.accounts;
    other    ledger.accounts;
    farthest constant bigint := 4000000000000000000;
begin
    if amount <= 0 or payer = payee then
        raise exception 'a payment moves a positive amount between two accounts' using errcode = 'check_violation';
    end if;
    answer.deferred := deferred;
    select * into one from ledger.accounts a where a.id = payer;
    select * into other from ledger.accounts a where a.id = payee;
    case
        when one.id is null or other.id is null then
            answer.result := 'account-unknown';
            answer.account := case when one.id is null then payer else payee end;
            return answer;
        when one.currency <> in_currency then
            answer.result := 'currency-mismatch';
            answer.account := payer;
            answer.currency := one.currency;
            return answer;
        when other.currency <> in_currency then
            answer.result := 'currency-mismatch';
            answer.account := payee;
            answer.currency := other.currency;
            return answer;
        else
            answer.reason := ledger.decline_reason(one, other, amount);
    end case;
    answer.seq := nextval('ledger.entry_seq');
    answer.result := 'created';
    none := ledger.append(
        in_epoch, answer.seq, in_epoch, now_ms,
        case when expires_ms is null then 'payment'::ledger.entry_kind else 'authorisation' end,
        case when answer.reason is null then 'created'::ledger.entry_status else 'declined' end,
        key, hash, request_id, id, payer, payee,
        case when answer.reason is null and expires_ms is null then amount else 0 end, in_currency,
        case when answer.reason is null then details else details || jsonb_build_object('reason', answer.reason) end);
    return answer;
end $$;

-- Pays, or with `expires_ms` authorises, in epoch `in_epoch`, or finds the stored outcome of the key. The answer's `result`
-- is, in order of precedence:
--   in-flight          the key is being executed by another request; nothing was done
--   other-epoch        the ledger is in another epoch; nothing was done
--   entry              (key seen with this request) the stored entry
--   key-reuse          (key seen with another request) nothing was done
--   account-unknown    no such account, the payer's first; nothing was recorded
--   currency-mismatch  the account is of another currency, the payer's first; nothing was recorded
--   created            declined, `reason` account-closed: an account is closed
--   created            declined, `reason` balance-out-of-range: a balance would leave the range +-4e18
--   created            declined, `reason` insufficient-funds: what the payer has available would fall below its limit
--   created            without a reason
-- The new entry is all that the caller knows, with `seq` and `reason`.
--
-- A payment that succeeds is decided by the updates of its two accounts, which is all that others wait for who want the same
-- account. Why one does not succeed is found out by ledger.decide.
create function ledger.pay(in_epoch bigint, key text, hash text, id uuid, payer uuid, payee uuid, amount bigint,
                           in_currency text, details jsonb, expires_ms bigint, now_ms bigint, request_id text)
returns jsonb language plpgsql as $$
#variable_conflict use_variable
declare
    none     text;
    now_in   bigint;
    seen     boolean;
    deferred boolean := false;
    new_seq  bigint;
    farthest constant bigint := 4000000000000000000;
begin
    if not ledger.try_key(key) then
        if not ledger.wait_for_key(key) then
            return '{"result": "in-flight"}';
        end if;
    end if;
    -- What guard and key protect is read before there is a queue behind the accounts.
    select l.epoch, e.seq is not null, set_config('ledger.appending', 'on', true) into now_in, seen, none
      from ledger.ledger_epoch l left join ledger.entries e on e.idempotency_key = key;
    if seen or now_in is distinct from in_epoch then
        return case when now_in is distinct from in_epoch then '{"result": "other-epoch"}'
                    else to_jsonb(ledger.outcome_of_key(key, hash)) end;
    end if;
    if not ledger.try_accounts(payer, payee) then
        deferred := ledger.wait_for_accounts(payer, payee);
    end if;

    update ledger.accounts a set balance_minor = a.balance_minor - amount
     where a.id = payer and expires_ms is null and amount > 0 and payer <> payee
       and a.currency = in_currency and not a.closed and amount <= farthest
       and a.balance_minor - a.pending_out_minor - amount >= greatest(a.limit_minor, -farthest);
    if found then
        update ledger.accounts a set balance_minor = a.balance_minor + amount
         where a.id = payee and a.currency = in_currency and not a.closed
           and a.balance_minor + a.pending_in_minor <= farthest - amount;
        if found then
            -- The number is taken after the locks: on every account, the order of numbers is the order of the balances.
            insert into ledger.entries
            values (in_epoch, nextval('ledger.entry_seq'), in_epoch, now_ms, 'payment', 'created', key, hash, request_id, id,
                    payer, payee, amount, in_currency, details)
            returning seq, set_config('ledger.appending', 'off', true) into new_seq, none;
            return jsonb_build_object('result', 'created', 'seq', new_seq, 'deferred', deferred);
        end if;
        update ledger.accounts a set balance_minor = a.balance_minor + amount where a.id = payer;
    end if;
    return to_jsonb(ledger.decide(
        in_epoch, key, hash, id, payer, payee, amount, in_currency, details, expires_ms, now_ms, request_id, deferred));
end $$;

-- ledger.pay and ledger.flush in one round trip, for an account that is busy: nobody waits for a log flush behind it. The answer
-- is to be believed as it is, whether or not it says `deferred`, which is still whether it had to wait for an account.
create procedure ledger.pay_and_flush(inout answer jsonb, in_epoch bigint, key text, hash text, id uuid, payer uuid, payee uuid,
                                      amount bigint, in_currency text, details jsonb, expires_ms bigint, now_ms bigint,
                                      request_id text) language plpgsql as $$
declare
    none    text := set_config('synchronous_commit', 'off', true);
    flushed pg_lsn;
begin
    answer := ledger.pay(in_epoch, key, hash, id, payer, payee, amount, in_currency, details, expires_ms, now_ms, request_id);
    commit;
    flushed := ledger.flush();
end $$;

-- An account as it is now, in the form of the API.
create function ledger.account_json(a ledger.accounts) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'id', a.id, 'status', case when a.closed then 'closed' else 'open' end, 'currency', a.currency,
        'balance_minor', a.balance_minor, 'available_minor', a.balance_minor - a.pending_out_minor,
        'pending_out_minor', a.pending_out_minor, 'pending_in_minor', a.pending_in_minor, 'limit_minor', a.limit_minor,
        'name', o.details -> 'name', 'metadata', coalesce(o.details -> 'metadata', '{}'),
        'epoch', a.opened_epoch, 'seq', a.opened_seq, 'posted_epoch', o.posted_epoch, 'created_at_ms', o.created_at_ms)
      from (select) as always
      left join ledger.entries o on o.epoch = a.opened_epoch and o.seq = a.opened_seq
$$;

-- A payment as it is now, in the form of the API, from the entry that made it.
create function ledger.payment_json(o ledger.entries) returns jsonb language sql stable as $$
    select o.details || jsonb_build_object(
        'id', o.subject,
        'status', case when o.status = 'declined' then 'declined' when o.kind = 'payment' then 'captured'
                       else coalesce(later.ended, 'authorised') end,
        'captured_minor', o.amount_minor + later.captured, 'refunded_minor', later.refunded,
        'epoch', o.epoch, 'seq', o.seq, 'posted_epoch', o.posted_epoch, 'created_at_ms', o.created_at_ms)
      from (select coalesce(sum(x.amount_minor) filter (where x.kind = 'capture'), 0)::bigint as captured,
                   coalesce(sum(x.amount_minor) filter (where x.kind = 'refund'), 0)::bigint as refunded,
                   max(case x.kind when 'capture' then 'captured' when 'void' then 'voided' when 'expiry' then 'expired' end) as ended
              from ledger.entries x where x.subject = o.subject) as later
$$;

-- The payment `id` as it is now. Where a replay honoured a capture or refund of a payment whose own, never acknowledged entry
-- was lost, it is what that command recorded of it. Null when there is none.
create function ledger.payment_json(id uuid) returns jsonb language sql stable as $$
    select case when e.kind in ('payment', 'authorisation') then ledger.payment_json(e) else e.details -> 'payment' end
      from ledger.entries e
     where e.subject = id and e.kind not in ('account-opened', 'account-closed')
     order by e.kind not in ('payment', 'authorisation'), e.epoch desc, e.seq desc
     limit 1
$$;

-- Executes every other command in epoch `in_epoch`, or finds the stored outcome of its key. `command` holds `kind`,
-- `subject` (the account or payment that it is about), `details`, `request_id` and `created_at_ms`. The answer's `result` is, in order of
-- precedence, the first four as for ledger.pay:
--   in-flight, other-epoch, entry, key-reuse
-- account-opened
--   entry                    created
-- account-closed
--   not-found                no such account; nothing was recorded, as for every result but `entry`
--   account-closed           it is closed already
--   account-not-empty        its balance is not zero, or an authorisation is open
--   entry                    created
-- capture, void, expiry
--   not-found                no such payment
--   payment-not-authorised   it is not, or no longer, authorised; `reason` is its status
--   authorisation-expired    (capture) its time has passed
--   authorisation-not-expired  (expiry) its time has not passed
--   amount-too-large         (capture) more than was authorised; `reason` is what may be captured
--   entry                    created
-- refund
--   not-found                no such payment
--   payment-not-captured     nothing was captured; `reason` is its status
--   amount-too-large         more than was captured and not refunded; `reason` is what may be refunded
--   entry                    declined: account-closed, balance-out-of-range, insufficient-funds, as for ledger.pay
--   entry                    created
create function ledger.submit(in_epoch bigint, key text, hash text, command jsonb) returns ledger.submitted
language plpgsql as $$
declare
    answer    ledger.submitted;
    entry     ledger.entries;
    kind      ledger.entry_kind := command ->> 'kind';
    subject   uuid   := command ->> 'subject';
    details   jsonb  := command -> 'details';
    now_ms    bigint := command ->> 'created_at_ms';
    none      text;
    now_in    bigint;
    one       uuid;
    other     uuid;
    payment   jsonb;
    account   ledger.accounts;
    payer     ledger.accounts;
    payee     ledger.accounts;
    amount    bigint := details ->> 'amount_minor';
    most      bigint;
begin
    if not ledger.try_key(key) then
        if not ledger.wait_for_key(key) then
            answer.result := 'in-flight';
            return answer;
        end if;
    end if;
    select l.epoch into now_in from ledger.ledger_epoch l;
    if now_in is distinct from in_epoch then
        answer.result := 'other-epoch';
        return answer;
    end if;
    if exists (select from ledger.entries e where e.idempotency_key = key) then
        return ledger.outcome_of_key(key, hash);
    end if;
    if kind in ('account-opened', 'account-closed') then
        one := subject;
    else
        none := pg_advisory_xact_lock(uuid_hash_extended(subject, 3));
        payment := ledger.payment_json(subject);
        one := payment ->> 'from_account';
        other := payment ->> 'to_account';
    end if;
    answer.deferred := false;
    if one is not null and not ledger.try_accounts(one, other) then
        answer.deferred := ledger.wait_for_accounts(one, other);
    end if;

    answer.result := 'entry';
    entry := row(in_epoch, null, in_epoch, now_ms, kind, 'created', key, hash, command ->> 'request_id', subject, null, null, 0,
                 null, details);
    case
        when kind = 'account-opened' then
            entry.currency := details ->> 'currency';

        when kind = 'account-closed' then
            select * into account from ledger.accounts a where a.id = subject;
            entry.currency := account.currency;
            entry.details := details || jsonb_build_object('account', ledger.account_json(account) || '{"status": "closed"}');
            answer.result := case
                when account.id is null then 'not-found'
                when account.closed then 'account-closed'
                when account.balance_minor <> 0 or account.pending_out_minor <> 0 or account.pending_in_minor <> 0
                    then 'account-not-empty'
                else 'entry' end;

        when payment is null then
            answer.result := 'not-found';

        when kind in ('capture', 'void', 'expiry') then
            most := (payment ->> 'amount_minor')::bigint;
            entry.debit_account := payment ->> 'from_account';
            entry.credit_account := payment ->> 'to_account';
            entry.currency := payment ->> 'currency';
            if payment ->> 'status' <> 'authorised' then
                answer.result := 'payment-not-authorised';
                answer.reason := payment ->> 'status';
            elsif kind = 'capture' and now_ms >= (payment ->> 'expires_at_ms')::bigint then
                answer.result := 'authorisation-expired';
            elsif kind = 'expiry' and now_ms < (payment ->> 'expires_at_ms')::bigint then
                answer.result := 'authorisation-not-expired';
            elsif kind = 'capture' and amount > most then
                answer.result := 'amount-too-large';
                answer.reason := most;
            elsif kind = 'capture' then
                entry.amount_minor := coalesce(amount, most);
                entry.details := details || jsonb_build_object('amount_minor', entry.amount_minor, 'payment', payment
                    || jsonb_build_object('status', 'captured', 'captured_minor', entry.amount_minor));
            else
                entry.details := details || jsonb_build_object('payment', payment
                    || jsonb_build_object('status', case kind when 'void' then 'voided' else 'expired' end));
            end if;

        when kind = 'refund' then
            most := (payment ->> 'captured_minor')::bigint - (payment ->> 'refunded_minor')::bigint;
            amount := coalesce(amount, most);
            entry.debit_account := payment ->> 'to_account';
            entry.credit_account := payment ->> 'from_account';
            entry.currency := payment ->> 'currency';
            select * into payer from ledger.accounts a where a.id = entry.debit_account;
            select * into payee from ledger.accounts a where a.id = entry.credit_account;
            if (payment ->> 'captured_minor')::bigint = 0 then
                answer.result := 'payment-not-captured';
                answer.reason := payment ->> 'status';
            elsif amount > most or most <= 0 then
                answer.result := 'amount-too-large';
                answer.reason := most;
            else
                answer.reason := ledger.decline_reason(payer, payee, amount);
                entry.details := details || jsonb_build_object('amount_minor', amount, 'currency', entry.currency);
                if answer.reason is null then
                    entry.amount_minor := amount;
                    payment := payment || jsonb_build_object('refunded_minor', (payment ->> 'refunded_minor')::bigint + amount);
                else
                    entry.status := 'declined';
                    entry.details := entry.details || jsonb_build_object('reason', answer.reason);
                end if;
                entry.details := entry.details || jsonb_build_object('payment', payment);
            end if;
    end case;

    if answer.result = 'entry' then
        entry.seq := nextval('ledger.entry_seq');
        perform ledger.append(
            entry.epoch, entry.seq, entry.posted_epoch, entry.created_at_ms, entry.kind, entry.status, entry.idempotency_key,
            entry.request_hash, entry.request_id, entry.subject, entry.debit_account, entry.credit_account,
            entry.amount_minor, entry.currency, entry.details);
        answer.entry := ledger.entry_json(entry);
        answer.relies_on := ledger.relies_on(entry);
    end if;
    return answer;
end $$;

-- Raises the ledger epoch, never lowers it, and waits for every command that is under way. Answers the epoch that holds.
create function ledger.set_epoch(to_epoch bigint) returns bigint language plpgsql as $$
declare
    holds bigint;
begin
    perform pg_advisory_xact_lock(ledger.guard());
    update ledger.ledger_epoch set epoch = to_epoch where epoch < to_epoch;
    select epoch into strict holds from ledger.ledger_epoch;
    return holds;
end $$;

-- Appends a recorded entry. Answers `posted`, also when an earlier run of the same replay did it; `present` when this very
-- entry was there before; `conflict` when its key or its identity is taken by another entry: then nothing is done.
create function ledger.replay_entry(recorded jsonb, in_epoch bigint) returns text language plpgsql as $$
declare
    entry   ledger.entries;
    present ledger.entries;
    posting jsonb := recorded -> 'posting';
    details jsonb := recorded -> 'details';
    -- Who pays whom: said by the posting, the payment itself, or what a later command recorded of it.
    parties jsonb := coalesce(details -> 'payment', details);
begin
    select * into present from ledger.entries e
     where e.epoch = (recorded ->> 'epoch')::bigint and e.seq = (recorded ->> 'seq')::bigint;
    if found then
        return case when present.idempotency_key <> recorded ->> 'idempotency_key' then 'conflict'
                    when present.posted_epoch = in_epoch and present.epoch < in_epoch then 'posted'
                    else 'present' end;
    end if;
    if exists (select from ledger.entries e where e.idempotency_key = recorded ->> 'idempotency_key') then
        return 'conflict';
    end if;

    entry := row((recorded ->> 'epoch')::bigint, (recorded ->> 'seq')::bigint, in_epoch,
        (recorded ->> 'created_at_ms')::bigint, recorded ->> 'kind', recorded ->> 'status',
        recorded ->> 'idempotency_key', recorded ->> 'request_hash', recorded ->> 'request_id', (recorded ->> 'subject')::uuid,
        null, null, 0, coalesce(parties ->> 'currency', details #>> '{account,currency}'), details);
    if posting is not null then
        entry.debit_account := posting ->> 'debit_account';
        entry.credit_account := posting ->> 'credit_account';
        entry.amount_minor := posting ->> 'amount_minor';
    elsif parties ? 'from_account' then
        entry.debit_account := parties ->> case entry.kind when 'refund' then 'to_account' else 'from_account' end;
        entry.credit_account := parties ->> case entry.kind when 'refund' then 'from_account' else 'to_account' end;
    end if;
    perform set_config('ledger.appending', 'on', true);
    -- It may have been acknowledged although its accounts' own entries never were, and are lost: it is honoured.
    if entry.status = 'created' and entry.debit_account is not null then
        insert into ledger.accounts (id, currency, limit_minor)
        values (entry.debit_account, entry.currency, 0), (entry.credit_account, entry.currency, 0)
        on conflict do nothing;
    elsif entry.kind = 'account-closed' then
        insert into ledger.accounts (id, currency, limit_minor) values (entry.subject, entry.currency, 0)
        on conflict do nothing;
    end if;
    perform ledger.append(
            entry.epoch, entry.seq, entry.posted_epoch, entry.created_at_ms, entry.kind, entry.status, entry.idempotency_key,
            entry.request_hash, entry.request_id, entry.subject, entry.debit_account, entry.credit_account,
            entry.amount_minor, entry.currency, entry.details);
    return 'posted';
end $$;

-- Posts recorded entries, in the order given, into epoch `in_epoch`. No command runs meanwhile. Twice equals once.
create function ledger.replay(in_epoch bigint, entries jsonb) returns jsonb language plpgsql as $$
declare
    now_in    bigint;
    entry     jsonb;
    posted    bigint := 0;
    present   bigint := 0;
    conflicts jsonb := '[]';
    touched   uuid[] := '{}';
begin
    perform pg_advisory_xact_lock(ledger.guard());
    select l.epoch into now_in from ledger.ledger_epoch l;
    if now_in is distinct from in_epoch then
        return jsonb_build_object('result', 'other-epoch', 'ledger_epoch', now_in);
    end if;
    for entry in select value from jsonb_array_elements(entries) loop
        case ledger.replay_entry(entry, in_epoch)
            when 'posted' then
                posted := posted + 1;
                touched := touched || array(
                    select unnest(array[e.debit_account, e.credit_account]) from ledger.entries e
                     where e.epoch = (entry ->> 'epoch')::bigint and e.seq = (entry ->> 'seq')::bigint
                       and e.status = 'created' and e.debit_account is not null);
            when 'present' then
                present := present + 1;
            else
                conflicts := conflicts || jsonb_build_object('epoch', entry -> 'epoch', 'seq', entry -> 'seq');
        end case;
    end loop;
    return jsonb_build_object('result', 'replayed', 'posted', posted, 'already_present', present,
                              'conflicts', conflicts, 'touched', coalesce((select jsonb_agg(distinct t) from unnest(touched) t), '[]'));
end $$;

-- Authorisations that the log does not end.
create view ledger.open_authorisations as
    select o.subject as payment, o.debit_account, o.credit_account, (o.details ->> 'amount_minor')::bigint as amount_minor
      from ledger.entries o
     where o.kind = 'authorisation' and o.status = 'created'
       and not exists (select from ledger.entries x where x.subject = o.subject and x.kind in ('capture', 'void', 'expiry'));

-- What the log says of every account: credits less debits, and what open authorisations take and bring.
create view ledger.account_totals as
    select account, sum(balance) as balance_minor, sum(pending_out) as pending_out_minor, sum(pending_in) as pending_in_minor
      from (select debit_account as account, -amount_minor as balance, 0 as pending_out, 0 as pending_in
              from ledger.entries where amount_minor > 0
            union all
            select credit_account, amount_minor, 0, 0 from ledger.entries where amount_minor > 0
            union all
            select debit_account, 0, amount_minor, 0 from ledger.open_authorisations
            union all
            select credit_account, 0, 0, amount_minor from ledger.open_authorisations) as sides
     group by account;

-- Recomputes everything that follows from the log, in one snapshot, and names what does not agree (at most 20 of a kind).
create function ledger.verify() returns jsonb language sql stable as $$
    select jsonb_build_object(
        'entries', (select count(*) from ledger.entries),
        'accounts', (select count(*) from ledger.accounts),
        'currencies', coalesce((
            select jsonb_object_agg(t.currency, jsonb_build_object('debits', t.debits::text, 'credits', t.credits::text))
              from (select currency, sum(debits) as debits, sum(credits) as credits from (
                        select a.currency, e.amount_minor as debits, 0 as credits
                          from ledger.entries e join ledger.accounts a on a.id = e.debit_account where e.amount_minor > 0
                        union all
                        select a.currency, 0, e.amount_minor
                          from ledger.entries e join ledger.accounts a on a.id = e.credit_account where e.amount_minor > 0) sides
                     group by currency) t), '{}'),
        'problems', coalesce((
            select jsonb_agg(problem) from (
                (select format('account %s: balance %s, pending out %s, in %s; the log says %s, %s, %s', a.id, a.balance_minor,
                               a.pending_out_minor, a.pending_in_minor, coalesce(t.balance_minor, 0),
                               coalesce(t.pending_out_minor, 0), coalesce(t.pending_in_minor, 0)) as problem
                   from ledger.accounts a left join ledger.account_totals t on t.account = a.id
                  where (a.balance_minor, a.pending_out_minor, a.pending_in_minor)
                     <> (coalesce(t.balance_minor, 0), coalesce(t.pending_out_minor, 0), coalesce(t.pending_in_minor, 0)) limit 20)
                union all
                (select format('entry %s/%s: amount %s, %s between %s and %s', e.epoch, e.seq, e.amount_minor, e.status,
                               e.debit_account, e.credit_account)
                   from ledger.entries e
                  where e.amount_minor < 0 or (e.status = 'declined' and e.amount_minor <> 0)
                     or (e.amount_minor <> 0) <> (e.status = 'created' and e.kind in ('payment', 'capture', 'refund'))
                     or (e.amount_minor <> 0 and (e.debit_account = e.credit_account
                         or e.debit_account is null or e.credit_account is null)) limit 20)
                union all
                (select format('account %s: is in %s, entry %s/%s in %s', a.id, a.currency, e.epoch, e.seq, e.currency)
                   from ledger.entries e join ledger.accounts a on a.id in (e.debit_account, e.credit_account)
                  where e.amount_minor > 0 and a.currency <> e.currency limit 20)
                union all
                (select format('entry %s/%s: an account that it moved is missing', e.epoch, e.seq)
                   from ledger.entries e
                  where e.amount_minor > 0
                    and (not exists (select from ledger.accounts a where a.id = e.debit_account)
                      or not exists (select from ledger.accounts a where a.id = e.credit_account)) limit 20)
                union all
                (select format('hold %s: is not what the log says', coalesce(h.payment, o.payment))
                   from ledger.holds h full join ledger.open_authorisations o on o.payment = h.payment
                  where h.amount_minor is distinct from o.amount_minor limit 20)
                union all
                (select format('entry %s/%s: posted in epoch %s, the ledger is in %s', e.epoch, e.seq, e.posted_epoch, l.epoch)
                   from ledger.entries e, ledger.ledger_epoch l where e.posted_epoch > l.epoch limit 20)
            ) as found), '[]'))
$$;
