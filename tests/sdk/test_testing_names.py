"""The public names of the test kit, and what type checkers see of a scenario."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import amends.testing
from tests.sources import ROOT

PUBLIC = """
    Case ExpectedCall ExpectedCompensation Fault Finding Ledger Orchestrator Report Run Scenario Siblings
    Simulated check_every_failure given simulate
"""
CHECKER_S_MAX = 250  # a first run reads all of grpc and protobuf, on a busy machine

SNIPPET = """
from __future__ import annotations

from amends.testing import check_every_failure, given
from participants.shop.inventory import Hold, Reserve, reserve
from participants.shop.saga import Order, Receipt, hold, order
from participants.shop.payment import Charge

start = Order(customer="ada", sku="tea", quantity=3, address="here")
scenario = given(order, start)
reveal_type(scenario.expect(reserve, Reserve("tea", 3)).replies(Hold("H", "tea", 3)))
scenario.expect(hold, Reserve("tea", 3)).replies(Hold("H", "tea", 3)).completes(Receipt(30, "P", "T"))
scenario.expect("reserve").replies("anything").expect_compensated([reserve, hold, "charge"])
scenario.expect(hold).replies_later(poll=60).complete_step(hold, Hold("H", "tea", 3)).complete_step("ship", "anything")
scenario.complete_step(reserve, "H")  # error: no Hold
scenario.expect(reserve, Charge("ada", 3, "H"))  # error: another action's request
scenario.expect(reserve).replies("H")  # error: no Hold
scenario.expect(hold).replies(3)  # error: no Hold
scenario.completes(start)  # error: no Receipt
scenario.expect_compensation(reserve).replies(None)  # error: a compensation has no output
given(order, Reserve("tea", 3))  # error: no Order
check_every_failure(order, "order")  # error: no Order
"""


def test_public_names_are_these() -> None:
    assert sorted(amends.testing.__all__) == sorted(PUBLIC.split())


def test_public_names_are_documented_where_they_are_defined() -> None:
    named = [getattr(amends.testing, name) for name in amends.testing.__all__]
    assert [each for each in named if not each.__doc__] == []
    scenario = amends.testing.Scenario
    assert [name for name in vars(scenario) if not name.startswith("_") and not getattr(scenario, name).__doc__] == []


def test_the_sdk_does_not_need_the_test_kit() -> None:
    source = "import sys, amends; assert not any(name.startswith('amends_server') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True, timeout=CHECKER_S_MAX)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_checkers_follow_the_chain(checker: str, tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET, encoding="utf-8")
    options = {"mypy": _mypy_options, "pyright": _pyright_options}[checker](tmp_path)
    command = [sys.executable, "-m", checker, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CHECKER_S_MAX, check=False)
    found = {int(line) for line in re.findall(r"snippet\.py:(\d+)(?::\d+)?(?: -|:) error", done.stdout)}
    wrong = {n for n, line in enumerate(SNIPPET.splitlines(), start=1) if "  # error: " in line}
    assert found == wrong, done.stdout + done.stderr
    assert re.search(r"Scenario\[(participants\.shop\.saga\.)?Receipt\]", done.stdout), done.stdout


def _mypy_options(folder: Path) -> list[str]:
    cache = ROOT / ".mypy_cache/snippets"
    return ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache), str(folder / "snippet.py")]


def _pyright_options(folder: Path) -> list[str]:
    roots = [str(ROOT), str(ROOT / "sdk"), str(ROOT / "server")]
    settings = {"include": ["snippet.py"], "extraPaths": roots, "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    return ["--project", str(folder), "--pythonpath", sys.executable]
