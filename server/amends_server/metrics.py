"""Figures for Prometheus: what this process counts anyway, read when somebody asks, by a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from amends_server.addresses import Address
from amends_server.store.leases import Renewals


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What is shown. `calls_forwarded` has method and outcome: answered, refused or lost.

    `renewals` is None where there are no leases.
    """

    partitions_owned: int
    partitions_gained: int
    renewals: Renewals | None
    sagas_active: int
    sagas_taken_over: int
    calls_forwarded: Mapping[tuple[str, str], int]


class Metrics:
    """An HTTP server with the one page. `address` is where it listens, with the port that was taken.

    :raises OSError: if the address cannot be had.
    """

    def __init__(self, listen: Address, read: Callable[[], Readings]) -> None:
        registry = CollectorRegistry()
        registry.register(_Collector(read))
        self._server, self._thread = start_http_server(listen.port, listen.host.strip("[]"), registry)
        self.address = Address(listen.host, self._server.server_port)

    def close(self) -> None:
        """Listen no more. Blocks for as long as an answer takes."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Collector(Collector):
    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        now = self._read()
        yield GaugeMetricFamily("amends_partitions_owned", "Partitions of sagas that are owned.", now.partitions_owned)
        yield CounterMetricFamily("amends_partitions_gained", "Partitions that were claimed.", now.partitions_gained)
        if now.renewals is not None:
            yield from _lease_metrics(now.renewals)
        yield GaugeMetricFamily("amends_sagas_active", "Sagas in memory.", now.sagas_active)
        yield CounterMetricFamily(
            "amends_sagas_taken_over",
            "Unfinished sagas that were found in partitions that were claimed.",
            now.sagas_taken_over,
        )
        forwarded = CounterMetricFamily(
            "amends_calls_forwarded",
            "Calls that were passed on to a saga's owner, by what came back.",
            labels=("method", "outcome"),
        )
        for labels, count in sorted(now.calls_forwarded.items()):
            forwarded.add_metric(labels, count)
        yield forwarded


def _lease_metrics(renewals: Renewals) -> Iterable[Metric]:
    yield CounterMetricFamily(
        "amends_lease_renewals_failed", "Attempts to renew and claim leases that failed.", renewals.failed
    )
    yield GaugeMetricFamily(
        "amends_lease_renewal_age_seconds", "Since the last renewal that went well was begun.", renewals.age_s
    )
