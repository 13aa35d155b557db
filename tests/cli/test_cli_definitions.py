"""definitions check, register, list, show and remove, and definitions in files,."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.programs import amends

SPARE = {
    "name": "spare",
    "steps": [{"id": "go", "participant": "payment", "action": "charge", "compensation": {}, "timeout": "5s"}],
}


def test_a_definition_lives_from_check_to_remove(server: str, tmp_path: Path) -> None:
    file = tmp_path / "spare.json"
    file.write_text(json.dumps(SPARE, indent="\t"), encoding="utf-8")
    checked = amends("definitions", "check", str(file), server=server)
    assert (checked.code, "can be registered" in checked.out) == (0, True)
    assert amends("definitions", "show", "spare", server=server).code == 1
    first = amends("definitions", "register", str(file), "-o", "json", server=server).json
    again = amends("definitions", "register", str(file), server=server)
    assert (first["created"], again.code, "was registered before" in again.out) == (True, 0, True)
    listed = amends("definitions", "list", "spare", "-o", "json", server=server).json["definitions"]
    assert [each["name"] for each in listed] == ["spare"]
    by_digest = amends("definitions", "show", first["definition"]["digest"], server=server)
    assert (by_digest.code, "payment.charge" in by_digest.out) == (0, True)
    assert amends("definitions", "remove", "spare", server=server).code == 1
    assert amends("definitions", "remove", "spare@1", server=server).out == "spare@1 removed\n"
    assert amends("definitions", "list", "spare", server=server).out == "No such definitions.\n"


def test_what_is_shown_can_be_registered(server: str, tmp_path: Path) -> None:
    shown = amends("definitions", "show", "pay", "-o", "json", server=server).json["definition"]
    (tmp_path / "pay.json").write_text(json.dumps(shown), encoding="utf-8")
    again = amends("definitions", "register", str(tmp_path / "pay.json"), "-o", "json", server=server)
    assert again.json["definition"]["digest"] == shown["digest"]


def test_check_says_what_is_wrong_and_what_would_be_undone(server: str, definitions: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("name: wrong\nsteps: [{id: a, participant: nobody, action: b, compensation: {}}]", encoding="utf-8")
    wrong = amends("definitions", "check", str(file), server=server)
    assert (wrong.code, "steps[0].participant" in wrong.out) == (1, True)
    assert "`amends participants add NAME HOST:PORT`" in wrong.out
    assert amends("definitions", "register", str(file), server=server).code == 1
    report = amends("definitions", "check", str(definitions / "jammed.yaml"), "-o", "json", server=server).json
    assert {each["failedStep"]: each["compensatedSteps"] for each in report["plans"]}["refuse"] == ["hold"]


def test_check_says_of_each_step_what_its_failure_leads_to(server: str, tmp_path: Path) -> None:
    common = "participant: troubled, action: hold"
    file = tmp_path / "trip.yaml"
    file.write_text(
        f"""
name: trip
steps:
  - {{id: reserve, {common}, compensation: {{}}}}
  - {{id: hotel, {common}, after: [reserve], compensation: {{}}, when: input.nights > 0}}
  - {{id: tent, {common}, after: [reserve], compensation: {{}}, when: "!(input.nights > 0)"}}
  - {{id: car, {common}, after: [reserve], compensation: {{}}, on_error: [{{codes: [NO_CAR], continue_with: {{}}}}]}}
  - {{id: pay, {common}, after: [hotel, tent, car], kind: STEP_KIND_PIVOT}}
  - {{id: mail, {common}, after: [pay], kind: STEP_KIND_RETRIABLE}}
""",
        encoding="utf-8",
    )
    checked = amends("definitions", "check", str(file), server=server)
    assert checked.code == 0
    rows = {line.split()[0]: re.split(" {2,}", line)[1:] for line in checked.out.splitlines() if "  " in line}
    assert rows == {
        "STEP": ["IF IT IS REFUSED", "IF NO ATTEMPT GETS AN ANSWER"],
        "reserve": ["turns back, nothing to undo", "after 3 attempts turns back, undoes reserve"],
        "hotel": ["turns back, undoes car? → reserve", "after 3 attempts turns back, undoes car?, hotel → reserve"],
        "tent": ["turns back, undoes car? → reserve", "after 3 attempts turns back, undoes car?, tent → reserve"],
        "car": [
            "NO_CAR goes on; else turns back, undoes tent?, hotel? → reserve",
            "after 3 attempts turns back, undoes car, tent?, hotel? → reserve",
        ],
        "pay": ["turns back, undoes car?, tent?, hotel? → reserve", "after 10 attempts STUCK"],
        "mail": ["STUCK", "is tried again without end"],
    }
    assert "If a step cannot be undone, the saga is STUCK there" in checked.out
    report = amends("definitions", "check", str(file), "-o", "json", server=server).json
    assert report["plans"][4] == {
        "failedStep": "pay",
        "compensatedSteps": ["car", "tent", "hotel", "reserve"],
        "uncertain": [True, True, True, False],
        "ifRefused": "FAILURE_OUTCOME_TURNS_BACK",
        "ifUnknown": "FAILURE_OUTCOME_STUCK",
        "attemptsMax": 10,
    }


def test_check_without_an_orchestrator_leaves_out_the_participants_only(tmp_path: Path) -> None:
    file = tmp_path / "spare.json"
    file.write_text(json.dumps(SPARE), encoding="utf-8")
    checked = amends("definitions", "check", str(file))
    assert (checked.code, checked.err) == (0, "")
    assert checked.out.startswith("warning: No orchestrator answers at 127.0.0.1:1, so participants")
    assert "after 3 attempts turns back, undoes go" in checked.out
    told = amends("definitions", "check", str(file), "-o", "json").json
    assert [each["code"] for each in told["diagnostics"]] == ["PARTICIPANTS_UNCHECKED"]
    assert [each["failedStep"] for each in told["plans"]] == ["go"]
    file.write_text(json.dumps(SPARE | {"deadline": "-1s"}), encoding="utf-8")
    wrong = amends("definitions", "check", str(file))
    assert (wrong.code, "error: deadline: " in wrong.out, "No orchestrator" in wrong.out) == (1, True, False)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.yaml", "nam: x", "there is no field `nam`; its place has name, version"),
        ("a.yaml", "steps: [{id: a, retry: {tries: 1}}]", "there is no field `steps[0].retry.tries`"),
        ("a.yaml", "steps: [{id: a, timeout: 5}]", "`steps[0].timeout`: "),
        ("a.yaml", "steps: [{id: a, kind: PIVOT}]", "Invalid enum value PIVOT"),
        ("a.yaml", "name: a\nname: b", "line 2, column 1: `name` is given twice"),
        ("a.yaml", "steps: [", "is not valid YAML at line 1"),
        ("a.yaml", "- 1", "it must be a table with `name` and `steps`"),
        ("a.yaml", "", "it must be a table"),
        ("a.json", '{"name": }', "a.json is not valid JSON at line 1, column 10"),
        ("a.json", '{"name": "a", "name": "b"}', "`name` is given twice"),
    ],
)
def test_files_that_are_no_definitions(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    ended = amends("definitions", "check", str(tmp_path / name))
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err
    assert ended.err.count("\n") == 1
