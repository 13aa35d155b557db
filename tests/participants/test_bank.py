"""The bank: its effects, read from its ledger, under calls that are repeated, late and out of order."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amends.participant.serve import serving
from amends.payloads import decode
from amends.v1 import saga_pb2
from participants.bank.accounts import ACCOUNTS, AMOUNT_MAX, Credit, Debit, Posting, bank, ledger
from participants.bank.saga import transfer
from participants.ledger import Ledger
from tests.participants.calls import ERROR, SUCCESS, Caller, calling

READY_S = 120.0


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    with ledger.opened(tmp_path / "bank.db", ACCOUNTS):
        async with serving(bank) as address, calling(address) as caller:
            yield caller


def kinds(key: str) -> list[str]:
    return [entry.kind for entry in ledger.entries() if entry.key == key]


async def test_b26_a_transfer_adds_up(caller: Caller) -> None:
    taken = await caller.execute("debit", Debit("A", 150), "t/debit")
    put = await caller.execute("credit", Credit("B", 150), "t/credit")
    assert decode(taken.output, Posting).balance == 850
    assert decode(put.output, Posting).balance == 650
    assert ledger.amounts() == {"A": 850, "B": 650}


@pytest.mark.parametrize(
    ("action", "value", "code"),
    [
        ("debit", Debit("A", 1001), "INSUFFICIENT_FUNDS"),
        ("debit", Debit("Z", 1), "UNKNOWN_ACCOUNT"),
        ("credit", Credit("Z", 1), "UNKNOWN_ACCOUNT"),
        ("debit", Debit("A", 0), "INVALID_AMOUNT"),
        ("credit", Credit("A", -5), "INVALID_AMOUNT"),
        ("credit", Credit("A", AMOUNT_MAX + 1), "INVALID_AMOUNT"),
        ("credit", Credit("A", 2**80), "INVALID_AMOUNT"),
    ],
)
async def test_what_cannot_be_booked_is_refused_for_good(caller: Caller, action: str, value: object, code: str) -> None:
    first = await caller.execute(action, value, "k")
    assert (first.status, first.error.code, first.stored) == (ERROR, code, True)
    assert await caller.execute(action, value, "k", attempt=2) == first
    assert (ledger.amounts(), ledger.entries()) == (ACCOUNTS, [])


async def test_c34_a_repeated_key_gets_the_first_reply_and_has_no_effect(caller: Caller) -> None:
    first = await caller.execute("debit", Debit("A", 150), "k")
    await caller.execute("debit", Debit("A", 50), "other")
    again = await caller.execute("debit", Debit("A", 150), "k", attempt=2)
    assert again.SerializeToString() == first.SerializeToString()
    assert ledger.amounts()["A"] == 800
    assert kinds("k") == ["debit"]


async def test_a_refusal_is_kept_though_the_funds_came_meanwhile(caller: Caller) -> None:
    refused = await caller.execute("debit", Debit("A", 1100), "k")
    await caller.execute("credit", Credit("A", 500), "c")
    assert await caller.execute("debit", Debit("A", 1100), "k", attempt=2) == refused
    assert kinds("k") == []


async def test_an_action_is_undone_once_without_being_told_its_output(caller: Caller) -> None:
    await caller.execute("debit", Debit("A", 150), "k")
    for _ in range(3):
        assert (await caller.compensate("debit", Debit("A", 150), "k")).status == SUCCESS
    assert ledger.amounts() == ACCOUNTS
    assert kinds("k") == ["debit", "reversal"]


async def test_i14_undoing_what_never_happened_succeeds_without_effect(caller: Caller) -> None:
    assert (await caller.compensate("debit", Debit("A", 150), "k")).status == SUCCESS
    assert (ledger.amounts(), ledger.entries()) == (ACCOUNTS, [])


async def test_i15_an_execute_after_its_compensate_is_refused_without_effect(caller: Caller) -> None:
    await caller.compensate("debit", Debit("A", 150), "k")
    for attempt in (1, 2):
        late = await caller.execute("debit", Debit("A", 150), "k", attempt)
        assert (late.status, late.error.code, late.stored) == (ERROR, "UNDONE", True)
    assert (ledger.amounts(), ledger.entries()) == (ACCOUNTS, [])


async def test_an_execute_that_comes_again_after_it_was_undone_has_no_effect(caller: Caller) -> None:
    await caller.execute("credit", Credit("A", 1), "k")
    await caller.compensate("credit", Credit("A", 1), "k")
    assert (await caller.execute("credit", Credit("A", 1), "k", attempt=2)).error.code == "UNDONE"
    assert ledger.amounts() == ACCOUNTS


async def test_undoing_a_refused_action_leaves_its_verdict(caller: Caller) -> None:
    await caller.execute("debit", Debit("A", 9999), "k")
    assert (await caller.compensate("debit", Debit("A", 9999), "k")).status == SUCCESS
    assert (await caller.execute("debit", Debit("A", 9999), "k", attempt=2)).error.code == "INSUFFICIENT_FUNDS"


async def test_a_credit_is_taken_back_though_it_was_spent(caller: Caller) -> None:
    await caller.execute("credit", Credit("B", 100), "k")
    await caller.execute("debit", Debit("B", 600), "spent")
    assert (await caller.compensate("credit", Credit("B", 100), "k")).status == SUCCESS
    assert ledger.amounts()["B"] == -100


async def test_c35_the_same_key_many_times_at_once_has_one_effect(caller: Caller) -> None:
    replies = await asyncio.gather(*(caller.execute("debit", Debit("A", 10), "k", n) for n in range(1, 41)))
    assert {reply.SerializeToString() for reply in replies} == {replies[0].SerializeToString()}
    assert kinds("k") == ["debit"]


async def test_i13_any_interleaving_leaves_at_most_one_effect_and_none_after_undoing(caller: Caller) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    calls = [(key, undo) for key in map(str, range(30)) for undo in (False, False, True, True)]
    choose.shuffle(calls)

    async def make(key: str, undo: bool) -> saga_pb2.Reply:
        if undo:
            return await caller.compensate("debit", Debit("A", 7), key)
        return await caller.execute("debit", Debit("A", 7), key)

    replies = await asyncio.gather(*(make(*call) for call in calls))
    undone = [reply for reply, (_, undo) in zip(replies, calls, strict=True) if undo]
    assert {reply.status for reply in undone} == {SUCCESS}
    assert ledger.amounts() == ACCOUNTS
    assert {tuple(kinds(key)) for key, _ in calls} <= {(), ("debit", "reversal")}


async def test_the_ledger_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    for balance in (850, 850):  # the second time the key is known
        process, address = start(path)
        try:
            async with calling(address) as caller:
                reply = await caller.execute("debit", Debit("A", 150), "k")
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert decode(reply.output, Posting).balance == balance
    with Ledger().opened(path) as read:
        assert read.amounts() == {"A": 850, "B": 500}
        assert [entry.kind for entry in read.entries()] == ["debit"]


def test_the_process_ends_in_good_order_and_refuses_a_port_that_is_taken(tmp_path: Path) -> None:
    process, address = start(tmp_path / "bank.db", "--account", "C=7")
    try:
        second = subprocess.run(
            [*COMMAND, "--db", str(tmp_path / "two.db"), "--listen", address],
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )
        assert second.returncode == 1
        assert f"cannot listen on {address}" in second.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=READY_S)
    assert (process.returncode, output, errors) == (0, "", "")
    with Ledger().opened(tmp_path / "bank.db") as read:
        assert read.amounts() == {"C": 7}


def test_the_transfer_saga_is_a_definition() -> None:
    steps = transfer.definition().steps
    assert [(step.participant, step.action) for step in steps] == [("bank", "debit"), ("bank", "credit")]
    assert all(step.HasField("compensation") for step in steps)


COMMAND = [sys.executable, "-m", "participants.bank"]


def start(path: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [*COMMAND, "--db", str(path), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    word, address = process.stdout.readline().split()
    assert word == "ready"
    return process, address
