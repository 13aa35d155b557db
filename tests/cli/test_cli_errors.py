"""How commands end otherwise than wished: errors for people and programs, exit codes, and texts of others."""

from __future__ import annotations

import io
import json
import re
import signal
import unicodedata
from pathlib import Path

import pytest
from rich.console import Console

from amends_server.cli.escapes import Escaping, visible
from amends_server.cli.exits import INTERRUPTED, Exit
from amends_server.cli.output import json_text
from tests.cli.programs import AMENDS, Ended, amends, program
from tests.sources import ROOT

HOSTILE = "\x1b[31mred\x9b2J\rgone\x07 \u202eback \u2028line"
"""Colours, clears the screen, overwrites a line, rings, turns the direction of reading."""

WRITTEN_OUT = r"\x1b[31mred\x9b2J\rgone\x07 \u202eback \u2028line"


def error_of(ended: Ended) -> dict[str, object]:
    """The one JSON object on standard error."""
    assert ended.err.count("\n") == 1
    document: dict[str, dict[str, object]] = json.loads(ended.err)
    assert list(document) == ["error"]
    assert list(document["error"]) == ["code", "reason", "message", "next", "metadata", "violations"]
    return document["error"]


def test_what_the_orchestrator_refuses_is_json_for_programs(server: str) -> None:
    ended = amends("show", "nothing", "-o", "json", server=server)
    assert (ended.code, ended.out) == (Exit.REFUSED, "")
    assert error_of(ended) == {
        "code": "NOT_FOUND",
        "reason": "SAGA_NOT_FOUND",
        "message": "There is no saga `nothing` in namespace `default`: check both, or look with `amends list`.",
        "next": "check both, or look with `amends list`.",
        "metadata": {"saga_id": "nothing", "namespace": "default"},
        "violations": [],
    }
    bad = error_of(amends("show", "a b", "--format=json", server=server))
    assert (bad["code"], bad["reason"]) == ("INVALID_ARGUMENT", "ARGUMENT_INVALID")
    assert [each["field"] for each in bad["violations"]] == ["saga_id"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "code", "reason", "next_"),
    [
        (["show", "x", "--server", "127.0.0.1:1"], Exit.UNREACHABLE, "UNREACHABLE", "start one with `amends serve`"),
        (["list", "--older-than", "long"], Exit.USAGE, "USAGE", "write a number and ms, s, m, h or d"),
        (["show"], Exit.USAGE, "USAGE", "see `amends show --help`."),
        (["resolve", "x", "y", "--as", "z"], Exit.USAGE, "USAGE", "see `amends resolve --help`."),
        (["shwo"], Exit.USAGE, "USAGE", "See `amends --help`."),
        (["definitions", "check", "nowhere.yaml"], Exit.USAGE, "USAGE", "check its name."),
    ],
)
def test_other_errors_are_json_too(arguments: list[str], code: Exit, reason: str, next_: str) -> None:
    ended = amends(*arguments, "-o", "json")
    error = error_of(ended)
    assert (ended.code, ended.out, error["reason"]) == (code, "", reason)
    assert next_ in str(error["next"])
    assert str(error["message"]).endswith(str(error["next"]))


def test_a_saga_that_ended_otherwise_is_an_answer_and_an_error(server: str) -> None:
    refused = amends(
        *("start", "pay", "--input", '{"customer": "cyd", "amount": 100000}', "--id", "told-twice", "--wait"),
        *("-o", "json"),
        server=server,
    )
    assert (refused.code, refused.json["saga"]["status"]) == (Exit.NOT_COMPLETED, "SAGA_STATUS_COMPENSATED")
    assert error_of(refused)["reason"] == "NOT_COMPLETED"


def test_wrong_usage_is_a_sentence_for_people() -> None:
    assert amends("show").err == "amends: Missing argument 'SAGA': see `amends show --help`.\n"
    assert amends("shwo").err == "amends: No such command 'shwo'. Did you mean 'show'? See `amends --help`.\n"
    for group in ([], ["definitions"], ["participants"]):
        helped = amends(*group)
        assert (helped.code, "Usage: amends" in helped.out) == (Exit.USAGE, True)


def test_a_watch_that_is_interrupted_says_so_by_its_exit_code(server: str, tmp_path: Path) -> None:
    given = ["--id", "left", "--input", json.dumps({"path": str(tmp_path / "gate")})]
    assert amends("start", "hanging", *given, server=server).code == 0
    with program(str(AMENDS), "watch", "left", AMENDS_SERVER=server) as watching:
        watching.lines_until("hang .*RUNNING")
        ended = watching.end(signal.SIGINT)
    assert (ended.code, ended.err) == (INTERRUPTED, "")
    (tmp_path / "gate").touch()


def test_a_reader_that_goes_away_is_no_accident(server: str) -> None:
    with program("sh", "-c", f"{AMENDS} list -o json | true; echo done", AMENDS_SERVER=server) as piped:
        assert (piped.line(), piped.end().err) == ("done", "")


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert documented == {*map(int, Exit), INTERRUPTED}
    assert all(f" {code} " in amends("show", "--help").out for code in documented)


def test_texts_of_others_do_not_steer_the_terminal(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start = [
        "start",
        "hanging",
        "--id",
        "hostile",
        "--label",
        f"k={HOSTILE}",
        "--input",
        json.dumps({"path": str(gate)}),
    ]
    outputs = [amends(*start, server=server), amends("cancel", "hostile", "--reason", HOSTILE, server=server)]
    gate.touch()
    outputs += [
        amends("watch", "hostile", server=server),
        amends("show", "hostile", server=server),
        amends("list", "--label", f"k={HOSTILE}", server=server),
        amends("show", "hostile", "-o", "json", server=server),
        amends("show", HOSTILE, server=server),
        amends("list", "--status", HOSTILE),
    ]
    for ended in outputs:
        assert [char for char in ended.out + ended.err if unicodedata.category(char) == "Cc" and char != "\n"] == []
    for ended in outputs[2:5]:
        assert WRITTEN_OUT in ended.out
    assert outputs[5].json["saga"]["cause"]["cancel"]["reason"] == HOSTILE


def test_what_is_written_out_and_what_is_not() -> None:
    assert visible(HOSTILE) == WRITTEN_OUT
    assert visible("a\nb\tc") == r"a\nb\tc"
    for text in ("", "plain text", "Zürich 東京\u3000\u00a0", "👩‍🚀", "می‌خواهم"):
        assert visible(text) == text
    assert json.loads(json_text({"a": HOSTILE})) == {"a": HOSTILE}


def test_styles_and_lines_of_our_own_stay() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=40)
    console.push_render_hook(Escaping())
    console.print("one\n\x1b[2Jtwo", style="bold", markup=False)
    assert out.getvalue().startswith("\x1b[1mone\x1b[0m\n")
    assert re.sub(r"\x1b\[[01]m", "", out.getvalue()) == "one\n\\x1b[2Jtwo\n"
