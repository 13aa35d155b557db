"""How amends behaves as sagas become many: finished ones in the file, unfinished ones, timers, and steps."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from tempfile import TemporaryDirectory

from amends_server.bench.figures import Figures
from amends_server.bench.long import STEPS, measure_long_saga
from amends_server.bench.pages import PAGE_SIZES, measure_pages
from amends_server.bench.sizes import measure_starts, orchestrators
from amends_server.bench.taken import Taken, take
from amends_server.bench.unfinished import measure_recovery, measure_timers
from amends_server.bench.waiting import measure_waiting

SAGAS = 1_000_000
"""In the largest file. A tenth of them is in the middle one, and is recovered, waits, and has its timers ring."""

SECONDS = 4.0
"""Of each round of starts at each size."""


async def measure_growth(sagas: int, seconds: float) -> AsyncGenerator[Figures]:
    """Measure it all, each part in a temporary folder of its own."""
    taken = take()
    tenth = sagas // 10
    async for figures in _measure_finished([0, tenth, sagas], seconds, taken):
        yield figures
    for workload, measure in (
        ("recovery", measure_recovery),
        ("timers", measure_timers),
        ("waiting", measure_waiting),
    ):
        with TemporaryDirectory(prefix="amends-bench-") as folder:
            values = await measure(tenth, Path(folder) / "sagas.db")
            yield Figures(workload=workload, sagas=tenth, values=values, taken=taken)
    with TemporaryDirectory(prefix="amends-bench-") as folder:
        values = await measure_long_saga(STEPS, Path(folder) / "saga.db")
        yield Figures(workload="long_saga", sagas=1, values=values, taken=taken)


async def _measure_finished(sizes: list[int], seconds: float, taken: Taken) -> AsyncGenerator[Figures]:
    with TemporaryDirectory(prefix="amends-bench-") as folder:
        async with orchestrators(sizes, Path(folder)) as sized:
            for each in sized[1:]:
                for page_size in PAGE_SIZES:
                    values = await measure_pages(each, page_size)
                    yield Figures(workload="list_sagas", sagas=each.finished, values=values, taken=taken)
            for finished, values in measure_starts(sized, seconds):
                yield Figures(workload="starts", sagas=finished, values=values, taken=taken)
