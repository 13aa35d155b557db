"""Which appends of a batch are written and which are refused: the rule that every store keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amends_server.store.protocol import (
    AlreadyExists,
    Append,
    Birth,
    Conflict,
    NotFound,
    Record,
    SagaKey,
    StoreError,
    Undefined,
)

Place = tuple[int, int]
"""Where a stored head stands: its sequence and its epoch, both 0 if there is no such saga."""


@dataclass(slots=True)
class _Journal:
    """A journal as it will be after the batch: `stored` records are in the store, `added` ones come with the batch."""

    stored: int
    epoch: int
    added: list[Record]
    refused: bool = False

    @property
    def sequence(self) -> int:
        return self.stored + len(self.added)


class Batch:
    """Judges appends one after another against what is stored and what came before them in the batch.

    `place_of` tells where a stored head stands; `read` returns the stored records of a saga from one sequence to
    another, both included; `defines` tells whether a birth's definition is stored in that namespace under its digest
    and with its version. `accepted` are the appends to write, in order.
    """

    def __init__(
        self,
        place_of: Callable[[SagaKey], Place],
        read: Callable[[SagaKey, int, int], Sequence[Record]],
        defines: Callable[[str, Birth], bool],
    ) -> None:
        self._place_of = place_of
        self._read = read
        self._defines = defines
        self._journals: dict[SagaKey, _Journal] = {}
        self.accepted: list[Append] = []

    def judge(self, append: Append) -> StoreError | None:
        """Accept the append (None), or say why it is refused."""
        journal = self._journals.get(append.key)
        if journal is None:
            journal = self._journals[append.key] = _Journal(*self._place_of(append.key), [])
        if journal.refused:
            return Conflict(f"An earlier append to {_name(append.key)} was refused.")
        refusal = self._refusal(journal, append)
        if refusal is not None:
            journal.refused = True
        return refusal

    def _refusal(self, journal: _Journal, append: Append) -> StoreError | None:
        if append.head.epoch < journal.epoch:
            return _stale(append)
        if append.records[0].sequence != journal.sequence + 1:
            return None if self._is_there(journal, append) else _misplaced(journal, append)
        if append.birth is not None and not self._defines(append.key.namespace, append.birth):
            return Undefined(f"The definition of {_name(append.key)} is not stored.")
        journal.added.extend(append.records)
        self.accepted.append(append)
        return None

    def _is_there(self, journal: _Journal, append: Append) -> bool:
        first, last = append.records[0].sequence, append.records[-1].sequence
        if last > journal.sequence:
            return False
        stored = self._read(append.key, first, min(last, journal.stored)) if first <= journal.stored else ()
        added = journal.added[max(first - journal.stored - 1, 0) : max(last - journal.stored, 0)]
        return [*stored, *added] == list(append.records)


def _stale(append: Append) -> StoreError:
    if append.birth is not None:
        return _taken(append)
    return Conflict(f"Somebody of a later epoch than {append.head.epoch} has written to {_name(append.key)}.")


def _taken(append: Append) -> StoreError:
    return AlreadyExists(f"There is {_name(append.key)} already, with other content.")


def _misplaced(journal: _Journal, append: Append) -> StoreError:
    if append.birth is not None:
        return _taken(append)
    if journal.sequence == 0:
        return NotFound(f"There is no {_name(append.key)}.")
    first = append.records[0].sequence
    return Conflict(
        f"The journal of {_name(append.key)} has {journal.sequence} records, and not these from {first} on."
    )


def _name(key: SagaKey) -> str:
    return f"saga {key.saga_id!r} in namespace {key.namespace!r}"
