"""JSON templates: texts in which a whole string `"${…}"` stands for a value of the saga's context.

Between the braces stands a plain path (see `path`), which is the fast way, or an expression (see `expressions`).
Anywhere in a string, `$${` stands for the text `${`: so a text is written literally by putting a `$` before each `${`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isinf
from typing import cast

from amends_server.engine.data.expressions import Expression, compile_expression
from amends_server.engine.data.jsonvalue import JsonValue, TemplateError, parse_json
from amends_server.engine.data.making import Making
from amends_server.engine.data.path import Lookup, Path, Values, looks_like_path, parse_path
from amends_server.engine.payload import PAYLOAD_BYTES_MAX, Payload
from amends_server.engine.value import dataclass

_MARK = "${"
_ESCAPED = "$${"
_UNESCAPED = re.compile(r"(?<!\$)\$\{")


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read: a JSON value in whose tree paths and expressions stand for values."""

    tree: object
    paths: tuple[Path, ...]
    expressions: tuple[Expression, ...]

    def fill(self, lookup: Lookup, making: Making | None = None) -> Payload:
        """Return the template's value. A template that is one whole payload gives that payload, of whatever form.

        `making` is the decision's; left out, the template is filled on its own.

        :raises TemplateError: if a path or expression has no value, leads into data that is not JSON, or makes more
            than a payload may have.
        """
        making = making or Making(PAYLOAD_BYTES_MAX)
        values = Values(lookup, making)
        if isinstance(self.tree, Path) and not self.tree.rest:
            found = values.whole(self.tree.root)
            return found if isinstance(found, Payload) else making.write(found, 1)
        return making.write(_fill(self.tree, values), len(self.paths) + len(self.expressions))


def parse_template(text: str, *, error: bool = False) -> Template:
    """Read a template; with `error`, one that may read the business error that it is for.

    :raises TemplateError: if it is no JSON, or what stands in its braces is neither a path nor an expression.
    """
    tree = _compile(parse_json(text), error)
    leaves = list(_leaves(tree))
    paths = tuple(leaf for leaf in leaves if isinstance(leaf, Path))
    return Template(tree, paths, tuple(leaf for leaf in leaves if isinstance(leaf, Expression)))


def _compile(value: JsonValue, error: bool) -> object:
    if isinstance(value, dict):
        return {key: _compile(item, error) for key, item in value.items()}
    if isinstance(value, list):
        return [_compile(item, error) for item in value]
    if isinstance(value, float) and isinf(value):
        raise TemplateError("The template holds a number that is too large.")
    return _compile_text(value, error) if isinstance(value, str) else value


def _compile_text(text: str, error: bool) -> object:
    if text.startswith(_MARK) and text.endswith("}"):
        inside = text[2:-1].strip()
        if looks_like_path(inside):
            return parse_path(inside, error=error)
        return compile_expression(inside, error=error)
    if _UNESCAPED.search(text):
        raise TemplateError(
            f"`{text}` mixes text and an expression; the whole string must be one ${{…}}. Put texts together inside of"
            " it: ${'order ' + input.id}. Where `${` is meant as it stands, write $${."
        )
    return text.replace(_ESCAPED, _MARK)


def _leaves(tree: object) -> Iterator[Path | Expression]:
    match tree:
        case Path() | Expression():
            yield tree
        case dict():
            for item in cast("dict[str, object]", tree).values():
                yield from _leaves(item)
        case list():
            for item in cast("list[object]", tree):
                yield from _leaves(item)
        case _:
            return


def _fill(tree: object, values: Values) -> JsonValue:
    match tree:
        case Path():
            return values.at(tree)
        case Expression():
            return tree.evaluate(values)
        case dict():
            return {key: _fill(item, values) for key, item in cast("dict[str, object]", tree).items()}
        case list():
            return [_fill(item, values) for item in cast("list[object]", tree)]
        case _:
            return cast("JsonValue", tree)
