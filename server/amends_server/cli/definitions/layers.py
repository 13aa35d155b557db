"""A definition as a picture sees it: who calls what in which layer, and the arrows that say something."""

from __future__ import annotations

from dataclasses import dataclass

from amends_server.engine.definition import Definition, Kind, Step
from amends_server.engine.graph import ancestors, topological_order

LEGEND = {Kind.COMPENSATABLE: "○", Kind.PIVOT: "◆", Kind.RETRIABLE: "▷"}
"""Marks of the kinds of steps in texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Steps by the length of the longest way to them, from 0.

    `before` are the indexes of predecessors, without those that come before another predecessor anyway.
    """

    title: str
    steps: tuple[Step, ...]
    before: tuple[tuple[int, ...], ...]
    layer: tuple[int, ...]

    @property
    def rows(self) -> list[list[int]]:
        """The indexes of the steps of each layer, as the definition lists them."""
        rows: list[list[int]] = [[] for _ in range(max(self.layer) + 1)]
        for index, layer in enumerate(self.layer):
            rows[layer].append(index)
        return rows


def make_layers(definition: Definition, version: int) -> Layers:
    """The layers of a definition without errors; `version` is 0 if it has none yet."""
    index = {step.id: i for i, step in enumerate(definition.steps)}
    before = [tuple(index[name] for name in step.after) for step in definition.steps]
    order = topological_order(before)
    assert order is not None, "a definition with a cycle was checked"
    known = ancestors(before, order)
    needed = [_needed(predecessors, known) for predecessors in before]
    layer = [0] * len(before)
    for i in order:
        layer[i] = 1 + max((layer[p] for p in needed[i]), default=-1)
    return Layers(
        title=f"{definition.name}@{version}" if version else definition.name,
        steps=definition.steps,
        before=tuple(needed),
        layer=tuple(layer),
    )


def notes_of(step: Step) -> list[str]:
    """What a picture says of a step besides its name, its call and its kind."""
    notes = [f"when {' '.join(step.when.split())}"] if step.when else []
    if step.delay_us:
        notes.append(f"{step.delay_us / 1_000_000:g} s later")
    if step.kind is Kind.COMPENSATABLE and not step.owes_compensation:
        notes.append("not undone")
    return notes


def _needed(predecessors: tuple[int, ...], known: list[int]) -> tuple[int, ...]:
    implied = 0
    for p in predecessors:
        implied |= known[p]
    return tuple(p for p in dict.fromkeys(predecessors) if not implied >> p & 1)
