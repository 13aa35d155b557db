"""The digest of a definition: stable for ever, blind to defaults, changed by every change of content."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amends_server.engine.definition import (
    Compensation,
    Definition,
    ErrorRule,
    Kind,
    OnCompensationFailure,
    OnError,
    Step,
    digest,
)
from amends_server.engine.policy import ENDLESS, TIMEOUT_US, Backoff, Retry
from tests.engine.strategies import sound_definitions

RETRY = Retry(
    attempts_max=4, interval_us=1, interval_max_us=2, backoff=Backoff.LINEAR, factor=1.5, jitter=0.5
)  # nothing by default
FULL = Definition(
    name="order",
    steps=(
        Step(
            id="pay",
            participant="bank",
            action="debit",
            compensation=Compensation(template='{"a":"${input}"}', retry=RETRY, timeout_us=3),
            input_template='"${input.ü}"',
            retry=RETRY,
            timeout_us=4,
            deadline_us=5,
        ),
        Step(id="log", participant="log", action="write", compensation=Compensation(not_needed=True), after=("pay",)),
        Step(id="ship", participant="shop", action="ship", kind=Kind.PIVOT, after=("pay", "log")),
    ),
    output_template='"${steps.ship.output}"',
    deadline_us=6,
    on_compensation_failure=OnCompensationFailure.CONTINUE,
    description="An order.",
)
RICH = replace(
    FULL,
    input_schema='{"type":"object"}',
    steps=(
        replace(
            FULL.steps[0],
            when="input.ü > 1",
            on_error=(ErrorRule(codes=("NO",), when="error.data.n > 1", then=OnError.CONTINUE, output_template="1"),),
            requires=("input.x",),
            output_schema="true",
            delay_us=7,
        ),
        *FULL.steps[1:],
    ),
)
PINNED_RICH = "sha256:dcf7864635db916dbe869100006a8fba7a075cc2662bad4cc85d91d5aac48139"
PINNED = "sha256:4039771388c58e669336a75ae0cbd79bb098018b76bbbe07ebf0429e1f788bed"
PINNED_SMALL = "sha256:fd7f9ab4c8db9eec253bd6b22f7582d447f609976c80ea83b24c58efe6622b63"
SMALL = Definition(name="s", steps=(Step(id="a", participant="p", action="do", compensation=Compensation()),))


def test_digests_are_what_they_always_were() -> None:
    """Sagas, clients and stores name definitions by these: a change here orphans them all."""
    assert digest(FULL) == PINNED
    assert digest(SMALL) == PINNED_SMALL
    assert digest(RICH) == PINNED_RICH


def test_defaults_do_not_count() -> None:
    step = replace(
        SMALL.steps[0],
        kind=Kind.COMPENSATABLE,
        after=(),
        timeout_us=TIMEOUT_US,
        compensation=Compensation(not_needed=False, template=None),
    )
    assert digest(replace(SMALL, steps=(step,), description="", output_template=None)) == digest(SMALL)


def test_equal_numbers_are_equal_whatever_their_type() -> None:
    one, other = (replace(SMALL.steps[0], retry=replace(RETRY, factor=f)) for f in (3, 3.0))
    assert one == other
    assert digest(replace(SMALL, steps=(one,))) == digest(replace(SMALL, steps=(other,)))


def leaves(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths to all fields that hold no further dataclass."""
    if is_dataclass(value):
        return [path for f in fields(value) for path in leaves(getattr(value, f.name), (*at, f.name))]
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return [path for i, item in enumerate(value) for path in leaves(item, (*at, i))]
    return [at]


def changed(value: Any, path: tuple[str | int, ...]) -> Any:
    """The same with another value at the path."""
    if not path:
        return another(value)
    first, rest = path[0], path[1:]
    if isinstance(first, int):
        return (*value[:first], changed(value[first], rest), *value[first + 1 :])
    return replace(value, **{first: changed(getattr(value, first), rest)})


def another(value: Any) -> Any:
    match value:
        case None:
            return None
        case bool():
            return not value
        case str():
            return value + "x"
        case int() | float():
            return value + 1
        case tuple():
            return (*value, "x")
        case _:
            return next(other for other in type(value) if other is not value)


@pytest.mark.parametrize("path", [path for path in leaves(RICH)], ids=lambda path: ".".join(map(str, path)))
def test_every_change_of_content_changes_it(path: tuple[str | int, ...]) -> None:
    other = changed(RICH, path)
    assert (digest(other) != digest(RICH)) == (other != RICH)


def test_the_example_leaves_no_field_out() -> None:
    """Else a new field could be forgotten above."""
    for kind, example in (
        (Definition, RICH),
        (ErrorRule, RICH.steps[0].on_error[0]),
        (Step, replace(RICH.steps[0], kind=Kind.PIVOT, after=("x",))),
        (Retry, RETRY),
    ):
        defaults = [f.name for f in fields(kind) if f.default is not MISSING and getattr(example, f.name) == f.default]
        assert defaults == []


def test_the_order_of_steps_counts() -> None:
    assert digest(replace(FULL, steps=FULL.steps[::-1])) != digest(FULL)


def test_no_compensation_is_not_an_empty_one() -> None:
    assert digest(replace(SMALL, steps=(replace(SMALL.steps[0], compensation=None),))) != digest(SMALL)


def test_endless_is_not_the_default() -> None:
    endless = replace(SMALL.steps[0], retry=Retry(attempts_max=ENDLESS))
    assert digest(replace(SMALL, steps=(endless,))) != digest(SMALL)


@given(st.lists(sound_definitions(), min_size=2, max_size=2))
def test_digests_are_equal_where_definitions_are(pair: list[Definition]) -> None:
    assert (digest(pair[0]) == digest(pair[1])) == (pair[0] == pair[1])
