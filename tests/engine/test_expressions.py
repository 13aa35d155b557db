"""Expressions: what they may say, what they give, and that nobody can make them hang or grow."""

from __future__ import annotations

import json
import resource
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amends_server.engine.data.expressions import (
    DATA_SIZE_MAX,
    LENGTH_MAX,
    RESULT_SIZE_MAX,
    compile_expression,
)
from amends_server.engine.data.jsonvalue import JsonValue, TemplateError
from amends_server.engine.data.path import Root, Values
from amends_server.engine.data.template import parse_template
from amends_server.engine.payload import Json, Opaque, Payload

LONG = "x" * (DATA_SIZE_MAX // 2)
INPUT = {"a": 1, "b": 2.5, "s": "x", "l": [1, 2, 3], "n": None, "o": {"k": "v"}}
SECONDS_MAX = 5.0
"""The most of the processor that the most hostile expression may take."""


def values(**roots: Any) -> Values:
    found: dict[Root, Payload | JsonValue] = {
        ("input",): Json(json.dumps(roots.get("input", INPUT))),
        ("steps", "a", "output"): roots.get("output", Json('{"n":3}')),
        ("steps", "a", "error"): None,
        ("saga", "id"): "s-1",
        ("saga", "labels"): {"team": "red"},
        ("error",): {"code": "NO", "message": "No.", "participant": "p", "data": {"n": 1}},
    }
    return Values(lambda root: found[root])


def evaluate(text: str, **roots: Any) -> JsonValue:
    return compile_expression(text, error=True).evaluate(values(**roots))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("input.a + 1", 2),
        ("double(input.a) * input.b", 2.5),
        ("input.a > 0 && input.s == 'x'", True),
        ("steps.a.output.n * 2", 6),
        ("steps.a.error == null", True),
        ("'order ' + saga.id", "order s-1"),
        ("saga.labels.team", "red"),
        ("saga.labels['team']", "red"),
        ("error.code == 'NO' && error.data.n == 1", True),
        ("input.l.filter(i, i > 1).map(i, i * 10)", [20, 30]),
        ("input.l.exists(i, i == 2)", True),
        ("{'id': saga.id, 'all': input.l, 'none': null}", {"id": "s-1", "all": [1, 2, 3], "none": None}),
        ("[input.o, 1.5, 'x', true]", [{"k": "v"}, 1.5, "x", True]),
        ("has(input.zz) ? input.zz : 0", 0),
        ("2u + 3u", 5),
        ("input.a == 1.0", True),
        ("input.s.matches('^x$')", True),
        ("input.s.matches(r'^\\w$')", True),
        ("string(timestamp('2020-01-01T00:00:00Z'))", "2020-01-01T00:00:00Z"),
        ("size('steps.b.output')", 14),
        ("input.l.size()", 3),
        ("true", True),
        ("null", None),
    ],
)
def test_an_expression_has_a_value(text: str, value: JsonValue) -> None:
    found = evaluate(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("input.a +", "1:10"),
        ("input.a + foo", "1:11: undeclared reference to 'foo'"),
        ("1 + 'x'", "no matching overload"),
        ("steps.a", "1:6"),
        ("steps.a.input", "undeclared"),
        ("steps", "undeclared"),
        ("saga.secret", "undeclared"),
        ("secret.id", "undeclared"),
        ("saga.id == 1 + ", "Syntax error"),
        ("b'abc'", "bytes"),
        ("timestamp('2020-01-01T00:00:00Z')", "timestamp"),
        ("type(1)", "type"),
        ("", "sound"),
        ("input.s.matches(input.s)", "literal"),
        ("matches(input.s, 'x')", "literal"),
        ("input.s.matches(r'a\\' + input.s + ')')", "raw string"),
        ("input.s.matches('a'//')\n + input.s)", "comments"),
        ("input.l.all//c\n(x, input.l.all//c\n(y, input.l.all//\n(z, input.s != 'b')))", "comments"),
        ("r'\\' == input.s || input.l.all// '\n(x, true)", "raw string"),
        ("1 + 1 // two", "comments"),
        (f"'{'x' * LENGTH_MAX}'", "characters"),
        ("(" * 40 + "1" + ")" * 40, "recursion"),
        ("[1]" + ".map(x, x)" * 5, "loops"),
        ("[1].map(x, [x,x,x,x,x,x,x,x].map(y, [y,y,y,y,y,y,y,y,y]))", "too often"),
        ("[1].map /* */ (x, x)", "Syntax"),
    ],
)
def test_what_is_no_sound_expression_is_refused(text: str, says: str) -> None:
    with pytest.raises(TemplateError) as refused:
        compile_expression(text)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("input.zz + 1", "there is no `zz`"),
        ("input.a / 0", "zero"),
        ("input.l[7] + 0", "Index error"),
        ("1.0 / 0.0", "inf"),
        ("0.0 / 0.0", "nan"),
        ("input.a * input.b", "overload"),
        ("input.s + 1", "overload"),
        ("{1: 2}", "keys"),
        ("18446744073709551615u", "larger"),
        ("[b'x']", "bytes"),
        ("[type(input.a)]", "type"),
        ("9223372036854775807 + input.a", "overflow"),
        ("input.l.map(x, x)[9] == 1", "Index error"),
    ],
)
def test_what_has_no_value_names_the_expression(text: str, says: str) -> None:
    with pytest.raises(TemplateError) as refused:
        evaluate(text)
    assert f"`{text}`" in str(refused.value)
    assert says in str(refused.value)


