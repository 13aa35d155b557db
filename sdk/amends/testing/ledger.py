"""A simulated ledger: what participants whose code is elsewhere would have done, counted by step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from amends.action import Action
from amends.testing._machine import payload_of
from amends_server.engine.commands import Refused, Succeeded, Verdict
from amends_server.engine.due import CallOrder
from amends_server.engine.payload import Error, Payload

UNDONE = Error("UNDONE", "This call was undone; it has no effect any more.")


class Ledger:
    """How simulated participants behave, and what they answer.

    `outputs` are the answers, by action; an action that is not among them has none. `barrier` says whether each call is
    effective once, also when it is repeated, undone before it comes, or comes after it was undone: True for all
    actions, False for none, or the actions of which it is true. Without it each Execute adds an effect and each
    Compensate of what was done takes one away, as in handlers that do not keep what became of a call.
    """

    def __init__(
        self,
        *,
        outputs: Mapping[Action[Any, Any], object] | None = None,
        barrier: bool | Collection[Action[Any, Any]] = True,
    ) -> None:
        self._outputs = {_name_of(action): payload_of(output) for action, output in (outputs or {}).items()}
        self._barrier = barrier if isinstance(barrier, bool) else {_name_of(action) for action in barrier}

    def output(self, action: tuple[str, str]) -> Payload | None:
        """Return what an action answers, by the names of its participant and its own."""
        return self._outputs.get(action)

    def has_barrier(self, action: tuple[str, str]) -> bool:
        """Tell whether the calls of an action are effective once."""
        return self._barrier if isinstance(self._barrier, bool) else action in self._barrier


class Books:
    """The effects in one run. `effects` counts them by step, but for steps that leave nothing to undo."""

    def __init__(self, ledger: Ledger) -> None:
        self.effects: dict[str, int] = {}
        self._ledger = ledger
        self._done: set[str] = set()
        self._undone: set[str] = set()

    def call(self, order: CallOrder) -> Verdict:
        """Have the effect of a call, and return what its participant would tell."""
        action = (order.node.step.participant, order.node.step.action)
        barrier = self._ledger.has_barrier(action)
        if order.compensation:
            self._undo(order, barrier)
            return Succeeded()
        if barrier and order.key in self._undone:
            return Refused(UNDONE, stored=True)
        if not (barrier and order.key in self._done):
            self._add(order, 1)
        self._done.add(order.key)
        return Succeeded(self._ledger.output(action))

    def _undo(self, order: CallOrder, barrier: bool) -> None:
        if order.execute_key in self._done and not (barrier and order.execute_key in self._undone):
            self._add(order, -1)
        self._undone.add(order.execute_key)

    def _add(self, order: CallOrder, effect: int) -> None:
        compensation = order.node.step.compensation
        if compensation is None or not compensation.not_needed:
            step = order.node.step.id
            self.effects[step] = self.effects.get(step, 0) + effect


def _name_of(action: Action[Any, Any]) -> tuple[str, str]:
    return action.participant, action.name
