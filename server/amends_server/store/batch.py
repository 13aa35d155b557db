"""Which appends of a batch are written and which are refused: the rule that every store keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amends_server.store.protocol import AlreadyExists, Append, Conflict, NotFound, Record, SagaKey, StoreError


@dataclass(slots=True)
class _Journal:
    """A journal as it will be after the batch: `stored` records are in the store, `added` ones come with the batch."""

    stored: int
    added: list[Record]
    refused: bool = False

    @property
    def sequence(self) -> int:
        return self.stored + len(self.added)


class Batch:
    """Judges appends one after another against what is stored and what came before them in the batch.

    `sequence_of` tells the stored head's sequence, 0 if there is no such saga; `read` returns the stored records of a
    saga from one sequence to another, both included. `accepted` are the appends to write, in order.
    """

    def __init__(
        self, sequence_of: Callable[[SagaKey], int], read: Callable[[SagaKey, int, int], Sequence[Record]]
    ) -> None:
        self._sequence_of = sequence_of
        self._read = read
        self._journals: dict[SagaKey, _Journal] = {}
        self.accepted: list[Append] = []

    def judge(self, append: Append) -> StoreError | None:
        """Accept the append (None), or say why it is refused."""
        journal = self._journals.get(append.key)
        if journal is None:
            journal = self._journals[append.key] = _Journal(self._sequence_of(append.key), [])
        if journal.refused:
            return Conflict(f"An earlier append to {_name(append.key)} was refused.")
        if append.records[0].sequence == journal.sequence + 1:
            journal.added.extend(append.records)
            self.accepted.append(append)
            return None
        if self._is_there(journal, append):
            return None
        journal.refused = True
        return _refusal(journal, append)

    def _is_there(self, journal: _Journal, append: Append) -> bool:
        first, last = append.records[0].sequence, append.records[-1].sequence
        if last > journal.sequence:
            return False
        stored = self._read(append.key, first, min(last, journal.stored)) if first <= journal.stored else ()
        added = journal.added[max(first - journal.stored - 1, 0) : max(last - journal.stored, 0)]
        return [*stored, *added] == list(append.records)


def _refusal(journal: _Journal, append: Append) -> StoreError:
    if append.birth is not None:
        return AlreadyExists(f"There is {_name(append.key)} already, with other content.")
    if journal.sequence == 0:
        return NotFound(f"There is no {_name(append.key)}.")
    first = append.records[0].sequence
    return Conflict(
        f"The journal of {_name(append.key)} has {journal.sequence} records, and not these from {first} on."
    )


def _name(key: SagaKey) -> str:
    return f"saga {key.saga_id!r} in namespace {key.namespace!r}"
