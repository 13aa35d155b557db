"""The project's own Python files, for the tests that read source code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"[A-Z]+(_[A-Z]+)*")
"""What reasons, findings and codes of errors look like."""

PRODUCT_ROOTS = ("sdk", "server", "participants", "tools")


def product_files() -> list[Path]:
    """Every file that is written by hand and is not a test; never empty."""
    files = [path for root in PRODUCT_ROOTS for path in sorted((ROOT / root).rglob("*.py")) if not is_generated(path)]
    assert files, f"no Python files below {ROOT}"
    return files


def own_files() -> list[Path]:
    """Every file that is written by hand, tests included."""
    return product_files() + sorted((ROOT / "tests").rglob("*.py"))


def is_generated(path: Path) -> bool:
    """Whether `make generate` wrote the file."""
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


def parse(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    """The path as it is written in messages: relative to the repository if it is inside."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def imports(path: Path) -> set[str]:
    """The full names that the file imports, type-checking imports included: `from a import b` gives `a.b`."""
    found: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def codes_in(folder: Path, makers: set[str]) -> Iterator[tuple[str, str]]:
    """Calls of these functions with a code among their arguments, and the code; a choice between codes gives each."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in makers:
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and CODE.fullmatch(str(argument.value)):
                        yield node.func.id, str(argument.value)
