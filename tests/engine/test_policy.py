"""Case 31: fixed, linear and exponential intervals, capped; jitter in its band, different between sagas."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amends_server.engine.key import call_key
from amends_server.engine.policy import ENDLESS, Backoff, Retry

RETRY = Retry(attempts_max=5, interval_us=100, interval_max_us=1_000, factor=3, jitter=0)
KEY = "n/s/a/execute"


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Backoff.FIXED, [100, 100, 100, 100, 100, 100]),
        (Backoff.LINEAR, [100, 200, 300, 400, 500, 600]),
        (Backoff.EXPONENTIAL, [100, 300, 900, 1_000, 1_000, 1_000]),
    ],
)
def test_31_intervals_grow_as_declared_and_are_capped(backoff: Backoff, delays: list[int]) -> None:
    retry = replace(RETRY, backoff=backoff)
    assert [retry.delay_us(KEY, attempt) for attempt in range(1, 7)] == delays


@pytest.mark.parametrize("backoff", list(Backoff))
def test_31_an_interval_above_the_cap_is_the_cap(backoff: Backoff) -> None:
    assert replace(RETRY, backoff=backoff, interval_us=5_000).delay_us(KEY, 1) == 1_000


def test_31_an_endless_retry_never_overflows() -> None:
    retry = replace(RETRY, attempts_max=ENDLESS, factor=1e300)
    assert [retry.delay_us(KEY, attempt) for attempt in (1, 2, 3, 10_000_000)] == [100, 1_000, 1_000, 1_000]


@given(
    st.text(),
    st.integers(1, 10_000),
    st.floats(0, 1),
    st.sampled_from(Backoff),
    st.integers(1, 10**12),
    st.integers(1, 10**12),
)
def test_31_jitter_takes_off_its_part_at_the_most(
    key: str, attempt: int, jitter: float, backoff: Backoff, interval_us: int, interval_max_us: int
) -> None:
    exact = replace(RETRY, backoff=backoff, interval_us=interval_us, interval_max_us=interval_max_us)
    full = exact.delay_us(key, attempt)
    delay = replace(exact, jitter=jitter).delay_us(key, attempt)
    assert full * (1 - jitter) - 1 <= delay <= full
    assert replace(exact, jitter=jitter).delay_us(key, attempt) == delay


def test_31_jitter_spreads_sagas_and_attempts_over_the_band() -> None:
    retry = Retry(attempts_max=5, interval_us=1_000_000, backoff=Backoff.FIXED, jitter=0.5)
    sagas = [retry.delay_us(call_key("n", f"order-{i}", "a", compensation=False), 1) for i in range(1_000)]
    assert len(set(sagas)) > 990
    quarters = [sum(1 for delay in sagas if low <= delay < low + 125_000) for low in range(500_000, 1_000_000, 125_000)]
    assert min(quarters) > 150
    assert len({retry.delay_us(KEY, attempt) for attempt in range(1, 20)}) > 15


def test_attempts_are_counted_from_the_first() -> None:
    once, thrice, endless = (Retry(attempts_max=n) for n in (1, 3, ENDLESS))
    assert [once.allows(0), once.allows(1)] == [True, False]
    assert [thrice.allows(n) for n in (2, 3, 4)] == [True, False, False]
    assert endless.allows(1_000_000)
