"""The style of the house as far as a program can see it; ruff, mypy and pyright see the rest."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.sources import name_of, own_files, parse, product_files

# A file is one noun and can be held in the head; a function fits a glance, the longest one a screen.
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
POSTPONED = re.compile("|".join(rf"\b{word}\b" for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X")))


def test_modules_say_first_what_they_are_for() -> None:
    assert [name_of(path) for path in own_files() if not ast.get_docstring(parse(path))] == []


def test_annotations_are_postponed() -> None:
    assert [
        name_of(path) for path in own_files() if not is_only_docstring(parse(path)) and not has_future(parse(path))
    ] == []


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in product_files()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_functions_fit_a_screen() -> None:
    offenders = {
        f"{name_of(path)}:{node.lineno} {node.name}": lines(node)
        for path in product_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines(node) > FUNCTION_LINES_MAX
    }
    assert offenders == {}


def test_nothing_is_postponed() -> None:
    offenders = [
        f"{name_of(path)}:{number}"
        for path in own_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if POSTPONED.search(line)
    ]
    assert offenders == []


def test_no_error_is_swallowed() -> None:
    offenders = [f"{name_of(path)}:{line}" for path in own_files() for line in swallowing(parse(path))]
    assert offenders == []


def test_checks_see_what_they_look_for() -> None:
    source = "try:\n    f()\nexcept Exception:\n    pass\ntry:\n    f()\nexcept:\n    raise\n"
    assert list(swallowing(ast.parse(source))) == [3, 7]
    assert not is_only_docstring(ast.parse(source))
    assert not has_future(ast.parse(source))
    assert POSTPONED.search("# TO" + "DO later")


def swallowing(tree: ast.Module) -> Iterator[int]:
    """Lines of handlers that catch everything by having no type, or that catch every exception and do nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or (catches_all(node.type) and does_nothing(node))
        ):
            yield node.lineno


def catches_all(kind: ast.expr) -> bool:
    """Whether the handler's type, or one of its tuple of types, is Exception or BaseException."""
    return any(isinstance(node, ast.Name) and node.id in {"Exception", "BaseException"} for node in ast.walk(kind))


def does_nothing(handler: ast.ExceptHandler) -> bool:
    """Whether the body is only `pass`, `continue`, `...` or a text."""
    return all(
        isinstance(node, ast.Pass | ast.Continue)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in handler.body
    )


def is_only_docstring(tree: ast.Module) -> bool:
    """Whether the module holds no code, as a package's `__init__.py` may."""
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree.body)


def has_future(tree: ast.Module) -> bool:
    """Whether the module has `from __future__ import annotations`."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and "annotations" in {a.name for a in node.names}
        for node in tree.body
    )


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Length of the function, signature and docstring included."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1
