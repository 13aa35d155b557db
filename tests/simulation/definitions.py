"""What simulated sagas run: each shape that the engine knows, with policies that bring it to its ends."""

from __future__ import annotations

from amends.testing.simulation.accidents import TIMEOUT_S_MAX
from amends.testing.simulation.subject import Subject
from amends_server.engine.checks.validation import check
from amends_server.engine.definition import (
    Compensation,
    Definition,
    ErrorRule,
    Kind,
    OnCompensationFailure,
    OnError,
    Step,
)
from amends_server.engine.policy import ENDLESS, SECOND_US, Retry

FEW = Retry(attempts_max=3, interval_us=SECOND_US // 5)
ONCE = Retry(attempts_max=1)
SLOW = Retry(attempts_max=3, interval_us=9 * SECOND_US)
"""Further off than a saga is kept in memory when it is crowded, so that the sweep has to find it again."""
UNDO = Retry(attempts_max=4, interval_us=SECOND_US // 5)
FOREVER = Retry(attempts_max=ENDLESS, interval_us=SECOND_US // 5, interval_max_us=2 * SECOND_US)

TIMEOUT_US = round(TIMEOUT_S_MAX * SECOND_US)


def step(
    step_id: str, *after: str, retry: Retry = FEW, undo: Retry = UNDO, participant: str = "stock", **more: object
) -> Step:
    settings: dict[str, object] = {"compensation": Compensation(retry=undo)} | more
    return Step(
        id=step_id,
        participant=participant,
        action=f"do_{step_id}",
        after=after,
        retry=retry,
        timeout_us=TIMEOUT_US,
        **settings,  # type: ignore[arg-type]
    )


def pivot(step_id: str, *after: str, retry: Retry = FEW) -> Step:
    return step(step_id, *after, retry=retry, participant="bank", kind=Kind.PIVOT, compensation=None)


def retriable(step_id: str, *after: str) -> Step:
    return step(step_id, *after, retry=FOREVER, participant="post", kind=Kind.RETRIABLE, compensation=None)


def _define(name: str, *steps: Step, **more: object) -> Definition:
    return Definition(name=name, steps=steps, **more)  # type: ignore[arg-type]


FREE = Compensation(not_needed=True)

DEFINITIONS = (
    _define("one", step("a")),
    _define("two", step("a"), step("b", "a", participant="bank")),
    _define("once", step("a", retry=ONCE, undo=ONCE), step("b", "a", retry=ONCE, undo=ONCE)),
    _define("three", step("a"), step("b", "a", participant="bank"), step("c", "b", retry=SLOW)),
    _define("diamond", step("a"), step("b", "a"), step("c", "a", participant="bank"), step("d", "b", "c")),
    _define("wide", step("a"), step("b"), step("c", participant="bank", retry=ONCE), step("d", participant="post")),
    _define("pivot", step("a"), pivot("b", "a"), retriable("c", "b")),
    _define("pivot_once", step("a"), pivot("b", "a", retry=ONCE), retriable("c", "b"), retriable("d", "b")),
    _define("deadline", step("a"), step("b", "a", retry=FOREVER), step("c", "b"), deadline_us=6 * SECOND_US),
    _define("deadline_pivot", step("a", retry=SLOW), pivot("b", "a"), deadline_us=4 * SECOND_US),
    _define(
        "continue",
        step("a", undo=ONCE),
        step("b", "a", undo=ONCE),
        step("c", "b", undo=ONCE, participant="bank"),
        on_compensation_failure=OnCompensationFailure.CONTINUE,
    ),
    _define("free", step("a", compensation=FREE), step("b", "a"), step("c", "b", compensation=FREE), step("d", "c")),
    _define(
        "rules",
        step("a", on_error=(ErrorRule(codes=("NO",), then=OnError.RETRY),)),
        step("b", "a", on_error=(ErrorRule(codes=("NO",), then=OnError.CONTINUE, output_template='{"none":1}'),)),
        step("c", "b", participant="bank"),
    ),
    _define(
        "conditions",
        step("a"),
        step("b", "a", when="input.order > 100"),
        step("c", "b", when="input.order < 100", delay_us=3 * SECOND_US),
        step("d", "c", delay_us=12 * SECOND_US),
    ),
    _define("two", step("a", retry=ONCE), step("b", "a"), step("c", "b")),  # another version
    _define("step_deadline", step("a"), step("b", "a", retry=FOREVER, deadline_us=3 * SECOND_US)),
    _define(
        "data",
        step("a", input_template='{"order":"${input.order}"}'),
        step(
            "b",
            "a",
            input_template='{"hold":"${steps.a.output.key}"}',
            compensation=Compensation(template='{"undo":"${steps.a.output.key}"}', retry=UNDO),
        ),
        output_template='{"hold":"${steps.a.output.key}","done":"${steps.b.output}"}',
    ),
)

SUBJECT = Subject(DEFINITIONS)

assert all(check(each) == [] for each in DEFINITIONS), [(each.name, check(each)) for each in DEFINITIONS]


def named(name: str) -> Definition:
    return next(each for each in DEFINITIONS if each.name == name)
