"""Random operations: every store answers what the memory store answers, also after it was opened again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from amends_server.engine.state import SagaStatus
from amends_server.store.memory import MemoryStore
from amends_server.store.postgres.store import PostgresStore
from amends_server.store.protocol import (
    Append,
    Birth,
    Cursor,
    SagaFilter,
    SagaKey,
    Store,
    StoredDefinition,
    StoredSaga,
    StoreError,
)
from amends_server.store.sqlite import SqliteStore
from tests.postgres import Database
from tests.store.make import append, define, definition, records

# Few values, so that operations meet each other.
KEYS = st.builds(SagaKey, st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", "z"]))
TIMES = st.integers(0, 4)
LABELS = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["1", "2"]), max_size=2)
NAMES, CONTENTS, NAMESPACES = (
    st.sampled_from(["order", "refund"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["a", "b"]),
)
LIMITS = st.integers(1, 4)
STATUSES = st.frozensets(st.sampled_from(SagaStatus), max_size=3)


@dataclass(frozen=True)
class Plan:
    """An append that begins `shift` records away from where its saga's journal ends: 0 fits."""

    key: SagaKey
    shift: int
    count: int
    body: bytes
    status: SagaStatus
    due: int | None
    name: str
    wrong_version: bool
    create_time: int
    labels: dict[str, str]
    epoch: int

    def append_to(self, sequence: int, version: int) -> Append:
        first = max(sequence + 1 + self.shift, 1)
        born = Birth(
            definition_name=self.name,
            definition_version=version + self.wrong_version,
            definition_digest=f"{self.name}/1",
            fingerprint=b"f",
            create_time=self.create_time,
            labels=self.labels,
        )
        written = records(first, self.count, self.body)
        return append(self.key, written, born=born, status=self.status, due=self.due, epoch=self.epoch)


PLANS = st.builds(
    Plan,
    key=KEYS,
    shift=st.sampled_from([0, 0, 0, 0, 0, 0, -1, -2, -9, 1]),
    count=st.integers(1, 3),
    body=st.sampled_from([b"body", b"body", b"body", b"body", b"other"]),
    status=st.sampled_from(SagaStatus),
    due=st.none() | TIMES,
    name=NAMES,
    wrong_version=st.sampled_from([False, False, False, True]),
    create_time=TIMES,
    labels=LABELS,
    epoch=st.sampled_from([2, 2, 2, 1, 3]),
)


@st.composite
def filters(draw: st.DrawFn) -> SagaFilter:
    return SagaFilter(
        namespace=draw(NAMESPACES),
        statuses=draw(STATUSES),
        definition_name=draw(st.just("") | NAMES),
        definition_version=draw(st.integers(0, 2)),
        labels=draw(LABELS),
        created_after=draw(st.none() | TIMES),
        created_before=draw(st.none() | TIMES),
        unfinished_only=draw(st.booleans()),
    )


