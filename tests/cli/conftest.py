"""One orchestrator with a shop and a participant that makes trouble, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.programs import amends, orchestrator, shop, troubled

HANGING = """
name: hanging
steps:
  - {id: hang, participant: troubled, action: hang, compensation: {}, timeout: 60s}
"""
JAMMED = """
name: jammed
steps:
  - id: hold
    participant: troubled
    action: hold
    compensation: {retry: {attempts_max: 1}}
  - {id: refuse, participant: troubled, action: refuse, after: [hold], compensation: {not_needed: true}}
"""
DAWDLING = """
name: dawdling
steps: [{id: work, participant: troubled, action: dawdle, compensation: {}, deadline: 600s}]
"""
LOST = """
name: lost
steps: [{id: vanish, participant: troubled, action: vanish, kind: STEP_KIND_PIVOT, retry: {attempts_max: 1}}]
"""
PAY = """
name: pay
description: Charges a customer.
steps:
  - id: charge
    participant: payment
    action: charge
    input_template: '{"customer": "${input.customer}", "amount": "${input.amount}", "hold_id": "none"}'
    compensation: {}
"""


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with definitions in files."""
    folder = tmp_path_factory.mktemp("definitions")
    for name, text in (("hanging", HANGING), ("jammed", JAMMED), ("dawdling", DAWDLING), ("lost", LOST), ("pay", PAY)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, definitions: Path) -> Iterator[str]:
    """The address of an orchestrator that knows the definitions."""
    folder = tmp_path_factory.mktemp("server")
    with (
        orchestrator(f"sqlite:///{folder}/amends.db") as (_, address),
        shop(address, folder / "shop"),
        troubled(address),
    ):
        for path in sorted(definitions.iterdir()):
            registered = amends("definitions", "register", str(path), server=address)
            assert registered.code == 0, registered
        yield address
