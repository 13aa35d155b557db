"""Connections to a PostgreSQL server: one that writes journals, two for other changes, a few that read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar, cast

import asyncpg

from amends_server.store.postgres.servers import connect
from amends_server.store.postgres.statements import Db, commit_durably, fetch, texts
from amends_server.store.postgres.transactions import Pool, Transactions, Work
from amends_server.store.postgres.trouble import BAD_DATA, FAILURES, TRANSIENT, WrongServer, place_of, unavailable
from amends_server.store.protocol import Unavailable, Unwritable

T = TypeVar("T")

READERS = 3
"""A long listing must not hold up short reads."""

CHANGERS = 2
"""For definitions, participants and whatever is not a journal. None of them is for reads, too: commits that wait for a
standby keep their connections, and what was acknowledged can be read all the same."""

CONNECT_TIMEOUT_S = 5.0
"""A server that lives answers in far less."""

COMMAND_TIMEOUT_S = 10.0
"""After which a statement counts as lost. The longest takes well under a second on a healthy server."""

MIGRATION_TIMEOUT_S = 3_600.0
"""An index of a large table takes its time; so long may others wait for who makes it, too."""

ATTEMPTS_MAX = 12
"""Of a transaction that others got in the way of: with the pauses between them about two seconds."""

PAUSE_S = 0.01
PAUSE_S_MAX = 0.4

_BOUNDS = ("transaction_timeout", "tcp_user_timeout")
"""Settings that have the server end a transaction which waits for its client elsewhere than between two statements:
before the end of what the client sends (from PostgreSQL 17 on), or because nobody takes an answer."""

_UNHURRIED = ("transaction_without_end",)

VERSION_MIN = 140_000
"""PostgreSQL 14, the oldest that its makers still mend."""


class _Connection(asyncpg.Connection):
    """Leaves nothing behind on a session that another user of the pool would have to be guarded from."""

    def get_reset_query(self) -> str:
        """Return nothing to run: the default costs a round trip, and takes advisory locks for granted."""
        return ""


class Connections:
    """The connections of one store. See PostgresStore for what is run on them."""

    def __init__(
        self, url: str, transaction_s: float, commits: Collection[str] = (), writes: Collection[str] = ()
    ) -> None:
        """In `transaction_s` a transaction of which nothing is heard any more is broken off: it holds locks.

        `commits` and `writes` are the statements that the work of `commit` and of `write` may run.
        """
        self._url = url
        self._transaction_s = transaction_s
        self._commits = commits
        self._writes = writes
        self.place = place_of(url)
        self._writer: Pool | None = None
        self._changers: Pool | None = None
        self._readers: Pool | None = None
        self._transactions = Transactions(self.place, COMMAND_TIMEOUT_S, self._held_back)

    async def open(self) -> None:
        """Connect, and check that the server can be used.

        :raises Unavailable: if it cannot.
        """
        try:
            self._writer = await self._pool(1)
            self._changers = await self._pool(CHANGERS)
            self._readers = await self._pool(READERS)
            await self.read(self._check)
        except FAILURES as error:
            await self.close()
            raise unavailable(self.place, error) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections, after what runs on them, but for commits that are late. Harmless when repeated."""
        pools = (self._writer, self._changers, self._readers)
        self._writer = self._changers = self._readers = None
        await self._transactions.close()
        for pool in pools:
            if pool is not None:
                try:
                    async with asyncio.timeout(COMMAND_TIMEOUT_S):
                        await pool.close()
                except FAILURES:  # it is gone already, or does not answer: nothing is lost by not saying goodbye
                    pool.terminate()

    async def commit(self, work: Work[T]) -> T:
        """Do the work in a transaction on the connection that writes journals."""
        return await _whole(self._transact(self._writer, self._commits, work))

    async def write(self, work: Work[T]) -> T:
        """Do the work in a transaction. Whoever waits may be cancelled: it is then whole, or absent.

        :raises Unavailable: if it failed; whether it is durable is then unknown.
        """
        return await _whole(self._transact(self._changers, self._writes, work))

    async def migrate(self, work: Work[T], statements: Collection[str] = ()) -> T:
        """Do the work, which makes tables, runs these statements and may take its time, in a transaction.

        :raises Unavailable: as `write` does.
        """

        async def unhurried(db: Db) -> T:
            await fetch(db, *_UNHURRIED)
            return await work(db)

        return await _whole(self._transact(self._changers, (*texts(_UNHURRIED), *statements), unhurried))

    async def read(self, work: Work[T]) -> T:
        """Do the reading; each statement sees one state of the database.

        :raises Unavailable: if it failed. :raises Unwritable: if no row could hold what is looked for.
        """
        pool = _opened(self._readers)
        return await self._trying(lambda: _read(pool, work))

    async def _transact(self, pool: Pool | None, statements: Collection[str], work: Work[T]) -> T:
        opened = _opened(pool)
        return await self._trying(lambda: self._transactions.run(opened, statements, work))

    async def _trying(self, act: Callable[[], Awaitable[T]]) -> T:
        """Act until no other transaction gets in the way."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return await act()
            except BAD_DATA as error:
                raise Unwritable(f"The PostgreSQL database {self.place} cannot hold it: {error}.") from None
            except TRANSIENT as error:
                if attempt == ATTEMPTS_MAX:
                    raise unavailable(self.place, error) from error
            except FAILURES as error:
                raise unavailable(self.place, error) from error
            await asyncio.sleep(min(PAUSE_S_MAX, PAUSE_S * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311
        raise AssertionError("the last attempt returns or raises")

    async def _held_back(self, longer_s: float) -> bool:
        """Tell whether commits wait for a standby for longer than that; they may if the server cannot be asked."""
        try:
            ((held,),) = await self.read(lambda db: fetch(db, "held_back", longer_s=longer_s))
        except Unavailable:
            return True
        return bool(held)

    async def _pool(self, size: int) -> Pool:
        return await asyncpg.create_pool(
            self._url,
            connect=cast("Any", connect),  # for which its types want all that might be given
            min_size=1,
            max_size=size,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            max_cached_statement_lifetime=0,  # what is prepared before a transaction is there until its end
            connection_class=_Connection,
            init=self._prepare,
        )

    async def _prepare(self, db: Db) -> None:
        """Make the settings of a session.

        A connection to a standby is not kept: what is read there may be old (I37), and where a name leads to another
        server after a failover, the next connection gets there. Settings are made here, for poolers refuse most of
        those that come with a connection.
        """
        read_only, _ = await db.fetchrow(
            "select current_setting('transaction_read_only'), "
            "set_config('idle_in_transaction_session_timeout', $1, false)",
            str(round(self._transaction_s * 1_000)),
        ) or ("off", "")
        if read_only == "on":
            raise WrongServer(
                f"The PostgreSQL database {self.place} can only be read: it is a standby, or set so. Name the server "
                "that takes writes."
            )
        await commit_durably(db)
        longest_ms = str(round((self._transaction_s + COMMAND_TIMEOUT_S) * 1_000))
        await fetch(db, "bound_transactions", names=_BOUNDS, values=[longest_ms] * len(_BOUNDS))

    async def _check(self, db: Db) -> None:
        (version,) = await db.fetchrow("select current_setting('server_version_num')::integer") or (0,)
        if version < VERSION_MIN:
            raise WrongServer(
                f"The PostgreSQL database {self.place} has version {version // 10_000}, which is too old: "
                f"{VERSION_MIN // 10_000} or newer is needed."
            )


def _opened(pool: Pool | None) -> Pool:
    if pool is None:
        raise Unavailable("The store is closed.")
    return pool


async def _read(pool: Pool, work: Work[T]) -> T:
    async with pool.acquire(timeout=COMMAND_TIMEOUT_S) as db:
        return await work(db)


async def _whole(work: Awaitable[T]) -> T:
    """Let the work end though whoever waits for it is cancelled: a connection must not stay inside a transaction."""
    return await asyncio.shield(asyncio.ensure_future(work))
