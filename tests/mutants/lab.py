"""Puts a fault into a copy of the project and runs the test that must catch it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.mutant import Mutant
from tests.sources import ROOT

COPIED = ("sdk", "server", "participants", "tests", "tools", "pyproject.toml")
"""What the tests that catch faults need; copied, so that nothing of the original is imported."""

PATIENCE_S = 300
"""A fault may make a test wait for ever: that is caught too, but later."""

FAILED, TIMED_OUT = 1, -1
"""Exit codes of pytest, and of ours: any other one, such as for a test that there is not, means nothing."""


@dataclass(frozen=True)
class Result:
    """What became of a mutant; `output` is what the test said."""

    mutant: Mutant
    code: int
    output: str

    @property
    def caught(self) -> bool:
        return self.code in (FAILED, TIMED_OUT)


def spoil(mutant: Mutant, root: Path) -> None:
    """Put the fault into the source below `root`.

    :raises ValueError: if the source is not there exactly once.
    """
    path = root / mutant.path
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.source) != 1:
        raise ValueError(f"{mutant.path} has {text.count(mutant.source)} times what `{mutant.name}` replaces")
    path.write_text(text.replace(mutant.source, mutant.instead), encoding="utf-8")


def try_out(mutant: Mutant | None, caught_by: str = "") -> Result:
    """Run the test on the project with the fault in it; None is no fault."""
    with TemporaryDirectory(prefix="mutant") as folder:
        root = Path(folder)
        _copy(root)
        if mutant is not None:
            spoil(mutant, root)
        code, output = _run(root, mutant.caught_by if mutant is not None else caught_by)
    return Result(mutant or Mutant("none", "", "", "", caught_by), code, output)


def _copy(root: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, root / name)


def _run(root: Path, test: str) -> tuple[int, str]:
    """Run pytest without other faults' memories, and stop at the first failure."""
    paths = os.pathsep.join(str(root / name) for name in ("sdk", "server", "."))
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "AMENDS_SHRINK": "0"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", test]
    try:
        run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired as expired:
        return TIMED_OUT, str(expired)
    return run.returncode, run.stdout + run.stderr
