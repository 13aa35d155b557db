"""Expressions: what operators on references become, and that the orchestrator finds the value that Python would."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, cast
from uuid import UUID

import msgspec
import pytest
from google.protobuf import duration_pb2
from hypothesis import assume, given
from hypothesis import strategies as st

from amends import DefinitionError, Opaque, ReferenceUseError, Saga
from amends.definition.references import Reference
from amends.definition.terms import held
from amends.expressions import contains, if_else, length, not_, present, text
from amends.payloads import json_schema
from amends_server.engine.data.expressions import check_types, compile_expression
from amends_server.engine.data.jsonvalue import JsonValue, TemplateError
from amends_server.engine.data.path import Values
from amends_server.engine.data.schema import parse_schema

UUID_1 = UUID(int=1)


class Colour(StrEnum):
    RED = "red"


@dataclass
class Address:
    city: str
    lines: list[str] = field(default_factory=list[str])


@dataclass
class Order:
    count: int
    other: int
    price: float
    rate: float
    name: str
    note: str
    gift: bool
    vip: bool
    tags: list[str]
    sizes: list[int]
    address: Address | None = None
    coupon: str | None = None
    rooms: dict[str, Address] = field(default_factory=dict[str, Address])
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    id: UUID = UUID_1
    day: date = date(2026, 1, 2)
    anything: Any = None


@dataclass
class Odd:
    money: Decimal
    moment: datetime
    raw: bytes
    proto: duration_pb2.Duration
    sealed: Opaque


def it(kind: object = Order) -> Any:
    return Saga("test", input=cast("type[Any]", kind)).input


def cel(reference: object) -> str:
    assert isinstance(reference, Reference), reference
    return held(reference).text


def value_of(reference: object, data: object) -> JsonValue:
    """What the orchestrator finds, with its check of types by the schema of the input before."""
    expression, types = compile_expression(cel(reference)), {}
    schema = parse_schema(json_schema(Order))
    for variable in expression.variables:
        found = schema.field(variable.rest)
        if found.type is not None and found.depth:
            types[".".join(("input", *variable.rest[: found.depth]))] = found.type
    check_types(expression.text, {".".join(root): DYN for root in expression.roots} | types)
    plain: JsonValue = msgspec.to_builtins(data)
    return expression.evaluate(Values(lambda root: plain if root == ("input",) else None))


DYN = compile_expression("input").program.return_type()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda o: o.count + o.other * 2, "input.count + input.other * 2"),
        (lambda o: (o.count + o.other) * 2, "(input.count + input.other) * 2"),
        (lambda o: o.count - (o.other - 1), "input.count - (input.other - 1)"),
        (lambda o: 1 - -o.count, "1 - -input.count"),
        (lambda o: operator.neg(-o.count), "-(-input.count)"),
        (lambda o: -(o.count + 1), "-(input.count + 1)"),
        (lambda o: o.price * o.count, "double(input.price) * double(input.count)"),
        (lambda o: 2 * o.price, "2.0 * double(input.price)"),
        (lambda o: o.count / 2, "double(input.count) / 2.0"),
        (lambda o: o.name + "-" + o.note, 'input.name + "-" + input.note'),
        (lambda o: operator.add(["x"], o.tags), '["x"] + input.tags'),
        (lambda o: o.count > 100, "input.count > 100"),
        (lambda o: o.price >= 1.5, "input.price >= 1.5"),
        (lambda o: o.count == 1.5, "dyn(input.count) == 1.5"),
        (lambda o: operator.lt(3, o.count), "input.count > 3"),
        (lambda o: o.gift & (o.count > 1) | ~o.vip, "input.gift && input.count > 1 || !input.vip"),
        (lambda o: o.gift & (o.vip | (o.name == "a")), 'input.gift && (input.vip || input.name == "a")'),
        (lambda o: not_((o.count > 1) & o.gift), "!(input.count > 1 && input.gift)"),
        (lambda o: (o.count > 1) == o.gift, "(input.count > 1) == input.gift"),
        (lambda o: o.name == 'a"\\b\n', 'input.name == "a\\"\\\\b\\n"'),
        (lambda o: contains(o.tags, "a"), '"a" in input.tags'),
        (lambda o: contains(["a", "b"], o.name), 'dyn(input.name) in ["a", "b"]'),
        (lambda o: contains(o.name, "a"), 'input.name.contains("a")'),
        (lambda o: contains(o.rooms, "big"), 'dyn("big") in input.rooms'),
        (lambda o: length(o.tags) + 1, "size(input.tags) + 1"),
        (lambda o: "n " + text(o.count), '"n " + string(input.count)'),
        (lambda o: if_else(o.gift, o.count, o.other) + 1, "(input.gift ? input.count : input.other) + 1"),
        (lambda o: if_else(o.gift, o.count, o.price), "input.gift ? double(input.count) : double(input.price)"),
        (lambda o: if_else(o.gift, o.name, None), "input.gift ? dyn(input.name) : null"),
        (lambda o: if_else(o.gift, o.address, None).city, "(input.gift ? dyn(input.address) : null).city"),
        (lambda o: o.colour == Colour.RED, 'input.colour == "red"'),
        (lambda o: o.kind != "b", 'input.kind != "b"'),
        (lambda o: o.id == UUID_1, 'input.id == "00000000-0000-0000-0000-000000000001"'),
        (lambda o: o.day < date(2026, 2, 1), 'input.day < "2026-02-01"'),
        (lambda o: present(o), "true"),
        (lambda o: present(o.coupon), '"coupon" in input && dyn(input.coupon) != null'),
        (lambda o: o.coupon == None, '!("coupon" in input && dyn(input.coupon) != null)'),  # noqa: E711 - an operator here
        (lambda o: o.rooms["a b"].city == "x", 'input.rooms["a b"].city == "x"'),
        (lambda o: o.rooms["in"].city == "x", 'input.rooms["in"].city == "x"'),
        (lambda o: o.anything.x + 1, "input.anything.x + 1"),
        (lambda o: o.anything * 1.5, "double(input.anything) * 1.5"),
        (lambda o: if_else(o.gift, {"a": o.count}, {"a": 1}), 'input.gift ? dyn({"a": input.count}) : {"a": 1}'),
    ],
)  # fmt: skip
def test_operators_become_cel(make: Callable[[Any], object], expected: str) -> None:
    made = make(it())
    assert cel(made) == expected
    compile_expression(expected)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda o: o.count + "a", r"`\+` is not for int and str: input.count \+ \"a\""),
        (lambda o: o.name - "a", "`-` is not for str and str"),
        (lambda o: o.name * 2, r"`\*` is not for str and int"),
        (lambda o: o.price % 2, "It is for whole numbers"),
        (lambda o: o.gift + 1, r"`\+` is not for bool and int"),
        (lambda o: o.name > 1, "`>` is not for str and int"),
        (lambda o: o.name == 1, "`==` is not for str and int"),
        (lambda o: o.tags < o.tags, "`<` is not for list"),
        (lambda o: o.count & 1, "must be of true or false, and input.count is of the type int"),
        (lambda o: ~o.name, "must be of true or false"),
        (lambda o: -o.name, "must be of a number"),
        (lambda o: o.count + Decimal(1), "a Decimal is a text in JSON: calculate in an action, or count in the small"),
        (lambda o: o.name + b"a", "bytes are a text in JSON"),
        (lambda o: o.count + 2**63, "whole numbers have 64 bits"),
        (lambda o: o.price + math.inf, "JSON has no such number"),
        (lambda o: o.name + "\0", "NUL or half a character"),
        (lambda o: o.name + "\ud800", "NUL or half a character"),
        (lambda o: o.name + object(), "expressions know None, bool, int"),
        (lambda o: length(o.count), "must be of a text, a list or an object"),
        (lambda o: text(o.gift), "must be of a whole number"),
        (lambda o: text(o.price), "`text` must be of a whole number, and input.price is of the type float"),
        (lambda o: text(o.count * 1.5), "must be of a whole number"),
        (lambda o: contains(o.count, 1), "must be of a list, an object or a text"),
        (lambda o: contains(o.name, cast("Any", 1)), "`contains` is not for str and int"),
        (lambda o: if_else(o.count, 1, 2), "must be of true or false"),
        (lambda _: it(Odd).money * 2, "a Decimal is a text in JSON"),
        (lambda _: it(Odd).moment > datetime(2026, 1, 1, tzinfo=UTC), "a datetime is a text in JSON"),
        (lambda _: it(Odd).raw + b"", "bytes are a text in JSON"),
        (lambda _: present(it(Odd).proto), "input.proto is not JSON: it can only be passed on whole"),
        (lambda _: it(Odd).sealed == it(Odd).sealed, "is not JSON"),
        (lambda o: 1 if o.gift & o.vip else 2, r"For `and`, `or` and `not` write &, | and not_"),
        (lambda o: "a" in o.tags, r"for `in` write contains"),
        (lambda o: f"{o.name}", r"write text\(…\), and join texts with \+"),
        (lambda o: [o := o // o for _ in range(9)], "may have 2000 characters, and this one is longer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_where_it_is_written(make: Callable[[Any], object], told: str) -> None:
    order = it()
    with pytest.raises(DefinitionError, match=told) as caught:
        make(order.count if "o // o" in told or "2000" in told else order)
    assert isinstance(caught.value, ReferenceUseError)


WORDS = st.text(st.sampled_from('ab "\\ß\n😀${}'), max_size=4)
SMALL = st.integers(-(2**20), 2**20)  # far from where doubles and 64 bits end: what is there is another test
REAL = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
ORDERS = st.builds(
    Order, count=SMALL, other=SMALL, price=REAL, rate=REAL, name=WORDS, note=WORDS, gift=st.booleans(),
    vip=st.booleans(), tags=st.lists(WORDS, max_size=3), sizes=st.lists(SMALL, max_size=3),
    address=st.none() | st.builds(Address, WORDS, st.lists(WORDS, max_size=2)), coupon=st.none() | WORDS,
    rooms=st.dictionaries(WORDS, st.builds(Address, WORDS), max_size=2), anything=st.none(),
)  # fmt: skip

Node = tuple[Any, ...]
"""An expression as a tree: a field, a literal, or an operation on nodes."""


def nodes(leaves: st.SearchStrategy[Node], *operations: tuple[str, int]) -> st.SearchStrategy[Node]:
    def extend(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        return st.one_of([st.tuples(st.just(name), *[inner] * arity) for name, arity in operations])

    return st.recursive(leaves, extend, max_leaves=5)


def fields(*names: str) -> st.SearchStrategy[Node]:
    return st.sampled_from([("field", name) for name in names])


def literals(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Node]:
    return values.map(lambda value: ("literal", value))


INTS = nodes(fields("count", "other") | literals(SMALL), ("+", 2), ("-", 2), ("*", 2), ("neg", 1), ("%", 2), ("//", 2))
NUMBERS = nodes(
    fields("count", "other", "price", "rate") | literals(SMALL | REAL),
    ("+", 2), ("-", 2), ("*", 2), ("/", 2), ("neg", 1),
)  # fmt: skip
TEXTS = nodes(fields("name", "note") | literals(WORDS) | st.tuples(st.just("text"), INTS), ("+", 2))
COMPARED = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
CONDITIONS = nodes(
    fields("gift", "vip") | st.tuples(COMPARED, INTS | NUMBERS, NUMBERS) | st.tuples(COMPARED, TEXTS, TEXTS)
    | st.tuples(st.just("in"), fields("tags"), TEXTS) | st.tuples(st.just("in"), TEXTS, TEXTS)
    | st.tuples(st.just("present"), fields("address", "coupon", "name")),
    ("&", 2), ("|", 2), ("not", 1),
)  # fmt: skip
CHOICES = st.tuples(st.just("if"), CONDITIONS, INTS, NUMBERS) | st.tuples(st.just("if"), CONDITIONS, TEXTS, TEXTS)

IN_BOTH: dict[str, Callable[..., Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "%": operator.mod,
    "//": operator.floordiv, "neg": operator.neg, "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge, "&": operator.and_, "|": operator.or_,
}  # fmt: skip


def chosen(condition: bool, one: Any, other: Any) -> Any:
    """A whole number or one with a fraction is one with a fraction to CEL."""
    value = one if condition else other
    return float(value) if isinstance(one, float) or isinstance(other, float) else value


IN_PYTHON: dict[str, Callable[..., Any]] = {
    **IN_BOTH, "not": operator.not_, "in": operator.contains, "text": str, "if": chosen,
    "present": lambda value: value is not None,
}  # fmt: skip
IN_SAGAS: dict[str, Callable[..., Any]] = {
    **IN_BOTH, "not": not_, "in": contains, "text": text, "if": if_else, "present": present,
}  # fmt: skip


def made(node: Node, order: Any, meanings: dict[str, Callable[..., Any]]) -> Any:
    name, *operands = node
    if name == "field":
        return getattr(order, operands[0])
    if name == "literal":
        return operands[0]
    return meanings[name](*[made(each, order, meanings) for each in operands])


@given(st.one_of(INTS, NUMBERS, TEXTS, CONDITIONS, CHOICES), ORDERS)
def test_the_orchestrator_finds_the_value_that_python_finds(node: Node, order: Order) -> None:
    try:
        expected = made(node, order, IN_PYTHON)
    except (ZeroDivisionError, OverflowError):
        expected = None
    try:
        reference = made(node, it(), IN_SAGAS)
    except (ZeroDivisionError, ReferenceUseError) as error:  # a literal alone, or a text that grows too long
        assume("is longer" not in str(error) and not isinstance(error, ZeroDivisionError))
        raise
    assume(isinstance(reference, Reference))
    if expected is not None and not beyond_64_bits(node, order):
        assert value_of(reference, order) == expected, cel(reference)
    else:  # a value that Python does not have, or CEL: there is none, or what needs it is not looked at
        with suppress(TemplateError):
            value_of(reference, order)


def beyond_64_bits(node: Node, order: Order) -> bool:
    """Whether a whole number on the way is none of CEL's."""
    name, *operands = node
    if name in ("field", "literal"):
        return False
    value = made(node, order, IN_PYTHON)
    if isinstance(value, int) and abs(value) >= 2**62:
        return True
    return any(beyond_64_bits(each, order) for each in operands)