def test_a_condition_is_true_or_false() -> None:
    assert compile_expression("input.a == 1").holds(values()) is True
    with pytest.raises(TemplateError, match="true or false"):
        compile_expression("input.a").holds(values())


def test_integers_that_cel_does_not_have_are_doubles() -> None:
    assert evaluate("input.big / 2.0", input={"big": 2**70}) == 2.0**69
    assert evaluate("input.a", input={"a": 1, "big": 2**70}) == 1
    with pytest.raises(TemplateError, match="too large"):
        evaluate("input.big", input={"a": 1, "big": 10**400})


def test_only_json_can_be_calculated_with() -> None:
    with pytest.raises(TemplateError, match="not JSON"):
        evaluate("steps.a.output.n + 1", output=Opaque(b"1", "text/plain"))
    assert evaluate("steps.a.output == null", output=None) is True


def test_a_template_holds_paths_and_expressions() -> None:
    template = parse_template('{"a":"${input.a + 1}","b":"${input.o.k}","c":["${ saga.id + \'!\' }"]}')
    assert [path.text for path in template.paths] == ["input.o.k"]
    assert [expression.text for expression in template.expressions] == ["input.a + 1", "saga.id + '!'"]
    assert template.fill(values().whole) == Json('{"a":2,"b":"v","c":["s-1!"]}')


# What they may read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("input.a + 1", 2),
        ("has(input.a) && !has(input.zz)", True),
        ("input.o.k == 'v' && input.o.deep.n == 1 && size(input.o.deep) == 1", True),
        ("input.o.k.size() + input.few.map(i, i * input.a)[1]", 3),
        ('"a" in input && dyn(input.a) != null', True),
        ("('zz' in input.o) || !('k' in input.o)", False),
        ("'x' + 'a' in input", None),
        ("'zz' in input == true", None),
        ("input . a", None),
        ("input.o == input.o", None),
        ("input.a + .input.s.size()", None),
        ("size(input)", None),
        ("has(input.a) && input['a'] == 1", None),
    ],
)
def test_only_what_is_read_by_names_counts(text: str, value: JsonValue) -> None:
    data = {"a": 1, "few": [1, 2], "o": {"k": "v", "s": LONG, "t": LONG, "deep": {"n": 1}}, "s": LONG, "t": LONG}
    if value is not None:
        assert evaluate(text, input=data) == value
        return
    with pytest.raises(TemplateError, match="name the fields that it needs"):
        evaluate(text, input=data)


def test_what_is_not_read_may_hold_what_cel_does_not_have() -> None:
    assert evaluate("input.a", input={"a": 1, "nul": "\0", "large": 10**400}) == 1


# Hostile ones

