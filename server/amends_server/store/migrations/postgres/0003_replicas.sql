-- The orchestrators that share the database: each says that it lives by moving `expires` on.

create table replica (
    id text collate "C" primary key,
    address text not null,
    expires timestamptz not null
);

delete from meta where name = 'epoch';