class BothStores(RuleBasedStateMachine):
    """Does everything to both stores and compares the answers, errors by their type."""

    def __init__(self, tested: Store) -> None:
        super().__init__()
        self.memory = MemoryStore()
        self.tested = tested
        self.runner = asyncio.Runner()
        self.both(lambda store: store.open())
        for name, namespace in (("order", "a"), ("order", "b"), ("refund", "a")):
            self.both(lambda store, n=name, s=namespace: define(store, n, 1, s))  # type: ignore[misc]

    def teardown(self) -> None:
        self.runner.run(self.tested.close())
        self.runner.close()

    def both(self, call: Callable[[Store], Awaitable[object]]) -> None:
        answers = [self.runner.run(_answer(call(store))) for store in (self.memory, self.tested)]
        assert answers[0] == answers[1]

    @rule(plans=st.lists(PLANS, min_size=1, max_size=8))
    def commit(self, plans: list[Plan]) -> None:
        ends = {saga.key: saga.head.sequence for saga in self.everything(self.memory)}
        batch: list[Append] = []
        for plan in plans:
            batch.append(plan.append_to(ends.get(plan.key, 0), self.version_of(plan)))
            ends[plan.key] = max(ends.get(plan.key, 0), batch[-1].head.sequence)

        async def kinds(store: Store) -> list[type[StoreError] | None]:
            return [None if outcome is None else type(outcome) for outcome in await store.commit(batch)]

        self.both(kinds)

    @rule(plans=st.lists(PLANS, min_size=1, max_size=8))
    def commit_more(self, plans: list[Plan]) -> None:
        self.commit(plans)  # twice as often as anything else

    @rule(key=KEYS, after=st.integers(0, 3), limit=LIMITS)
    def read(self, key: SagaKey, after: int, limit: int) -> None:
        self.both(lambda store: store.get_saga(key))
        self.both(lambda store: store.read_records(key, after, limit))

    @rule(where=filters(), after=st.none() | st.builds(Cursor, TIMES, st.sampled_from(["w", "x", "y"])), limit=LIMITS)
    def list_sagas(self, where: SagaFilter, after: Cursor | None, limit: int) -> None:
        self.both(lambda store: store.list_sagas(where, after, limit))

    @rule(until=TIMES, after=st.none() | st.tuples(TIMES, KEYS), limit=LIMITS)
    def list_due(self, until: int, after: tuple[int, SagaKey] | None, limit: int) -> None:
        self.both(lambda store: store.list_due(until, after, limit))

    @rule(after=st.none() | KEYS, limit=LIMITS)
    def list_unfinished(self, after: SagaKey | None, limit: int) -> None:
        self.both(lambda store: store.list_unfinished(after, limit))

    @rule(name=NAMES, content=CONTENTS, namespace=NAMESPACES)
    def put_definition(self, name: str, content: str, namespace: str) -> None:
        self.both(lambda store: store.put_definition(definition(name, content, namespace)))

    @rule(name=NAMES, content=CONTENTS, namespace=NAMESPACES)
    def delete_definition(self, name: str, content: str, namespace: str) -> None:
        self.both(lambda store: store.delete_definition(namespace, f"{name}/{content}"))

    @rule(
        namespace=NAMESPACES,
        name=st.just("") | NAMES,
        version=st.integers(0, 3),
        digest=st.sampled_from(["", "order/1"]),
    )
    def get_definition(self, namespace: str, name: str, version: int, digest: str) -> None:
        self.both(lambda store: store.get_definition(namespace, name=name, version=version, digest=digest))

    @rule(
        namespace=NAMESPACES,
        name=st.just("") | NAMES,
        after=st.none() | st.tuples(NAMES, st.integers(1, 3)),
        limit=LIMITS,
    )
    def list_definitions(self, namespace: str, name: str, after: tuple[str, int] | None, limit: int) -> None:
        self.both(lambda store: store.list_definitions(namespace, name, after, limit))

    @rule()
    def open_again(self) -> None:
        self.both(lambda store: store.close())
        self.both(lambda store: store.open())

    @invariant()
    def all_sagas_are_equal_and_their_journals_have_no_holes(self) -> None:
        sagas = self.everything(self.tested)
        assert sagas == self.everything(self.memory)
        for saga in sagas:
            stored = self.runner.run(self.tested.read_records(saga.key, 0, 999))
            assert stored == self.runner.run(self.memory.read_records(saga.key, 0, 999))
            assert [record.sequence for record in stored] == list(range(1, saga.head.sequence + 1))

    def version_of(self, plan: Plan) -> int:
        """Return the version of the plan's definition, 0 if it is not stored."""
        found = self.runner.run(_answer(self.memory.get_definition(plan.key.namespace, digest=f"{plan.name}/1")))
        return found.version if isinstance(found, StoredDefinition) else 0

    def everything(self, store: Store) -> list[StoredSaga]:
        pages = [self.runner.run(store.list_sagas(SagaFilter(namespace=name), None, 99)) for name in ("a", "b")]
        return [saga for page in pages for saga in page.sagas]


async def _answer(call: Awaitable[object]) -> object:
    try:
        return await call
    except StoreError as error:
        return type(error)


def test_sqlite_answers_as_memory_does() -> None:
    with TemporaryDirectory() as folder:
        numbers = count()
        compare(lambda: SqliteStore(Path(folder) / f"{next(numbers)}.db"), examples=40)


def test_postgresql_answers_as_memory_does(database: Database) -> None:
    compare(lambda: PostgresStore(database.new_url()), examples=25)


def compare(make: Callable[[], Store], *, examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: BothStores(make()), settings=settings(max_examples=examples, stateful_step_count=25)
    )
