"""Plain paths into the context of a saga, such as `input.order.id`, and the values that they lead to.

A path starts at `input`, `steps.<id>.output`, `steps.<id>.error` or `saga.{id,namespace,definition,labels}` and goes on
with `.name`, `["any key"]` and `[0]`. Where a business error is handled, it may start at `error` too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from amends_server.engine.data.jsonvalue import JsonValue, TemplateError
from amends_server.engine.data.making import Making
from amends_server.engine.payload import PAYLOAD_BYTES_MAX, Json, Payload
from amends_server.engine.value import dataclass

Root = tuple[str, ...]
"""What a path begins with: (`input`,), (`steps`, id, field), (`saga`, field) or (`error`,)."""

_FIRST = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEGMENT = re.compile(
    r"""\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\[(?P<index>[0-9]{1,9})\]|\[(?P<key>"(?:[^"\\]|\\.)*")\]"""
)
ROOT_LENGTHS = {"input": 1, "steps": 3, "saga": 2, "error": 1}
SAGA_FIELDS = frozenset({"id", "namespace", "definition", "labels"})
STEP_FIELDS = frozenset({"output", "error"})


@dataclass(frozen=True, slots=True)
class Path:
    """A way into the context: from its root on by `rest`."""

    root: Root
    rest: tuple[str | int, ...]
    text: str

    @property
    def step(self) -> str | None:
        """The step that the path needs, if any."""
        return step_of(self.root)


def step_of(root: Root) -> str | None:
    """Return the step that a root needs, if any."""
    return root[1] if root[0] == "steps" else None


Lookup = Callable[[Root], "Payload | JsonValue"]
"""Finds what a root stands for: a payload, or a JSON value where the root has none."""


class Values:
    """The values of one saga at one moment. Each payload is parsed when it is first looked into, and once."""

    __slots__ = ("_lookup", "_making", "_parsed")

    def __init__(self, lookup: Lookup, making: Making | None = None) -> None:
        self._lookup = lookup
        self._making = making or Making(PAYLOAD_BYTES_MAX)
        self._parsed: dict[Root, JsonValue] = {}

    def whole(self, root: Root) -> Payload | JsonValue:
        """Return what a root stands for, unread."""
        return self._lookup(root)

    def root(self, root: Root, text: str) -> JsonValue:
        """Return the JSON value that a root stands for. `text` is who asks.

        :raises TemplateError: if it is not JSON.
        """
        kept = self._parsed
        if root not in kept:
            found = self._lookup(root)
            if isinstance(found, Payload) and not isinstance(found, Json):
                raise TemplateError(
                    f"`{text}` leads into data that is not JSON; only the whole value can be passed on."
                )
            kept[root] = self._making.parse(found) if isinstance(found, Json) else found
        return kept[root]

    def at(self, path: Path) -> JsonValue:
        """Return the value at a path.

        :raises TemplateError: if it leads nowhere, or into data that is not JSON.
        """
        value = self.root(path.root, path.text)
        if value is None and path.rest and path.root[-1] == "output":
            raise TemplateError(f"`{path.text}` leads nowhere: the step has no output.")
        for segment in path.rest:
            value = _enter(path, value, segment)
        return value


def looks_like_path(text: str) -> bool:
    """Tell whether a text has the form of a path and begins with a word that paths begin with."""
    first = _FIRST.match(text)
    if first is None or first.group() not in ROOT_LENGTHS:
        return False
    position = first.end()
    while match := _SEGMENT.match(text, position):
        position = match.end()
    return position == len(text)


def parse_path(text: str, *, error: bool = False) -> Path:
    """Read a path such as `input.order.id`; with `error`, it may start there.

    :raises TemplateError: if it is anything else.
    """
    segments = list(_segments(text))
    root_length = ROOT_LENGTHS.get(str(segments[0]))
    if root_length is None or (segments[0] == "error" and not error):
        raise TemplateError(f"`{text}` must begin with input, steps or saga{', or error' if error else ''}.")
    root, rest = segments[:root_length], tuple(segments[root_length:])
    if root[0] == "steps" and (len(root) < 3 or root[2] not in STEP_FIELDS):
        raise TemplateError(f"`{text}` must go on as steps.<id>.output or steps.<id>.error.")
    if root[0] == "saga" and (len(root) < 2 or root[1] not in SAGA_FIELDS):
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


def _enter(path: Path, value: JsonValue, segment: str | int) -> JsonValue:
    if isinstance(segment, str) and isinstance(value, dict) and segment in value:
        return value[segment]
    if isinstance(segment, int) and isinstance(value, list) and segment < len(value):
        return value[segment]
    raise TemplateError(f"`{path.text}` leads nowhere: there is no {json.dumps(segment)}.")
