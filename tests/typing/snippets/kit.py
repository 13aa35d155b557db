"""What checkers see of a participant's actions: right ones pass, marked ones are reported."""

from __future__ import annotations

from shop import Hold, Receipt, Reserve

from amends import Action, Call, Participant, ServedAction

kit = Participant("kit")


@kit.action
async def asynchronous(request: Reserve, call: Call) -> Hold:
    return Hold(call.key, 1)


@kit.action
async def short(request: Reserve) -> Hold:
    return Hold("a", 1)


@kit.action
def plain(request: Reserve, call: Call) -> Hold:
    return Hold("a", 1)


@kit.action
def plain_and_short(request: Reserve) -> None: ...


@kit.action(name="another-name")
async def named(request: Reserve, call: Call) -> Hold:
    return Hold("a", 1)


@kit.action(name="one-more")
def named_plain(request: Reserve) -> Hold:
    return Hold("a", 1)


served: list[ServedAction[Reserve, Hold]] = [asynchronous, short, plain, named, named_plain]
silent: Action[Reserve, None] = plain_and_short
declared: Action[Reserve, Hold] = kit.declare("declared", Reserve, Hold, compensation=True)
told: Action[Reserve, None] = kit.declare("told", Reserve)
wrong_input: Action[Hold, Hold] = asynchronous  # error: it takes a Reserve
wrong_output: Action[Reserve, Receipt] = plain  # error: it gives a Hold
wrong_declared: Action[Reserve, Receipt] = kit.declare("wrong", Reserve, Hold)  # error: declared with a Hold


@asynchronous.compensation
async def undo(request: Reserve, done: Hold | None, call: Call) -> None: ...


@plain.compensation
def undo_plain(request: Reserve, done: Hold | None) -> None: ...


async def directly() -> None:
    await undo(Reserve("a", 1), None, Call.__new__(Call))
    undo_plain(Reserve("a", 1), Hold("a", 1))


async def other_input(request: Hold, done: Hold | None, call: Call) -> None: ...
async def never_none(request: Reserve, done: Hold, call: Call) -> None: ...
async def with_result(request: Reserve, done: Hold | None, call: Call) -> int:
    return 1


def no_call(request: Reserve, other: int) -> Hold:
    return Hold("a", other)


short.compensation(other_input)  # error: the input of another action
short.compensation(never_none)  # error: the output may be None
short.compensation(with_result)  # error: a compensation has no output
kit.action(no_call)  # error: the second argument is the call
