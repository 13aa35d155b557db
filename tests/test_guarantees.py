"""Each promise in docs/guarantees.md is shown by tests that exist, and no promise has been left out."""

from __future__ import annotations

import re

import pytest

from tests.named import is_test
from tests.sources import ROOT

TEXT = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (I\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[^`]+)`")
WORD = re.compile(r"^- \*(\w[\w ]*)\*: `(tests/[^`]+)`", re.MULTILINE)
NOT_PROMISED = {"I44"}
"""Authorisation: there is none yet, and the page says so."""

WANTED = [f"I{number}" for number in range(1, 47) if f"I{number}" not in NOT_PROMISED]
ROWS = {number: shown for number, _, shown in ROW.findall(TEXT)}
WORDS = dict(WORD.findall(TEXT))


def test_every_promise_stands_there_once() -> None:
    assert sorted(number for number, _, _ in ROW.findall(TEXT)) == sorted(WANTED)
    assert "authorisation of callers (there is none yet)" in TEXT


@pytest.mark.parametrize("number", WANTED)
def test_a_promise_is_shown_by_tests(number: str) -> None:
    words = re.findall(r"\*([\w ]+)\*", ROWS[number])
    named = [*TEST.findall(ROWS[number]), *(WORDS[word] for word in words)]
    assert named
    assert [name for name in named if not is_test(name)] == []


def test_every_test_that_is_named_anywhere_exists() -> None:
    assert [name for name in TEST.findall(TEXT) if not is_test(name)] == []


def test_the_check_sees_what_is_not_there() -> None:
    assert is_test("tests/test_guarantees.py::test_the_check_sees_what_is_not_there")
    for name in (
        "tests/test_guarantees.py",
        "tests/test_guarantees.py::test_nothing",
        "tests/named.py::is_test",
        "tests/none.py::test_x",
    ):
        assert not is_test(name)
