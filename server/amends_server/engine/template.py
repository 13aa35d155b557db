"""JSON templates: texts in which a whole string `"${path}"` stands for a value of the saga's context.

A path starts at `input`, `steps.<id>.output`, `steps.<id>.error` or `saga.{id,namespace,definition,labels}` and goes on
with `.name`, `["any key"]` and `[0]`. A string that begins with `$${` is the same string with one `$` less.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isinf

from amends_server.engine.payload import Json, Payload

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
Lookup = Callable[["Path"], "Payload | JsonValue"]
"""Finds what a path's root stands for: a payload, or a JSON value where the root has none."""

DEPTH_MAX = 64
"""How deep JSON may nest: deeper is hostile, and Python's parser would hit its own limit."""

_SEGMENT = re.compile(
    r"""\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\[(?P<index>[0-9]{1,9})\]|\[(?P<key>"(?:[^"\\]|\\.)*")\]"""
)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_FIRST = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SAGA_FIELDS = frozenset({"id", "namespace", "definition", "labels"})
_STEP_FIELDS = frozenset({"output", "error"})


class TemplateError(Exception):
    """A template that cannot be read, or a path that leads nowhere. The text says which and what is allowed."""


@dataclass(frozen=True, slots=True)
class Path:
    """A way into the context: from a `root` (`input`,), (`steps`, id, field) or (`saga`, field) on by `rest`."""

    root: tuple[str, ...]
    rest: tuple[str | int, ...]
    text: str

    @property
    def step(self) -> str | None:
        """The step that the path needs, if any."""
        return self.root[1] if self.root[0] == "steps" else None


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read: a JSON value in whose tree paths stand for values."""

    tree: object
    paths: tuple[Path, ...]

    def fill(self, lookup: Lookup) -> Payload:
        """Return the template's value. A template that is one whole payload gives that payload, of whatever form.

        :raises TemplateError: if a path leads nowhere or into data that is not JSON.
        """
        if isinstance(self.tree, Path) and not self.tree.rest:
            found = lookup(self.tree)
            return found if isinstance(found, Payload) else _json(found)
        return _json(_fill(self.tree, lookup))


def parse_template(text: str) -> Template:
    """Read a template.

    :raises TemplateError: if it is no JSON or holds something else than plain paths.
    """
    tree = _compile(parse_json(text))
    return Template(tree, tuple(_paths(tree)))


def parse_json(text: str) -> JsonValue:
    """Read a JSON text.

    :raises TemplateError: if it is not valid, nests deeper than DEPTH_MAX, or holds half a character.
    """
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"This is not valid JSON: {error}.") from None
    if _depth_exceeds(value, DEPTH_MAX):
        raise TemplateError(f"JSON may nest {DEPTH_MAX} levels deep at the most.")
    if _HALF.search(text):
        _refuse_halves(value)
    return value


def parse_path(text: str) -> Path:
    """Read a path such as `input.order.id`.

    :raises TemplateError: if it is anything else.
    """
    segments = list(_segments(text))
    root_length = {"input": 1, "steps": 3, "saga": 2}.get(str(segments[0]))
    if root_length is None:
        raise TemplateError(f"`{text}` must begin with input, steps or saga.")
    root, rest = segments[:root_length], tuple(segments[root_length:])
    if root[0] == "steps" and (len(root) < 3 or root[2] not in _STEP_FIELDS):
        raise TemplateError(f"`{text}` must go on as steps.<id>.output or steps.<id>.error.")
    if root[0] == "saga" and (len(root) < 2 or root[1] not in _SAGA_FIELDS):
        raise TemplateError(f"`{text}` must go on as saga.id, saga.namespace, saga.definition or saga.labels.")
    return Path(tuple(str(part) for part in root), rest, text)


def _segments(text: str) -> Iterator[str | int]:
    first = _FIRST.match(text)
    position = first.end() if first else 0
    if first:
        yield first.group()
    while first and position < len(text):
        match = _SEGMENT.match(text, position)
        if match is None:
            break
        position = match.end()
        if match["name"] is not None:
            yield match["name"]
        else:
            yield int(match["index"]) if match["index"] is not None else _unquote(match["key"])
    if not first or position < len(text):
        raise TemplateError(
            f"`{text}` is no plain path such as input.order.id; it cannot be read from position {position}."
        )


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        raise TemplateError(f"{text} is no valid JSON string.") from None


def _refuse_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not a JSON value")


def _refuse_halves(value: JsonValue) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise TemplateError("JSON that holds a lone surrogate is no Unicode text.") from None


def _depth_exceeds(value: JsonValue, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_depth_exceeds(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_depth_exceeds(item, levels - 1) for item in value)
    return False


def _compile(value: JsonValue) -> object:
    if isinstance(value, dict):
        return {key: _compile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_compile(item) for item in value]
    if isinstance(value, float) and isinf(value):
        raise TemplateError("The template holds a number that is too large.")
    return _compile_text(value) if isinstance(value, str) else value


def _compile_text(text: str) -> object:
    if text.startswith("$${"):
        return text[1:]
    if text.startswith("${") and text.endswith("}"):
        return parse_path(text[2:-1].strip())
    if "${" in text:
        raise TemplateError(
            f"`{text}` mixes text and an expression; the whole string must be one ${{path}}, or begin with $${{."
        )
    return text


def _paths(tree: object) -> Iterator[Path]:
    match tree:
        case Path():
            yield tree
        case dict():
            for item in tree.values():  # pyright: ignore[reportUnknownVariableType]
                yield from _paths(item)  # pyright: ignore[reportUnknownArgumentType]
        case list():
            for item in tree:  # pyright: ignore[reportUnknownVariableType]
                yield from _paths(item)  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return


def _fill(tree: object, lookup: Lookup) -> JsonValue:
    match tree:
        case Path():
            return _walk(tree, lookup(tree))
        case dict():
            return {key: _fill(item, lookup) for key, item in tree.items()}  # pyright: ignore
        case list():
            return [_fill(item, lookup) for item in tree]  # pyright: ignore
        case _:
            return tree  # type: ignore[return-value]  # pyright: ignore


def _walk(path: Path, found: Payload | JsonValue) -> JsonValue:
    if isinstance(found, Json):
        value = parse_json(found.text)
    elif isinstance(found, Payload):
        raise TemplateError(f"`{path.text}` leads into data that is not JSON; only the whole value can be passed on.")
    else:
        value = found
    for segment in path.rest:
        value = _enter(path, value, segment)
    return value


def _enter(path: Path, value: JsonValue, segment: str | int) -> JsonValue:
    if isinstance(segment, str) and isinstance(value, dict) and segment in value:
        return value[segment]
    if isinstance(segment, int) and isinstance(value, list) and segment < len(value):
        return value[segment]
    raise TemplateError(f"`{path.text}` leads nowhere: there is no {json.dumps(segment)}.")


def _json(value: JsonValue) -> Json:
    try:
        return Json(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))
    except ValueError:
        raise TemplateError("The value holds a number that JSON cannot hold.") from None
