"""What a store has to do: keep journals, heads, definitions and participants, and never half of anything.

A saga is a head row and its records. The head is what lists, timers and recovery look at; the records are the journal,
as bytes that the store never reads. All writes to sagas go through `commit`, a whole batch in one durable transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from amends_server.engine.policy import Time
from amends_server.engine.state import FINAL, SagaStatus
from amends_server.engine.value import dataclass
from amends_server.store.sharing import Sharing

if TYPE_CHECKING:
    from amends_server.store.leases import Ownership

SECRET_BYTES = 32
"""Of a store's secret: as many as the hash has that it is for."""


class StoreError(Exception):
    """Anything that a store could not do."""


class NotFound(StoreError):
    """There is no such thing in the store."""


class AlreadyExists(StoreError):
    """There is such a thing already."""


class Conflict(StoreError):
    """What is stored is not what the writer expected, so nothing of its append was written."""


class Undefined(StoreError):
    """A saga cannot be born: the definition that it was to have is not stored (any more)."""


class Stale(StoreError):
    """Another orchestrator owns the saga now, so nothing of the append was written."""


class InUse(StoreError):
    """The thing cannot be removed while others need it."""


class Unwritable(StoreError):
    """The store cannot hold what it was given, whatever its state: too large a value, or no valid text.

    Nothing was written; in a batch of several appends, any of them may be the reason.
    """


class Unavailable(StoreError):
    """The store cannot be read or written now. Of a batch that failed so, all or nothing may be durable."""


class StoreLocked(StoreError):
    """Somebody else owns the store."""


class SagaKey(NamedTuple):
    """The name of a saga."""

    namespace: str
    saga_id: str


