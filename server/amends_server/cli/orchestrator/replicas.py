"""The command that shows who runs which sagas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amends_server.cli.exits import run
from amends_server.cli.options import ADDRESS, Form, Output, Server
from amends_server.cli.output import print_line, print_message, print_table, seconds_text, time_text

if TYPE_CHECKING:
    from amends.v1 import operator_pb2


def replicas(server: Server = ADDRESS, form: Output = Form.TEXT) -> None:
    """Show the orchestrators that share the store: what each owns, since when, and how late due work is."""

    async def shown() -> None:
        from amends.v1 import operator_pb2 as pb
        from amends_server.cli.connect import connected

        async with connected(server) as connection:
            response = await connection.once(connection.operator.ListReplicas, pb.ListReplicasRequest())
        if form is Form.JSON:
            print_message(response)
            return
        rows = [_row(each, _of(each.replica_id, response.partitions)) for each in response.replicas]
        print_table(("ADDRESS", "STATE", "SINCE", "OWNS", "LAST CLAIM", "LATE SAGAS"), rows, "")
        orphans = _of("", response.partitions)
        if orphans:
            print_line(orphans_text(orphans))

    run(shown(), server)


def _of(replica_id: str, partitions: Sequence[operator_pb2.Partition]) -> list[operator_pb2.Partition]:
    return [each for each in partitions if each.replica_id == replica_id]


def _row(replica: operator_pb2.Replica, owned: list[operator_pb2.Partition]) -> tuple[str, ...]:
    last = max((each.claim_time.ToMicroseconds() for each in owned), default=None)
    newest = next((each.claim_time for each in owned if each.claim_time.ToMicroseconds() == last), None)
    return (
        f"{replica.address}{' (asked)' if replica.answering else ''}",
        state_text(replica, owned),
        time_text(replica.start_time),
        ranges(owned),
        time_text(newest),
        _late(owned),
    )


def orphans_text(partitions: Sequence[operator_pb2.Partition]) -> str:
    """What to know of partitions that nobody owns, with what is late in them."""
    late = f" Late sagas in them: {_late(partitions)}." if any(each.due_count for each in partitions) else ""
    return f"Nobody owns {ranges(partitions)}: claimed within a second or two if an orchestrator is alive.{late}"


def state_text(replica: operator_pb2.Replica, owned: Sequence[operator_pb2.Partition]) -> str:
    """Whether an orchestrator lives: one that hands over what it owns has ended its own lease."""
    if not replica.HasField("lease_left"):
        return "alone"
    left_s = replica.lease_left.ToMicroseconds() / 1_000_000
    if left_s > 0:
        return f"alive, lease {seconds_text(left_s)}"
    return "leaving" if owned else f"dead for {seconds_text(-left_s)}"


def _late(owned: Sequence[operator_pb2.Partition]) -> str:
    import time

    count = sum(each.due_count for each in owned)
    if not count:
        return "0"
    first_us = min(each.oldest_due_time.ToMicroseconds() for each in owned if each.due_count)
    return f"{count}, by {seconds_text(max(0.0, time.time() - first_us / 1_000_000))}"


def ranges(partitions: Sequence[operator_pb2.Partition]) -> str:
    """How many partitions, and which: `5 (0-3, 7)`."""
    found: list[list[int]] = []
    for number in sorted(each.number for each in partitions):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found]
    return f"{len(partitions)} ({', '.join(texts)})" if texts else "0"
