"""References: what can be taken from them, what they become on the wire, and what they refuse."""

from __future__ import annotations

import copy
import json
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, NewType, TypedDict, cast
from uuid import UUID

import msgspec
import pydantic
import pytest
from google.protobuf import duration_pb2
from hypothesis import given
from hypothesis import strategies as st

from amends import DefinitionError, Opaque, ReferenceUseError, Saga, UnknownFieldError
from amends.definition.references import Reference
from amends.definition.templates import template_of
from amends.definition.terms import held
from amends_server.engine.data.template import parse_template
from amends_server.engine.payload import Json


@dataclass
class Address:
    city: str
    lines: list[str] = field(default_factory=list[str])


Money = NewType("Money", int)


@dataclass
class Customer:
    name: str
    address: Address | None
    homes: list[Address]
    rooms: dict[str, Address]
    pair: tuple[Address, int]
    paid: Money
    marked: Annotated[Address, "kept"]
    anything: Any = None

    def shout(self) -> str:
        return self.name.upper()


class Line(msgspec.Struct, rename="camel"):
    product_id: str
    place: tuple[int, ...] = ()


class Tagged(msgspec.Struct, tag="t"):
    word: str


class Point(msgspec.Struct, array_like=True, tag=True):
    x: int
    y: int


class Basket(TypedDict):
    sku: str
    count: int


class Model(pydantic.BaseModel):
    number: int = pydantic.Field(alias="theNumber")
    text: str = ""


class Child(Model):
    when: datetime

    @pydantic.field_serializer("when")
    def year(self, when: datetime) -> int:
        return when.year


def ref(kind: object) -> Any:
    """A reference to an input of the type. What it is to a type checker is tested elsewhere."""
    return Saga("test", input=cast("type[Any]", kind)).input


def path(reference: object) -> str:
    assert isinstance(reference, Reference)
    return held(reference).text


def written(value: object) -> Any:
    return json.loads(template_of(value, name="request").text)


@pytest.mark.parametrize(
    ("take", "expected"),
    [
        (lambda it: it, "input"),
        (lambda it: it.name, "input.name"),
        (lambda it: it.address.city, "input.address.city"),
        (lambda it: it.homes[2].lines[0], "input.homes[2].lines[0]"),
        (lambda it: it.rooms["first"].city, "input.rooms.first.city"),
        (lambda it: it.rooms['a "b" ß'].city, 'input.rooms["a \\"b\\" ß"].city'),
        (lambda it: it.pair[0].city, "input.pair[0].city"),
        (lambda it: it.marked.city, "input.marked.city"),
        (lambda it: it.anything.at["all"][3], "input.anything.at.all[3]"),
    ],
)
def test_paths_of_a_dataclass(take: Callable[[Any], object], expected: str) -> None:
    assert path(take(ref(Customer))) == expected


def test_paths_use_the_names_that_data_has_in_json() -> None:
    assert path(ref(Line).product_id) == "input.productId"
    assert path(ref(Line).place[7]) == "input.place[7]"
    assert path(ref(Point).y) == "input[2]"  # after the tag
    assert path(ref(Basket)["sku"]) == "input.sku"
    assert path(ref(Model).number) == "input.theNumber"


@pytest.mark.parametrize(
    ("take", "told"),
    [
        (lambda: ref(Customer).nam, "no field 'nam'; it has address, anything, homes, marked, name, paid, pair, rooms"),
        (lambda: ref(Customer).shout, "no field 'shout'"),
        (lambda: ref(Customer).address.zip, "input.address is of type .*; it has city, lines"),
        (lambda: ref(Line).productId, "it has place, product_id"),
        (lambda: ref(Basket)["skew"], "it has count, sku"),
        (lambda: ref(Model).theNumber, "it has number, text"),
        (lambda: ref(Customer).paid.currency, "Money, which has no field 'currency'"),
        (lambda: ref(Customer).pair[2], "pair"),
    ],
)
def test_unknown_fields_are_refused_at_once_with_the_known_ones(take: Callable[[], object], told: str) -> None:
    with pytest.raises((UnknownFieldError, ReferenceUseError), match=told):
        take()


@pytest.mark.parametrize("key", [-1, slice(0, 1), None, True, 1.0])
def test_keys_are_texts_or_indexes(key: object) -> None:
    with pytest.raises(ReferenceUseError, match="must be a text"):
        ref(Customer).homes[key]


