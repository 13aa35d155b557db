"""The documents are complete: each setting, error code and command has its place, and each link leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer

from amends import Saga, encode
from amends.participant.participant import PLAIN_HANDLERS_MAX
from amends.testing import given
from amends.v1 import participant_pb2
from amends_server.cli.commands import app as cli
from amends_server.cli.definitions.files import read_definition
from amends_server.config import (
    CALLS_IN_FLIGHT_MAX,
    ID_LENGTH_MAX,
    LABELS_MAX,
    PAGE_SIZE,
    PAGE_SIZE_MAX,
    PATIENCE_S,
    PUT_OFF_S,
    PUT_OFFS_PER_S,
    REASON_LENGTH_MAX,
    SAGAS_ACTIVE_MAX,
    SESSIONS_MAX,
    WAITING_MAX,
    WATCHERS_MAX,
    Settings,
    load_settings,
)
from amends_server.convert.definition import diagnose
from amends_server.engine.checks.amounts import EXPRESSIONS_MAX, PATHS_MAX
from amends_server.engine.checks.validation import RULES_MAX, STEPS_MAX
from amends_server.engine.commands import Rejected, Unknown
from amends_server.engine.history import EVENTS_MAX, ROOM_BACK, ROOM_REPAIRS
from amends_server.status import REFUSALS, to_status
from amends_server.transport.endpoint import message_bytes_max
from amends_server.transport.verdicts import verdict_of_status
from tests.advice import says_what_to_do
from tests.sources import CODE, ROOT, codes_in

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SERVER = ROOT / "server/amends_server"
# What makes an error of a saga, and what makes a finding about a definition.
MAKE_ERRORS = {"Error", "_error", "_read_error"}
MAKE_FINDINGS = {"error", "warning", "Problem"}
KEPT_ELSEWHERE = {".git", ".venv", ".venv-generate", ".venv-lock", "node_modules"}


def documents() -> list[Path]:
    found = [path for path in sorted(ROOT.rglob("*.md")) if not KEPT_ELSEWHERE.intersection(path.parts)]
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    assert [link for link in links(path) if not leads_somewhere(path, link)] == []


def test_the_check_of_links_sees_broken_ones(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two` (three)\n[a](page.md#one-two-three) [b](#four) [c](gone.md) ![d](gone.svg)\n")
    assert [link for link in links(page) if not leads_somewhere(page, link)] == ["#four", "gone.md", "gone.svg"]


def test_the_architecture_names_each_part_of_the_server_and_of_the_sdk() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    server, sdk = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert named_in(server) == parts_of(SERVER)
    assert named_in(sdk) == {part for part in parts_of(ROOT / "sdk/amends") if not part.startswith("_")}


def named_in(layers: str) -> set[str]:
    return {name.rstrip("/") for line in layers.splitlines() for name in re.split(r"\s{3,}", line)[0].split()}


def parts_of(root: Path) -> set[str]:
    parts = {path.stem for path in root.glob("*.py")} | {path.parent.name for path in root.glob("*/__init__.py")}
    return parts - {"__init__"}


def test_the_architecture_leads_to_modules_that_are_there() -> None:
    places = re.findall(r"`(\w+/\w+)(?:\.\w+)?`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert len(places) > 20
    candidates = {place: [at / name for at in (SERVER, ROOT) for name in (place, f"{place}.py")] for place in places}
    assert [place for place, paths in candidates.items() if not any(path.exists() for path in paths)] == []


def test_each_reason_of_a_refusal_is_explained() -> None:
    reasons = {refusal.reason for kind, refusal in REFUSALS.items() if kind is not Rejected}
    reasons |= {reason for call, reason in codes_in(SERVER, {"Rejected"})}
    info = to_status(RuntimeError()).details[0].value
    assert b"INTERNAL" in info, "what nobody expected has the reason INTERNAL"
    explained = set(headings("docs/errors.md"))
    assert {"SAGA_FINAL", "STORE_UNAVAILABLE"} <= reasons
    assert (reasons | {"INTERNAL"}) - explained == set()


def test_each_code_of_an_error_is_explained() -> None:
    codes = {code for _, code in codes_in(SERVER, MAKE_ERRORS)}
    assert {"TIMEOUT", "INPUT_INVALID", "REPLY_UNREADABLE", "NOT_SENT"} <= codes
    for status in grpc.StatusCode:
        verdict = verdict_of_status("shop", status, "", compensation=False)
        assert isinstance(verdict, Unknown)
        codes |= {verdict.error.code} if status is not grpc.StatusCode.OK else set()
    assert codes - set(headings("docs/errors.md")) - set(rows("docs/errors.md")) == set()


def test_the_table_of_statuses_says_which_are_tried_again() -> None:
    said = {code: cells[1].startswith("yes") for code, cells in rows("docs/errors.md").items() if len(cells) == 2}
    for status in set(grpc.StatusCode) - {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}:
        verdict = verdict_of_status("shop", status, "", compensation=False)
        assert isinstance(verdict, Unknown)
        assert said[status.name] is verdict.again, status.name


def test_each_finding_about_a_definition_is_explained() -> None:
    codes = {code for _, code in codes_in(SERVER, MAKE_FINDINGS)}
    assert {"CYCLE", "FIELD_UNKNOWN", "ACTION_UNCHECKED"} <= codes
    assert codes - set(rows("docs/errors.md")) == set()


def test_what_explains_a_code_says_what_to_do() -> None:
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    sections = re.findall(rf"^### ({CODE.pattern})\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(sections) == len([each for each in raw_headings("docs/errors.md") if CODE.fullmatch(each)]) > 0
    assert [code for code, *_, section in sections if not says_what_to_do(section)] == []


def test_no_code_is_explained_that_does_not_exist() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in SERVER.rglob("*.py"))
    sources += "".join(path.read_text(encoding="utf-8") for path in (ROOT / "sdk/amends").rglob("*.py"))
    statuses = {status.name for status in grpc.StatusCode}
    explained = {*rows("docs/errors.md"), *(each for each in headings("docs/errors.md") if CODE.fullmatch(each))}
    assert {code for code in explained - statuses if f'"{code}"' not in sources} == set()


def test_each_metric_is_explained() -> None:
    source = (SERVER / "metrics.py").read_text(encoding="utf-8")
    made = re.findall(r'(Gauge|Counter)MetricFamily\(\s*"(\w+)"', source)
    assert len(made) > 3
    names = {name + ("_total" if kind == "Counter" else "") for kind, name in made}
    assert names == set(rows("docs/metrics.md"))


def test_each_setting_is_explained() -> None:
    explained = rows("docs/configuration.md")
    assert set(Settings.model_fields) == set(explained)
    for name, cells in explained.items():
        assert cells[1] == f"`AMENDS_{name.upper()}`"
        default = Settings.model_fields[name].default
        if isinstance(default, str | int | float):
            assert cells[2] == f"`{str(default).lower()}`", f"the default of {name}"


def test_each_command_is_explained() -> None:
    commands = set(commands_of(typer.main.get_command(cli), "amends"))
    assert "amends serve" in commands
    assert {f"`{command}`" for command in commands} == {each for each in raw_headings("docs/cli.md") if "`" in each}


def test_the_sagas_in_the_documents_can_be_registered(tmp_path: Path) -> None:
    code = run_code("docs/sagas.md")
    sagas = [value for value in code.values() if isinstance(value, Saga)]
    assert {saga.name for saga in sagas} == {"order", "careful", "basket", "parcel", "spare", "sale"}
    [text] = blocks("yaml", "docs/sagas.md")
    file = tmp_path / "order.yaml"
    file.write_text(text, encoding="utf-8")
    for definition in [*(saga.definition() for saga in sagas), read_definition(file)]:
        assert diagnose(definition)[1] == []


@pytest.mark.parametrize("hiccup", ["refuses", "times_out"])
def test_a_hiccup_changes_nothing_of_what_a_saga_in_the_documents_does(hiccup: str) -> None:
    code = run_code("docs/sagas.md")
    begun = given(code["spare"], code["Order"]("c-1", "tea", 2)).expect(code["reserve"])
    again = begun.times_out() if hiccup == "times_out" else begun.refuses("BUSY", data={"queue": 1})
    held = again.when_due().expect(code["reserve"]).replies("H-1")
    held.expect(code["send"]).replies("P-1").completes("H-1")


async def test_the_participant_in_the_documents_keeps_the_contract() -> None:
    code = run_code("docs/participants.md")
    stub, stock = code["inventory"].servicer(), code["stock"]
    do = participant_pb2.ExecuteRequest(action="reserve", input=encode({"sku": "tea", "quantity": 30}))
    do.call.key = "a"
    undo = participant_pb2.CompensateRequest(action="reserve", execute_key="a", input=do.input)
    undo.call.key = "b"
    told: list[int] = []
    for request in (do, do, undo, undo, do):
        call = stub.Execute if request is do else stub.Compensate
        told.append((await call(request, None)).reply.status)
        assert stock["tea"] == (70 if len(told) < 3 else 100)
    assert told == [200, 200, 200, 200, 400]
    do.call.key = undo.execute_key = "overtaken"
    told = [(await stub.Compensate(undo, None)).reply.status, (await stub.Execute(do, None)).reply.status]
    assert (told, stock["tea"]) == ([200, 400], 100)


async def test_the_barrier_in_the_documents_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = run_code("docs/participants.md")
    code["once"].create_table()

    def stock(statement: str = "SELECT quantity FROM stock") -> list[tuple[int]]:
        with code["connect"]() as connection, connection:
            return connection.execute(statement).fetchall()

    stock("CREATE TABLE stock (sku TEXT, quantity INTEGER)")
    stock("INSERT INTO stock VALUES ('tea', 100)")
    for name, action, value in (("shelf", "take", {"sku": "tea", "quantity": 30}), ("payment", "charge", 5)):
        stub = code[name].servicer()
        do = participant_pb2.ExecuteRequest(action=action, input=encode(value))
        undo = participant_pb2.CompensateRequest(action=action, execute_key=name, input=do.input)
        do.call.key, undo.call.key = name, f"{name}/undo"
        told = [
            (await (stub.Execute if request is do else stub.Compensate)(request, None)).reply.status
            for request in (do, do, undo, undo, do)
        ]
        assert told == [200, 200, 200, 200, 400]
        do.call.key = f"{name}/once"
        assert (await stub.Execute(do, None)).reply.status == 200
    assert (stock(), code["payments"]) == ([(70,)], {"payment/once": "5 paid"})


def test_the_settings_in_the_documents_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [text] = blocks("toml", "docs/configuration.md")
    (tmp_path / "amends.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_settings().participants["shipping"].concurrency_max == 16


def test_the_limits_in_the_documents_are_those_of_the_server() -> None:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8").partition("## Limits")[2]
    for limit in (
        ID_LENGTH_MAX,
        EVENTS_MAX,
        ROOM_BACK,
        ROOM_REPAIRS,
        STEPS_MAX,
        LABELS_MAX,
        REASON_LENGTH_MAX,
        PAGE_SIZE,
        PAGE_SIZE_MAX,
        SAGAS_ACTIVE_MAX,
    ):
        assert f"{limit:,}" in text
    assert f"| expressions and paths of a definition | {EXPRESSIONS_MAX:,} and {PATHS_MAX:,} |" in text
    assert f"| rules for errors of a step | {RULES_MAX} |" in text
    assert f"| sessions with clients | {SESSIONS_MAX:,} |" in text
    assert f"| calls that wait for a saga (`wait`, CompleteStep) | {WAITING_MAX:,} |" in text
    assert f"| watchers | {WATCHERS_MAX:,} |" in text
    assert f"take the participant more than {PATIENCE_S} s to answer them all, by {PUT_OFF_S} s or more;" in text
    assert f"; {PUT_OFFS_PER_S} sagas come back in a second |" in text
    assert f"| calls in flight at a participant | {CALLS_IN_FLIGHT_MAX}," in text


def test_participants_are_told_how_large_calls_may_be() -> None:
    text = (ROOT / "docs/participants.md").read_text(encoding="utf-8")
    largest = message_bytes_max(Settings.model_fields["payload_bytes_max"].default)
    assert f"Accept messages of {-(-largest // (1 << 20))} MiB" in text
    assert f"up to {PLAIN_HANDLERS_MAX} actions and {PLAIN_HANDLERS_MAX} compensations" in " ".join(text.split())


def blocks(language: str, name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_code(name: str) -> dict[str, Any]:
    """What the Python of a document defines, its blocks run one after another."""
    defined: dict[str, Any] = {"__name__": "document"}
    program = compile("\n".join(blocks("python", name)), name, "exec", dont_inherit=True)
    exec(program, defined)  # noqa: S102 - our own text
    return defined


def links(path: Path) -> Iterator[str]:
    """The targets of the links of a document that are no addresses of the net."""
    for link, picture in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        target = link or picture
        if not re.match(r"[a-z]+:", target):
            yield target


def leads_somewhere(path: Path, link: str) -> bool:
    """Whether the file is there and, of a document, the heading."""
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    if not target.exists():
        return False
    return not anchor or anchor in {slug(each) for each in HEADING.findall(FENCE.sub("", target.read_text("utf-8")))}


def slug(heading: str) -> str:
    """The anchor that forges make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def raw_headings(name: str) -> list[str]:
    return HEADING.findall(FENCE.sub("", (ROOT / name).read_text(encoding="utf-8")))


def headings(name: str) -> list[str]:
    return [each.replace("`", "") for each in raw_headings(name)]


def rows(name: str) -> dict[str, list[str]]:
    """The rows of tables that begin with one word of code, by that word: their cells."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {
        match[1]: [cell.strip() for cell in match[0].strip("|").split("|")]
        for match in re.finditer(r"^\| `(\w+)` \|.*\|$", text, re.MULTILINE)
    }


def commands_of(command: object, name: str) -> Iterator[str]:
    """The full names of all commands, those of groups included."""
    children = getattr(command, "commands", None)
    if not children:
        yield name
        return
    for child, each in children.items():
        if not each.hidden:
            yield from commands_of(each, f"{name} {child}")