class Record(NamedTuple):
    """An event as stored: its place in the journal (from 1), a short name of its kind, and its bytes."""

    sequence: int
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The changing part of a saga's row, as of `sequence` events.

    `due_time` is when the orchestrator must look at the saga again, None if no time will change anything: that is so
    for final sagas and for stuck ones. Calls in flight that were lost with their orchestrator are found by recovery,
    which reads all unfinished sagas, and not by a due time. `epoch` is that of the orchestrator that wrote last, so
    that its successor can tell calls that were lost from calls of its own.
    """

    sequence: int
    epoch: int
    status: SagaStatus
    paused: bool
    due_time: Time | None
    update_time: Time
    end_time: Time | None

    def __post_init__(self) -> None:
        assert (self.status in FINAL) == (self.end_time is not None), "exactly the final sagas have an end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """The unchanging part of a saga's row. `fingerprint` tells whether a repeated start is the same."""

    definition_name: str
    definition_version: int
    definition_digest: str
    fingerprint: bytes
    create_time: Time
    deadline: Time | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Records to add to one journal, with the head that they lead to.

    The first record's sequence must be one more than the stored head's, 1 for a new saga, which needs `birth`.
    There is at least one record, and the sequences have no holes.
    """

    key: SagaKey
    records: Sequence[Record]
    head: Head
    birth: Birth | None = None

    def __post_init__(self) -> None:
        first, last = self.records[0].sequence, self.records[-1].sequence
        assert (first == 1) == (self.birth is not None), "a saga is born with its first record"
        assert last - first + 1 == len(self.records), "no holes"
        assert self.head.sequence == last, "the head is as of the last record"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSaga:
    """A saga's row."""

    key: SagaKey
    birth: Birth
    head: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaFilter:
    """Which sagas are meant; conditions that are set must all hold. Times: created_after <= t < created_before."""

    namespace: str
    statuses: frozenset[SagaStatus] = frozenset()
    definition_name: str = ""
    definition_version: int = 0
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    created_after: Time | None = None
    created_before: Time | None = None
    unfinished_only: bool = False


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a listing, newest first: after the saga that was created then and has that id."""

    create_time: Time
    saga_id: str


@dataclass(frozen=True, slots=True)
class SagaPage:
    """A part of a listing, and after what it goes on; None at its end.

    A page may hold fewer sagas than were asked for, even none, though the listing goes on: it took too long to find
    more.
    """

    sagas: list[StoredSaga]
    after: Cursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition:
    """A registered definition. `body` is its content as bytes that the store never reads."""

    namespace: str
    name: str
    version: int
    digest: str
    body: bytes
    create_time: Time


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredParticipant:
    """A registered participant. `actions` is what it described of itself, as bytes; None if it never did."""

    name: str
    address: str
    concurrency_max: int
    actions: bytes | None
    update_time: Time


class Store(Protocol):
    """Durable state. Every method raises Unavailable when the store cannot be reached, is full, or is closed.

    Returned means durable. Methods may be called from several tasks at once, `commit` from one at a time.
    A caller that is cancelled inside a write leaves the store consistent: the write is then whole or absent.
    """

    async def open(self) -> None:
        """Make the store ready, bring its schema up to date, and keep others from it where it has one owner only.

        :raises StoreLocked: if somebody else owns it.
        """
        ...

    async def close(self) -> None:
        """Let go of the store. Harmless when repeated."""
        ...

    async def check(self) -> None:
        """Do a small real write, for health. :raises Unavailable: if it fails."""
        ...

    async def own(self) -> Ownership:
        """Return what says which sagas this process may write, and under which epochs. Epochs only grow (I25)."""
        ...

    async def begin_incarnation(self, now: Time) -> int:
        """Note that the store was restored from a backup, and return the epoch that all later ones are above.

        It is also above all those that the backup has never seen. Owners of before write nothing any more.
        """
        ...

    async def secret(self) -> bytes:
        """Return random bytes that are this store's own: always the same, and not to be guessed."""
        ...

    async def commit(self, appends: Sequence[Append]) -> list[StoreError | None]:
        """Write a batch in one transaction and say for each append whether it was written (None) or why not.

        Appends to the same saga come in order; a refused append takes the later ones to its saga with it, and leaves
        those to others alone. Refusals: AlreadyExists for a birth under a taken key, Undefined for one whose definition
        is not stored under that digest with that version, Conflict for a head that is elsewhere or was written by a
        later epoch than the append's (I24), NotFound for an append to no saga; in a store that can have several owners,
        Stale for a head of another epoch than the owner's. An append that is already stored as it is (same records) is
        accepted again.

        :raises Unavailable: if the transaction failed as a whole; whether it is durable is then unknown.
        :raises Unwritable: if some of it can never be written.
        """
        ...

    async def get_saga(self, key: SagaKey) -> StoredSaga:
        """Return a row. :raises NotFound:"""
        ...

    async def read_records(self, key: SagaKey, after_sequence: int, limit: int) -> list[Record]:
        """Return up to `limit` records with a sequence above `after_sequence`, in order; none of an unknown saga."""
        ...

    async def list_sagas(self, where: SagaFilter, after: Cursor | None, limit: int) -> SagaPage:
        """Return up to `limit` rows that match, newest first, then by id, in bounded time."""
        ...

    async def list_due(
        self, until: Time, after: tuple[Time, SagaKey] | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        """Return up to `limit` rows with due_time <= until, by due time and key, that come after `after`.

        Of these partitions only, if they are given.
        """
        ...

    async def list_unfinished(
        self, after: SagaKey | None, limit: int, within: Collection[int] | None = None
    ) -> list[StoredSaga]:
        """Return up to `limit` rows of sagas without an end, by key, that come after `after`; as for `list_due`."""
        ...

    async def sharing(self, now: Time) -> Sharing:
        """Return who owns what, and how many sagas are due by now."""
        ...

    async def put_definition(self, definition: StoredDefinition) -> tuple[StoredDefinition, bool]:
        """Register a definition and return it with True; with False what is stored already under the same digest.

        The given version is ignored: the next one of the name is taken, never that of a definition that was removed.
        """
        ...

    async def get_definition(
        self, namespace: str, *, name: str = "", version: int = 0, digest: str = ""
    ) -> StoredDefinition:
        """Return a definition by digest if that is given, else by name and version (0: the newest).

        :raises NotFound:
        """
        ...

    async def list_definitions(
        self, namespace: str, name: str, after: tuple[str, int] | None, limit: int
    ) -> list[StoredDefinition]:
        """Return up to `limit` definitions by name, newest version first, after (name, version).

        Of one name only if that is not empty.
        """
        ...

    async def delete_definition(self, namespace: str, digest: str) -> None:
        """Remove a definition. :raises NotFound: :raises InUse: while any stored saga has it."""
        ...

    async def put_participant(self, participant: StoredParticipant) -> None:
        """Register a participant or replace what is registered."""
        ...

    async def list_participants(self) -> list[StoredParticipant]:
        """Return all participants by name."""
        ...

    async def delete_participant(self, name: str) -> None:
        """Remove a participant. :raises NotFound:"""
        ...
