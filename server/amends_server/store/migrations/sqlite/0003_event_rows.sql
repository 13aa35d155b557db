-- Events in the order in which they come, with an index beside: in a table without rowids each body of more than 1,000
-- bytes took a page of its own.

create table event_row (
    saga integer not null,
    sequence integer not null,
    kind text not null,
    body blob not null,
    primary key (saga, sequence)
);

insert into event_row select saga, sequence, kind, body from event order by saga, sequence;

drop table event;

alter table event_row rename to event;
