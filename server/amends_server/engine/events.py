"""The facts of a saga's life. A journal is a list of these; a saga's state is their fold (`evolve`).

Every event carries its time, so that folding needs no clock. Its sequence is its place in the journal.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum

from amends_server.engine.payload import Error, Payload, RelatedService
from amends_server.engine.policy import Time
from amends_server.engine.value import dataclass


class Resolution(Enum):
    """What an operator says of a step that cannot settle itself."""

    SKIPPED = "skipped"
    SUCCEEDED = "succeeded"
    COMPENSATED = "compensated"


class LateReply(Enum):
    """In a word: what a reply said that was no longer waited for."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    IN_PROGRESS = "in_progress"


@dataclass(frozen=True, slots=True)
class StepFailed:
    """Cause: a step failed or stayed unknown. No step ("") means that the saga's output could not be made."""

    step: str
    error: Error


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Cause: the saga's deadline passed."""

    deadline: Time


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Cause: somebody cancelled the saga."""

    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class TurnedByOperator:
    """Cause: an operator settled a step so that the saga had to turn back."""

    reason: str
    principal: str


Cause = StepFailed | DeadlinePassed | Cancelled | TurnedByOperator


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaStarted:
    """The saga was accepted."""

    time: Time
    namespace: str
    saga_id: str
    definition_digest: str
    input: Payload | None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    deadline: Time | None = None
    principal: str = ""
    traceparent: str = ""
    start_time: Time | None = None
    """Before this time nothing is dispatched."""


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """A step will not be run, because its condition is false."""

    time: Time
    step: str


@dataclass(frozen=True, slots=True)
class StepDelayed:
    """A step is ready, and waits until `due_time`: as its definition says, or for its turn to have its input made."""

    time: Time
    step: str
    due_time: Time


@dataclass(frozen=True, slots=True)
class StepDispatched:
    """An attempt of an action is about to be sent. `input` is frozen at the first one; None there: the saga's input."""

    time: Time
    step: str
    attempt: int
    input: Payload | None = None


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """An action succeeded."""

    time: Time
    step: str
    attempt: int
    output: Payload | None
    related_services: tuple[RelatedService, ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutputRefused:
    """An action succeeded with an output that the step's schema does not allow: the step has failed with its effect."""

    time: Time
    step: str
    attempt: int
    output: Payload | None
    error: Error
    related_services: tuple[RelatedService, ...] = ()


@dataclass(frozen=True, slots=True)
class StepRefused:
    """An action was refused, or (attempt 0) did not get as far as its call. `stored`: true of all attempts."""

    time: Time
    step: str
    attempt: int
    error: Error
    stored: bool = False
    related_services: tuple[RelatedService, ...] = ()


@dataclass(frozen=True, slots=True)
class StepErrorHandled:
    """A rule of the step took its business error: the saga goes on as if the step were done, with this output."""

    time: Time
    step: str
    output: Payload | None


@dataclass(frozen=True, slots=True)
class StepRetryScheduled:
    """An attempt of an action ended without a verdict, or was `refused`; the next one is due at `due_time`."""

    time: Time
    step: str
    attempt: int
    error: Error
    due_time: Time
    refused: bool = False


@dataclass(frozen=True, slots=True)
class StepDeferred:
    """A participant is at work on an action. It is asked again at `due_time`; None: it will say by itself."""

    time: Time
    step: str
    attempt: int
    due_time: Time | None


@dataclass(frozen=True, slots=True)
class StepGivenUp:
    """The attempts of an action ended without a verdict."""

    time: Time
    step: str
    attempt: int
    error: Error


@dataclass(frozen=True, slots=True)
class CompensationDispatched:
    """An attempt of a compensation is about to be sent. `arguments` come from its template, frozen at the first one."""

    time: Time
    step: str
    attempt: int
    arguments: Payload | None = None


@dataclass(frozen=True, slots=True)
class CompensationSucceeded:
    """A compensation succeeded."""

    time: Time
    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CompensationRetryScheduled:
    """An attempt of a compensation did not succeed; the next one is due at `due_time`."""

    time: Time
    step: str
    attempt: int
    error: Error
    due_time: Time


@dataclass(frozen=True, slots=True)
class CompensationFailed:
    """A compensation was refused or has used up its retries. Attempt 0: its arguments could not be made."""

    time: Time
    step: str
    attempt: int
    error: Error


@dataclass(frozen=True, slots=True)
class CompensationOmitted:
    """A step was passed over on the way back: its definition says that nothing needs to be undone."""

    time: Time
    step: str


@dataclass(frozen=True, slots=True)
class StepResolved:
    """An operator settled a step."""

    time: Time
    step: str
    resolution: Resolution
    output: Payload | None
    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class SagaTurnedBack:
    """From here the saga goes back."""

    time: Time
    cause: Cause


@dataclass(frozen=True, slots=True)
class SagaStuck:
    """Nothing can be done without an operator; these steps block the saga."""

    time: Time
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SagaRetried:
    """An operator had the saga go on: waiting attempts are due now, exhausted calls get their attempts anew."""

    time: Time
    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class SagaPaused:
    """An operator stopped dispatching."""

    time: Time
    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class SagaResumed:
    """An operator allowed dispatching again."""

    time: Time
    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class SagaRestored:
    """The store was restored from a backup: the saga may have gone further than the events before this one say."""

    time: Time


@dataclass(frozen=True, slots=True)
class SagaCompleted:
    """Final: all the way forward. `output` is the template's value; None without one: the steps' outputs by id.

    `output_error` says why the template gave nothing, where it was too late to turn back for that.
    """

    time: Time
    output: Payload | None
    output_error: Error | None = None


@dataclass(frozen=True, slots=True)
class SagaCompensated:
    """Final: all the way back."""

    time: Time


@dataclass(frozen=True, slots=True)
class SagaFailed:
    """Final: an operator gave the saga up."""

    time: Time
    reason: str
    principal: str


@dataclass(frozen=True, slots=True)
class AttemptWithdrawn:
    """An attempt was not sent after all: it had no effect and does not count as a retry.

    `compensation`: it was one of the compensation. `due_time`: when the next one is; None: at once.
    """

    time: Time
    step: str
    attempt: int
    compensation: bool
    error: Error
    due_time: Time | None = None


@dataclass(frozen=True, slots=True)
class LateReplyRecorded:
    """A reply came for an attempt that was no longer waited for. It is kept and changes nothing."""

    time: Time
    step: str
    attempt: int
    compensation: bool
    reply: LateReply


ActionEvent = StepDispatched | StepSucceeded | StepRefused | StepRetryScheduled | StepGivenUp
StepEvent = StepSkipped | StepDelayed | StepDeferred | StepOutputRefused | StepErrorHandled
CompensationEvent = CompensationDispatched | CompensationSucceeded | CompensationRetryScheduled | CompensationFailed
SagaEvent = (
    SagaStarted
    | SagaTurnedBack
    | SagaStuck
    | SagaRetried
    | SagaPaused
    | SagaResumed
    | SagaRestored
    | SagaCompleted
    | SagaCompensated
    | SagaFailed
)

Event = (
    SagaEvent
    | StepEvent
    | ActionEvent
    | CompensationEvent
    | CompensationOmitted
    | StepResolved
    | AttemptWithdrawn
    | LateReplyRecorded
)
