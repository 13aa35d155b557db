"""What checkers see of handlers behind barriers: right ones pass, marked ones are reported."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import assert_type

import aiosqlite
import asyncpg
from asyncpg.pool import PoolConnectionProxy
from psycopg import AsyncConnection as PsycopgAsync
from psycopg import Connection as Psycopg
from shop import Hold, Receipt, Reserve
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from amends import Action, Call, GuardedAction, OutsideAction, Participant, barrier

stock = Participant("stock")
engine, async_engine = create_engine(""), create_async_engine("")
pool = asyncpg.create_pool()

in_file = barrier.sqlite3(lambda: closing(sqlite3.connect("a.db")))
in_file_async = barrier.aiosqlite(lambda: aiosqlite.connect("a.db"))
pooled = barrier.asyncpg(pool.acquire)
by_psycopg = barrier.psycopg(lambda: Psycopg.connect(""))
core = barrier.sqlalchemy(engine.connect)
session = barrier.sqlalchemy(sessionmaker(engine))
core_async = barrier.sqlalchemy_async(async_engine.connect)
session_async = barrier.sqlalchemy_async(async_sessionmaker(async_engine))
assert_type(in_file, barrier.Barrier[sqlite3.Connection])
assert_type(in_file_async, barrier.AsyncBarrier[aiosqlite.Connection])
assert_type(core, barrier.Barrier[Connection])
assert_type(session, barrier.Barrier[Session])
assert_type(core_async, barrier.AsyncBarrier[AsyncConnection])
assert_type(session_async, barrier.AsyncBarrier[AsyncSession])
barrier.sqlite3(engine.connect)  # error: a connection of another driver
barrier.asyncpg(async_engine.connect)  # error: a connection of another driver
barrier.sqlalchemy(async_engine.connect)  # error: an asynchronous connection
barrier.sqlite3(sqlite3.connect("a.db"))  # error: one connection in place of what opens one


@stock.action(barrier=in_file)
def reserve(request: Reserve, call: Call, tx: sqlite3.Connection) -> Hold:
    return Hold(call.key, 1)


@reserve.compensation
def release(request: Reserve, done: Hold, call: Call, tx: sqlite3.Connection) -> None: ...


@stock.action(barrier=pooled, name="another")
async def reserve_pooled(request: Reserve, call: Call, tx: PoolConnectionProxy) -> Hold:
    await tx.execute("SELECT $1", request.sku)
    return Hold(call.key, 1)


@reserve_pooled.compensation
async def release_pooled(request: Reserve, done: Hold, call: Call, tx: PoolConnectionProxy) -> None: ...


@stock.action(barrier=session_async.outside(hold_s=10))
async def ring(request: Reserve, call: Call, intent: barrier.Intent) -> Receipt:
    return Receipt("again" if intent.repeated else "once")


@ring.compensation
async def hush(request: Reserve, done: Receipt | None, call: Call, intent: barrier.Intent) -> None: ...


@stock.action(barrier=in_file.outside())
def knock(request: Reserve, call: Call, intent: barrier.Intent) -> Receipt:
    return Receipt("")


guarded: GuardedAction[Reserve, Hold, sqlite3.Connection] = reserve
outside: list[OutsideAction[Reserve, Receipt]] = [ring, knock]
action: Action[Reserve, Hold] = reserve_pooled
wrong_output: Action[Reserve, Receipt] = reserve_pooled  # error: it gives a Hold


def in_session(request: Reserve, call: Call, tx: Session) -> Hold:
    return Hold("a", 1)


def short(request: Reserve, call: Call) -> Hold:
    return Hold("a", 1)


def plain_psycopg(request: Reserve, call: Call, tx: Psycopg) -> Hold:
    return Hold("a", 1)


async def in_psycopg(request: Reserve, call: Call, tx: PsycopgAsync) -> Hold:
    return Hold("a", 1)


def certain(request: Reserve, done: Receipt, call: Call, intent: barrier.Intent) -> None: ...
def other_done(request: Reserve, done: Receipt, call: Call, tx: sqlite3.Connection) -> None: ...
def optional(request: Reserve, done: Hold | None, call: Call, tx: sqlite3.Connection) -> None: ...


stock.action(barrier=session)(in_session)
stock.action(barrier=by_psycopg)(plain_psycopg)
stock.action(barrier=in_file)(in_session)  # error: the transaction of another barrier
stock.action(barrier=in_file)(short)  # error: no transaction
stock.action(barrier=pooled)(in_session)  # error: a plain handler where an async one is wanted
stock.action(barrier=core_async)(in_psycopg)  # error: the transaction of another driver
stock.action(barrier=in_file.outside())(reserve.compensation)  # error: no handler of an action
reserve.compensation(optional)
reserve.compensation(other_done)  # error: the output of another action
knock.compensation(certain)  # error: nobody may know whether there is an output
