"""A store that begins anew while participants remember: ids that were used before name other sagas to them."""

from __future__ import annotations

from pathlib import Path

from amends import Resolution, SagaStatus, SagaView, StepStatus, serving
from participants.ledger import Ledger
from tests.acceptance.harness import InProcess, World, definition, step
from tests.acceptance.till import till_of

PAYING = definition("paying", step("pay", participant="till", attempts=5))


async def test_i13_of_ids_that_are_used_again_nothing_is_lost_in_silence_and_nothing_undone(tmp_path: Path) -> None:
    async def run_anew(number: int, input: int, id: str) -> SagaView:
        """Run a saga on an empty store, beside the participant that remembers; `number` names the store."""
        async with (
            World.opened(tmp_path, InProcess(tmp_path / f"amends-{number}.db")) as world,
            serving(till_of(ledger), orchestrator=world.orchestrator.address),
        ):
            saga = await world.run(PAYING, input, id=id)
            if saga.status is SagaStatus.STUCK:
                await world.client.resolve(id, "pay", Resolution.COMPENSATED, reason="it has paid nothing")
                assert (await world.settled(id)).status is SagaStatus.COMPENSATED
            return saga

    with Ledger().opened(tmp_path / "till.db") as ledger:
        assert (await run_anew(1, 7, "paid")).status is SagaStatus.COMPLETED
        assert (await run_anew(2, -1, "refused")).status is SagaStatus.COMPENSATED
        assert (await run_anew(3, 7, "paid")).status is SagaStatus.COMPLETED, "the same call gets the same answer"
        assert ledger.amounts() == {"till": 7}

        other = await run_anew(4, 9, "paid")
        pay = other.step("pay")
        assert (other.status, pay.status) == (SagaStatus.STUCK, StepStatus.COMPENSATION_FAILED)
        assert (pay.attempts, pay.compensation_attempts) == (1, 1), "it would be the same for ever"
        assert pay.error is not None
        assert pay.error.code == "ALREADY_EXISTS"
        assert pay.error.message.endswith("has to empty amends_barrier, too")
        assert pay.compensation_error is not None
        assert pay.compensation_error.message.endswith("then resolve the step as compensated")

        other = await run_anew(5, 9, "refused")
        assert (other.status, other.step("pay").attempts) == (SagaStatus.COMPENSATED, 1), "there is nothing to undo"
        assert ledger.amounts() == {"till": 7}
