"""Exceptions: they can be copied, and come out of another process as they went."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import grpc
import pytest

from amends import AmendsError, Compensated, InProgress, NotFound, Refused, Violation
from amends.errors import UnknownFieldError
from amends.v1 import saga_pb2
from amends.views import SagaView

VIEW = SagaView.of(saga_pb2.Saga(saga_id="s-1", status=saga_pb2.SAGA_STATUS_COMPENSATED, labels={"team": "blue"}))
NOT_FOUND = NotFound(
    "none", code=grpc.StatusCode.NOT_FOUND, reason="R", metadata={"a": "b"}, violations=[Violation("f", "wrong")]
)


def through_a_pickle(error: AmendsError) -> AmendsError:
    """As a pool of processes hands it on: one that cannot be read ends the pool, or whoever waits for it."""
    found: AmendsError = pickle.loads(pickle.dumps(error))  # noqa: S301 - written a moment ago
    return found


@pytest.mark.parametrize("again", [copy.copy, through_a_pickle])
@pytest.mark.parametrize(
    "error",
    [
        Refused("SOLD_OUT", "none left", data={"left": 0}, stored=True),
        InProgress(poll=3),
        NOT_FOUND,
        Compensated("turned back", VIEW),
        UnknownFieldError("no field"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_is_the_same_elsewhere(error: AmendsError, again: Callable[[AmendsError], AmendsError]) -> None:
    error.saga_id = "order-1"
    error.add_note("seen")
    found = again(error)
    assert type(found) is type(error)
    assert (str(found), vars(found)) == (str(error), vars(error))