def test_whole_floats_that_come_as_integers_are_calculated_with_as_floats() -> None:
    data = asdict(Order(2, 3, 5.0, 0.5, "", "", True, True, [], []))
    data["price"] = 5
    assert value_of(it().price * it().count / 4, data) == 2.5
    assert value_of(-it().price, data) == -5.0
    assert value_of(it().price == 5.0, data) is True
    assert value_of(contains([5.0, 1.0], it().price), data) is True


@pytest.mark.parametrize("missing", [True, False])
def test_what_is_absent_is_found_out_without_an_error(missing: bool) -> None:
    data: dict[str, Any] = asdict(Order(2, 3, 5.0, 0.5, "", "", True, True, [], []))
    if missing:
        del data["address"], data["coupon"]
    order = it()
    assert value_of(present(order.address.lines[0]), data) is False
    assert value_of(order.coupon != None, data) is False  # noqa: E711 - an operator here
    assert value_of(if_else(present(order.address), order.address.city, "none"), data) == "none"
    data["address"] = {"city": "Ulm", "lines": ["x"]}
    assert value_of(present(order.address.lines[0]), data) is True
    assert value_of(present(order.address.lines[1]), data) is False
    assert value_of(if_else(present(order.address), order.address.city, "none"), data) == "Ulm"
