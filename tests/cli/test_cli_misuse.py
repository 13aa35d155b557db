"""What a shell may do to commands: Ctrl-C at any moment, full disks, closed streams, and servers that are none."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import types
from pathlib import Path
from typing import NoReturn

import pytest

from amends.testing.simulation import users
from amends_server.cli import main
from amends_server.cli.exits import INTERRUPTED, Exit
from amends_server.cli.output import json_text
from amends_server.ports import why_not
from tests.advice import says_what_to_do
from tests.cli.programs import AMENDS, amends, program, script


@pytest.fixture
def definition(definitions: Path) -> str:
    return str(definitions / "pay.yaml")


def test_ctrl_c_ends_a_command_that_waits_for_its_input(tmp_path: Path) -> None:
    fifo = tmp_path / "input"
    os.mkfifo(fifo)
    with program(str(AMENDS), "start", "order", "--input", f"@{fifo}") as waiting:
        writer = os.open(fifo, os.O_WRONLY)  # goes on once somebody reads
        ended = waiting.end(signal.SIGINT)
    os.close(writer)
    assert (ended.code, ended.out, ended.err) == (INTERRUPTED, "", "")


def test_ctrl_c_ends_a_simulation_at_once(definition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    went_on: list[bool] = []

    def pressed(*_: object, **__: object) -> users.Simulated:
        signal.raise_signal(signal.SIGINT)
        went_on.append(True)
        return users.Simulated(seeds=0, seen={})

    monkeypatch.setattr(users, "simulate", pressed)
    assert (amends("simulate", definition).code, went_on) == (INTERRUPTED, [])


def test_ctrl_c_while_modules_are_loaded_is_no_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loading(types.ModuleType):
        def __getattr__(self, name: str) -> NoReturn:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "amends_server.cli.commands", Loading("amends_server.cli.commands"))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == INTERRUPTED


def test_output_for_which_there_is_no_room_is_a_sentence(definition: str) -> None:
    with program("sh", "-c", f"exec {AMENDS} definitions graph {definition} > /dev/full") as printing:
        ended = printing.end()
    assert (ended.code, ended.err) == (
        Exit.REFUSED,
        "amends: The output cannot be written (No space left on device): make room, or send it elsewhere.\n",
    )


def test_a_terminal_that_knows_no_circles_gets_their_numbers(definition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = script("definitions", "graph", definition, PYTHONIOENCODING="ascii")
    assert (drawn.code, drawn.err) == (0, "")
    assert r"1  \u25cb charge  payment.charge" in drawn.out
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert json_text({"a": "é"}) == r'{"a": "\u00e9"}'


def test_streams_that_are_closed_are_nobody_elses(definition: str) -> None:
    check = f"{AMENDS} definitions check {definition} --server 127.0.0.1:1"
    with program("sh", "-c", f"{check} <&- >&-; echo $?") as closed:
        assert (closed.line(), closed.end().err) == ("0", "")


@pytest.mark.parametrize("command", [["list"], ["health"], ["show", "x"], ["start", "pay", "--input", "{}"]])
def test_a_participant_is_not_taken_for_an_orchestrator(command: list[str], server: str) -> None:
    known = amends("participants", "list", "-o", "json", server=server).json["participants"]
    address = next(each["address"] for each in known if each["name"] == "payment")
    ended = amends(*command, server=address)
    assert (ended.code, ended.out) == (Exit.UNREACHABLE, "")
    assert ended.err == (
        f"amends: What listens at {address} is no orchestrator, or not of this version: say where one listens with "
        "--server HOST:PORT or AMENDS_SERVER.\n"
    )


def test_an_address_that_nobody_can_have_is_not_said_to_be_taken() -> None:
    ended = script("serve", "--listen", "192.0.2.1:0", "--store", "memory:")
    assert ended.code == Exit.REFUSED
    assert "Nothing can listen at 192.0.2.1:0 (Cannot assign requested address)" in ended.err
    assert why_not("127.0.0.1", 0) == why_not("[::]", 0) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["definitions", "show", "gone"],
        ["resolve", "x", "y", "--as", "skipped", "--output", "1", "--reason", "r"],
        ["serve", "--config", "gone.toml"],
        ["restored", "--store", "sqlite:////dev/null/amends.db"],
        ["migrate", "--store", "sqlite:////"],
    ],
)
def test_what_goes_wrong_says_what_to_do(arguments: list[str], server: str) -> None:
    ended = amends(*arguments, server=server)
    assert ended.code in (Exit.REFUSED, Exit.USAGE)
    assert says_what_to_do(ended.err.removeprefix("amends: ")), ended.err


def test_a_server_without_a_place_for_its_sagas_says_what_to_do() -> None:
    ended = script("serve", "--listen", "127.0.0.1:0", "--store", "sqlite:////dev/null/amends.db")
    *_, said = ended.err.splitlines()
    assert (ended.code, ended.out) == (Exit.REFUSED, "")
    assert says_what_to_do(said.removeprefix("amends: ")), said


def test_next_is_what_to_do_and_not_the_name_of_an_option() -> None:
    error = json.loads(amends("-o", "json", "list").err)["error"]
    assert (error["message"], error["next"]) == ("No such option: -o: see `amends --help`.", "see `amends --help`.")
    error = json.loads(amends("resolve", "x", "y", "--as", "z", "-o", "json").err)["error"]
    assert error["next"] == "see `amends resolve --help`."
    assert "Value error" not in error["message"]


def test_help_fills_its_paragraphs() -> None:
    text = amends("simulate", "--help", COLUMNS="80").out
    assert "The exit code is 1 if a promise was broken; the story" in " ".join(text.split())
    assert "The exit code is 1 if a promise was broken; the story of that world is then" in text
