"""start, show, list, watch and cancel."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.programs import AMENDS, amends, program, script

PAID = '{"customer": "ada", "amount": 5}'
TOO_MUCH = '{"customer": "cyd", "amount": 100000}'


def test_start_and_wait_tells_how_it_ended(server: str) -> None:
    paid = amends("start", "pay", "--id", "paid", "--input", PAID, "--wait", "--label", "kind=test", server=server)
    assert (paid.code, paid.err) == (0, "")
    assert "COMPLETED" in paid.out
    assert "kind=test" in paid.out
    assert "payment.charge" in paid.out
    refused = amends("start", "pay@1", "--id", "refused", "--input", TOO_MUCH, "--wait", server=server)
    assert refused.code == 4
    assert "INSUFFICIENT_FUNDS" in refused.out
    assert refused.err == "amends: refused is COMPENSATED and not COMPLETED.\n"


def test_start_again_is_harmless_with_an_id(server: str) -> None:
    first = script("start", "pay", "--id", "twice", "--input", PAID, "--wait", "-o", "json", server=server)
    again = amends("start", "pay", "--id", "twice", "--input", PAID, "-o", "json", server=server)
    other = script("start", "pay", "--id", "twice", "--input", TOO_MUCH, server=server)
    assert (first.code, again.code, other.code) == (0, 0, 1)
    assert (first.json["created"], again.json["created"]) == (True, False)
    assert first.json["saga"]["status"] == "SAGA_STATUS_COMPLETED"
    assert "choose another id" in other.err


def test_start_takes_a_file_and_input_from_elsewhere(server: str, definitions: Path, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text(PAID, encoding="utf-8")
    pay = str(definitions / "pay.yaml")
    from_file = amends("start", "--file", pay, "--input", f"@{tmp_path}/input.json", "--wait", server=server)
    from_stdin = script("start", "--file", pay, "--input", "-", "--wait", server=server, stdin=PAID)
    assert (from_file.code, from_stdin.code) == (0, 0)


def test_a_wait_and_an_error_tell_the_id_that_was_made_up(server: str) -> None:
    waited = amends("start", "pay", "--input", PAID, "--wait", "-o", "json", server=server)
    assert json.loads(waited.err) == {"waiting_for": waited.json["saga"]["sagaId"]}
    unreached = script("start", "pay", "--input", PAID, server="127.0.0.1:1")
    assert unreached.code == 3
    assert re.search(r"not known: do it again with --id [0-9a-f]{32}", unreached.err)


def test_start_at_a_time_and_with_a_deadline(server: str, tmp_path: Path) -> None:
    later = amends("start", "pay", "--id", "later", "--at", "2131-05-01T08:00:00+02:00", "-o", "json", server=server)
    assert (later.json["saga"]["dueTime"], later.json["saga"]["status"]) == (
        "2131-05-01T06:00:00Z",
        "SAGA_STATUS_PENDING",
    )
    assert "next due    2131-05-01 06:00:00Z\n" in amends("show", "later", server=server).out
    assert amends("cancel", "later", "--wait", server=server).code == 0
    given = ["--input", json.dumps({"path": str(tmp_path / "gate")}), "--deadline", "300ms"]
    assert amends("start", "hanging", "--id", "short", *given, server=server).code == 0
    assert re.search(r"^deadline +2\d+", amends("show", "short", server=server).out, re.MULTILINE)
    with program(str(AMENDS), "watch", "short", AMENDS_SERVER=server) as watching:
        watching.lines_until("deadline")
        (tmp_path / "gate").touch()
        assert watching.end().code == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pay", "--input", '{"a": 1]'], "--input is not valid JSON at line 1, column 8"),
        (["pay", "--input", '{"a": NaN}'], "NaN is no JSON number"),
        (["pay", "--input", ""], "it is empty"),
        (["pay", "--input", "@nowhere.json"], "nowhere.json cannot be read"),
        (["pay", "--id", ""], "The saga's id is empty"),
        (["pay", "--label", "x"], "write --label KEY=VALUE"),
        (["pay", "--label", "x=1", "--label", "x=2"], "given twice"),
        (["pay@x"], "NAME@VERSION"),
        (["pay", "--at", "tomorrow"], "--at cannot be `tomorrow`: write a date, a time and its zone"),
        (["pay", "--at", "2031-05-01T08:00:00"], "its zone, for example 2031-05-01T08:00:00Z"),
        (["pay", "--deadline", "soon"], "--deadline cannot be `soon`"),
        ([], "either DEFINITION, a registered one, or --file FILE"),
    ],
)
def test_start_refuses_wrong_usage(arguments: list[str], sentence: str) -> None:
    ended = amends("start", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err
    assert ended.err.count("\n") == 1


def test_what_the_orchestrator_refuses_is_a_sentence(server: str) -> None:
    for arguments, sentence in (
        (["start", "nothing"], "There is no definition `nothing`"),
        (["show", "nothing"], "look with `amends list`"),
        (["show", "a/b"], "saga_id: It must have 1 to 128"),
        (["watch", "nothing"], "There is no saga `nothing`"),
        (["cancel", "nothing"], "There is no saga `nothing`"),
        (["show", "x", "--namespace", "9"], "namespace: It must be a letter"),
    ):
        ended = amends(*arguments, server=server)
        assert (ended.code, ended.out) == (1, ""), arguments
        assert sentence in ended.err


def test_no_orchestrator_is_a_sentence() -> None:
    for arguments in (["show", "x"], ["list"], ["watch", "x"], ["health"], ["participants", "list"]):
        ended = amends(*arguments, "--server", "127.0.0.1:1")
        assert ended.code == 3, arguments
        assert "No orchestrator answers at 127.0.0.1:1: start one with `amends serve`" in ended.err
    assert amends("show", "x", "--server", "here").code == 2


def test_list_filters(server: str) -> None:
    for i in range(3):
        arguments = ["--id", f"listed-{i}", "--label", f"nth={i}", "--label", "set=list", "--wait"]
        started = amends("start", "pay", "--input", TOO_MUCH if i else PAID, *arguments, server=server)
        assert started.code in (0, 4)

    def ids(*arguments: str) -> list[str]:
        ended = amends("list", "--label", "set=list", "-o", "json", *arguments, server=server)
        assert ended.code == 0, ended.err
        return [saga["sagaId"] for saga in ended.json["sagas"]]

    assert ids() == ["listed-2", "listed-1", "listed-0"]
    assert ids("--status", "completed") == ["listed-0"]
    assert ids("--status", "COMPLETED", "--status", "COMPENSATED", "--label", "nth=1") == ["listed-1"]
    assert ids("--definition", "pay@1", "--limit", "1") == ["listed-2"]
    assert ids("--definition", "jammed") == []
    assert ids("--newer-than", "1h") == ["listed-2", "listed-1", "listed-0"]
    assert ids("--older-than", "1h") == []
    assert ids("--running-longer-than", "0s") == []
    text = amends("list", "--label", "set=list", "--limit", "2", server=server)
    assert text.out.splitlines()[0].split() == ["SAGA", "DEFINITION", "STATUS", "STARTED", "LABELS"]
    assert "There are more than these 2" in text.out


def test_list_refuses_wrong_filters() -> None:
    assert "statuses are PENDING" in amends("list", "--status", "foo").err
    ended = amends("list", "--older-than", "1 week")
    assert (ended.code, "for example 90s or 2h" in ended.err) == (2, True)


def test_watch_follows_a_saga_to_its_end(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start_hanging(server, "watched", gate)
    with program(str(AMENDS), "watch", "watched", AMENDS_SERVER=server) as watching:
        watching.lines_until("hang .*RUNNING")
        gate.touch()
        rest = watching.lines_until("COMPLETED")
        assert any("SUCCEEDED" in line for line in rest)
        assert watching.end().code == 0


def test_watch_in_json_is_a_document_a_line(server: str) -> None:
    amends("start", "pay", "--id", "told", "--input", TOO_MUCH, "--wait", server=server)
    told = amends("watch", "told", "-o", "json", server=server)
    rest = amends("watch", "told", "-o", "json", "--after", "3", server=server)
    events = [json.loads(line) for line in told.out.splitlines()]
    assert told.code == rest.code == 4
    assert [int(event["event"]["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["status"] == "SAGA_STATUS_COMPENSATED"
    assert [json.loads(line) for line in rest.out.splitlines()] == events[3:]
    assert amends("watch", "told", "--after", "3", server=server).code == 2


def test_cancel_turns_back(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start_hanging(server, "cancelled", gate)
    asked = amends("cancel", "cancelled", "--reason", "changed my mind", server=server)
    assert asked.code == 0
    assert "changed my mind" in asked.out
    gate.touch()
    waited = amends("cancel", "cancelled", "--wait", "-o", "json", server=server)
    assert (waited.code, waited.json["saga"]["status"]) == (0, "SAGA_STATUS_COMPENSATED")
    shown = amends("show", "cancelled", "-o", "json", server=server).json["saga"]
    assert shown["cause"]["cancel"]["reason"] == "changed my mind"
    assert shown["steps"][0]["status"] == "STEP_STATUS_COMPENSATED"


def start_hanging(server: str, saga_id: str, gate: Path) -> None:
    """Start a saga whose only step waits for the gate, and see it wait."""
    arguments = ["--id", saga_id, "--input", json.dumps({"path": str(gate)})]
    assert amends("start", "hanging", *arguments, server=server).code == 0
