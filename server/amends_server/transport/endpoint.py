"""Where a participant listens, and how connections to participants are set up."""

from __future__ import annotations

from amends_server.engine.value import dataclass

OVERHEAD_BYTES = 64 * 1024
"""What a call may hold beside payloads: names, labels, keys, and the texts of the cause, each as long as may be."""

PAYLOADS_MAX = 5
"""Payloads in one message at the most: Compensate carries input, output, arguments, the saga's input and an error's."""

MESSAGE_BYTES_MIN = 4 << 20
"""A batch of results may have this, even if payloads may not: what any gRPC client takes by default."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A participant and where it listens. `concurrency_max`: how many calls it takes at a time."""

    name: str
    address: str
    concurrency_max: int


def message_bytes_max(payload_bytes_max: int) -> int:
    """Return how large a message may be in both directions."""
    return max(MESSAGE_BYTES_MIN, PAYLOADS_MAX * payload_bytes_max + OVERHEAD_BYTES)


def channel_options(payload_bytes_max: int) -> list[tuple[str, int]]:
    """Return options with which a dead peer is noticed in seconds, and one that is back is found at once."""
    size_bytes_max = message_bytes_max(payload_bytes_max)
    return [
        ("grpc.enable_http_proxy", 0),  # calls go where the allow-list says, and nowhere else
        ("grpc.keepalive_time_ms", 60_000),  # faster, and servers with the usual settings would end the connection
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),  # without it a stopped peer is noticed a minute later
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),  # the default is two minutes of failing after the peer is back
        ("grpc.enable_retries", 0),  # attempts are counted and recorded by us
        ("grpc.max_send_message_length", size_bytes_max),
        ("grpc.max_receive_message_length", size_bytes_max),
    ]
