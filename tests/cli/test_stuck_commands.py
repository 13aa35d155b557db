"""Which commands are offered for a stuck saga: none that must end as it did."""

from __future__ import annotations

import pytest
from rich.console import Console

from amends.v1 import payload_pb2, saga_pb2
from amends_server.cli.sagas.stuck import print_repairs


@pytest.mark.parametrize(("codes", "offered"), [(("ARGUMENTS_INVALID",), False), (("ARGUMENTS_INVALID", "JAM"), True)])
def test_what_cannot_be_called_is_not_tried_again(codes: tuple[str, ...], offered: bool) -> None:
    errors = [payload_pb2.Error(code=code) for code in codes]
    steps = [saga_pb2.Step(id=error.code, compensation_error=error) for error in errors]
    stuck = saga_pb2.Stuck(steps=codes, error=errors[0], compensating=True)
    console = Console(record=True, width=200)
    print_repairs(saga_pb2.Saga(saga_id="s", steps=steps, stuck=stuck), {}, [], console)
    told = console.export_text()
    assert ("amends retry s" in told) is offered
    assert "amends resolve --as compensated s ARGUMENTS_INVALID" in told
    assert "amends fail s" in told
