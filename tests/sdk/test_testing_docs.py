"""The examples of docs/testing.md work as they stand there, and the page names all that the test kit has."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from amends import Action
from amends.testing import ExpectedCall, ExpectedCompensation, Ledger, Report, Scenario, check_every_failure
from tests.sources import ROOT

PAGE = ROOT / "docs/testing.md"


@pytest.fixture
def page() -> Iterator[ModuleType]:
    """The code of the page, as a module: handlers find the types of their annotations there."""
    module = ModuleType("docs_testing")
    sys.modules[module.__name__] = module
    source = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    exec(compile(source, str(PAGE), "exec"), module.__dict__)  # noqa: S102 - it is our own page
    yield module
    del sys.modules[module.__name__]


def test_each_example_passes(page: ModuleType) -> None:
    tests = [value for name, value in vars(page).items() if name.startswith("test_")]
    assert len(tests) == 6
    for test in tests:
        test()


def test_the_tables_of_the_page_are_what_comes_out(page: ModuleType) -> None:
    sound, doubled = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert missing(sound, check(page, True)) == []
    assert missing(doubled, check(page, [page.reserve, page.ship])) == []


def check(page: ModuleType, barrier: bool | list[Action[Any, Any]]) -> Report:
    ledger = Ledger(outputs=page.OUTPUTS, barrier=barrier)
    return check_every_failure(page.order, page.Order("tea", 30), ledger=ledger)


def missing(table: str, report: Report) -> list[str]:
    shown = {line.rstrip() for line in report.splitlines()}
    return [line for line in table.splitlines() if line.rstrip() not in shown]


def test_the_page_names_what_scenarios_can_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    kinds = (Scenario, ExpectedCall, ExpectedCompensation)
    names = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    assert sorted(name for name in names if not re.search(rf"\.{name}\b", text)) == []
