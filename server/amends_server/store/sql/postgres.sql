-- The statements of the PostgreSQL store, by name. `:name` is a parameter; a whole batch comes as one array a column.

-- name: bound_transactions
select set_config(name, wanted.value, false)
from pg_settings join unnest(:names::text[], :values::text[]) as wanted (name, value) using (name)

-- name: transaction_without_end
select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout'

-- Commits wait for a moment on a healthy server, too. Who looks sees those of the same user.

-- name: held_back
select exists (
    select from pg_stat_activity
    where wait_event = 'SyncRep'
        and query_start < clock_timestamp() - :longer_s::double precision * interval '1 second'
)

-- name: applied
select number, name from migration where number > 0 order by number

-- name: create_migration
create table if not exists migration (number integer primary key, name text not null)

-- name: insert_migration_lock
insert into migration (number, name) values (0, 'locked while others run') on conflict do nothing

-- name: lock_migration
select number from migration where number = 0 for update

-- name: note_migration
insert into migration (number, name) values (:number, :name)

-- name: count_up
update meta set value = value + 1 where name = :name returning value

-- name: keep_secret
insert into secret (name, value) values ('tokens', :value) on conflict do nothing

-- name: read_secret
select value from secret where name = 'tokens'

-- name: partitions
select value from meta where name = 'partitions'

-- Leases. Rows of partitions are locked in the order of their numbers by everybody, so that no two wait for each other.

-- name: beat
insert into replica (id, address, expires)
values (:id, :address, clock_timestamp() + :lease_s::double precision * interval '1 second')
on conflict (id) do update set expires = excluded.expires

-- name: live_replicas
select id from replica where expires > clock_timestamp() order by id

-- name: others
select partition.id, replica.address from partition join replica on replica.id = partition.owner
where partition.owner <> :owner and partition.expires > clock_timestamp()

-- name: replicas
select
    id, address, (extract(epoch from started) * 1000000)::bigint as start_time,
    (extract(epoch from expires - clock_timestamp()) * 1000000)::bigint as lease_left_us
from replica where expires > clock_timestamp() - interval '1 hour' order by address, id

-- name: shares
select
    partition.id as number, partition.epoch, coalesce(due.due_count, 0) as due_count, due.oldest_due_time,
    case when partition.expires > clock_timestamp() then partition.owner end as owner,
    (extract(epoch from partition.claimed) * 1000000)::bigint as claim_time,
    (extract(epoch from partition.expires - clock_timestamp()) * 1000000)::bigint as lease_left_us
from partition left join (
    select partition, count(*) as due_count, min(due_time) as oldest_due_time
    from saga where due_time <= :now group by partition
) as due on due.partition = partition.id
order by partition.id

-- name: renew
update partition set expires = clock_timestamp() + :lease_s::double precision * interval '1 second'
where owner = :owner and id in (select id from partition where owner = :owner order by id for update)
returning id, epoch

-- A transaction that hangs keeps its partitions from being claimed, and no others: who claims passes them over until it
-- is gone. That two do not claim one partition follows from the update, which looks at the row again.

-- name: claim
update partition set
    owner = :owner, epoch = epoch + 1, claimed = clock_timestamp(),
    expires = clock_timestamp() + :lease_s::double precision * interval '1 second'
where (owner is null or expires < clock_timestamp()) and id in (
    select id from partition where owner is null or expires < clock_timestamp() order by id limit :limit
    for update skip locked
)
returning id, epoch

-- name: release
update partition set owner = null
where owner = :owner and id in (
    select id from partition where owner = :owner and id = any(:partitions::integer[]) order by id for update
)

-- name: release_all
update partition set owner = null
where owner = :owner and id in (select id from partition where owner = :owner order by id for update)

-- name: newest_epoch
select max(epoch) from (select epoch from partition order by id for update) as epochs

-- name: set_epochs
update partition set owner = null, epoch = :epoch

-- name: leave
delete from replica where id = :id

-- Those that died long ago are of no interest to operators any more.

-- name: forget_the_dead
delete from replica where expires < clock_timestamp() - interval '1 hour'

-- Waits for those who write sagas of these partitions, and as a write also for a standby that must have what is stored.

-- name: settle
update partition set expires = expires where id in (
    select id from partition where id = any(:partitions::integer[]) order by id for update
)

-- The share locks last until the transaction ends: a partition that is being written cannot change its owner, and one
-- that has changed it shows the new epoch.

