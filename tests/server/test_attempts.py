"""What an attempt weighs: batches of calls must stay below what gRPC takes, whatever participants have said."""

from __future__ import annotations

from dataclasses import replace

from amends_server.engine.commands import Refused
from amends_server.engine.due import order_call, owed_calls
from amends_server.engine.payload import Json
from amends_server.transport.attempts import Attempt
from amends_server.transport.requests import Origin
from tests.engine.build import NO, Run, compensatable


def test_a_compensation_weighs_what_it_tells_of_the_error_that_turned_the_saga_back() -> None:
    run = Run(compensatable("a"), compensatable("b", "a"))
    run.done("a")
    run.settle("b", Refused(replace(NO, data=Json(f'"{"x" * 20_000}"'))))
    (owed,) = owed_calls(run.state)
    order = order_call(run.state, owed)
    assert order.compensation
    origin = Origin(started=run.state.started, definition_name="order", definition_version=1, epoch=1)
    told, untold = (Attempt(each, origin, lambda verdict: None) for each in (order, replace(order, cause=None)))
    assert told.payload_bytes == untold.payload_bytes + 20_002
