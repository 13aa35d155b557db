"""Templates: their grammar, what they are filled with, and JSON that means harm."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amends_server.engine.data.jsonvalue import DEPTH_MAX, JsonValue, TemplateError, parse_json
from amends_server.engine.data.path import Lookup, Path, Root, parse_path
from amends_server.engine.data.template import parse_template
from amends_server.engine.payload import Json, Message, Opaque, Payload


def never(root: Root) -> Payload | JsonValue:
    raise AssertionError(f"{root} was looked up")


def finds(value: Payload | JsonValue) -> Lookup:
    return lambda root: value


def fill(text: str, value: Payload | JsonValue) -> Payload:
    return parse_template(text).fill(finds(value))


@pytest.mark.parametrize(
    ("text", "root", "rest"),
    [
        ("input", ("input",), ()),
        ("input.order.id", ("input",), ("order", "id")),
        ("input[0][12].x", ("input",), (0, 12, "x")),
        ('input["any key"]["a\\"b"]', ("input",), ("any key", 'a"b')),
        ("steps.a.output", ("steps", "a", "output"), ()),
        ("steps.a.output.n", ("steps", "a", "output"), ("n",)),
        ('steps["a"].error.code', ("steps", "a", "error"), ("code",)),
        ("saga.id", ("saga", "id"), ()),
        ('saga.labels["team/x"]', ("saga", "labels"), ("team/x",)),
    ],
)
def test_a_path_is_read(text: str, root: tuple[str, ...], rest: tuple[str | int, ...]) -> None:
    assert parse_path(text) == Path(root, rest, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "input.",
        "input..a",
        "input[",
        "input[-1]",
        "input[1",
        "input[1.5]",
        "input['a']",
        "input[٣]",
        "input[1234567890]",
        "input a",
        "input + 1",
        "input.a-b",
        "input.größe",
        "output",
        "steps",
        "steps.a",
        "steps.a.input",
        "steps.a[0]",
        "saga",
        "saga.secret",
        "saga[0]",
        "1",
        "input\n",
    ],
)
def test_what_is_no_plain_path_is_refused_by_name(text: str) -> None:
    with pytest.raises(TemplateError) as refused:
        parse_path(text)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    "text", ['"a ${input}"', '"${input} b"', '"${input}${input}"', '"${input"', '{"a":["x${y}"]}', '"$${a} ${b}"']
)
def test_text_and_expressions_do_not_mix(text: str) -> None:
    with pytest.raises(TemplateError):
        parse_template(text)


@pytest.mark.parametrize(
    ("text", "value", "filled"),
    [
        ('"${ input }"', Json('{"x":1}'), '{"x":1}'),
        ('"${input.x}"', Json('{"x":[1,{"y":null}]}'), '[1,{"y":null}]'),
        ('{"a":"${input.x}","b":[true,"${input.x}"]}', Json('{"x":"ü"}'), '{"a":"ü","b":[true,"ü"]}'),
        ('"$${input}"', None, '"${input}"'),
        ('"price: $${x}, $${y}"', None, '"price: ${x}, ${y}"'),
        ('"$$${input}"', None, '"$${input}"'),
        ('"a $$ b $ {} $$"', None, '"a $$ b $ {} $$"'),
        ('"$${"', None, '"${"'),
        ('{"${input}":1}', None, '{"${input}":1}'),
        ('"$"', None, '"$"'),
        ('"${saga.id}"', "s", '"s"'),
        ('["${input}"]', None, "[null]"),
        ("12345678901234567890", None, "12345678901234567890"),
    ],
)
def test_a_template_is_filled(text: str, value: Payload | JsonValue, filled: str) -> None:
    assert fill(text, value) == Json(filled)


@pytest.mark.parametrize(
    "payload", [Json("[1, 2]"), Message("type.googleapis.com/x.Y", b"\x00"), Opaque(b"\xff", "application/x")]
)
def test_a_whole_payload_is_passed_on_as_it_is(payload: Payload) -> None:
    assert fill('"${input}"', payload) is payload


@pytest.mark.parametrize("text", ['"${input.x}"', '["${input}"]'])
def test_only_json_can_be_looked_into(text: str) -> None:
    with pytest.raises(TemplateError, match="not JSON"):
        fill(text, Opaque(b"{}", "application/json"))


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("input.x", "{}"),
        ("input.x", "[]"),
        ("input.x", "null"),
        ("input[0]", "[]"),
        ("input[0]", '{"0":1}'),
        ("input.x.y", '{"x":"text"}'),
        ("input.x", "{"),
    ],
)
def test_a_path_that_leads_nowhere_says_so(path: str, data: str) -> None:
    with pytest.raises(TemplateError):
        fill(f'"${{{path}}}"', Json(data))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "nul",
        "NaN",
        "Infinity",
        "-Infinity",
        "[1,]",
        "{'a':1}",
        "1 2",
        "\ufeff1",
        "01",
        '"\x00"',
        "1" * 5_000,
    ],
)
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        parse_json(text)


@pytest.mark.parametrize("levels", [DEPTH_MAX + 1, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_may_not_nest_too_deep(levels: int, opening: str, closing: str) -> None:
    with pytest.raises(TemplateError):
        parse_json(opening * levels + "1" + closing * levels)
    parse_json(opening * DEPTH_MAX + "1" + closing * DEPTH_MAX)


def test_a_number_that_json_cannot_hold_is_refused_with_the_template() -> None:
    """Python reads 1e999 as infinity: without this the definition would be sound and no saga of it could run."""
    with pytest.raises(TemplateError, match="Number"):
        parse_template('{"a":[1e999]}')
    with pytest.raises(TemplateError, match="Number"):
        fill('"${input.x}"', Json('{"x":-1e999}'))


def test_half_a_character_is_refused() -> None:
    """A lone surrogate is no Unicode text: it could be neither stored nor sent."""
    for text in ('"\\ud800"', '{"\\uDFFF":1}', '"\\ude00\\ud83d"'):
        with pytest.raises(TemplateError, match="not valid JSON"):
            parse_json(text)
    assert parse_json('"\\ud83d\\ude00 \\\\ud800"') == "😀 \\ud800"


TEXTS = st.text() | st.text(st.sampled_from("${}a"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4))


def escaped(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return {key: escaped(item) for key, item in value.items()} if isinstance(value, dict) else value


@settings(max_examples=300)
@given(VALUES)
def test_a_template_without_paths_is_the_value_that_it_is(value: JsonValue) -> None:
    template = parse_template(json.dumps(escaped(value)))
    filled = template.fill(never)
    assert isinstance(filled, Json)
    assert template.paths == ()
    assert same(json.loads(filled.text), value)


@settings(max_examples=200)
@given(VALUES)
def test_a_value_goes_through_a_path_unchanged(value: JsonValue) -> None:
    filled = fill('{"a":"${input.x}"}', Json(json.dumps({"x": value})))
    assert isinstance(filled, Json)
    assert same(json.loads(filled.text), {"a": value})
    filled.text.encode()


@settings(max_examples=300)
@given(st.text() | st.text(alphabet='${}[]".:,ainput01\\ '))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_template, parse_path):
        try:
            parse(text)
        except TemplateError as refused:
            assert str(refused)  # noqa: PT017 - being refused is as good as being read


def same(one: JsonValue, other: JsonValue) -> bool:
    """Equal, and of the same types: 1 is not 1.0 and not true."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize(
    ("number", "taken"),
    [("12345678901234567890.12", "1.2345678901234567e+19"), ("1.10", "1.1"), ("9" * 30, "9" * 30)],
)
def test_whole_payloads_keep_every_digit_and_numbers_taken_out_what_a_double_has(number: str, taken: str) -> None:
    assert fill('"${input}"', Json(f'{{"a":{number}}}')) == Json(f'{{"a":{number}}}')
    assert fill('{"x":"${input.a}"}', Json(f'{{"a":{number}}}')) == Json(f'{{"x":{taken}}}')
