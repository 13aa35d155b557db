"""What may be asked of a saga, and what attempts of its calls may tell. Each is answered with events, or refused."""

from __future__ import annotations

from amends_server.engine.events import Resolution
from amends_server.engine.payload import Error, Payload, RelatedService
from amends_server.engine.value import dataclass


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Verdict: the call did what it should."""

    output: Payload | None = None
    related_services: tuple[RelatedService, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Verdict: this attempt had no effect. `stored`: no other attempt had one either, and none will."""

    error: Error
    stored: bool = False
    related_services: tuple[RelatedService, ...] = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """No verdict: the call may have had its effect, or have it later. `again`: another attempt may tell."""

    error: Error
    again: bool = True


@dataclass(frozen=True, slots=True)
class NotSent:
    """No verdict: the attempt did not leave the orchestrator, so it had no effect, and does not count as a retry.

    `delay_us`: the next one is not made before, unless the step's deadline is; 0: it is due at once.
    """

    error: Error
    delay_us: int = 0


@dataclass(frozen=True, slots=True)
class InProgress:
    """No verdict yet: the participant is at work. Ask again after `poll_interval_us`; None: it will say by itself."""

    poll_interval_us: int | None = None


Verdict = Succeeded | Refused | Unknown | NotSent | InProgress


@dataclass(frozen=True, slots=True)
class Settle:
    """Record how an attempt ended."""

    step: str
    compensation: bool
    attempt: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Complete:
    """Take the outcome of an action from somebody who holds the token of one of its attempts."""

    step: str
    attempt: int
    verdict: Succeeded | Refused | Unknown


@dataclass(frozen=True, slots=True)
class Wake:
    """Do what has become due."""


@dataclass(frozen=True, slots=True)
class Recover:
    """Take all open attempts for lost: the orchestrator that waited for them is gone.

    `restored`: and so may be a part of the journal, since the store was restored from a backup.
    """

    restored: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Turn the saga back."""

    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop dispatching."""

    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Dispatch again."""

    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Go on from STUCK with attempts anew, or make a waiting attempt now."""

    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class Resolve:
    """Settle a step that cannot settle itself."""

    step: str
    resolution: Resolution
    output: Payload | None
    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Give the saga up."""

    reason: str
    principal: str


Command = Settle | Complete | Wake | Recover | Cancel | Pause | Resume | Retry | Resolve | Fail


class Rejected(Exception):
    """A command that the saga does not allow. `reason` is stable; the text says what to do instead.

    `field` is what is wrong of the command, if it would be wrong in any state.
    """

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
