"""Hostile JSON Schemas: what would take too long is refused, with its definition or before data are checked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amends_server.engine.checks.dataflow import SCHEMA_PATTERNS_MAX
from amends_server.engine.checks.validation import check
from amends_server.engine.data.bounds import PATTERNS_MAX, SCHEMA_LENGTH_MAX, STACK_MAX, SUBSCHEMAS_MAX, WORK_MAX
from amends_server.engine.data.jsonvalue import DEPTH_MAX, JsonValue, TemplateError
from amends_server.engine.data.schema import Schema, Violation, parse_schema
from tests.engine.build import compensatable, define

CHECK_S_MAX = 20.0
"""Of the processor. A few seconds are meant; what is out of bounds takes hours."""


def read(schema: object) -> Schema:
    return parse_schema(json.dumps(schema))


def chain(count: int, link: Callable[[str], object], end: object) -> object:
    """A schema of parts that refer to the next one each."""
    parts = {f"d{i}": link(f"#/$defs/d{i + 1}") for i in range(count)}
    return {"$defs": {**parts, f"d{count}": end}, "$ref": "#/$defs/d0"}


def twice(keyword: str) -> Callable[[str], object]:
    return lambda ref: {keyword: [{"$ref": ref}, {"$ref": ref}]}


def nested(depth: int, leaf: JsonValue = 1) -> JsonValue:
    for _ in range(depth):
        leaf = {"a": leaf}
    return leaf


TWO_HANDS = {"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["x"]}, {"properties": {"a": {"$ref": "#"}}}]}

HOSTILE: dict[str, tuple[object, str]] = {
    "branches that double": (chain(30, twice("allOf"), {"type": "string"}), "subschemas stand inside of each other"),
    "fewer that double": (chain(14, twice("allOf"), {"enum": list(range(500))}), "looks at one place too often"),
    "alternatives that double": (chain(14, twice("oneOf"), {"enum": list(range(500))}), "one place too often"),
    "itself": ({"$ref": "#"}, "refers to itself"),
    "itself in a branch": ({"properties": {"a": {"allOf": [{"$ref": "#/properties/a"}]}}}, "refers to itself"),
    "a circle": (chain(3, lambda ref: {"not": {"$ref": ref}}, {"$ref": "#/$defs/d1"}), "refers to itself"),
    "a long way": (chain(STACK_MAX + 1, lambda ref: {"$ref": ref}, {}), "subschemas stand inside of each other"),
    "many parts": ({"properties": {f"p{i}": {} for i in range(SUBSCHEMAS_MAX)}}, "subschemas at the most"),
    "much text": ({"description": "x" * SCHEMA_LENGTH_MAX}, "characters at the most"),
    "another document": ({"$ref": "http://127.0.0.1/x"}, "leads out of the schema"),
    "a file": ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "leads out of the schema"),
    "an anchor": ({"$defs": {"a": {"$anchor": "x"}}, "$ref": "#x"}, "or to an anchor"),
    "another way to write it": ({"$defs": {"a b": {}}, "$ref": "#/$defs/a%20b"}, "is encoded"),
    "nowhere": ({"$ref": "#/$defs/gone"}, "leads nowhere"),
    "another name": ({"$defs": {"a": {"$id": "http://x/a"}}, "$ref": "#/$defs/a"}, "at the root only"),
    "a dynamic reference": ({"$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}}, "is not allowed"),
    "what is left over": ({"allOf": [{}], "unevaluatedProperties": False}, "is not allowed"),
    "what is left over of a list": ({"unevaluatedItems": False}, "is not allowed"),
    "a pattern that unfolds": ({"pattern": "(?:a{1,200}){1,100}b"}, "too large"),
    "one that unfolds more": ({"pattern": "((a{1,100}){1,100}){1,100}"}, "too large"),
    "one for names": ({"patternProperties": {r"(\w{1,100}){1,100}": {}}}, "too large"),
    "lookaround": ({"pattern": "(?=a)b"}, "linear time"),
    "a backreference": ({"pattern": r"(a)\1"}, "linear time"),
    "many patterns": ({"properties": {f"p{i}": {"pattern": f"^{i}$"} for i in range(PATTERNS_MAX + 1)}}, "patterns at"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_schema_that_could_take_too_long_is_refused_at_once(what: str) -> None:
    schema, why = HOSTILE[what]
    begin = time.process_time()
    with pytest.raises(TemplateError, match=why):
        read(schema)
    assert time.process_time() - begin < CHECK_S_MAX


def test_it_is_refused_with_its_definition() -> None:
    (problem,) = check(define(compensatable("a", output_schema=json.dumps(HOSTILE["itself"][0]))))
    assert (problem.code, problem.field) == ("SCHEMA_INVALID", "steps[0].output_schema")


def test_the_patterns_of_a_definition_are_counted_together() -> None:
    def schema(first: int) -> str:
        return json.dumps({"properties": {f"p{i}": {"pattern": f"^{i}$"} for i in range(first, first + 90)}})

    many = [compensatable(f"s{i}", output_schema=schema(90 * i)) for i in range(SCHEMA_PATTERNS_MAX // 90 + 1)]
    assert [problem.code for problem in check(define(*many))] == ["SCHEMA_INVALID"]
    same = [compensatable(f"s{i}", output_schema=schema(0)) for i in range(20)]
    assert check(define(*same)) == []


LIST = {"type": "array", "items": {"$ref": "#/$defs/node"}}
TREE = {
    "$defs": {"node": {"type": "object", "properties": {"name": {"type": "string"}, "left": {"$ref": "#/$defs/node"},
                       "right": {"$ref": "#/$defs/node"}, "more": LIST}, "required": ["name"]}},
    "$ref": "#/$defs/node",
}  # fmt: skip
USUAL: dict[str, object] = {
    "a tree": TREE,
    "alternatives": {"items": {"oneOf": [{"type": "string", "pattern": "^[a-z]+$"}, {"type": "integer"}]}},
    "a large enum": {"items": {"enum": [f"{i:03}" for i in range(250)]}},
    "an address": {"additionalProperties": {"pattern": r"^[\w.+-]{1,64}@[a-z.-]{1,255}$"}},
    "anything": True,
    "a root with a name": {"$id": "http://x/order", "$defs": {"a": {}}, "$ref": "#/$defs/a"},
    "a schema of before": {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}},
                           "properties": {"id": {"$ref": "#/definitions/a"}}, "default": {"id": "x"}},
}  # fmt: skip


@pytest.mark.parametrize("what", USUAL)
def test_usual_schemas_are_taken(what: str) -> None:
    schema = read(USUAL[what])
    assert schema.bounds.costs[-1] * 10_000 < WORK_MAX or what == "an address"


def test_a_tree_is_checked_as_deep_as_data_may_be() -> None:
    data: dict[str, JsonValue] = {"name": "leaf"}
    for i in range(DEPTH_MAX - 1):
        data = {"name": str(i), "left": data}
    assert read(TREE).violation(json.dumps(data)) is None
    data["right"] = {}
    assert read(TREE).violation(json.dumps(data)) == Violation("right", '"name" is a required property')


def test_what_nests_too_deep_for_a_schema_is_not_checked() -> None:
    schema = read(TWO_HANDS)
    assert schema.violation(json.dumps(nested(6))) is None
    begin = time.process_time()
    with pytest.raises(TemplateError, match="nest too deep"):
        schema.violation(json.dumps(nested(60)))
    breach = schema.breach(None)
    assert breach is None
    assert time.process_time() - begin < CHECK_S_MAX


def test_the_same_patterns_take_less_text_than_they_are_large() -> None:
    schema = read({"items": {"pattern": r"(?:\w{1,200}){1,3}[cd]"}})
    assert schema.violation(json.dumps(["x" * 1_000])) is not None
    with pytest.raises(TemplateError, match="too large"):
        schema.violation(json.dumps(["x" * 1_000_000]))


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"type": "string"}},
        {"anyOf": [{"items": {"type": "string"}}, {"type": "string"}]},
        {"items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
    ],
    ids=["items", "branches", "items with branches"],
)
def test_what_is_wrong_with_large_data_is_found_fast(schema: object) -> None:
    """The library would list each of hundreds of thousands of errors, and take minutes."""
    begin = time.process_time()
    violation = read(schema).violation(json.dumps(list(range(150_000))))
    assert violation is not None
    assert violation.path in ("", "[0]")
    assert time.process_time() - begin < CHECK_S_MAX


def test_a_list_of_itself_has_a_type() -> None:
    schema = read(
        {
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "array", "items": {"$ref": "#/properties/a"}}},
        }
    )
    assert schema.field(["a"]).type is not None
    reader = compensatable("a", when="size(input.a) > 0 && input.a[0][0] == []")
    assert check(define(reader, input_schema=json.dumps(schema.tree))) == []


NAMES = st.sampled_from(["a", "b", "c"])
REFS = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/$defs/c"]).map(lambda ref: {"$ref": ref})
PATTERNS = st.sampled_from(["(a+)+$", "(a|a)*b", r"\w{1,50}c", "(?:a?){40}a{40}[cd]", "(x+x+)+y", "^[ab]*$"])
LEAVES = st.one_of(
    REFS,
    REFS,
    st.builds(lambda pattern: {"pattern": pattern}, PATTERNS),
    st.sampled_from([{"type": "string"}, {"type": "object"}, True, False, {"enum": [1, "a"]}, {"uniqueItems": True}]),
)


def larger(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    lists = st.lists(inner, min_size=1, max_size=4)
    return st.one_of(
        st.builds(lambda keyword, each: {keyword: each}, st.sampled_from(["allOf", "anyOf", "oneOf"]), lists),
        st.builds(lambda each: {"properties": each}, st.dictionaries(NAMES, inner, max_size=3)),
        st.builds(lambda each: {"patternProperties": each}, st.dictionaries(PATTERNS, inner, max_size=3)),
        st.builds(
            lambda keyword, each: {keyword: each},
            st.sampled_from(["items", "contains", "additionalProperties", "not", "if", "propertyNames"]),
            inner,
        ),
    )


SCHEMAS = st.recursive(LEAVES, larger, max_leaves=12)
HOSTILES = st.builds(
    lambda a, b, c, root: {"$defs": {"a": a, "b": b, "c": c}, "allOf": [root]}, SCHEMAS, SCHEMAS, SCHEMAS, SCHEMAS
)
DATA: st.SearchStrategy[JsonValue] = st.one_of(
    st.builds(nested, st.integers(0, DEPTH_MAX - 2)),
    st.builds(lambda depth, size: nested(depth, "a" * size), st.integers(0, DEPTH_MAX - 2), st.integers(0, 20_000)),
    st.builds(lambda size: list(range(size)), st.integers(0, 5_000)),
    st.builds(lambda size: {f"a{i}": "a" * i for i in range(size)}, st.integers(0, 200)),
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(HOSTILES, DATA)
def test_no_schema_takes_long(tree: object, data: JsonValue) -> None:
    text = json.dumps(data)
    begin = time.process_time()
    try:
        schema = read(tree)
        schema.violation(text)
        schema.field(["a", "b", "c"])
    except TemplateError as refused:
        assert len(str(refused)) > 20  # noqa: PT017 - either way it must be over soon
    assert time.process_time() - begin < CHECK_S_MAX
