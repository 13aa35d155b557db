-- Since when an orchestrator is there, and since when a partition is its owner's. Versions before leave both as they are.

alter table replica add column started timestamptz not null default clock_timestamp();

alter table partition add column claimed timestamptz;
