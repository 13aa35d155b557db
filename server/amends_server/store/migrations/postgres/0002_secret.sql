-- What only this store knows: completion tokens are made with it.

create table secret (
    name text primary key,
    value bytea not null
);
