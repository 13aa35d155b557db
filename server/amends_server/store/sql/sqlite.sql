-- The statements of the SQLite store, by name.

-- name: count_up
update meta set value = value + 1 where name = ? returning value

-- name: newest_epoch
select value from meta where name = 'epoch'

-- name: set_epoch
update meta set value = ? where name = 'epoch'

-- name: keep_secret
insert into secret (name, value) values ('tokens', ?) on conflict do nothing

-- name: read_secret
select value from secret where name = 'tokens'

-- Where `{rows}` stands, rows of values are put: one statement does them all. Some are filled up with rows of nulls, and
-- those stand for nothing.

-- name: find_sagas
with wanted (place, namespace, saga_id) as (values {rows})
select json_group_array(json_array(wanted.place, saga.saga, saga.sequence, saga.epoch))
from wanted cross join saga on saga.namespace = wanted.namespace and saga.saga_id = wanted.saga_id

-- name: find_definitions
with wanted (namespace, digest) as (values {rows})
select json_group_array(json_array(wanted.namespace, wanted.digest, definition.version))
from wanted cross join definition on definition.namespace = wanted.namespace and definition.digest = wanted.digest

-- name: last_saga
select coalesce(max(saga), 0) from saga

-- name: insert_sagas
insert into saga (
    saga, namespace, saga_id, definition_name, definition_version, definition_digest, fingerprint, create_time,
    deadline, labels, sequence, epoch, status, paused, due_time, update_time, end_time
) select * from (values {rows}) where column1 is not null

-- name: insert_labels
insert into label (namespace, name, value, create_time, saga) select * from (values {rows}) where column1 is not null

-- name: insert_events
insert into event (saga, sequence, kind, body) select * from (values {rows}) where column1 is not null

-- name: update_heads
with new (sequence, epoch, status, paused, due_time, update_time, end_time, saga, old_sequence) as (values {rows})
update saga set
    sequence = new.sequence, epoch = new.epoch, status = new.status, paused = new.paused, due_time = new.due_time,
    update_time = new.update_time, end_time = new.end_time
from new where saga.saga = new.saga and saga.sequence = new.old_sequence and saga.epoch <= new.epoch

-- name: read_events
select sequence, kind, body from event
where saga = (select saga from saga where namespace = ? and saga_id = ?) and sequence between ? and ?
order by sequence

-- Rows of sagas are read in two parts: `p` is the place in an index that gives the order, `s` the row itself.

-- name: select_saga
select
    s.namespace, s.saga_id, s.definition_name, s.definition_version, s.definition_digest, s.fingerprint, s.create_time,
    s.deadline, s.labels, s.sequence, s.epoch, s.status, s.paused, s.due_time, s.update_time, s.end_time

-- name: of_key
from saga as s where s.namespace = ? and s.saga_id = ?

-- name: by_due_time
from saga as p indexed by saga_by_due_time cross join saga as s on s.saga = p.saga
where p.due_time is not null and p.due_time between :since and :until
    and (p.due_time > :since or (s.namespace, s.saga_id) > (:namespace, :saga_id))
order by p.due_time, s.namespace, s.saga_id limit :limit

-- name: unfinished
from saga as p indexed by saga_unfinished cross join saga as s on s.saga = p.saga
where p.end_time is null and (p.namespace, p.saga_id) > (:namespace, :saga_id)
order by p.namespace, p.saga_id limit :limit

-- name: by_time
from saga as p indexed by saga_by_time cross join saga as s on s.saga = p.saga
where p.namespace = :namespace

-- name: by_status
from saga as p indexed by saga_by_status cross join saga as s on s.saga = p.saga
where p.namespace = :namespace and p.status = :status

-- name: by_definition
from saga as p indexed by saga_by_definition cross join saga as s on s.saga = p.saga
where p.namespace = :namespace and p.definition_name = :definition_name
    and (:definition_version = 0 or p.definition_version = :definition_version)

-- name: by_label
from label as p cross join saga as s on s.saga = p.saga
where p.namespace = :namespace and p.name = :label_name and p.value = :label_value

-- name: matching
    and p.create_time between :since and :until
    and (p.create_time < :after_time or s.saga_id > :after_id)
    and (:statuses is null or s.status in (select value from json_each(:statuses)))
    and (:definition_name = '' or s.definition_name = :definition_name)
    and (:definition_version = 0 or s.definition_version = :definition_version)
    and not exists (
        select 1 from json_each(:labels) as wanted where not exists (
            select 1 from label where label.namespace = :namespace and label.name = wanted.key
                and label.value = wanted.value and label.create_time = s.create_time and label.saga = s.saga
        )
    )
order by p.create_time desc, s.saga_id limit :limit

-- How many rows of an index a page may have to look at, and how old the oldest of those is.

-- name: reach_by_time
select count(*), min(create_time) from (
    select create_time from saga indexed by saga_by_time
    where namespace = :namespace and create_time between :since and :until
    order by create_time desc limit :counted
)

-- name: reach_by_status
select count(*), min(create_time) from (
    select create_time from saga indexed by saga_by_status
    where namespace = :namespace and status = :status and create_time between :since and :until
    order by create_time desc limit :counted
)

-- name: reach_by_definition
select count(*), min(create_time) from (
    select create_time from saga indexed by saga_by_definition
    where namespace = :namespace and definition_name = :definition_name and create_time between :since and :until
    order by create_time desc limit :counted
)

-- name: reach_by_label
select count(*), min(create_time) from (
    select create_time from label
    where namespace = :namespace and name = :label_name and value = :label_value
        and create_time between :since and :until
    order by create_time desc limit :counted
)

-- name: next_version
insert into definition_version (namespace, name, version) values (?, ?, 1)
on conflict do update set version = version + 1 returning version

-- name: insert_definition
insert into definition (namespace, name, version, digest, body, create_time) values (?, ?, ?, ?, ?, ?)

-- name: select_definition
select namespace, name, version, digest, body, create_time from definition

-- name: of_digest
where namespace = ? and digest = ?

-- name: of_version
where namespace = ? and name = ? and version = ?

-- name: newest
where namespace = ? and name = ? order by version desc limit 1

-- name: definitions_of_name
where namespace = :namespace and name = :name and version < :after_version order by version desc limit :limit

-- name: definitions_of_all_names
where namespace = :namespace and (name > :after_name or (name = :after_name and version < :after_version))
order by name, version desc limit :limit

-- name: definition_in_use
select exists (
    select 1 from saga indexed by saga_by_definition
    where namespace = ? and definition_name = ? and definition_version = ?
)

-- name: delete_definition
delete from definition where namespace = ? and digest = ?

-- name: put_participant
insert into participant (name, address, concurrency_max, actions, update_time) values (?, ?, ?, ?, ?)
on conflict do update set
    address = excluded.address, concurrency_max = excluded.concurrency_max, actions = excluded.actions,
    update_time = excluded.update_time

-- name: list_participants
select name, address, concurrency_max, actions, update_time from participant order by name

-- name: delete_participant
delete from participant where name = ?

-- name: due
select (select value from meta where name = 'epoch'), count(*), min(due_time)
from saga where due_time <= :now