@pytest.mark.parametrize(
    ("take", "told"),
    [
        (lambda: ref(str)["a"], "of type str"),
        (lambda: ref(str)[0], "of type str"),
        (lambda: ref(dict[str, int])[0], "cannot be taken"),
        (lambda: ref(list[int])["a"], "cannot be taken"),
        (lambda: ref(duration_pb2.Duration).seconds, "only be passed on whole"),
        (lambda: ref(duration_pb2.Duration)["seconds"], "only be passed on whole"),
        (lambda: ref(Opaque).data, "only be passed on whole"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(take: Callable[[], object], told: str) -> None:
    with pytest.raises(ReferenceUseError, match=told):
        take()


USES: list[Callable[[Any], object]] = [
    bool, str, bytes, iter, len, int, float, complex, round, reversed, list, dict, operator.index,
    "{}".format, lambda it: f"order {it}", lambda it: "a" in it, lambda it: it(), lambda it: hash(it),
    lambda it: it in {"a", "b"}, lambda it: {"a": 1}.get(it), lambda it: it == 1 and 2,
    lambda it: it and 1, lambda it: not it, lambda it: 1 < it < 3, lambda it: it**2, lambda it: 2 << it, lambda it: +it,
    lambda it: max(it, 1), abs, lambda it: it in [1], lambda it: divmod(it, 2), lambda it: 1 if it else 2,
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(USES)))
def test_uses_that_need_the_value_are_refused(number: int) -> None:
    with pytest.raises(ReferenceUseError, match=r"known only while a saga runs. (It can be put into|For `and`, `or`)"):
        USES[number](ref(Any))


def test_a_reference_can_be_shown_and_copied_and_has_no_attributes_of_its_own() -> None:
    reference = ref(Customer).name
    assert repr(reference) == "<reference ${input.name}>"
    assert copy.deepcopy(reference) is copy.copy(reference) is reference
    assert [name for name in dir(reference) if not name.startswith("__")] == []
    with pytest.raises(AttributeError):
        reference.other = 1


def test_requests_are_written_as_their_data_is() -> None:
    order = ref(Customer)
    assert written(Address(order.name, ["first", order.homes[0].city])) == {
        "city": "${input.name}",
        "lines": ["first", "${input.homes[0].city}"],
    }
    assert written(Line(product_id=order.name, place=(1, 2))) == {"productId": "${input.name}", "place": [1, 2]}
    assert written(Tagged(order.name)) == {"type": "t", "word": "${input.name}"}
    assert written(Point(1, order.paid)) == ["Point", 1, "${input.paid}"]
    assert written({"deep": [{"er": order}]}) == {"deep": [{"er": "${input}"}]}
    assert written(order) == "${input}"
    assert written(None) is None


def test_pydantic_models_may_hold_references_when_they_are_constructed_without_validation() -> None:
    assert written(Model.model_construct(theNumber=ref(Customer).paid, text="a")) == {
        "theNumber": "${input.paid}",
        "text": "a",
    }
    with pytest.raises(DefinitionError, match="request: the field 'number' of Model has no value"):
        written(Model.model_construct(text=ref(Customer).name))


def test_complete_pydantic_models_are_written_by_their_own_serialisers() -> None:
    child = Child(theNumber=1, when=datetime(2026, 1, 2, tzinfo=UTC))
    assert written({"child": child}) == {"child": {"theNumber": 1, "text": "", "when": 2026}}


def test_literals_are_written_as_payloads_write_them() -> None:
    literals: dict[str, object] = {
        "decimal": Decimal("1.50"),
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "uuid": UUID(int=1),
        "bytes": b"\x00\x01",
        "set": frozenset({"b", "a", "c"}),
        "proto": duration_pb2.Duration(seconds=3),
        "int": 2**60,
        "float": 0.5,
        "no": None,
        "yes": True,
    }
    assert written(literals) == {
        "decimal": "1.50",
        "time": "2026-01-02T00:00:00Z",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "bytes": "AAE=",
        "set": ["a", "b", "c"],
        "proto": "3s",
        "int": 2**60,
        "float": 0.5,
        "no": None,
        "yes": True,
    }


def test_texts_that_look_like_expressions_are_escaped() -> None:
    assert written(["${input}", "$${input}", "$", "{}", "$x"]) == ["$${input}", "$$${input}", "$", "{}", "$x"]
    assert written(["price: ${x}, ${", {"${key}": 1}]) == ["price: $${x}, $${", {"${key}": 1}]


TEXTS = st.text(st.sampled_from('${}ab\\" ß\x00'), max_size=6)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(DATA)
def test_literals_come_out_of_the_orchestrator_as_they_went_in(value: object) -> None:
    filled = parse_template(template_of(value, name="request").text).fill(lambda _: None)
    assert isinstance(filled, Json)
    assert json.loads(filled.text) == value


@given(st.lists(TEXTS | st.integers(0, 10**9 - 1), max_size=4))
def test_paths_are_read_by_the_orchestrator_as_they_were_taken(keys: list[str | int]) -> None:
    reference = ref(Any)
    for key in keys:
        reference = reference[key]
    (found,) = parse_template(template_of(reference, name="request").text).paths
    assert (found.root, found.rest) == (("input",), tuple(keys))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [object()]}, r"request.a\[0\]: object cannot be written as JSON"),
        ({"a": float("nan")}, "request.a: nan is a number that JSON cannot hold"),
        ({1: "a"}, "the key 1 must be a text"),
        ({"a": Opaque(b"")}, "request.a: opaque bytes cannot stand in a definition"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value: object, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        written(value)


def test_protobuf_values_pass_whole_and_not_as_parts() -> None:
    message = ref(duration_pb2.Duration)
    assert written(message) == "${input}"
    with pytest.raises(DefinitionError, match=r"request.part: input is not JSON and cannot be a part"):
        written({"part": message})
