"""What differs between two definitions, by steps and fields, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from amends.v1 import definition_pb2


@dataclass(frozen=True, slots=True)
class Difference:
    """One field. `before` and `after` are None where it is not set; for a whole step `field` is empty."""

    step: str
    field: str
    before: object
    after: object

    @property
    def as_json(self) -> dict[str, object]:
        """For `-o json`."""
        return {"step": self.step, "field": self.field, "before": self.before, "after": self.after}


def differences(before: definition_pb2.Definition, after: definition_pb2.Definition) -> Iterator[Difference]:
    """Yield what differs: fields of the whole, then steps in the order of the later definition, then those gone."""
    old, new = _content(before), _content(after)
    old_steps, new_steps = _steps(old), _steps(new)
    yield from _fields("", old, new)
    for name, step in new_steps.items():
        if name in old_steps:
            yield from _fields(name, old_steps[name], step)
        else:
            yield Difference(name, "", None, step)
    for name, step in old_steps.items():
        if name not in new_steps:
            yield Difference(name, "", step, None)


def lines_of(found: list[Difference]) -> Iterator[str]:
    """Yield lines: `+` is new, `-` gone, `~` has another content."""
    shown = ""
    for each in found:
        if not each.field:
            yield _step_line(each)
            continue
        if each.step and each.step != shown:
            yield f"~ step {each.step}"
        shown = each.step
        indent = "    " if each.step else ""
        yield f"{indent}{_sign(each)} {each.field}: {_change(each)}"


def _content(definition: definition_pb2.Definition) -> dict[str, object]:
    """What was said, in the spelling of files."""
    from google.protobuf import json_format

    content = dict(json_format.MessageToDict(definition, preserving_proto_field_name=True))
    for name in ("version", "digest", "create_time"):
        content.pop(name, None)
    return content


def _steps(content: dict[str, object]) -> dict[str, Mapping[str, object]]:
    steps = cast("list[Mapping[str, object]]", content.pop("steps", []))
    return {str(step["id"]): step for step in steps}


def _fields(step: str, old: Mapping[str, object], new: Mapping[str, object], way: str = "") -> Iterator[Difference]:
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        old_table, new_table = _table(before), _table(after)
        if old_table is not None and new_table is not None:
            yield from _fields(step, old_table, new_table, f"{way}{name}.")
        else:
            yield Difference(step, way + name, before, after)


def _table(value: object) -> Mapping[str, object] | None:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else None


def _step_line(each: Difference) -> str:
    step = cast("Mapping[str, object]", each.after or each.before)
    after = ", ".join(cast("list[str]", step.get("after", []))) or "nothing"
    return f"{_sign(each)} step {each.step}: {step.get('participant')}.{step.get('action')}, after {after}"


def _sign(each: Difference) -> str:
    return "+" if each.before is None else "-" if each.after is None else "~"


def _change(each: Difference) -> str:
    return " → ".join(_text(value) for value in (each.before, each.after) if value is not None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
