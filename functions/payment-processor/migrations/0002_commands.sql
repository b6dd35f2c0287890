-- What is done to the ledger: submit (one command, one round trip), apply_entry (shared with replay), set_epoch, verify.

-- The epoch guard is one advisory lock: every command holds it shared until it commits, set_epoch and replay exclusively.
-- So once set_epoch has returned, no command of an older epoch can commit any more.
create function ledger.guard() returns bigint language sql immutable parallel safe as $$ select 7165843 $$;

-- A stored entry, in the form in which it was journaled and will be replayed.
create function ledger.entry_json(e ledger.entries) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'epoch', e.epoch, 'seq', e.seq, 'idempotency_key', e.idempotency_key, 'request_hash', e.request_hash,
        'kind', e.kind, 'status', e.status, 'subject', e.subject, 'details', e.details,
        'created_at_ms', e.created_at_ms,
        'postings', coalesce((
            select jsonb_agg(jsonb_build_object('account', p.account_id, 'amount_minor', p.amount_minor,
                                                'currency', p.currency)
                             order by array_position(e.accounts, p.account_id))
              from ledger.postings p
             where p.account_id = any (e.accounts) and p.epoch = e.epoch and p.seq = e.seq), '[]'))
$$;

-- Appends a recorded entry with its postings and balances. It decides nothing and may overdraw.
-- Answers `posted`, also when an earlier run of the same replay did it; `present` when this very entry was there before;
-- `conflict` when its key or its identity is taken by another entry: then nothing is done.
create function ledger.apply_entry(entry jsonb, posted_under bigint) returns text language plpgsql as $$
declare
    e_epoch bigint := (entry ->> 'epoch')::bigint;
    e_seq   bigint := (entry ->> 'seq')::bigint;
    e_key   text   := entry ->> 'idempotency_key';