BIG: JsonValue = {"s": LONG, "l": list(range(DATA_SIZE_MAX // 2 - 10)), "a": 1}
HOSTILE = [
    "input.l.map(x, size(input.s))",
    "input.l.all(x, input.l.all(y, true))",
    "input.l.map(x, input.l.map(y, y))",
    "input.l.map(x, input.s + 'a')",
    "input.l.filter(x, input.l == input.l)",
    "input.l.map(x, input.s.matches('(x+)+y'))",
    "input.l.map(x, input.s.contains('xxxxxy'))",
    "[input.s].map(x,x+x+x+x).map(x,x+x+x+x)[0]",
    "[input.s].map(x,x+x+x).map(x,x+x+x).map(x,x+x).map(x,x+x)[0].size()",
    "[1]" + ".map(x,[x,x,x,x])" * 3,
    "[[1]].map(x,[x,x,x,x]).map(x,[x,x,x,x]).map(x,[x,x,x,x]) == [[1]]",
    "input.s + " * 100 + "input.s",
    "[" + ",".join(["input"] * 200) + "]",
    "{'a': input, 'b': [input, input]}",
    "input.s.matches('" + "(x?)" * 300 + "')",
    "-" * 1000 + "1",
    "!" * 1000 + "true",
    " && ".join(["input.s == input.s"] * 90),
    "input.l.exists(x, " + " || ".join(["input.s.matches('y+z')"] * 50) + ")",
    "[0,1,2,3,4,5,6,7,8,9].map(a,[0,1,2,3,4,5,6,7,8,9].map(b,[0,1,2,3,4,5,6,7,8,9].map(c,[a,b,c])))",
    "input.l" + ".map(x, x)" * 4,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("data", [BIG, {"s": LONG, "l": [1, 2], "a": 1}, {"s": "x", "l": list(range(900)), "a": 1}])
def test_a_hostile_expression_neither_hangs_nor_grows(text: str, data: JsonValue) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    try:
        found = evaluate(text, input=data)
    except TemplateError as refused:
        assert len(str(refused)) < 2 * LENGTH_MAX  # noqa: PT017 - being refused is as good as having a value
    else:
        assert len(json.dumps(found)) < 8 * RESULT_SIZE_MAX
    assert time.process_time() - began < SECONDS_MAX
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 600_000


ATOMS = st.sampled_from(
    [
        "1",
        "2.5",
        "'x'",
        "true",
        "null",
        "input",
        "input.a",
        "input.s",
        "input.l",
        "input.o",
        "saga.id",
        "x",
        "b'y'",
        "1u",
    ]
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda e: st.one_of(
        st.builds("({} {} {})".format, e, st.sampled_from(["+", "*", "-", "/", "==", "<", "&&", "||", "in"]), e),
        st.builds("{}.{}(x, {})".format, e, st.sampled_from(["map", "filter", "all", "exists"]), e),
        st.builds("[{}, {}]".format, e, e),
        st.builds("{{'k': {}}}".format, e),
        st.builds("{}[{}]".format, e, e),
        st.builds("({} ? {} : {})".format, e, e, e),
        st.builds("{}({})".format, st.sampled_from(["size", "string", "int", "double", "type", "dyn", "-", "!"]), e),
    ),
    max_leaves=12,
)


@settings(max_examples=400)
@given(EXPRESSIONS | st.text(max_size=60) | st.text(alphabet="input.a()[]+'\"x,{}:?&|!<>=0123 \\\n", max_size=80))
def test_any_expression_has_a_json_value_or_is_refused(text: str) -> None:
    began = time.process_time()
    try:
        found = evaluate(text)
    except TemplateError as refused:
        assert str(refused)  # noqa: PT017 - being refused is as good as having a value
    else:
        json.dumps(found, allow_nan=False)
    assert time.process_time() - began < SECONDS_MAX


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=10,
    )
)
def test_data_go_through_an_expression_unchanged(value: Any) -> None:
    try:
        found = evaluate("[input.x][0]", input={"x": value})
    except TemplateError as refused:
        assert "too large" in str(refused) or "NUL" in str(refused)  # noqa: PT017 - what CEL cannot hold
        return
    if "e+" not in json.dumps(found):  # what is no int64 has become a double
        assert found == value


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("input.m[input.k]", "Key not found in map"),
        ("{'a': 1}[input.k]", "Key not found in map"),
        ("input.q + 1", "there is no `q`"),
        ("[1][input.n]", "Index error"),
        ("timestamp(input.k) < timestamp(input.k)", "String to Timestamp conversion failed"),
        ("int(input.k)", "cannot convert string to int"),
        ("input.k + 1", "No matching overloads found : _+_(string, int64)"),
    ],
)
def test_i46_what_is_said_of_an_expression_quotes_no_data(text: str, meant: str) -> None:
    data = Json('{"m":{},"k":"SECRET-4111","n":4111}')
    with pytest.raises(TemplateError) as told:
        compile_expression(text).evaluate(Values(lambda _: data))
    assert str(told.value) == f"`{text}` has no value: {meant}."
