"""The order of steps: which step is after which, in blocks of steps that run at the same time or under a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amends.definition.operators import condition, inverted, joined
from amends.definition.terms import Term
from amends.errors import DefinitionError

After = Mapping[str, Sequence[str]]
"""For each step those that it is directly after."""


@dataclass(slots=True)
class Choice:
    """Branches, of which one runs at the most: where they begin, where each ends, and the conditions so far."""

    start: tuple[str, ...]
    tests: list[Term]
    ends: list[str] = field(default_factory=list[str])
    closed: bool = False

    def next_test(self, test: Term | None) -> Term | None:
        """The condition under which the next branch runs: none of the earlier ones, and its own."""
        own = [] if test is None else [test]
        return all_of([*map(inverted, self.tests), *own])


@dataclass(slots=True)
class Block:
    """A sequence of steps, or steps that run at the same time, and the condition under which they run."""

    start: tuple[str, ...] = ()
    parallel: bool = False
    test: Term | None = None
    steps: list[str] = field(default_factory=list[str])
    frontier: tuple[str, ...] = ()
    choice: Choice | None = None

    def __post_init__(self) -> None:
        self.frontier = self.start

    @property
    def next_after(self) -> tuple[str, ...]:
        """What a step or block that is added now is after."""
        return self.start if self.parallel else self.frontier

    def add(self, ends: Sequence[str], steps: Sequence[str]) -> None:
        """Take note of what was added; `ends` are the steps that what follows is after."""
        self.steps.extend(steps)
        self.choice = None
        if not self.parallel:
            self.frontier = tuple(ends) or self.frontier

    def ends(self, after: After) -> tuple[str, ...]:
        """The steps of the block that none of it follows."""
        followed = {each for step_id in self.steps for each in after[step_id]}
        return tuple(each for each in self.steps if each not in followed)


class Order:
    """The blocks of a saga, the innermost one last."""

    def __init__(self) -> None:
        self._blocks = [Block()]

    @property
    def after(self) -> tuple[str, ...]:
        """What a step that is added now is after, unless it says otherwise."""
        return self._blocks[-1].next_after

    def test(self, own: Term | None) -> Term | None:
        """The condition of a step that is added now and has one of its own, or none."""
        tests = [*(block.test for block in self._blocks), own]
        return all_of([test for test in tests if test is not None])

    def add(self, step_id: str) -> None:
        self._blocks[-1].add((step_id,), (step_id,))

    def open_parallel(self) -> None:
        """:raises DefinitionError: directly inside of another such block."""
        if self._blocks[-1].parallel:
            raise DefinitionError("parallel() cannot be nested: say what runs after what by after=[…].")
        self._blocks.append(Block(self._blocks[-1].next_after, parallel=True))

    def close_parallel(self, after: After) -> None:
        block = self._blocks.pop()
        self._blocks[-1].add(block.ends(after), block.steps)

    def open_first(self, test: object) -> Choice:
        """Begin a choice with the branch that runs if the condition holds."""
        term = condition(test)
        choice = Choice(self.after, [term])
        self._blocks.append(Block(choice.start, test=term))
        return choice

    def open_next(self, test: object) -> Choice:
        """Begin the next branch of the choice that was just made; without a condition, the last one.

        :raises DefinitionError: if there is none.
        """
        choice = self._blocks[-1].choice
        if choice is None or choice.closed:
            raise DefinitionError("otherwise() must come directly after `with saga.when(…):` or another otherwise(…).")
        term = None if test is None else condition(test)
        own = choice.next_test(term)
        choice.closed = term is None
        if term is not None:
            choice.tests.append(term)
        self._blocks.append(Block(choice.start, test=own))
        return choice

    def close_branch(self, choice: Choice, after: After) -> None:
        block = self._blocks.pop()
        choice.ends.extend(block.ends(after))
        outer = self._blocks[-1]
        outer.add(choice.ends, block.steps)
        outer.choice = choice


def all_of(tests: Sequence[Term]) -> Term | None:
    """The term of a condition that holds if all of these do; None if there is none."""
    together: Term | None = None
    for test in tests:
        together = test if together is None else joined("&", together, test)
    return together
