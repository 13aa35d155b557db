"""The whole saga model as a user of the SDK has it: participants of this process, and a real orchestrator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amends import (
    ERROR,
    NOT_NEEDED,
    PIVOT,
    Call,
    Client,
    Compensated,
    Completion,
    FailedPrecondition,
    InProgress,
    InvalidArgument,
    Participant,
    Refused,
    Retry,
    RpcError,
    Saga,
    SagaStatus,
    StepStatus,
    on,
)
from amends.expressions import if_else, length, not_, present
from amends_server.app import serving
from amends_server.config import load_settings

WAIT_S = 20


@dataclass
class Order:
    sku: str
    quantity: int
    price: float
    gift: bool = False
    email: str | None = None


@dataclass
class Reserve:
    sku: str
    quantity: int


@dataclass
class Hold:
    id: str


@dataclass
class Charge:
    amount: float
    hold_id: str


@dataclass
class Payment:
    id: str
    amount: float


@dataclass
class Shop:
    """A participant that keeps what was done, in order."""

    name: str = "shop"
    done: list[str] = field(default_factory=list[str])
    refuse: dict[str, list[Refused]] = field(default_factory=dict[str, list[Refused]])

    def __post_init__(self) -> None:
        self.participant = Participant(self.name)
        self.reserve = self.participant.action(self._reserve, name="reserve")
        self.charge = self.participant.action(self._charge, name="charge")
        self.wrap = self.participant.action(self._wrap, name="wrap")
        self.reserve.compensation(self._release)
        self.charge.compensation(self._refund)
        self.wrap.compensation(self._unwrap)

    def _do(self, what: str) -> None:
        name = what.partition(" ")[0]
        if self.refuse.get(name):
            raise self.refuse[name].pop(0)
        self.done.append(what)

    async def _reserve(self, request: Reserve) -> Hold:
        self._do(f"reserve {request.quantity} {request.sku}")
        return Hold(f"H-{request.sku}")

    async def _release(self, request: Reserve, done: Hold | None) -> None:
        self.done.append(f"release {request.quantity} {request.sku}")

    async def _charge(self, request: Charge) -> Payment:
        self._do(f"charge {request.amount} for {request.hold_id}")
        return Payment("P", request.amount)

    async def _refund(self, request: Charge, done: Payment | None) -> None:
        self.done.append(f"refund {request.amount}")

    async def _wrap(self, request: Order) -> str:
        self._do(f"wrap {request.sku}")
        return "paper"

    async def _unwrap(self, request: Order, done: str | None) -> None:
        self.done.append(f"unwrap {request.sku}")


@asynccontextmanager
async def connected(tmp_path: Path) -> AsyncIterator[Client]:
    settings = load_settings(listen="127.0.0.1:0", store=f"sqlite:///{tmp_path}/amends.db")
    async with serving(settings) as server, Client(server.address) as client:
        yield client


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with connected(tmp_path) as client:
        yield client


@pytest.fixture
async def shop(client: Client) -> AsyncIterator[Shop]:
    shop = Shop()
    async with client.hosting(shop.participant):
        yield shop


TEA = Order("tea", 3, 2.5)


async def test_expressions_are_calculated_by_the_orchestrator(client: Client, shop: Shop) -> None:
    order = Saga("order", input=Order, output=str)
    hold = order.step(shop.reserve, Reserve(order.input.sku + "-x", order.input.quantity * 2 + 1))
    total = order.input.price * order.input.quantity
    order.step(shop.charge, Charge(if_else(total > 100, total * 0.9, total), hold.output.id))
    order.returns(hold.output.id + "!")
    assert await (await client.start(order, TEA)).result() == "H-tea-x!"
    assert await (await client.start(order, Order("cup", 100, 2))).result() == "H-cup-x!"
    assert shop.done == [
        "reserve 7 tea-x", "charge 7.5 for H-tea-x", "reserve 201 cup-x", "charge 180.0 for H-cup-x",
    ]  # fmt: skip


def gifts(shop: Shop) -> Saga[Order, str]:
    order = Saga("gifts", input=Order, output=str)
    hold = order.step(shop.reserve, Reserve(order.input.sku, order.input.quantity))
    with order.when(order.input.quantity > 100):
        order.step(shop.wrap, id="crate")
        order.step(shop.wrap, id="crate_again")
    with order.otherwise(order.input.gift):
        order.step(shop.wrap, id="paper")
    with order.otherwise(order.input.price > 1):
        paid = order.step(shop.charge, Charge(order.input.price, hold.output.id))
    order.step(shop.wrap, id="last", kind=PIVOT)
    order.returns(if_else(present(paid.output), paid.output.id, "free"))
    return order


@pytest.mark.parametrize(
    ("given", "ran", "result"),
    [
        (Order("tea", 101, 5, gift=True), ["wrap tea", "wrap tea"], "free"),
        (Order("tea", 1, 5, gift=True), ["wrap tea"], "free"),
        (Order("tea", 1, 5), ["charge 5.0 for H-tea"], "P"),
        (Order("tea", 1, 0.5), [], "free"),
    ],
)
async def test_g53_the_first_condition_that_holds_decides(
    client: Client, shop: Shop, given: Order, ran: list[str], result: str
) -> None:
    saga = await client.start(gifts(shop), given)
    assert await saga.result() == result
    assert shop.done[1:-1] == ran
    statuses = {step.id: step.status for step in (await saga.status()).steps}
    skipped = [id for id, status in statuses.items() if status is StepStatus.SKIPPED]
    assert len(skipped) == 4 - len(ran)


async def test_g53_a_failure_in_a_branch_undoes_the_branch_then_what_came_before(client: Client, shop: Shop) -> None:
    shop.refuse["charge"] = [Refused("NO")]
    order = Saga("order", input=Order)
    hold = order.step(shop.reserve, Reserve(order.input.sku, 1))
    with order.when(order.input.gift):
        order.step(shop.wrap)
        order.step(shop.charge, Charge(1, hold.output.id))
    with order.otherwise():
        order.step(shop.wrap, id="other")
    with pytest.raises(Compensated):
        await (await client.start(order, Order("tea", 1, 1, gift=True))).result()
    assert shop.done == ["reserve 1 tea", "wrap tea", "unwrap tea", "release 1 tea"]


async def test_b16_rules_handle_business_errors(client: Client, shop: Shop) -> None:
    order = Saga("order", input=Order, output=str)
    hold = order.step(
        shop.reserve,
        Reserve(order.input.sku, 1),
        retry=Retry(attempts=3, interval=0.01),
        on_error=[
            on("BUSY", when=ERROR.data["left"] > 0).retry(),
            on("OUT_OF_STOCK").continue_with(Hold("none: " + ERROR.message)),
        ],
    )
    order.step(shop.charge, Charge(1, hold.output.id), when=not_(present(hold.error)), id="charge")
    order.returns(hold.output.id)
    shop.refuse["reserve"] = [Refused("BUSY", data={"left": 1}), Refused("OUT_OF_STOCK", "no tea")]
    assert await (await client.start(order, TEA)).result() == "none: no tea"
    shop.refuse["reserve"] = [Refused("BUSY", data={"left": 0})]
    with pytest.raises(Compensated):
        await (await client.start(order, TEA)).result()
    assert await (await client.start(order, TEA)).result() == "H-tea"
    assert shop.done == ["reserve 1 tea", "charge 1.0 for H-tea"]


async def test_g55_a_step_fails_before_its_call_when_something_is_missing(client: Client, shop: Shop) -> None:
    order = Saga("order", input=Order)
    order.step(shop.reserve, Reserve(order.input.sku, 1))
    order.step(shop.wrap, requires=[order.input.email])
    with pytest.raises(Compensated, match=r"input\.email"):
        await (await client.start(order, TEA)).result()
    assert shop.done == ["reserve 1 tea", "release 1 tea"]
    await (await client.start(order, Order("tea", 1, 1, email="a@b"))).result()


async def test_a8_an_input_that_does_not_meet_the_type_is_refused_at_the_door(client: Client, shop: Shop) -> None:
    await client.register(gifts(shop))
    with pytest.raises(InvalidArgument, match="quantity"):
        await client.start("gifts", {"sku": "tea", "price": 2.5})


async def test_sagas_and_steps_start_later(client: Client, shop: Shop) -> None:
    order = Saga("order", input=Order)
    order.step(shop.wrap, delay=0.2)
    begin = datetime.now(UTC) + timedelta(seconds=0.4)
    saga = await client.start(order, TEA, at=begin)
    assert (await saga.status()).status is SagaStatus.PENDING
    view = await saga.wait()
    started = view.step("wrap").start_time
    assert started is not None
    assert started >= begin + timedelta(seconds=0.2)
    with pytest.raises(ValueError, match="no time zone"):
        await client.start(order, TEA, at=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


class Press:
    """A participant whose work takes long: it hands out its calls, and says later how they went."""

    def __init__(self) -> None:
        self.participant = Participant("press")
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.polls = 0
        self.printed = self.participant.action(self._print, name="print")
        self.polled = self.participant.action(self._poll, name="poll")

    async def _print(self, request: Order, call: Call) -> Hold:
        self.calls.put_nowait(call)
        raise InProgress

    async def _poll(self, request: Order, call: Call) -> Hold:
        self.polls += 1
        if self.polls < 3:
            call.later(poll=0.1)
        return Hold(f"{self.polls}")


@pytest.fixture
async def press(client: Client) -> AsyncIterator[Press]:
    press = Press()
    async with client.hosting(press.participant):
        yield press


def printing(press: Press) -> Saga[Order, str]:
    book = Saga("book", input=Order, output=str)
    book.returns(book.step(press.printed, compensation=NOT_NEEDED).output.id)
    return book


async def test_f52_long_work_is_finished_from_anywhere(client: Client, press: Press) -> None:
    saga = await client.start(printing(press), TEA)
    call = await asyncio.wait_for(press.calls.get(), WAIT_S)
    text = str(call.completion)
    assert call.completion.token not in repr(call)
    assert Completion.parse(text) == call.completion
    await client.complete(Completion.parse(text), Hold("book 1"))
    await client.complete(call, Hold("book 1"))  # the same again is harmless
    assert await saga.result() == "book 1"
    with pytest.raises(FailedPrecondition):
        await client.complete(call, Hold("book 2"))


async def test_f52_long_work_may_be_refused(client: Client, press: Press) -> None:
    saga = await client.start(printing(press), TEA)
    call = await asyncio.wait_for(press.calls.get(), WAIT_S)
    await client.refuse(call.completion, "NO_PAPER", "The paper is out.", data={"left": 0})
    with pytest.raises(Compensated, match="NO_PAPER: The paper is out"):
        await saga.result()


async def test_f52_long_work_that_breaks_is_asked_for_again(client: Client, press: Press) -> None:
    saga = await client.start(printing(press), TEA)
    first = await asyncio.wait_for(press.calls.get(), WAIT_S)
    await client.break_off(first.completion, "BURNT", "The press burnt.")
    again = await asyncio.wait_for(press.calls.get(), WAIT_S)
    assert (again.attempt, again.key) == (2, first.key)
    await client.complete(again, Hold("book 1"))
    assert await saga.result() == "book 1"


async def test_a_token_is_for_one_step_of_one_saga(client: Client, press: Press) -> None:
    first, second = await client.start(printing(press), TEA), await client.start(printing(press), TEA)
    calls = [await asyncio.wait_for(press.calls.get(), WAIT_S) for _ in range(2)]
    by_saga = {call.saga_id: call.completion for call in calls}
    forged = Completion(namespace="default", saga_id=first.id, step="print", token=by_saga[second.id].token)
    with pytest.raises(RpcError) as refused:
        await client.complete(forged, Hold("stolen"))
    assert refused.value.reason != ""
    for completion in by_saga.values():
        await client.complete(completion, Hold("own"))
    assert [await first.result(), await second.result()] == ["own", "own"]


async def test_work_in_progress_is_polled(client: Client, press: Press) -> None:
    book = Saga("book", input=Order, output=str)
    book.returns(book.step(press.polled, compensation=NOT_NEEDED).output.id)
    assert await (await client.start(book, TEA)).result() == "3"


checkout = Participant("checkout")


@dataclass
class Cart:
    skus: list[str]
    coupon: str | None = None


@dataclass
class Plan:
    reserve: Reserve
    amount: float


@dataclass
class Outcome:
    text: str


@checkout.action
def plan(cart: Cart) -> Plan:
    """Shapes the requests that follow, in Python."""
    if not cart.skus:
        raise Refused("EMPTY", "There is nothing in the cart.")
    amount = sum(len(sku) for sku in cart.skus) * (0.5 if cart.coupon == "half" else 1.0)
    return Plan(Reserve("+".join(sorted(cart.skus)), len(cart.skus)), amount)


@checkout.action
def judge(payment: Payment | None, call: Call) -> Outcome:
    """Looks at a reply, in Python."""
    if payment is None:
        return Outcome("on the house")
    if payment.amount > 20:
        raise Refused("SUSPICIOUS", f"{payment.amount} is much.")
    return Outcome(f"paid {payment.amount}")


async def test_remote_calls_and_local_work_are_mixed_with_the_same_guarantees(client: Client, shop: Shop) -> None:
    order = Saga("checkout", input=Cart, output=Outcome)
    planned = order.step(plan, compensation=NOT_NEEDED)
    hold = order.step(shop.reserve, planned.output.reserve)
    with order.when((planned.output.amount > 1) & (length(order.input.skus) > 0)):
        paid = order.step(
            shop.charge,
            Charge(planned.output.amount, hold.output.id),
            on_error=[on("CARD_EXPIRED").continue_with(Payment("later", 0))],
        )
    judged = order.step(judge, paid.output, compensation=NOT_NEEDED)
    order.returns(judged.output)

    async def outcome(cart: Cart) -> str:
        try:
            return (await (await client.start(order, cart)).result()).text
        except Compensated as error:
            return str(error.cause)

    async with client.hosting(checkout):
        assert await outcome(Cart(["tea", "cup"])) == "paid 6.0"
        assert await outcome(Cart(["tea", "cup"], coupon="half")) == "paid 3.0"
        assert await outcome(Cart(["a"])) == "on the house"
        assert await outcome(Cart([])) == "step plan: EMPTY: There is nothing in the cart."
        assert await outcome(Cart(["x" * 21])) == "step judge: SUSPICIOUS: 21.0 is much."
        assert shop.done[-2:] == ["refund 21.0", "release 1 " + "x" * 21]
        shop.refuse["charge"] = [Refused("CARD_EXPIRED")]
        assert await outcome(Cart(["tea"])) == "paid 0.0"


async def test_a_saga_waits_for_its_local_steps_until_they_are_hosted_again(client: Client) -> None:
    local = Participant("local")
    began, cut = asyncio.Event(), asyncio.Event()

    @local.action
    async def work(request: int) -> int:
        began.set()
        if not cut.is_set():
            await cut.wait()
            raise ConnectionError("this process dies")
        return request * 2

    saga = Saga("local", input=int, output=int)
    saga.returns(saga.step(work, compensation=NOT_NEEDED, retry=Retry(attempts=-1, interval=0.05)).output)
    async with client.hosting(local):
        running = await client.start(saga, 21)
        await asyncio.wait_for(began.wait(), WAIT_S)
        cut.set()
    async with client.hosting(local):
        assert await asyncio.wait_for(running.result(), WAIT_S) == 42


async def test_operators_steer_many_sagas_at_once(client: Client, press: Press) -> None:
    book = printing(press)
    ids = {(await client.start(book, TEA, labels={"batch": "1"})).id for _ in range(3)}
    other = await client.start(book, TEA)
    counted = await client.pause_all(reason="audit", definition="book", labels={"batch": "1"}, dry_run=True)
    assert (counted.changed, counted.remaining, dict(counted.failures)) == (3, 0, {})
    first = await client.pause_all(reason="audit", labels={"batch": "1"}, limit=2)
    assert (first.changed, first.remaining) == (2, 1)
    await client.pause_all(reason="audit", labels={"batch": "1"})
    assert {id for id in ids if (await client.get(id)).paused} == ids
    assert (await client.get(other.id)).paused is False
    await client.resume_all(reason="audit is over", labels={"batch": "1"})
    assert (await client.pause(other.id, reason="audit")).paused is True
    assert (await client.resume(other.id, reason="audit is over")).paused is False
    for _ in range(4):
        await asyncio.wait_for(press.calls.get(), WAIT_S)
    await client.cancel_all(reason="no more paper", definition="book")
    assert {(await client.saga(None, id).wait()).status for id in [*ids, other.id]} == {SagaStatus.COMPENSATED}


async def test_definitions_are_read_and_removed(client: Client, shop: Shop) -> None:
    await client.register(gifts(shop))
    definition = await client.definition("gifts")
    assert (definition.version, definition.steps[0].id) == (1, "reserve")
    await client.delete_definition("gifts", 1)
    assert [each async for each in client.definitions("gifts")] == []
