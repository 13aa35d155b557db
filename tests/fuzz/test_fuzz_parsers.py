"""Every parser with hostile text: a value, or the error that it promises; what one takes, others can read."""

from __future__ import annotations

import base64
import json
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amends.v1 import orchestrator_pb2, payload_pb2
from amends_server.addresses import is_allowed, parse_address, parse_pattern
from amends_server.cli.exits import CommandError
from amends_server.cli.options import read_duration, read_json, read_time
from amends_server.convert.payload import read_payload
from amends_server.engine.data.expressions import compile_expression
from amends_server.engine.data.jsonvalue import TemplateError, parse_json, to_json
from amends_server.engine.data.making import Making
from amends_server.engine.data.path import Values, looks_like_path, parse_path
from amends_server.engine.data.template import parse_template
from amends_server.engine.payload import Json
from amends_server.errors import BadField, PayloadTooLarge
from amends_server.service.fields import read_token, write_token
from amends_server.tokens import Tokens
from tests.fuzz.messages import Maker

BYTES_MAX = 1 << 20
EXAMPLES = settings(max_examples=150)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
JSON_TEXTS = st.builds(json.dumps, ANY_JSON, ensure_ascii=st.booleans())
NEARLY_JSON = st.builds(
    lambda text, at, put: text[: at % (len(text) + 1)] + put + text[at % (len(text) + 1) :],
    JSON_TEXTS,
    st.integers(0, 1_000),
    st.sampled_from(["", ",", "}", '"', "\\", "\\ud800", "\x00", "1e999", "-0", "NaN", "\ufeff", "//", "é", "\u2028"]),
)
MADE = st.builds(lambda seed: Maker(Random(seed), {}), st.integers(0, 1 << 32))
EXPRESSIONS = MADE.map(lambda maker: maker.expression()) | st.text(max_size=60)
TEMPLATES = MADE.map(lambda maker: maker.template()) | NEARLY_JSON | st.text(max_size=60)
PATHS = st.text(st.sampled_from('inputsteps.a_[]"0\\\u00e9 '), max_size=30) | st.text(max_size=30)


@EXAMPLES
@given(NEARLY_JSON | st.text())
@example("-0")
@example("1" * 5_000)
@example('{"a":1,"a":2}')
def test_json_that_is_taken_as_data_can_be_read_by_the_engine(text: str) -> None:
    try:
        payload = read_payload(payload_pb2.Payload(json=text), "input", BYTES_MAX)
    except (BadField, PayloadTooLarge, UnicodeEncodeError):  # half a character does not even get onto the wire
        return
    assert payload == Json(text)
    assert parse_json(to_json(parse_json(text)).text) == parse_json(text)


@EXAMPLES
@given(NEARLY_JSON | st.text())
def test_json_is_read_or_refused(text: str) -> None:
    try:
        value = parse_json(text)
    except TemplateError:
        return
    try:
        assert parse_json(to_json(value).text) == value
    except TemplateError as problem:
        assert "number that JSON cannot hold" in str(problem)  # noqa: PT017 – or the value comes back


@EXAMPLES
@given(TEMPLATES, st.booleans(), ANY_JSON)
def test_templates_are_filled_or_refused(text: str, error: bool, data: object) -> None:
    try:
        template = parse_template(text, error=error)
        filled = template.fill(lambda root: Json(json.dumps(data)) if root == ("input",) else None, Making(BYTES_MAX))
    except TemplateError:
        return
    assert isinstance(filled, Json)
    parse_json(filled.text)


@EXAMPLES
@given(EXPRESSIONS, ANY_JSON)
def test_expressions_have_a_value_or_are_refused(text: str, data: object) -> None:
    try:
        expression = compile_expression(text)
        value = expression.evaluate(Values(lambda root: Json(json.dumps(data)), Making(BYTES_MAX)))
    except TemplateError:
        return
    to_json(value)


@EXAMPLES
@given(PATHS, st.booleans())
def test_paths_are_read_or_refused(text: str, error: bool) -> None:
    try:
        path = parse_path(text, error=error)
    except TemplateError:
        return
    assert looks_like_path(text) or path.root
    assert path.text == text


@EXAMPLES
@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
@example("00" * 24)
def test_tokens_of_others_are_refused(text: str) -> None:
    request = orchestrator_pb2.ListSagasRequest(page_size=3)
    if text:
        with pytest.raises(BadField):
            read_token(text, request, (int, str))
    assert Tokens(b"secret").attempt_of("key", 0, text) is None


@EXAMPLES
@given(st.integers(-(1 << 63), (1 << 63) - 1), st.text(st.characters(min_codepoint=33, max_codepoint=126)))
def test_our_own_tokens_come_back(number: int, saga_id: str) -> None:
    request = orchestrator_pb2.ListSagasRequest(page_size=3)
    token = write_token([number, saga_id], request)
    if len(token) <= 1_000:
        assert read_token(token, request, (int, str)) == [number, saga_id]


@EXAMPLES
@given(st.text(st.sampled_from("ab1.:*[]-１:/@ "), max_size=20) | st.text(max_size=20))
@example("[::1]:１")
@example("host:00080")
def test_addresses_and_patterns_are_read_or_refused(text: str) -> None:
    for parse in (parse_address, parse_pattern):
        try:
            parse(text)
        except ValueError as problem:
            assert str(problem)  # noqa: PT017 – people have to be told
    try:
        address = str(parse_address(text))
    except ValueError:
        return
    assert address.isascii()
    assert is_allowed(address, ("*:*",))


@EXAMPLES
@given(st.text(st.sampled_from("0123456789.e-+:msdhTZ W\0é"), max_size=25) | NEARLY_JSON)
@example("1" * 400 + "d")
@example("9999-12-31T23:59:59-14:00")
@example("0001-01-01T00:00:00+14:00")
def test_options_of_the_command_line_are_read_or_refused(text: str) -> None:
    for read in (read_duration, read_time, read_json):
        try:
            read(text.lstrip("@-"), "--option")
        except CommandError as refusal:
            assert "--option" in str(refusal)  # noqa: PT017 – people have to be told