-- name: find_sagas
with owned as (
    select id, epoch from partition where id = any(:partitions::integer[]) order by id for share
)
select wanted.place, owned.epoch as owner_epoch, saga.saga, saga.sequence, saga.epoch
from unnest(:namespaces::text[], :saga_ids::text[], :places::integer[], :partition_of::integer[])
    as wanted (namespace, saga_id, place, partition)
join owned on owned.id = wanted.partition
left join saga on saga.namespace = wanted.namespace and saga.saga_id = wanted.saga_id

-- name: find_definitions
select definition.namespace, definition.digest, definition.version
from definition join unnest(:namespaces::text[], :digests::text[]) as wanted (namespace, digest)
    on definition.namespace = wanted.namespace and definition.digest = wanted.digest
for key share of definition

-- name: insert_sagas
with new as (
    select * from unnest(
        :namespaces::text[], :saga_ids::text[], :definition_names::text[], :definition_versions::bigint[],
        :definition_digests::text[], :fingerprints::bytea[], :create_times::bigint[], :deadlines::bigint[],
        :labels::text[], :sequences::bigint[], :epochs::bigint[], :statuses::smallint[], :pauses::boolean[],
        :due_times::bigint[], :update_times::bigint[], :end_times::bigint[], :partitions::integer[]
    ) as new (
        namespace, saga_id, definition_name, definition_version, definition_digest, fingerprint, create_time, deadline,
        labels, sequence, epoch, status, paused, due_time, update_time, end_time, partition
    )
),
born as (
    insert into saga (
        namespace, saga_id, definition_name, definition_version, definition_digest, fingerprint, create_time, deadline,
        labels, sequence, epoch, status, paused, due_time, update_time, end_time, partition
    )
    select
        namespace, saga_id, definition_name, definition_version, definition_digest, fingerprint, create_time, deadline,
        labels::jsonb, sequence, epoch, status, paused, due_time, update_time, end_time, partition
    from new
    returning saga, namespace, saga_id, create_time
),
labelled as (
    insert into label (namespace, name, value, create_time, saga)
    select born.namespace, given.name, given.value, born.create_time, born.saga
    from unnest(:label_namespaces::text[], :label_saga_ids::text[], :label_names::text[], :label_values::text[])
        as given (namespace, saga_id, name, value)
    join born on born.namespace = given.namespace and born.saga_id = given.saga_id
)
insert into event (saga, sequence, kind, body)
select born.saga, told.sequence, told.kind, told.body
from unnest(
    :event_namespaces::text[], :event_saga_ids::text[], :event_sequences::bigint[], :kinds::text[], :bodies::bytea[]
) as told (namespace, saga_id, sequence, kind, body)
join born on born.namespace = told.namespace and born.saga_id = told.saga_id

-- name: move_sagas
with moved as (
    update saga set
        sequence = new.sequence, epoch = new.epoch, status = new.status, paused = new.paused, due_time = new.due_time,
        update_time = new.update_time, end_time = new.end_time
    from unnest(
        :sequences::bigint[], :epochs::bigint[], :statuses::smallint[], :pauses::boolean[], :due_times::bigint[],
        :update_times::bigint[], :end_times::bigint[], :sagas::bigint[], :old_sequences::bigint[]
    ) as new (sequence, epoch, status, paused, due_time, update_time, end_time, saga, old_sequence)
    where saga.saga = new.saga and saga.sequence = new.old_sequence and saga.epoch <= new.epoch
    returning saga.saga
),
written as (
    insert into event (saga, sequence, kind, body)
    select * from unnest(:event_sagas::bigint[], :event_sequences::bigint[], :kinds::text[], :bodies::bytea[])
)
select count(*) from moved

-- name: read_events
select sequence, kind, body from event
where saga = (select saga from saga where namespace = :namespace and saga_id = :saga_id)
    and sequence between :first and :last
order by sequence

-- name: select_saga
select
    s.namespace, s.saga_id, s.definition_name, s.definition_version, s.definition_digest, s.fingerprint, s.create_time,
    s.deadline, s.labels, s.sequence, s.epoch, s.status, s.paused, s.due_time, s.update_time, s.end_time

-- name: of_key
from saga as s where s.namespace = :namespace and s.saga_id = :saga_id

-- Each partition is read in the order of its index and no further than a page, and the pages are merged.

