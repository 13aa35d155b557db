"""Commands for definitions: check, register, list, show, diff, graph, remove."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, assert_never

import typer

from amends_server.cli.exits import EXIT_CODES, CommandError, run, usage_error, with_commands
from amends_server.cli.group import Group
from amends_server.cli.options import ADDRESS, NAMESPACE, DefinitionFile, Form, Namespace, Output, Reference, Server
from amends_server.cli.output import print_json, print_line, print_message, print_table, time_text

if TYPE_CHECKING:
    from amends.v1 import definition_pb2
    from amends_server.cli.definitions.layers import Layers
    from amends_server.engine.definition import Definition

ReferenceOrFile = Annotated[
    str,
    typer.Argument(
        metavar="DEFINITION|FILE", help="A registered one, or a file: .yaml, .yml or .json.", show_default=False
    ),
]


class Picture(StrEnum):
    """How a graph is drawn."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


def make_app() -> typer.Typer:
    """The group of these commands."""
    about = "Check, register, list, show, compare, draw and remove definitions of sagas."
    app = typer.Typer(cls=Group, no_args_is_help=True, help=about)
    for command in (check, register, list_, show, diff, graph, remove):
        app.command(command.__name__.rstrip("_"), epilog=EXIT_CODES)(command)
    return app


def check(
    file: DefinitionFile, server: Server = ADDRESS, namespace: Namespace = NAMESPACE, form: Output = Form.TEXT
) -> None:
    """Say what is wrong with a definition, and what the failure of each step would lead to. Nothing is stored.

    Without an orchestrator its participants and their actions are left out. The exit code is 1 if it could not be
    registered.
    """

    async def checked() -> None:
        from amends.v1 import definition_pb2
        from amends_server.cli.definitions.checking import check_definition
        from amends_server.cli.definitions.failures import print_failures
        from amends_server.cli.definitions.files import read_definition

        definition = read_definition(file)
        response = await check_definition(definition, server, namespace)
        if form is Form.JSON:
            print_message(response)
        else:
            _print_diagnostics(response.diagnostics)
            print_failures(definition, response.plans)
        wrong = [each for each in response.diagnostics if each.severity == definition_pb2.SEVERITY_ERROR]
        if wrong:
            raise CommandError(f"{file} cannot be registered: mend {'this' if len(wrong) == 1 else 'these'} first.")
        if form is Form.TEXT:
            print_line(f"{file} can be registered: amends definitions register {file}")

    run(checked(), server)


def register(
    file: DefinitionFile, server: Server = ADDRESS, namespace: Namespace = NAMESPACE, form: Output = Form.TEXT
) -> None:
    """Register a definition: new content gets the next version of its name, known content keeps its own."""

    async def registered() -> None:
        from amends.v1 import orchestrator_pb2 as pb
        from amends_server.cli.connect import connected
        from amends_server.cli.definitions.files import read_definition

        definition = read_definition(file)
        async with connected(server, namespace) as connection:
            request = pb.RegisterDefinitionRequest(namespace=namespace, definition=definition)
            response = await connection.once(connection.orchestrator.RegisterDefinition, request)
        if form is Form.JSON:
            print_message(response)
            return
        _print_diagnostics(response.diagnostics)
        stored = response.definition
        print_line(
            f"{stored.name}@{stored.version} {'registered' if response.created else 'was registered before'}: "
            f"{stored.digest}"
        )

    run(registered(), server)


def list_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Only this name.", show_default=False)] = "",
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """List definitions by name, newest version first."""

    async def listed() -> None:
        from amends.client.connection import pages
        from amends.v1 import orchestrator_pb2 as pb
        from amends_server.cli.connect import connected

        found = pb.ListDefinitionsResponse()
        async with connected(server, namespace) as connection:
            method = connection.orchestrator.ListDefinitions

            async def fetch(token: str) -> pb.ListDefinitionsResponse:
                return await connection.once(
                    method, pb.ListDefinitionsRequest(namespace=namespace, name=name, page_token=token)
                )

            async for page in pages(fetch):
                found.definitions.extend(page.definitions)
        if form is Form.JSON:
            print_message(found)
            return
        rows = [
            (f"{each.name}@{each.version}", str(len(each.steps)), time_text(each.create_time), each.description)
            for each in found.definitions
        ]
        print_table(("DEFINITION", "STEPS", "REGISTERED", "DESCRIPTION"), rows, "No such definitions.")

    run(listed(), server)


def show(
    definition: Reference, server: Server = ADDRESS, namespace: Namespace = NAMESPACE, form: Output = Form.TEXT
) -> None:
    """Show a definition: its steps, their order, and how each is undone."""

    async def shown() -> None:
        from amends.v1 import orchestrator_pb2 as pb
        from amends_server.cli.connect import connected
        from amends_server.cli.definitions.references import read_reference

        request = pb.GetDefinitionRequest(namespace=namespace, definition=read_reference(definition))
        async with connected(server, namespace) as connection:
            response = await connection.once(connection.orchestrator.GetDefinition, request)
        if form is Form.JSON:
            print_message(response)
        else:
            _print_definition(response.definition)

    run(shown(), server)


