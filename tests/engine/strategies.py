"""Hypothesis strategies for definitions: sound ones by construction, and any at all."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from amends_server.engine.definition import (
    Compensation,
    Definition,
    ErrorRule,
    Kind,
    OnCompensationFailure,
    OnError,
    Step,
)
from amends_server.engine.policy import ENDLESS, Backoff, Retry

STEPS_MAX = 8

retries = st.builds(
    Retry,
    attempts_max=st.sampled_from([3, 2, 4, 1, ENDLESS]),
    interval_us=st.integers(1, 50),
    interval_max_us=st.sampled_from([50, 400]),
    backoff=st.sampled_from(Backoff),
    factor=st.sampled_from([1.0, 2.0, 3.5]),
    jitter=st.sampled_from([0.0, 0.2, 1.0]),
)
OUTPUTS = ("output", "output.n", "error")

deadlines = st.none() | st.none() | st.none() | st.integers(1, 400)

COUNTS = st.integers(1, STEPS_MAX)
COINS = st.booleans()
MOSTLY = st.sampled_from([True, True, True, False])
FAILURES = st.sampled_from(OnCompensationFailure)
DELAYS = st.sampled_from([None, None, None, 20])


# A strategy that is made anew for each draw costs more than the draw: so those that depend on little are kept.


@cache
def templates(visible: tuple[str, ...], *, sound: bool) -> SearchStrategy[str | None]:
    """Templates that read the context, earlier outputs among it; if not `sound`, some lead nowhere when filled."""
    paths = ["${input}", "${input.x}", "${saga.id}"] + [f"${{steps.{v}.{end}}}" for v in visible for end in OUTPUTS]
    if not sound:
        paths += ["${input.missing}"] + [f"${{steps.{v}.output.missing}}" for v in visible]
    texts = [text for path in paths for text in (f'"{path}"', f'{{"a":["{path}"]}}')]
    return st.none() | st.just('{"fixed":1}') | st.sampled_from(texts)


@st.composite
def sound_definitions(draw: DrawFn) -> Definition:
    """Some compensatable steps, then perhaps a pivot, then some retriable ones, listed in any order."""
    count = draw(COUNTS)
    undoable = draw(_up_to(count))
    sound = draw(MOSTLY)
    has_pivot = undoable < count and draw(COINS)
    steps: list[Step] = []
    for i in range(count):
        kind = Kind.COMPENSATABLE if i < undoable else Kind.PIVOT if has_pivot and i == undoable else Kind.RETRIABLE
        names = [step.id for step in steps]
        needed = names if kind is Kind.PIVOT else names[: undoable + has_pivot] if kind is Kind.RETRIABLE else []
        after = {*needed, *(draw(_two_of(tuple(names))) if names else ())}
        steps.append(draw(_step(f"s{i}", kind, tuple(sorted(after)), _ancestors(after, steps), sound=sound)))
    return Definition(
        name="property",
        steps=tuple(draw(st.permutations(steps))),
        output_template=draw(templates(tuple(step.id for step in steps), sound=sound)),
        deadline_us=draw(deadlines),
        on_compensation_failure=draw(FAILURES),
    )


@cache
def _up_to(count: int) -> SearchStrategy[int]:
    return st.integers(0, count)


@cache
def _two_of(names: tuple[str, ...]) -> SearchStrategy[set[str]]:
    return st.sets(st.sampled_from(names), max_size=2)


@st.composite
def any_definitions(draw: DrawFn) -> Definition:
    """Definitions of a few steps that name each other, and things that there are not, at random."""
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d", "", "1"]), min_size=0, max_size=4))
    steps: list[Step] = []
    for name in names:
        after = tuple(draw(st.lists(st.sampled_from(["a", "b", "c", "x"]), max_size=2)))
        step = draw(_step(name, draw(st.sampled_from(Kind)), after, ("a", "b"), sound=False))
        steps.append(step)
    return Definition(
        name=draw(st.sampled_from(["property", "", "-"])),
        steps=tuple(steps),
        output_template=draw(st.sampled_from([None, '"${steps.b.output}"', '"${input', "{"])),
        deadline_us=draw(st.sampled_from([None, 10, 0, -1])),
    )


@st.composite
def _step(
    draw: DrawFn, name: str, kind: Kind, after: tuple[str, ...], visible: tuple[str, ...], *, sound: bool
) -> Step:
    return Step(
        id=name,
        participant="p",
        action="do",
        kind=kind,
        compensation=draw(_compensations((*visible, name), sound=sound)) if kind is Kind.COMPENSATABLE else None,
        after=after,
        input_template=draw(templates(visible, sound=sound)),
        retry=draw(retries),
        deadline_us=draw(deadlines),
        when=draw(_conditions(visible, sound=sound)),
        on_error=tuple(draw(_rules(visible, sound=sound))),
        requires=draw(_requirements(sound=sound)),
        output_schema=draw(_schemas(sound=sound)),
        delay_us=draw(DELAYS),
    )


@cache
def _requirements(*, sound: bool) -> SearchStrategy[tuple[str, ...]]:
    return st.sampled_from([(), (), (), ("input.x",), *([] if sound else [("input.x", "input.missing")])])


@cache
def _schemas(*, sound: bool) -> SearchStrategy[str | None]:
    return st.sampled_from([None, None, '{"required":["n"]}', *([] if sound else [MISSING])])


MISSING = '{"required":["missing"]}'
FALSE = "input.x > 1"


@cache
def _conditions(visible: tuple[str, ...], *, sound: bool) -> SearchStrategy[str | None]:
    """Conditions that are mostly true; a step that is skipped may leave others without what they need."""
    texts = ["input.x == 1", "saga.id != ''", *(f"steps.{v}.error == null" for v in visible)]
    texts += [] if sound else [FALSE, FALSE, "input.missing > 1", *(f"steps.{v}.output.missing" for v in visible)]
    return st.none() | st.none() | st.none() | st.sampled_from(texts)


@cache
def _rules(visible: tuple[str, ...], *, sound: bool) -> SearchStrategy[list[ErrorRule]]:
    then = st.sampled_from(OnError)
    outputs = st.sampled_from(
        [None, '"${error.code}"', '{"n":"${input.x + 1}"}', *([] if sound else ['"${error.no}"'])]
    )
    rule = st.builds(
        lambda codes, when, then, output: ErrorRule(
            codes=codes, when=when, then=then, output_template=output if then is OnError.CONTINUE else None
        ),
        st.sampled_from([(), ("NO",), ("OTHER", "NO"), ("OTHER",)]),
        st.sampled_from([None, None, "error.code == 'NO'", "error.data == null", "input.x > 1"]),
        then,
        outputs,
    )
    return st.lists(rule, max_size=2)


@cache
def _compensations(visible: tuple[str, ...], *, sound: bool) -> SearchStrategy[Compensation]:
    needed = st.builds(Compensation, template=templates(visible, sound=sound), retry=retries)
    return needed | needed | needed | st.just(Compensation(not_needed=True))


def _ancestors(after: set[str], steps: list[Step]) -> tuple[str, ...]:
    found = set(after)
    for step in reversed(steps):
        if step.id in found:
            found |= set(step.after)
    return tuple(sorted(found))
