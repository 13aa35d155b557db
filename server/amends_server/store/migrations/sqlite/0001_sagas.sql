-- Sagas with their journals, definitions, participants, and what the store knows of itself.

create table meta (
    name text primary key,
    value integer not null
) without rowid;

insert into meta (name, value) values ('epoch', 0), ('checks', 0);

-- `saga` is the short reference that the other tables use. Times are microseconds since 1970, UTC.
-- Statuses from 10 on are final. `labels` is a JSON object, null for none.
create table saga (
    saga integer primary key,
    namespace text not null,
    saga_id text not null,
    status integer not null,
    sequence integer not null,
    epoch integer not null,
    paused integer not null,
    create_time integer not null,
    update_time integer not null,
    due_time integer,
    deadline integer,
    end_time integer,
    definition_name text not null,
    definition_version integer not null,
    definition_digest text not null,
    fingerprint blob not null,
    labels text,
    unique (namespace, saga_id)
);

-- Listings read these backwards, newest first; sagas of the same microsecond are sorted by id when they are read.
create index saga_by_time on saga (namespace, create_time);
create index saga_by_status on saga (namespace, status, create_time);
create index saga_by_definition on saga (namespace, definition_name, create_time, definition_version);
create index saga_by_due_time on saga (due_time) where due_time is not null;
create index saga_unfinished on saga (namespace, saga_id) where end_time is null;

create table label (
    namespace text not null,
    name text not null,
    value text not null,
    create_time integer not null,
    saga integer not null,
    primary key (namespace, name, value, create_time, saga)
) without rowid;

create table event (
    saga integer not null,
    sequence integer not null,
    kind text not null,
    body blob not null,
    primary key (saga, sequence)
) without rowid;

create table definition (
    definition integer primary key,
    namespace text not null,
    name text not null,
    version integer not null,
    digest text not null,
    body blob not null,
    create_time integer not null,
    unique (namespace, name, version),
    unique (namespace, digest)
);

-- The newest version ever given to a name, so that no version is given twice.
create table definition_version (
    namespace text not null,
    name text not null,
    version integer not null,
    primary key (namespace, name)
) without rowid;

create table participant (
    name text primary key,
    address text not null,
    concurrency_max integer not null,
    actions blob,
    update_time integer not null
) without rowid;
