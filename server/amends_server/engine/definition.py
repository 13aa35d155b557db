"""What a saga is made of, as plain data, and its digest. `validation` checks it, `graph` orders its steps."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum

from amends_server.engine.policy import TIMEOUT_US, Retry
from amends_server.engine.value import dataclass


class Kind(Enum):
    """Which way a saga may go around a step."""

    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


class OnCompensationFailure(Enum):
    """What happens when a compensation fails for good."""

    HALT = "halt"
    CONTINUE = "continue"


class OnError(Enum):
    """What happens after a business error that a rule takes."""

    COMPENSATE = "compensate"
    CONTINUE = "continue"
    RETRY = "retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRule:
    """What to do with business errors of these `codes` (any if empty) for which `when` holds.

    `output_template` is the step's output with CONTINUE; without one it is null.
    """

    codes: tuple[str, ...] = ()
    when: str | None = None
    then: OnError = OnError.COMPENSATE
    output_template: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """How a step is undone. `not_needed` says that nothing is; nothing else may be said then."""

    not_needed: bool = False
    template: str | None = None
    retry: Retry | None = None
    timeout_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An action at a participant and, if it can be undone, its compensation. Unset policies take defaults by kind."""

    id: str
    participant: str
    action: str
    kind: Kind = Kind.COMPENSATABLE
    compensation: Compensation | None = None
    after: tuple[str, ...] = ()
    input_template: str | None = None
    retry: Retry | None = None
    timeout_us: int = TIMEOUT_US
    deadline_us: int | None = None
    when: str | None = None
    on_error: tuple[ErrorRule, ...] = ()
    requires: tuple[str, ...] = ()
    output_schema: str | None = None
    delay_us: int | None = None

    @property
    def owes_compensation(self) -> bool:
        """True if there is something to call on the way back."""
        return self.compensation is not None and not self.compensation.not_needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """An immutable description of a saga. Its version and times belong to the store, not to the content."""

    name: str
    steps: tuple[Step, ...]
    output_template: str | None = None
    deadline_us: int | None = None
    on_compensation_failure: OnCompensationFailure = OnCompensationFailure.HALT
    description: str = ""
    input_schema: str | None = None


def digest(definition: Definition) -> str:
    """Return `sha256:` and the hash of the content. Defaults do not count, so that new fields change nothing."""
    canonical = json.dumps(_plain(definition), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {
            f.name: _plain(v)
            for f in fields(value)
            if (v := getattr(value, f.name)) != f.default or f.default is MISSING
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # equal definitions have equal digests
    return value.value if isinstance(value, Enum) else value
