"""What a simulated world is about: definitions, what their sagas are started with, and what their actions give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amends_server.engine.definition import Definition, digest
from amends_server.engine.graph import build_graph
from amends_server.engine.policy import SECOND_US

Give = Callable[[str, str], str]
"""The output of a step, as JSON, by its id and the key of the call."""


def say_who(step: str, key: str) -> str:
    """Give an output that names the call."""
    return f'{{"step":"{step}","key":"{key}"}}'


class Subject:
    """Definitions that were checked. `input` is JSON."""

    def __init__(self, definitions: Sequence[Definition], *, input: str = '{"order":7}', give: Give = say_who) -> None:
        self.definitions = tuple(definitions)
        self.input = input
        self.give = give
        self.graphs = {digest(each): build_graph(each, digest(each)) for each in definitions}
        delays_us = [sum(step.delay_us or 0 for step in each.steps) for each in definitions]
        self.delays_s = max(delays_us) / SECOND_US
        """How long a saga waits at the most because its steps say so."""
        self.participants = sorted({step.participant for each in definitions for step in each.steps})
