"""mypy and pyright see the data flow between services: right ones pass, wrong ones are reported where they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sources import ROOT

SNIPPETS = Path(__file__).parent / "snippets"
FILES = ("right.py", "wrong.py", "shop.py", "kit.py", "barriers.py", "model.py")
CHECKER_S_MAX = 250  # a first run reads all of grpc and protobuf, on a busy machine


def mypy() -> set[str]:
    done = run("mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache/snippets"))
    return {match[1] for match in re.finditer(r"^(\S+:\d+): error:", done, re.MULTILINE)}


def pyright() -> set[str]:
    found = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable))
    assert found["summary"]["filesAnalyzed"] == len(FILES)
    return {
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}"
        for each in found["generalDiagnostics"]
        if each["severity"] == "error"
    }


def run(checker: str, *options: str) -> str:
    """What the checker prints of the snippets."""
    done = subprocess.run(
        [sys.executable, "-m", checker, *options, *FILES],
        cwd=SNIPPETS,
        capture_output=True,
        text=True,
        timeout=CHECKER_S_MAX,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # errors were found: it could do its work
    return done.stdout


def marked() -> set[str]:
    """The lines that say of themselves that they are wrong."""
    return {
        f"{name}:{number}"
        for name in FILES
        for number, line in enumerate((SNIPPETS / name).read_text(encoding="utf-8").splitlines(), start=1)
        if "  # error: " in line
    }


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_checkers_report_the_marked_lines_and_no_other(checker: Callable[[], set[str]]) -> None:
    expected = marked()
    assert len(expected) > 20
    assert checker() == expected
