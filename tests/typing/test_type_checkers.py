"""mypy and pyright see the data flow between services: wrong ones are reported where they are, and no others."""

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
PAGES = ("sagas", "participants", "testing", "callbacks", "coordinator")
"""Those of `docs` whose Python needs nothing but the SDK."""
CHECKER_S_MAX = 250  # a first run reads all of grpc and protobuf, on a busy machine


@pytest.fixture
def pages(tmp_path: Path) -> list[str]:
    """Files with the Python of the documents."""
    files = [tmp_path / f"page_{name}.py" for name in PAGES]
    for name, file in zip(PAGES, files, strict=True):
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / f"docs/{name}.md").read_text("utf-8"), re.M | re.S)
        assert blocks
        file.write_text("\n\n".join(blocks), encoding="utf-8")
    return list(map(str, files))


def mypy(pages: list[str]) -> set[str]:
    done = run(
        pages, "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache/snippets")
    )
    return {match[1] for match in re.finditer(r"^(\S+:\d+): error:", done, re.MULTILINE)}


def pyright(pages: list[str]) -> set[str]:
    found = json.loads(run(pages, "pyright", "--outputjson", "--pythonpath", sys.executable))
    assert found["summary"]["filesAnalyzed"] == len(FILES) + len(pages)
    return {
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}"
        for each in found["generalDiagnostics"]
        if each["severity"] == "error"
    }


def run(pages: list[str], checker: str, *options: str) -> str:
    """What the checker prints of the snippets and the documents."""
    done = subprocess.run(
        [sys.executable, "-m", checker, *options, *FILES, *pages],
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
def test_checkers_report_the_marked_lines_and_no_other(
    checker: Callable[[list[str]], set[str]], pages: list[str]
) -> None:
    expected = marked()
    assert len(expected) > 20
    assert checker(pages) == expected
