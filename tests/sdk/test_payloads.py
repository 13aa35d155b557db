"""Payloads: each kind of type goes there and back, and what does not fit says where."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Annotated, TypedDict

import msgspec
import pydantic
import pytest
from google.protobuf import duration_pb2

from amends.errors import PayloadError
from amends.payloads import Opaque, decode, encode, json_schema
from amends.v1 import payload_pb2
from amends_server.engine.data.schema import parse_schema


@dataclass(frozen=True)
class Item:
    sku: str
    quantity: int


@dataclass(frozen=True)
class Basket:
    items: list[Item]
    total: Decimal
    at: dt.datetime
    id: uuid.UUID
    token: bytes = b""
    note: str | None = None


class Row(msgspec.Struct, frozen=True):
    name: str
    tags: tuple[str, ...] = ()


class Place(TypedDict):
    street: str
    number: int


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(alias="fullName")
    age: int


@dataclass
class Mixed:
    person: Person | None
    length: duration_pb2.Duration
    people: list[Person] = field(default_factory=list[Person])


class Odd:
    pass


@dataclass(frozen=True)
class Weight:
    kilograms: float


class Colour(Enum):
    RED = "red"


@dataclass
class Card:
    number: str
    colour: Colour = Colour.RED

    def __post_init__(self) -> None:
        if len(self.number) != 4:
            raise ValueError(f"not a number: {self.number}")


class Account(pydantic.BaseModel):
    number: str

    @pydantic.field_validator("number")
    @classmethod
    def check(cls, number: str) -> str:
        raise ValueError(f"not a number: {number}")


BASKET = Basket(
    items=[Item("A", 1)],
    total=Decimal("10.50"),
    at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    id=uuid.UUID(int=7),
    token=b"\x00\xff",
)
VALUES: list[tuple[object, object]] = [
    (BASKET, Basket),
    (Row("r", ("x",)), Row),
    (Place(street="S", number=1), Place),
    (Person(fullName="Ada", age=36), Person),
    (Mixed(Person(fullName="A", age=1), duration_pb2.Duration(seconds=3)), Mixed),
    (duration_pb2.Duration(seconds=5), duration_pb2.Duration),
    (Opaque(b"\x00secret", "application/x-sealed"), Opaque),
    ({"a": [1, 2.5, True, None, "ü"]}, dict[str, object]),
    ([Item("A", 1)], list[Item]),
    ("text", str),
    (7, int),
    (2**70, int),
    (None, type(None)),
    (None, Item | None),
    (None, Person | None),
    ({2: Person(fullName="A", age=1), 10: None}, dict[int, Person | None]),
    (
        {dt.date(2026, 1, 2): {uuid.UUID(int=7): {Colour.RED: b"x"}}},
        dict[dt.date, dict[uuid.UUID, dict[Colour, bytes]]],
    ),
    (Item("A", 1), Item | None),
    (Person(fullName="A", age=1), Person | None),
]


@pytest.mark.parametrize(("value", "kind"), VALUES, ids=lambda value: str(value)[:30])
def test_a_value_comes_back_as_it_went(value: object, kind: type[object]) -> None:
    wire = payload_pb2.Payload.FromString(encode(value).SerializeToString())
    assert decode(wire, kind) == value


def test_absence_and_json_null_are_the_same() -> None:
    assert encode(None).WhichOneof("kind") is None
    assert decode(payload_pb2.Payload(json="null"), type(None)) is None
    assert decode(payload_pb2.Payload(), object) is None


def test_protobuf_goes_as_any_and_is_read_from_json_as_well() -> None:
    assert encode(duration_pb2.Duration(seconds=5)).message.TypeName() == "google.protobuf.Duration"
    error = decode(payload_pb2.Payload(json='{"code": "X"}'), payload_pb2.Error)
    assert error == payload_pb2.Error(code="X")


def test_a_payload_passes_unread() -> None:
    payload = payload_pb2.Payload(json='{"kept":   "as it is"}')
    assert encode(payload) == payload
    assert decode(payload, payload_pb2.Payload) == payload


def test_equal_values_are_equal_bytes() -> None:
    assert encode(BASKET).SerializeToString() == encode(BASKET).SerializeToString()


@pytest.mark.parametrize(
    ("text", "kind", "where"),
    [
        ('{"items":[{"sku":"A","quantity":"SECRET"}]}', Basket, "$.items[0].quantity"),
        ('{"sku":"SECRET"}', Item, "quantity"),
        ("null", Item, "Item"),
        ('{"fullName":"SECRET","age":"SECRET"}', Person, "$.age"),
        ('{"person":{"fullName":"A","age":"SECRET"},"length":"1s"}', Mixed, "$.person"),
        ('{"code":{"SECRET":1}}', payload_pb2.Error, "$.code"),
        ('{"unknown":"SECRET"}', payload_pb2.Error, "$.unknown"),
        ('{"sku":SECRET', Item, "malformed"),
        ('{"number":"1234","colour":"O\'Brien SECRET"}', Card, "Invalid enum value - at `$.colour`"),
        ('"O\'Brien SECRET"', Colour, "Invalid enum value"),
        ('[{"number":"SECRET"}]', list[Card], "Does not fit (ValidationError) - at `$[0]`"),
        ('{"number":"SECRET"}', Account, "value_error - at `$.number`"),
        ('[{"number":"SECRET"}]', list[Account], "value_error - at `$.number`"),
        ("[" * 100_000, list[object], "depth"),
    ],
)
def test_a_misfit_names_the_path_and_not_the_data(text: str, kind: type[object], where: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(payload_pb2.Payload(json=text), kind)
    assert where in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_wrong_form_is_named() -> None:
    with pytest.raises(PayloadError, match=r"Item: .*google\.protobuf\.Duration"):
        decode(encode(duration_pb2.Duration()), Item)
    with pytest.raises(PayloadError, match="opaque"):
        decode(encode(Opaque(b"x")), Item)
    with pytest.raises(PayloadError, match="opaque"):
        decode(encode(Item("A", 1)), Opaque)
    with pytest.raises(PayloadError, match=r"google\.protobuf\.Duration"):
        decode(encode(duration_pb2.Duration()), payload_pb2.Error)


def test_equal_values_are_equal_bytes_in_every_order_and_process() -> None:
    assert encode({"b": 1, "a": {"d": 2, "c": 3}}).json == '{"a":{"c":3,"d":2},"b":1}'
    assert encode({"w", "z", "x", "y"}).json == '["w","x","y","z"]'
    assert encode({3: {"x", "w"}, 1: Row("r"), 2: 0}).json == '{"1":{"name":"r","tags":[]},"2":0,"3":["w","x"]}'


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_refused(number: float) -> None:
    for value in (
        number,
        {"a": [None, number]},
        {1: {"a": number}},
        Weight(number),
        [Weight(number)],
        {Weight(number)},
    ):
        with pytest.raises(PayloadError, match="no infinity and no NaN"):
            encode(value)
    assert encode([None, msgspec.Raw(b"null"), Person(fullName="A", age=1)]).json.startswith("[null,null,")


@pytest.mark.parametrize(
    "value",
    [
        Odd(),
        {"a": Odd()},
        {1: Odd()},
        {(1, 2): 3},
        {1: 2, "1": 3},
        [{1: {2: 3, "2": 3}}],
        {1, Odd},
        "\ud800",
        lambda: None,
    ],
)
def test_what_has_no_place_in_a_payload_is_refused(value: object) -> None:
    with pytest.raises(PayloadError, match="cannot be a payload"):
        encode(value)


def test_schemas_are_of_the_types() -> None:
    assert "quantity" in json.loads(json_schema(Item))["$defs"]["Item"]["properties"]
    assert "fullName" in json.loads(json_schema(Person))["properties"]
    assert json.loads(json_schema(int)) == {"type": "integer"}
    assert json_schema(duration_pb2.Duration) == json_schema(Opaque) == json_schema(object) == json_schema(Odd) == ""


class Inner(pydantic.BaseModel):
    person: Person


@dataclass
class Nested:
    inner: Inner
    more: list[Inner] = field(default_factory=list[Inner])


PERSON = Person(fullName="Ada", age=36)


@pytest.mark.parametrize(
    "value",
    [
        Basket([Item("tea", 1)], Decimal("1.50"), dt.datetime(2026, 1, 2, tzinfo=dt.UTC), uuid.UUID(int=1), b"\x00"),
        Row("a", ("b",)),
        PERSON,
        Mixed(PERSON, duration_pb2.Duration(seconds=3), [PERSON]),
        Nested(Inner(person=PERSON), [Inner(person=PERSON)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_data_meet_the_schema_of_their_type_as_orchestrators_read_it(value: object) -> None:
    schema = parse_schema(json_schema(type(value)))
    assert schema.violation(encode(value).json) is None
    assert schema.violation('{"none": "of its fields"}') is not None


def test_there_is_no_schema_where_two_models_have_one_name() -> None:
    other = pydantic.create_model("Person", height=(int, ...))
    first = pydantic.create_model("First", person=(Person, ...))
    second = pydantic.create_model("Second", person=(other, ...))
    assert json_schema(dict[str, first]) != ""
    assert json_schema(dict[str, first | second]) == ""  # type: ignore[valid-type]


class Ticket(pydantic.BaseModel):
    """Has a field whose type is known to its validators alone, as ids of databases are."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    odd: Annotated[Odd, pydantic.BeforeValidator(lambda _: Odd()), pydantic.PlainSerializer(lambda _: "odd")]


def test_there_is_no_schema_of_models_that_can_have_none() -> None:
    assert encode(decode(payload_pb2.Payload(json='{"odd":"odd"}'), Ticket)).json == '{"odd":"odd"}'
    assert json_schema(Ticket) == json_schema(dict[str, Ticket]) == ""


def test_there_is_no_schema_of_types_whose_annotations_cannot_be_read() -> None:
    lost = dataclass(type("Lost", (), {"__annotations__": {"field": "OnlyForTypeCheckers"}}))
    assert json_schema(lost) == ""
