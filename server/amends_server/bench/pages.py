"""How long a page of ListSagas takes, under filters of every kind."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc

from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import orchestrator_pb2_grpc, saga_pb2
from amends_server.bench.filling import APART_US
from amends_server.bench.sizes import Sized

PAGE_SIZES = (50, 500)
"""What the server gives by default, and the most that it gives."""

PAGES = 2
"""Of each list, read one after the other: the first page begins without a token, the next with one."""

REPEATS = 5

STATUSES: tuple[list[saga_pb2.SagaStatus.ValueType], ...] = (
    [],
    [saga_pb2.SAGA_STATUS_COMPLETED],  # most
    [saga_pb2.SAGA_STATUS_COMPENSATED],  # some
    [saga_pb2.SAGA_STATUS_FAILED],  # none
    [each for each in saga_pb2.SagaStatus.values() if each != saga_pb2.SAGA_STATUS_UNSPECIFIED],
)
DEFINITIONS = (("", 0), ("three_steps", 0), ("refused", 0), ("refused", 2))  # any, common, rare, none
LABELS: tuple[dict[str, str], ...] = (
    {},
    {"env": "prod"},  # all
    {"tenant": "t3"},  # one in sixteen
    {"env": "prod", "region": "us", "tenant": "t3"},  # the same ones
    {"region": "eu", "tenant": "t3"},  # each common, and never together
)


async def measure_pages(sized: Sized, page_size: int) -> dict[str, float]:
    """Read pages under each combination; each page counts with the median of some readings."""
    options = [("grpc.max_receive_message_length", -1)]
    pages_ms: list[float] = []
    async with grpc.aio.insecure_channel(sized.node.address, options=options) as channel:
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        for where in _filters(sized.finished):
            request = pb.ListSagasRequest(filter=where, page_size=page_size)
            for _ in range(PAGES):
                took_ms, request.page_token = await _read(stub, request)
                pages_ms.append(took_ms)
                if not request.page_token:
                    break
    return {
        "page_size": page_size,
        "page_median_ms": round(statistics.median(pages_ms), 2),
        "page_worst_ms": round(max(pages_ms), 2),
        "pages": len(pages_ms),
    }


async def _read(stub: orchestrator_pb2_grpc.OrchestratorServiceStub, request: pb.ListSagasRequest) -> tuple[float, str]:
    """Read a page some times; return what that took, and where the next page is."""
    took: list[float] = []
    token = ""
    for _ in range(REPEATS):
        begun = time.perf_counter()
        token = (await stub.ListSagas(request)).next_page_token
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e3, token


def _filters(finished: int) -> Iterator[pb.SagaFilter]:
    half = datetime.now(UTC) - timedelta(microseconds=APART_US * finished // 2)
    for statuses, (name, version), labels in itertools.product(STATUSES, DEFINITIONS, LABELS):
        where = pb.SagaFilter(statuses=statuses, definition=name, definition_version=version, labels=labels)
        yield where
        older = pb.SagaFilter()
        older.CopyFrom(where)
        older.created_before.FromDatetime(half)
        yield older
        where.running_longer_than.FromSeconds(60)
        yield where
