"""Sagas that this process cannot carry on: a record that it cannot read, or a bug. Others go on (I34)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from amends_server.errors import SagaHalted
from amends_server.logs import stack_of
from amends_server.store.protocol import SagaKey

log = structlog.stdlib.get_logger(__name__)


class HaltedSagas:
    """Which they are, and why."""

    def __init__(self) -> None:
        self._why: dict[SagaKey, str] = {}
        self._epochs: dict[SagaKey, int] = {}

    @property
    def why(self) -> Mapping[SagaKey, str]:
        """The names of the exceptions."""
        return self._why

    def add(self, key: SagaKey, epoch: int, bug: Exception) -> None:
        """Note a saga that was owned in that epoch, and log why."""
        self._why[key], self._epochs[key] = type(bug).__name__, epoch
        error = type(bug).__name__
        log.error("saga_halted", namespace=key.namespace, saga_id=key.saga_id, error=error, stack=stack_of(bug))

    def keep(self, epoch_of: Callable[[SagaKey], int]) -> None:
        """Forget those that are not owned in that epoch any more: another owner may have brought them further."""
        self._epochs = {key: epoch for key, epoch in self._epochs.items() if epoch_of(key) == epoch != 0}
        self._why = {key: why for key, why in self._why.items() if key in self._epochs}

    def check(self, key: SagaKey) -> None:
        """Do nothing for a saga that may get on.

        :raises SagaHalted: if this process cannot carry it on.
        """
        if key in self._why:
            raise SagaHalted(key.namespace, key.saga_id, self._why[key])
