"""Transactions on the connections of a pool, of which no COMMIT is ever cancelled.

PostgreSQL shows a commit that waits for its standby to nobody; but if it is told to cancel the wait, it shows what only
the primary has. Should the standby be promoted then, others may have been told of what is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias, TypeVar

import asyncpg
import structlog

from amends_server.store.postgres.statements import Db

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Held: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

T = TypeVar("T")
Work = Callable[[Db], Awaitable[T]]
"""What is done on a connection. It may be done again from the start, so it changes nothing but the database."""

NEVER_S = 10 * 366 * 86_400.0
"""The driver takes no statement without a time, after which it has the server cancel it."""

log = structlog.stdlib.get_logger(__name__)


class Transactions:
    """Runs work in transactions, and keeps the connections of those whose COMMIT takes longer than anybody waits."""

    def __init__(self, place: str, timeout_s: float, held_back: Callable[[float], Awaitable[bool]]) -> None:
        """`held_back` tells whether the server may have had commits wait for a standby for so many seconds.

        For `timeout_s` a connection is waited for, and the end of a COMMIT or ROLLBACK.
        """
        self._place = place
        self._timeout_s = timeout_s
        self._held_back = held_back
        self._late: dict[asyncio.Task[None], tuple[Held, asyncio.Future[str]]] = {}

    async def run(self, pool: Pool, statements: Collection[str], work: Work[T]) -> T:
        """Do the work, which may run these statements.

        :raises TimeoutError: if the COMMIT takes too long: it goes on, and what it holds locked stays so.
        """
        db = await pool.acquire(timeout=self._timeout_s)
        try:
            async with asyncio.timeout(self._timeout_s):  # the driver's own is lost: see `_make_ready`
                await _make_ready(db, statements)
                await db.execute("BEGIN ISOLATION LEVEL READ COMMITTED;")
            done = await self._work(db, work)
        except BaseException:
            await pool.release(db)
            raise
        await self._commit(pool, db)
        return done

    async def _work(self, db: Held, work: Work[T]) -> T:
        """Do the work in a transaction that was begun, or undo it."""
        try:
            return await work(db)
        except BaseException:
            await self._roll_back(db)
            raise

    async def _roll_back(self, db: Held) -> None:
        """Undo, or cut the connection: older drivers wait for ever for a server told to cancel that is gone."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await db.execute("ROLLBACK;")
        except Exception:  # why the work failed says more
            db.terminate()

    async def close(self) -> None:
        """Cut the connections of commits that are not over. The server goes on with them."""
        for task, (db, committing) in self._late.items():
            task.cancel()
            if not committing.done():
                db.terminate()
        if self._late:
            await asyncio.wait(self._late)

    async def _commit(self, pool: Pool, db: Held) -> None:
        committing = asyncio.ensure_future(db.execute("COMMIT;", timeout=NEVER_S))
        await asyncio.wait({committing}, timeout=self._timeout_s)
        if not committing.done():
            self._keep(pool, db, committing)
            raise TimeoutError(f"the commit takes longer than {self._timeout_s:g} s: is a synchronous standby gone?")
        await pool.release(db)
        committing.result()

    def _keep(self, pool: Pool, db: Held, committing: asyncio.Future[str]) -> None:
        committing.add_done_callback(_heard)
        task = asyncio.create_task(self._outlive(pool, db, committing), name="late commit")
        self._late[task] = db, committing
        task.add_done_callback(self._late.pop)

    async def _outlive(self, pool: Pool, db: Held, committing: asyncio.Future[str]) -> None:
        """Wait for the COMMIT as long as it may be held back for a standby; otherwise its answer is lost.

        The connection is cut then without a request to cancel, and not before: the server would not notice, and each
        next try would leave one more session behind that waits, until there is none left for anybody.
        """
        log.warning("commit_waits", store=self._place)
        while not committing.done():
            if not await self._held_back(self._timeout_s / 4) and not committing.done():
                db.terminate()
            await asyncio.wait({committing}, timeout=self._timeout_s)
        log.info("commit_over", store=self._place, error=str(committing.exception() or ""))
        await pool.release(db)


async def _make_ready(db: Db, statements: Collection[str]) -> None:
    """Prepare what is not prepared yet. Costs nothing else.

    The driver does not end with a Sync what it asks for to prepare a statement, and until one comes the server does
    not take a transaction for idle: a process that is stopped meanwhile would keep its locks until it goes on.

    What is prepared is done without a wait, and so late does the driver stop the clock for it that it stops that of
    what comes next.
    """
    for statement in statements:
        await db.executemany(statement, [])


def _heard(committing: asyncio.Future[str]) -> None:
    """Whoever waited has been told that nobody knows: what became of it is found out when it is read."""
    if not committing.cancelled():
        committing.exception()