def diff(
    before: ReferenceOrFile,
    after: ReferenceOrFile,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Show what differs between two definitions, step by step and field by field.

    A file is compared as it would be registered.
    """

    async def compared() -> None:
        from amends_server.cli.definitions.differences import differences, lines_of

        old, new = [await _look_up(each, server, namespace) for each in (before, after)]
        found = list(differences(old, new))
        if form is Form.JSON:
            print_json([each.as_json for each in found])
            return
        print_line(f"{_title(old, before)} → {_title(new, after)}")
        for line in lines_of(found):
            print_line(line)
        if not found:
            print_line("Nothing differs.")

    run(compared(), server)


def graph(
    definition: ReferenceOrFile,
    form: Annotated[
        Picture, typer.Option("--format", "-o", help="svg stands alone; mermaid is for documents.")
    ] = Picture.TEXT,
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
) -> None:
    """Draw the order of the steps, to stdout. A file is drawn without asking the orchestrator."""

    async def drawn() -> None:
        from amends_server.cli.definitions.layers import make_layers

        message = await _look_up(definition, server, namespace)
        for line in _draw(make_layers(_sound(message, definition), message.version), form).splitlines():
            print_line(line)

    run(drawn(), server)


def remove(
    definition: Annotated[
        str, typer.Argument(metavar="DEFINITION", help="NAME@VERSION or sha256:…", show_default=False)
    ],
    server: Server = ADDRESS,
    namespace: Namespace = NAMESPACE,
    form: Output = Form.TEXT,
) -> None:
    """Remove a version of a definition that no stored saga has."""

    async def removed() -> None:
        from amends.v1 import orchestrator_pb2 as pb
        from amends_server.cli.connect import connected
        from amends_server.cli.definitions.references import read_reference

        request = pb.DeleteDefinitionRequest(namespace=namespace, definition=read_reference(definition))
        async with connected(server, namespace) as connection:
            response = await connection.once(connection.orchestrator.DeleteDefinition, request)
        if form is Form.JSON:
            print_message(response)
        else:
            print_line(f"{definition} removed")

    run(removed(), server)


async def _look_up(name: str, server: str, namespace: str) -> definition_pb2.Definition:
    """Return a registered definition, or one in a file as it would be registered."""
    from amends.v1 import orchestrator_pb2 as pb
    from amends_server.cli.connect import connected
    from amends_server.cli.definitions.files import read_definition
    from amends_server.cli.definitions.references import read_reference
    from amends_server.convert.definition import definition_to_wire

    if _is_file(name):
        return definition_to_wire(_sound(read_definition(Path(name)), name))
    request = pb.GetDefinitionRequest(namespace=namespace, definition=read_reference(name))
    async with connected(server, namespace) as connection:
        return (await connection.once(connection.orchestrator.GetDefinition, request)).definition


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml", ".json"))


def _title(definition: definition_pb2.Definition, name: str) -> str:
    return name if _is_file(name) else f"{definition.name}@{definition.version}"


def _sound(message: definition_pb2.Definition, name: str) -> Definition:
    """Return a definition that could be registered, as far as the participants allow it."""
    from amends_server.convert.definition import diagnose
    from amends_server.engine.checks.problem import Severity

    definition, problems = diagnose(message)
    wrong = [f"{each.field}: {each.message}" for each in problems if each.severity is Severity.ERROR]
    if wrong:
        raise usage_error("\n".join([*wrong, f"{name} cannot be registered: mend it first."]))
    return definition


def _draw(layers: Layers, form: Picture) -> str:
    from amends_server.cli.definitions.graphs import draw_mermaid, draw_text
    from amends_server.cli.definitions.svg import draw_svg

    match form:
        case Picture.TEXT:
            return draw_text(layers)
        case Picture.MERMAID:
            return draw_mermaid(layers)
        case Picture.SVG:
            return draw_svg(layers)
        case _:
            assert_never(form)


def _print_diagnostics(diagnostics: Iterable[definition_pb2.Diagnostic]) -> None:
    from amends.v1 import definition_pb2

    for each in diagnostics:
        severity = definition_pb2.Severity.Name(each.severity).removeprefix("SEVERITY_").lower()
        print_line(f"{severity}: {f'{each.field}: ' if each.field else ''}{with_commands(each.message)}")


def _print_definition(definition: definition_pb2.Definition) -> None:
    from amends.v1 import definition_pb2

    print_line(f"{definition.name}@{definition.version}  {definition.digest}")
    for line in (definition.description, f"registered {time_text(definition.create_time)}"):
        if line:
            print_line(line)
    if definition.HasField("deadline"):
        print_line(f"deadline {definition.deadline.ToTimedelta()}")
    rows = [
        (
            step.id,
            f"{step.participant}.{step.action}",
            definition_pb2.StepKind.Name(step.kind).removeprefix("STEP_KIND_").lower(),
            ", ".join(step.after) or "–",
            step.input_template or "the saga's input",
        )
        for step in definition.steps
    ]
    print_table(("STEP", "CALLS", "KIND", "AFTER", "INPUT"), rows, "No steps.")
