"""The command that measures."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amends_server.cli.exits import CommandError, fail, usage_error

if TYPE_CHECKING:
    from amends_server.bench.figures import Figures

WIDTH = 175
"""Columns that the table needs, whatever the terminal or the file has."""


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Three steps at 1, 32 and 256 only, in less than a minute.")
    ] = False,
    workload: Annotated[str, typer.Option("--workload", metavar="NAME", help="This workload only.")] = "",
    link: Annotated[str, typer.Option("--link", metavar="LINK", help="session or unary; both by default.")] = "",
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="This many sagas at a time only.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, help="How long each row is measured; 4, with --quick 2.")
    ] = None,
    growth: Annotated[
        bool, typer.Option("--growth", help="Instead: starts, lists, recovery, timers and waiting with many sagas.")
    ] = False,
    sagas: Annotated[
        int | None,
        typer.Option("--sagas", min=1_000, help="With --growth: in the largest file; 1,000,000."),
    ] = None,
    shared: Annotated[
        str,
        typer.Option("--shared", metavar="URL", help="Instead: up to three orchestrators on that PostgreSQL database."),
    ] = "",
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write one JSON object a row to FILE.")
    ] = None,
) -> None:
    """Measure the orchestrator on this machine beside the least that a durable saga costs there.

    Runs orchestrator, participant and client as processes of their own, in a temporary folder (TMPDIR says where),
    and the floor before each row. Everything together takes about eight minutes, --growth about twelve. Needs
    Linux. --shared wants a database that is for nothing else, and takes about a minute.

    Exit codes: 0 done; 1 it could not be run; 2 wrong usage.
    """
    try:
        if sys.platform != "linux":
            raise CommandError("The bench reads CPU time and memory from /proc: run it on Linux.")
        if sagas is not None and not growth:
            raise usage_error("--sagas: it says how large --growth is; add that.")
        if growth and (quick or workload or link or concurrency):
            raise usage_error("--growth: it goes with --sagas, --seconds and --json only.")
        if shared and (quick or workload or link or concurrency or growth):
            raise usage_error("--shared: it goes with --seconds and --json only.")
        _check_writable(json)
        if shared:
            asyncio.run(_measure_shared(shared, seconds, json))
        elif growth:
            asyncio.run(_measure_growth(sagas, seconds, json))
        else:
            _measure(quick, workload, link, concurrency, seconds, json)
    except CommandError as error:
        fail(error)


def _measure(
    quick: bool, workload: str, link: str, concurrency: int | None, seconds: float | None, json: Path | None
) -> None:
    from rich.console import Console

    from amends_server.bench import rows
    from amends_server.bench.table import table_of
    from amends_server.bench.workloads import WORKLOADS

    known = {each.name: each for each in WORKLOADS}
    plan = rows.Plan(
        workloads=[known[name] for name in _chosen("--workload", workload, known, 1 if quick else None)],
        links=_chosen("--link", link, rows.LINKS),
        concurrencies=[concurrency] if concurrency else rows.QUICK_CONCURRENCIES if quick else rows.CONCURRENCIES,
        seconds=seconds or (rows.QUICK_SECONDS if quick else rows.SECONDS),
    )
    console = Console(width=WIDTH)
    found: list[rows.Row] = []
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder:
        for row in rows.measure(plan, Path(folder)):
            found.append(row)
            console.print(f"{row.workload}, {row.link}, {row.concurrency}: {row.sagas_per_s:,.0f} sagas/s", style="dim")
            _write(json, [f"{each.to_json()}\n" for each in found])
    console.print(table_of(found))


async def _measure_growth(sagas: int | None, seconds: float | None, json: Path | None) -> None:
    from amends_server.bench.growth import SAGAS, SECONDS, measure_growth

    await _show(measure_growth(sagas or SAGAS, seconds or SECONDS), json)


async def _measure_shared(url: str, seconds: float | None, json: Path | None) -> None:
    from amends_server.store.protocol import StoreError

    try:
        from amends_server.bench.shared import SECONDS, measure_shared
    except ModuleNotFoundError as missing:
        if missing.name != "asyncpg":
            raise
        raise CommandError("--shared needs asyncpg, which is not installed: pip install amends[postgres].") from None
    try:
        await _show(measure_shared(url, seconds or SECONDS), json)
    except StoreError as error:
        raise CommandError(f"--shared: {error}") from None


async def _show(measured: AsyncIterable[Figures], json: Path | None) -> None:
    found: list[str] = []
    async for figures in measured:
        found.append(f"{figures.to_json()}\n")
        print(figures.to_text(), flush=True)
        _write(json, found)


def _check_writable(json: Path | None) -> None:
    """:raises CommandError: before minutes are spent on figures that cannot be kept."""
    try:
        if json is not None:
            json.touch()
    except OSError as error:
        raise usage_error(f"--json: {json} cannot be written ({error.strerror}): choose another file.") from None


def _write(json: Path | None, lines: Iterable[str]) -> None:
    if json is not None:
        json.write_text("".join(lines), encoding="utf-8")


def _chosen(option: str, name: str, known: Iterable[str], count: int | None = None) -> list[str]:
    """The one of that name, or the first ones if there is no name.

    :raises CommandError: if none has that name.
    """
    names = list(known)
    if name and name not in names:
        raise usage_error(f"{option}: there is no {name!r}; there are {', '.join(names)}.")
    return [name] if name else names[:count]
