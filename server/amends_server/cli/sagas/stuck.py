"""Sagas that need an operator, as `amends stuck` shows them: what blocks them, and the commands that repair them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console

from amends.client.connection import Connection
from amends.v1 import definition_pb2, orchestrator_pb2, saga_pb2
from amends.views import SagaView, StepView, StuckView
from amends_server.cli.escapes import visible
from amends_server.cli.options import ADDRESS, NAMESPACE
from amends_server.cli.output import make_console, print_line, time_text
from amends_server.cli.sagas.view import problem_text

LOOK_FIRST = "Look first what really happened. At a terminal each command asks for the reason; else: --reason TEXT."

Kinds = Mapping[str, Mapping[str, definition_pb2.StepKind.ValueType]]
"""The kinds of steps by their ids, by the digests of their definitions."""


async def complete_stuck(connection: Connection, namespace: str, sagas: Iterable[saga_pb2.Saga]) -> None:
    """Ask one by one for those sagas of a list that it does not say enough of."""
    for saga in sagas:
        if not saga.HasField("stuck"):
            request = orchestrator_pb2.GetSagaRequest(namespace=namespace, saga_id=saga.saga_id)
            saga.CopyFrom((await connection.once(connection.orchestrator.GetSaga, request)).saga)


async def read_kinds(connection: Connection, namespace: str, sagas: Iterable[saga_pb2.Saga]) -> Kinds:
    """Ask for the definitions of these sagas: what settles a step depends on its kind."""
    kinds: dict[str, dict[str, definition_pb2.StepKind.ValueType]] = {}
    for digest in {saga.definition_digest for saga in sagas}:
        reference = orchestrator_pb2.DefinitionRef(digest=digest)
        request = orchestrator_pb2.GetDefinitionRequest(namespace=namespace, definition=reference)
        definition = (await connection.once(connection.orchestrator.GetDefinition, request)).definition
        kinds[digest] = {step.id: step.kind for step in definition.steps}
    return kinds


def print_stuck(sagas: Iterable[saga_pb2.Saga], kinds: Kinds, options: Sequence[str]) -> None:
    """Write each saga with its blocking steps and commands. `options` are what a command needs besides."""
    console, some = make_console(), False
    for saga in sagas:
        some = True
        _print_saga(SagaView.of(saga), kinds.get(saga.definition_digest, {}), options, console)
    if some:
        print_line(LOOK_FIRST)
    else:
        console.print("No saga is stuck.", style="dim")


def print_repairs(saga: saga_pb2.Saga, kinds: Kinds, options: Sequence[str], console: Console) -> None:
    """Write the commands that repair a saga, if it is stuck."""
    view = SagaView.of(saga)
    if view.stuck is not None:
        console.print("It needs an operator:")
        for line in _repairs(view, view.stuck, kinds.get(saga.definition_digest, {}), options):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        console.print(LOOK_FIRST)


def options_for(server: str, namespace: str) -> list[str]:
    """What a command needs besides, to be typed where this one was."""
    elsewhere = server != os.environ.get("AMENDS_SERVER", ADDRESS)
    return [
        *(["--server", server] if elsewhere else []),
        *(["--namespace", namespace] if namespace != NAMESPACE else []),
    ]


def _repairs(
    saga: SagaView, stuck: StuckView, kinds: Mapping[str, definition_pb2.StepKind.ValueType], options: Sequence[str]
) -> list[str]:
    """Lines that say when to give which command."""
    found = list(_commands(saga, stuck, kinds, options))
    width = max(len(when) for when, _ in found)
    return [f"{when:{width}}  {command}" for when, command in found]


def _commands(
    saga: SagaView, stuck: StuckView, kinds: Mapping[str, definition_pb2.StepKind.ValueType], options: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield when to give a command, and the command for a shell."""
    if not _is_in_vain(saga, stuck):
        yield "the cause is mended", command_line(["retry", *options], saga.id)
    for step in stuck.steps:
        for words, resolution in _resolutions(stuck, kinds.get(step)):
            yield f"{step} {words}", command_line(["resolve", "--as", resolution, *options], saga.id, step)
    yield "nothing helps", command_line(["fail", *options], saga.id)


def _is_in_vain(saga: SagaView, stuck: StuckView) -> bool:
    """Tell whether trying again ends as it did: what the arguments are made of does not change any more."""
    blocked = [step.compensation_error for step in saga.steps if step.id in stuck.steps]
    return stuck.compensating and all(error is not None and error.code == "ARGUMENTS_INVALID" for error in blocked)


def _resolutions(stuck: StuckView, kind: definition_pb2.StepKind.ValueType | None) -> Iterator[tuple[str, str]]:
    if stuck.compensating:
        yield "has no effect any more", "compensated"
        yield "cannot be undone", "skipped"
        return
    yield "had its effect", "succeeded"
    yield "is not needed", "skipped"
    if kind is not None and kind != definition_pb2.STEP_KIND_RETRIABLE:
        yield "had no effect, and the saga is to turn back", "compensated"


def command_line(words: Sequence[str], *names: str) -> str:
    """A command for a shell; names come last, since one may begin with a dash."""
    dashes = ["--"] if any(name.startswith("-") for name in names) else []
    return shlex.join(["amends", *words, *dashes, *names])


def _print_saga(
    saga: SagaView,
    kinds: Mapping[str, definition_pb2.StepKind.ValueType],
    options: Sequence[str],
    console: Console,
) -> None:
    def show(text: str, style: str = "") -> None:
        console.print(visible(text), style=style, markup=False, soft_wrap=True)

    stuck = saga.stuck
    if stuck is None:  # it went on while it was asked for
        return
    way = "going back" if stuck.compensating else "going forward"
    paused = ", paused" if saga.paused else ""
    times = f", for the {stuck.count}. time" if stuck.count > 1 else ""
    since = time_text(stuck.start_time)
    show(f"{saga.id}  {saga.definition}@{saga.definition_version}, stuck since {since}{times}, {way}{paused}", "bold")
    if saga.cause is not None:
        show(f"  turned back by {saga.cause}")
    for name in stuck.steps:
        show(f"  {_step(name, next((step for step in saga.steps if step.id == name), None), stuck)}")
    for line in _repairs(saga, stuck, kinds, options):
        show(f"    {line}")
    show("")


def _step(name: str, step: StepView | None, stuck: StuckView) -> str:
    if step is None:
        return f"{name}: {stuck.error}"
    error = step.compensation_error if stuck.compensating else step.error
    attempts = step.compensation_attempts if stuck.compensating else step.attempts
    call = f"{step.participant}.{step.action}"
    what = f"the compensation of {call}" if stuck.compensating else call
    return f"{name} ({what}), {attempts} attempt{'' if attempts == 1 else 's'}: {problem_text(error)}"
