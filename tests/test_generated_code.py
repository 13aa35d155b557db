"""The committed code below sdk/amends/v1 is what the generator makes of proto/, and loads on the runtimes declared."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from tests.sources import ROOT

COMMITTED = ROOT / "sdk/amends/v1"
GENERATOR = ROOT / ".venv-generate/bin/python"


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    assert GENERATOR.exists(), "the generator is not installed: run `make generate`"
    subprocess.run([GENERATOR, ROOT / "tools/generate.py", "--out", tmp_path], check=True, timeout=250)
    expected = contents(tmp_path / "amends/v1")
    committed = contents(COMMITTED)
    assert sorted(committed) == sorted(expected), "run `make generate`"
    assert [name for name in expected if committed[name] != expected[name]] == [], "run `make generate`"


def test_generated_code_loads_on_the_declared_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = dict(requirement.split(">=") for requirement in project["dependencies"])
    assert {bounds["protobuf"]} == versions("*_pb2.py", r"Protobuf Python Version: (\S+)")
    assert {bounds["grpcio"]} == versions("*_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '(\S+)'")


def versions(pattern: str, line: str) -> set[str]:
    """The versions that the generated files name."""
    return {
        version for path in COMMITTED.glob(pattern) for version in re.findall(line, path.read_text(encoding="utf-8"))
    }


def contents(folder: Path) -> dict[str, bytes]:
    """The generated files of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*_pb2*.py*")}
