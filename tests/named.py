"""Tests by the names that documents and mutants give them: `tests/folder/file.py::test_name`."""

from __future__ import annotations

import ast

from tests.sources import ROOT, parse


def is_test(name: str) -> bool:
    """Whether there is such a test, where `make test` runs it; which of its cases is not looked at."""
    path, _, function = name.partition("::")
    function = function.partition("[")[0]
    file = ROOT / path
    if not path.startswith("tests/") or not file.is_file() or not file.name.startswith("test_"):
        return False
    functions = [node for node in parse(file).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return function.startswith("test_") and any(node.name == function for node in functions)