-- name: by_due_time
from unnest(:partitions::integer[]) as mine (partition) cross join lateral (
    select * from saga
    where saga.partition = mine.partition and saga.due_time is not null and saga.due_time <= :until
        and (saga.due_time, saga.namespace, saga.saga_id) > (:since, :namespace, :saga_id)
    order by saga.due_time, saga.namespace, saga.saga_id limit :limit
) as s
order by s.due_time, s.namespace, s.saga_id limit :limit

-- name: unfinished
from unnest(:partitions::integer[]) as mine (partition) cross join lateral (
    select * from saga
    where saga.partition = mine.partition and saga.end_time is null
        and (saga.namespace, saga.saga_id) > (:namespace, :saga_id)
    order by saga.namespace, saga.saga_id limit :limit
) as s
order by s.namespace, s.saga_id limit :limit

-- name: by_time
from saga as s where s.namespace = :namespace

-- name: by_definition
from saga as s where s.namespace = :namespace and s.definition_name = :definition_name

-- name: by_label
from label as p join saga as s on s.saga = p.saga
where p.namespace = :namespace and p.name = :label_name and p.value = :label_value
    and p.create_time between :since and :until

-- name: by_status
from unnest(:statuses::smallint[]) as wanted (status) cross join lateral (
    select * from saga as s where s.namespace = :namespace and s.status = wanted.status

-- name: matching
    and s.create_time between :since and :until
    and (s.create_time < :after_time or s.saga_id > :after_id)
    and (:statuses::smallint[] is null or s.status = any(:statuses::smallint[]))
    and (:definition_name::text is null or s.definition_name = :definition_name)
    and (:definition_version::bigint is null or s.definition_version = :definition_version)
    and (:labels::jsonb is null or s.labels @> :labels::jsonb)
order by s.create_time desc, s.saga_id limit :limit

-- name: end_by_status
) as s
order by s.create_time desc, s.saga_id limit :limit

-- How many rows of an index a page may have to look at, and how old the oldest of those is.

-- name: reach_by_time
select count(*), min(create_time) from (
    select create_time from saga
    where namespace = :namespace and create_time between :since and :until
    order by create_time desc limit :counted
) as counted

-- name: reach_by_status
select count(*), min(create_time) from (
    select create_time from saga
    where namespace = :namespace and status = :status and create_time between :since and :until
    order by create_time desc limit :counted
) as counted

-- name: reach_by_definition
select count(*), min(create_time) from (
    select create_time from saga
    where namespace = :namespace and definition_name = :definition_name and create_time between :since and :until
    order by create_time desc limit :counted
) as counted

-- name: reach_by_label
select count(*), min(create_time) from (
    select create_time from label
    where namespace = :namespace and name = :label_name and value = :label_value and create_time between :since and :until
    order by create_time desc limit :counted
) as counted

-- name: next_version
insert into definition_version (namespace, name, version) values (:namespace, :name, 1)
on conflict (namespace, name) do update set version = definition_version.version + 1 returning version

-- name: insert_definition
insert into definition (namespace, name, version, digest, body, create_time)
values (:namespace, :name, :version, :digest, :body, :create_time)

-- name: select_definition
select namespace, name, version, digest, body, create_time from definition

-- name: of_digest
where namespace = :namespace and digest = :digest

-- name: of_version
where namespace = :namespace and name = :name and version = :version

-- name: newest
where namespace = :namespace and name = :name order by version desc limit 1

-- name: definitions_of_name
where namespace = :namespace and name = :name and version < :after_version order by version desc limit :limit

-- name: definitions_of_all_names
where namespace = :namespace and (name > :after_name or (name = :after_name and version < :after_version))
order by name, version desc limit :limit

-- name: definition_in_use
select exists (
    select 1 from saga
    where namespace = :namespace and definition_name = :name and definition_version = :version
)

-- Whoever begins a saga of it holds a lock that this one waits for.

-- name: lock_definition
select version from definition where namespace = :namespace and digest = :digest for update

-- name: delete_definition
delete from definition where namespace = :namespace and digest = :digest

-- name: put_participant
insert into participant (name, address, concurrency_max, actions, update_time)
values (:name, :address, :concurrency_max, :actions, :update_time)
on conflict (name) do update set
    address = excluded.address, concurrency_max = excluded.concurrency_max, actions = excluded.actions,
    update_time = excluded.update_time

-- name: list_participants
select name, address, concurrency_max, actions, update_time from participant order by name

-- name: delete_participant
delete from participant where name = :name returning name
