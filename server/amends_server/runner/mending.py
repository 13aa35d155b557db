"""Sagas that could not be recorded: kept apart until the store can be read, and then gone on with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from amends_server.engine.state import State
from amends_server.errors import NotOwned, SagaHalted
from amends_server.runner.active import ActiveSaga
from amends_server.runner.reader import Reader
from amends_server.store.protocol import NotFound, SagaKey, StoreError, Unwritable

log = structlog.stdlib.get_logger(__name__)


class RecordsLost(Exception):
    """The store has less of a journal than was acknowledged: it is an older one, or a standby without the end."""


class Mender:
    """The broken sagas. What is to be done with one that was read again, its runner says.

    `resume` goes on with a saga from the epoch and state that the store has; `rewake` begins anew with one whose start
    may not be in the store at all; `halt` gives up on one that cannot be read.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        resume: Callable[[ActiveSaga, int, State], None],
        rewake: Callable[[ActiveSaga], Awaitable[None]],
        halt: Callable[[SagaKey, Exception], object],
    ) -> None:
        self._reader = reader
        self._resume = resume
        self._rewake = rewake
        self._halt = halt
        self._broken: dict[SagaKey, ActiveSaga] = {}
        self.broke = asyncio.Event()
        """Set while there are broken sagas, so that somebody calls `mend`."""

    def add(self, saga: ActiveSaga, error: StoreError) -> None:
        """Keep a saga of which an append failed; give up on it if that would fail for ever."""
        if isinstance(error, Unwritable):
            self._halt(saga.key, error)
            return
        self._broken[saga.key] = saga
        self.broke.set()

    async def mend(self) -> None:
        """Go on with all sagas that can be read.

        :raises StoreError: if some cannot, which keeps no other.
        """
        failure: StoreError | None = None
        for saga in list(self._broken.values()):
            try:
                if not saga.appending:
                    await self._mend(saga)
            except StoreError as error:
                failure = error
        if failure is not None:
            raise failure
        if not self._broken:
            self.broke.clear()

    async def _mend(self, saga: ActiveSaga) -> None:
        if saga.durable is None:
            await self._mend_start(saga)
        else:
            await self._mend_journal(saga)
        if self._broken.get(saga.key) is saga:  # and not another one that was read and broke meanwhile
            del self._broken[saga.key]

    async def _mend_start(self, saga: ActiveSaga) -> None:
        try:
            await self._rewake(saga)
        except NotOwned:
            log.info("saga_not_owned", namespace=saga.key.namespace, saga_id=saga.key.saga_id)
        except NotFound:
            log.info("start_not_recorded", namespace=saga.key.namespace, saga_id=saga.key.saga_id)
        except SagaHalted as halt:
            log.warning("saga_skipped", namespace=saga.key.namespace, saga_id=saga.key.saga_id, error=str(halt))

    async def _mend_journal(self, saga: ActiveSaga) -> None:
        assert saga.durable is not None, "its start was recorded"
        try:
            row, _, state = await self._reader.read(saga.key)
            if state.sequence < saga.durable.sequence:
                raise RecordsLost
        except NotFound:
            self._halt(saga.key, RecordsLost())
        except StoreError:
            raise
        except Exception as bug:
            self._halt(saga.key, bug)
        else:
            self._resume(saga, row.head.epoch, state)
