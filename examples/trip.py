"""Book a trip: a seat and its payment, or neither."""

import asyncio
from dataclasses import dataclass

from amends import PIVOT, Call, Client, Compensated, Participant, Refused, Saga, serving


@dataclass
class Trip:
    traveller: str
    price: int


airline, bank = Participant("airline"), Participant("bank")
seats: dict[str, str | None] = {}  # by key: a call that comes twice has one effect
charged: dict[str, int] = {}


@airline.action
def reserve(trip: Trip, call: Call) -> str:
    seat = seats.setdefault(call.key, f"a seat for {trip.traveller}")
    if seat is None:
        raise Refused("RELEASED", "the reservation was undone before it came")
    return seat


@reserve.compensation
def release(trip: Trip, seat: str | None, call: Call) -> None:
    seats[call.execute_key] = None  # kept: a reservation that comes late must have no effect


@bank.action
def charge(amount: int, call: Call) -> None:
    if amount > 500:
        raise Refused("INSUFFICIENT_FUNDS", f"{amount} wanted, 500 left")
    charged[call.key] = amount


booking = Saga("booking", input=Trip, output=str)
reserved = booking.step(reserve)
booking.step(charge, booking.input.price, kind=PIVOT)
booking.returns(reserved.output)


async def main(server: str = "127.0.0.1:7242") -> None:
    async with serving(airline, orchestrator=server), serving(bank, orchestrator=server), Client(server) as client:
        for trip in (Trip("Ada", price=300), Trip("Bob", price=900)):
            saga = await client.start(booking, trip, id=f"trip-{trip.traveller}")  # again is harmless
            async for event in saga.watch():
                print(f"{event.kind:25}{event.step or ''}")
            try:
                print(await saga.result())
            except Compensated as error:
                print(error)
    print("seats taken:", [seat for seat in seats.values() if seat])


if __name__ == "__main__":
    asyncio.run(main())
