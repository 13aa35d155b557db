"""Who may import whom: the rules that are white lists (the others are import-linter contracts in pyproject.toml)."""

from __future__ import annotations

from pathlib import Path

from tests.sources import ROOT, imports, is_generated, name_of

# Pure by construction: none of these does I/O or reads a clock or a source of randomness.
ENGINE_MAY_IMPORT = (
    *(
        "__future__",
        "abc",
        "base64",
        "bisect",
        "collections",
        "dataclasses",
        "decimal",
        "enum",
        "functools",
        "graphlib",
    ),
    *("hashlib", "heapq", "itertools", "json", "math", "operator", "re", "string", "struct", "types", "typing", "zlib"),
    # The libraries for JSON, expressions and schemas, which compute and do nothing else.
    *("msgspec", "cel_expr_python", "jsonschema_rs"),
)
# A part may be a module or a package; one that does not exist yet breaks no rule.
MAY_IMPORT_OF_OURS = {
    "server/amends_server/engine": ("amends_server.engine",),
    "server/amends_server/store": ("amends_server.store", "amends_server.engine"),
    "server/amends_server/transport": (
        *(
            "amends_server.transport",
            "amends_server.engine",
            "amends_server.convert",
            "amends_server.addresses",
            "amends_server.clock",
            "amends_server.config",
            "amends_server.errors",
            "amends_server.tokens",
            "amends.v1",
            "amends._deadlines",
        ),
    ),
    # How any server refuses garbage, and one timer for many calls.
    "server/amends_server": ("amends_server", "amends.v1", "amends._unreadable", "amends._deadlines"),
    "sdk/amends": ("amends",),
    "participants": ("participants", "amends"),
}
# Beginnings of paths that a rule above does not hold for.
EXCEPT = {
    "server/amends_server": ("server/amends_server/cli", "server/amends_server/bench"),  # users of the SDK themselves
    "sdk/amends": ("sdk/amends/testing",),  # gives a test a real server
}
OURS = ("amends", "amends_server", "participants", "tests", "tools")


def test_engine_imports_pure_modules_only() -> None:
    assert violations("server/amends_server/engine", ("amends_server.engine", *ENGINE_MAY_IMPORT)) == []


def test_each_part_imports_of_ours_what_it_may() -> None:
    offenders = {part: violations(part, allowed, among=OURS) for part, allowed in MAY_IMPORT_OF_OURS.items()}
    assert {part: found for part, found in offenders.items() if found} == {}


def test_rules_find_a_violation(tmp_path: Path) -> None:
    source = tmp_path / "wrong.py"
    source.write_text("import time\nimport json\nfrom amends_server import store\n", encoding="utf-8")
    assert violations(source, ENGINE_MAY_IMPORT) == [f"{source}: amends_server.store", f"{source}: time"]
    assert violations(source, ("amends_server.engine",), among=OURS) == [f"{source}: amends_server.store"]


def violations(part: str | Path, allowed: tuple[str, ...], *, among: tuple[str, ...] | None = None) -> list[str]:
    """The imports of `part` that `allowed` does not cover; `among` limits the question to those packages."""
    excepted = EXCEPT.get(str(part), ())
    return [
        f"{name_of(path)}: {name}"
        for path in files_of(ROOT / part)
        if not name_of(path).startswith(excepted)
        for name in sorted(imports(path))
        if not within(name, allowed) and (among is None or within(name, among))
    ]


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether the name is one of the packages or inside of one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def files_of(part: Path) -> list[Path]:
    """The hand-written files of a module or package, named without its suffix."""
    module = part if part.suffix == ".py" else part.with_name(f"{part.name}.py")
    files = [module] if module.is_file() else sorted(part.rglob("*.py"))
    return [path for path in files if not is_generated(path)]
