"""A participant that keeps its books behind the barrier: for what is asked twice, late, or under a key of before."""

from __future__ import annotations

from sqlite3 import Connection

from amends import Call, Participant, Refused
from participants.ledger import Book, Ledger


def till_of(ledger: Ledger, effects: list[str] | None = None) -> Participant:
    """Return a till. Its action `pay` notes in `effects` under which keys it was really run."""
    till = Participant("till")

    @till.action(barrier=ledger.barrier)
    def pay(request: int, call: Call, tx: Connection) -> int:
        if effects is not None:
            effects.append(call.key)
        if request < 0:
            raise Refused("NEGATIVE", "there is less than nothing to pay")
        return Book(tx, call.key).enter("paid", "till", request)

    @pay.compensation
    def pay_back(request: int, done: int, call: Call, tx: Connection) -> None:
        Book(tx, call.execute_key).enter("paid back", "till", -request)

    return till
