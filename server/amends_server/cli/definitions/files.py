"""Definitions in files: YAML or JSON in the shape of amends.v1.Definition, by protobuf's JSON mapping."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import cast

import yaml
from google.protobuf import json_format

from amends.v1 import definition_pb2
from amends_server.cli.exits import usage_error
from amends_server.cli.options import json_error, read_text

# What json_format says of a message that it cannot read: the fields on the way, the problem, and often the place again.
_WAY = re.compile(r"^Failed to parse (\S+) field: ")
_PLACE = re.compile(r" at Definition\.?([^\s.]*(?:\.[^\s.]+)*)\.*$")
_UNKNOWN = re.compile(r'Message type "amends\.v1\.(\w+)" has no field named "([^"]*)" at "Definition\.?([^"]*)"')


def read_definition(path: Path) -> definition_pb2.Definition:
    """The definition in a file.

    :raises CommandError: if there is none; the text says where and what.
    """
    content = _read_json(path) if path.suffix == ".json" else _read_yaml(path)
    if not isinstance(content, dict):
        raise usage_error(f"{path} holds no definition: it must be a table with `name` and `steps`.")
    definition = definition_pb2.Definition()
    try:
        json_format.ParseDict(cast("dict[str, object]", content), definition)
    except json_format.ParseError as error:
        raise usage_error(f"{path} is no definition: {_sentence(str(error))}") from None
    return definition


def _read_json(path: Path) -> object:
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise json_error(str(path), text, error) from None


def _read_yaml(path: Path) -> object:
    try:
        return yaml.load(read_text(path), Loader=_Loader)  # noqa: S506 – it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise usage_error(f"{path} is not valid YAML{place}: {error.problem}.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise usage_error(f"{path} is not valid YAML: {error}.") from None


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"`{key.value}` is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"`{next(key for key in keys if keys.count(key) > 1)}` is given twice")
    return table


def _sentence(problem: str) -> str:
    """What json_format said, with the place first and without its way of saying it."""
    unknown = _UNKNOWN.search(problem)
    if unknown is not None:
        message, field, place = unknown.groups()
        names = ", ".join(_fields(message))
        return f"there is no field `{f'{place}.' if place else ''}{field}`; its place has {names}."
    way: list[str] = []
    while (step := _WAY.match(problem)) is not None:
        way.append(step[1])
        problem = problem[step.end() :]
    place = _PLACE.search(problem)
    where = (place[1] if place else "") or ".".join(way)
    what = (problem[: place.start()] if place else problem).rstrip(".")
    return f"`{where}`: {what}." if where else f"{what}."


def _fields(message: str) -> list[str]:
    descriptor = definition_pb2.DESCRIPTOR.message_types_by_name.get(message)
    return [field.name for field in descriptor.fields] if descriptor else ["others"]