begin
    insert into ledger.entries
    values (e_epoch, e_seq, e_key, entry ->> 'request_hash', entry ->> 'kind', entry ->> 'status',
            (entry ->> 'subject')::uuid,
            array(select (p ->> 'account')::uuid
                    from jsonb_array_elements(entry -> 'postings') with ordinality as t (p, n) order by n),
            entry -> 'details', (entry ->> 'created_at_ms')::bigint, posted_under)
    on conflict do nothing;
    if not found then
        return coalesce((select case when e.posted_epoch = posted_under and e_epoch < posted_under
                                     then 'posted' else 'present' end
                           from ledger.entries e
                          where e.epoch = e_epoch and e.seq = e_seq and e.idempotency_key = e_key), 'conflict');
    end if;

    if entry ->> 'kind' = 'account-opened' then
        insert into ledger.accounts (id, currency, limit_minor, name, opened_epoch, opened_seq)
        values ((entry ->> 'subject')::uuid, entry #>> '{details,currency}', (entry #>> '{details,limit_minor}')::bigint,
                entry #>> '{details,name}', e_epoch, e_seq)
        on conflict (id) do update set limit_minor = excluded.limit_minor, name = excluded.name,
               opened_epoch = excluded.opened_epoch, opened_seq = excluded.opened_seq
         where accounts.opened_epoch is null;
    end if;

    if jsonb_array_length(entry -> 'postings') > 0 then
        -- A payment may have been acknowledged although its account's own entry never was, and is lost: it is honoured.
        if e_epoch < posted_under then
            insert into ledger.accounts (id, currency, limit_minor)
            select p.account, p.currency, 0
              from jsonb_to_recordset(entry -> 'postings') as p (account uuid, currency text)
            on conflict do nothing;
        end if;
        insert into ledger.postings
        select p.account, e_epoch, e_seq, p.amount_minor, p.currency
          from jsonb_to_recordset(entry -> 'postings') as p (account uuid, amount_minor bigint, currency text);
    end if;
    return 'posted';
end $$;

-- What a key that is taken answers to a request.
create function ledger.outcome_of_key(stored ledger.entries, hash text) returns jsonb language sql stable as $$
    select case when stored.request_hash = hash
                then jsonb_build_object('result', 'entry', 'entry', ledger.entry_json(stored))
                else jsonb_build_object('result', 'key-reuse') end
$$;

-- Executes one command in epoch `in_epoch`, or finds its stored outcome. The answer's `result` is, in order of precedence:
--   other-epoch        the ledger is in another epoch; nothing was done
--   entry              (idempotency key seen with this request) the stored entry
--   key-reuse          (idempotency key seen with another request) nothing was done
--   account-unknown    no such account, the payer's first; nothing was recorded
--   currency-mismatch  the account is of another currency, the payer's first; nothing was recorded
--   entry              declined, reason `balance-out-of-range`: a balance would leave the range +-4e18
--   entry              declined, reason `insufficient-funds`: the payer's balance would fall below its limit
--   entry              created
create function ledger.submit(in_epoch bigint, key text, hash text, command jsonb) returns jsonb language plpgsql as $$
declare
    now_in    bigint;
    stored    ledger.entries;
    payer_id  uuid;
    payee_id  uuid;
    payer     ledger.accounts;
    payee     ledger.accounts;
    amount    bigint;
    reason    text;
    postings  jsonb := '[]';
    entry     jsonb;
    farthest  constant bigint := 4000000000000000000;
begin
    perform pg_advisory_xact_lock_shared(ledger.guard());
    select l.epoch into now_in from ledger.ledger_epoch l;
    if now_in is distinct from in_epoch then
        return jsonb_build_object('result', 'other-epoch', 'ledger_epoch', now_in);
    end if;

    select * into stored from ledger.entries e where e.idempotency_key = key;
    if found then
        return ledger.outcome_of_key(stored, hash);
    end if;

    if command ->> 'kind' = 'payment' then
        payer_id := (command #>> '{details,from_account}')::uuid;
        payee_id := (command #>> '{details,to_account}')::uuid;
        amount   := (command #>> '{details,amount_minor}')::bigint;
        if amount <= 0 or payer_id = payee_id then
            raise exception 'a payment moves a positive amount between two accounts' using errcode = 'check_violation';
        end if;
        -- Always the lower id first: two payments between the same accounts wait for each other, never in a circle.
        if payer_id < payee_id then
            select * into payer from ledger.accounts a where a.id = payer_id for no key update;
            select * into payee from ledger.accounts a where a.id = payee_id for no key update;
        else
            select * into payee from ledger.accounts a where a.id = payee_id for no key update;
            select * into payer from ledger.accounts a where a.id = payer_id for no key update;
        end if;
        -- The same key may have been executed while we waited for the accounts.
        select * into stored from ledger.entries e where e.idempotency_key = key;
        if found then
            return ledger.outcome_of_key(stored, hash);
        end if;
        if payer.id is null or payee.id is null then
            return jsonb_build_object('result', 'account-unknown',
                'account', case when payer.id is null then payer_id else payee_id end);
        end if;
        if payer.currency <> command #>> '{details,currency}' or payee.currency <> command #>> '{details,currency}' then
            return jsonb_build_object('result', 'currency-mismatch',
                'account', case when payer.currency <> command #>> '{details,currency}' then payer_id else payee_id end,
                'currency', case when payer.currency <> command #>> '{details,currency}'
                                 then payer.currency else payee.currency end);
        end if;
        if amount > farthest or payer.balance_minor < amount - farthest or payee.balance_minor > farthest - amount then
            reason := 'balance-out-of-range';
        elsif payer.balance_minor - amount < payer.limit_minor then
            reason := 'insufficient-funds';
        else
            postings := jsonb_build_array(
                jsonb_build_object('account', payer_id, 'amount_minor', -amount, 'currency', payer.currency),
                jsonb_build_object('account', payee_id, 'amount_minor', amount, 'currency', payee.currency));
        end if;
    end if;

    -- Taken after the locks: on every account, the order of sequence numbers is the order of the balances.
    entry := command || jsonb_build_object(
        'epoch', in_epoch, 'seq', nextval('ledger.entry_seq'), 'idempotency_key', key, 'request_hash', hash,
        'status', case when reason is null then 'created' else 'declined' end, 'postings', postings);
    if reason is not null then
        entry := jsonb_set(entry, '{details,reason}', to_jsonb(reason));
    end if;
    case ledger.apply_entry(entry, in_epoch)
        when 'posted' then
            return jsonb_build_object('result', 'entry', 'entry', entry);
        else
            -- Another transaction executed the same key and committed while we waited for its insert.
            select * into strict stored from ledger.entries e where e.idempotency_key = key;
            return ledger.outcome_of_key(stored, hash);
    end case;
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
        case ledger.apply_entry(entry, in_epoch)
            when 'posted' then
                posted := posted + 1;
                touched := touched || array(select (p ->> 'account')::uuid
                                              from jsonb_array_elements(entry -> 'postings') as p);
            when 'present' then
                present := present + 1;
            else
                conflicts := conflicts || jsonb_build_object('epoch', entry -> 'epoch', 'seq', entry -> 'seq');
        end case;
    end loop;
    return jsonb_build_object('result', 'replayed', 'posted', posted, 'already_present', present,
                              'conflicts', conflicts, 'touched', coalesce((select jsonb_agg(distinct t) from unnest(touched) t), '[]'));
end $$;

-- Recomputes everything that follows from the log, in one snapshot, and names what does not agree (at most 20 of a kind).
create function ledger.verify() returns jsonb language sql stable as $$
    select jsonb_build_object(
        'entries', (select count(*) from ledger.entries),
        'accounts', (select count(*) from ledger.accounts),
        'currencies', coalesce((
            select jsonb_object_agg(t.currency, jsonb_build_object('debits', t.debits::text, 'credits', t.credits::text))
              from (select currency, coalesce(-sum(amount_minor) filter (where amount_minor < 0), 0) as debits,
                           coalesce(sum(amount_minor) filter (where amount_minor > 0), 0) as credits
                      from ledger.postings group by currency) t), '{}'),
        'problems', coalesce((
            select jsonb_agg(problem) from (
                (select format('entry %s/%s: %s does not sum to zero', epoch, seq, currency) as problem
                   from ledger.postings group by epoch, seq, currency having sum(amount_minor) <> 0 limit 20)
                union all
                (select format('account %s: balance %s, postings sum to %s', a.id, a.balance_minor, coalesce(p.total, 0))
                   from ledger.accounts a
                   left join (select account_id, sum(amount_minor) as total from ledger.postings group by account_id) p
                     on p.account_id = a.id
                  where a.balance_minor <> coalesce(p.total, 0) limit 20)
                union all
                (select format('entry %s/%s: %s postings, recorded %s', coalesce(e.epoch, p.epoch), coalesce(e.seq, p.seq),
                               coalesce(p.number, 0), coalesce(cardinality(e.accounts), 0))
                   from ledger.entries e
                   full join (select epoch, seq, count(*) as number from ledger.postings group by epoch, seq) p
                     on p.epoch = e.epoch and p.seq = e.seq
                  where e.epoch is null or coalesce(p.number, 0) <> cardinality(e.accounts)
                     or (e.status = 'declined' and p.number > 0) limit 20)
                union all
                (select format('account %s: is in %s, posting %s/%s in %s', a.id, a.currency, p.epoch, p.seq, p.currency)
                   from ledger.postings p join ledger.accounts a on a.id = p.account_id and a.currency <> p.currency limit 20)
                union all
                (select format('entry %s/%s: posted in epoch %s, the ledger is in %s', e.epoch, e.seq, e.posted_epoch, l.epoch)
                   from ledger.entries e, ledger.ledger_epoch l where e.posted_epoch > l.epoch limit 20)
            ) as found), '[]'))
$$;
