"""What the services refuse, and why. Each text says what to do next; `status` knows the gRPC status of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field of a request. `field` is a path, for example `definition.steps[2].after[0]`."""

    field: str
    description: str


class ServiceError(Exception):
    """A refusal. `metadata` names what it is about, for programs."""

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.metadata: Mapping[str, str] = dict(metadata or {})


class InvalidArgument(ServiceError):
    """The request is wrong in itself."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class RequestUnreadable(ServiceError):
    """The bytes of a request are no message of its type."""

    def __init__(self) -> None:
        super().__init__("The request cannot be read: it is no message of this method's type. Send one that is.")


class BadField(InvalidArgument):
    """One field of the request is wrong."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__([Violation(field, description)])


class PayloadTooLarge(ServiceError):
    """A payload is above the limit."""

    def __init__(self, field: str, size_bytes: int, size_bytes_max: int) -> None:
        message = (
            f"{field} has {size_bytes} bytes, and {size_bytes_max} are the most: pass on a reference to the data, "
            "or raise the server's setting payload_bytes_max."
        )
        super().__init__(
            message, {"field": field, "size_bytes": str(size_bytes), "size_bytes_max": str(size_bytes_max)}
        )


class NotOwned(ServiceError):
    """Another orchestrator runs the saga. Nothing was done."""

    def __init__(self, namespace: str, saga_id: str) -> None:
        message = f"Another orchestrator runs saga `{saga_id}` in namespace `{namespace}`: try again there, or later."
        super().__init__(message, {"namespace": namespace, "saga_id": saga_id})


class OwnerLost(ServiceError):
    """The orchestrator that runs the saga was asked, and its answer is lost."""

    def __init__(self, namespace: str, saga_id: str) -> None:
        message = (
            f"The orchestrator that runs saga `{saga_id}` in namespace `{namespace}` was lost before it answered, and "
            "nobody knows what was done: look at the saga, then ask again if need be."
        )
        super().__init__(message, {"namespace": namespace, "saga_id": saga_id})


class SagaNotFound(ServiceError):
    """There is no saga of that id."""

    def __init__(self, namespace: str, saga_id: str) -> None:
        message = f"There is no saga `{saga_id}` in namespace `{namespace}`: check both, or look with ListSagas."
        super().__init__(message, {"namespace": namespace, "saga_id": saga_id})


class SagaAlreadyExists(ServiceError):
    """The id is taken by a saga that was started with other content."""

    def __init__(self, namespace: str, saga_id: str) -> None:
        message = (
            f"Saga `{saga_id}` in namespace `{namespace}` was started with another definition, input, labels, deadline "
            "or start time: choose another id, or send the same content again."
        )
        super().__init__(message, {"namespace": namespace, "saga_id": saga_id})


class DefinitionNotFound(ServiceError):
    """No such definition is registered."""

    def __init__(self, namespace: str, *, name: str = "", version: int = 0, digest: str = "") -> None:
        which = digest or (f"{name} version {version}" if version else name)
        message = (
            f"There is no definition `{which}` in namespace `{namespace}`: look with ListDefinitions, or register it "
            "with RegisterDefinition."
        )
        super().__init__(message, {"namespace": namespace, "definition": which})


class DefinitionInUse(ServiceError):
    """A definition cannot be removed while stored sagas have it."""

    def __init__(self, namespace: str, name: str, version: int) -> None:
        message = (
            f"Stored sagas have version {version} of `{name}` and need it as long as they are stored: leave it there;"
            " starts that name no version take the newest one."
        )
        super().__init__(message, {"namespace": namespace, "definition": name, "version": str(version)})


class ParticipantNotFound(ServiceError):
    """No such participant is registered."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no participant `{name}`: register it with PutParticipant, or look with ListParticipants.",
            {"participant": name},
        )


class ParticipantInUse(ServiceError):
    """A participant cannot be removed while unfinished sagas need it."""

    def __init__(self, name: str, saga_id: str) -> None:
        super().__init__(
            f"Unfinished sagas need `{name}`, for example `{saga_id}`: wait until they have ended, or cancel them.",
            {"participant": name, "saga_id": saga_id},
        )


class ParticipantFixed(ServiceError):
    """A participant of the server's settings cannot be changed by a call."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Participant `{name}` comes from the server's settings: change it there and restart the server.",
            {"participant": name},
        )


class AddressNotAllowed(ServiceError):
    """The operator does not allow calls to that address."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"Calls to `{address}` are not allowed: ask the server's operator to add it to participant_allow.",
            {"address": address},
        )


class TokenInvalid(ServiceError):
    """A completion token was not given out for that step of that saga."""

    def __init__(self, saga_id: str, step: str) -> None:
        super().__init__(
            f"The token is not of step `{step}` of saga `{saga_id}`: pass on `completion_token` of the step's call.",
            {"saga_id": saga_id, "step": step},
        )


class Overloaded(ServiceError):
    """A limit on what goes on at the same time is met. `what` names it."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"There are {limit} {what} already: try again a little later.", {"limit": str(limit)})


class ParticipantCrowded(Overloaded):
    """A participant has its part of the sagas in memory: it is slow, or hangs. Others go on."""

    def __init__(self, participant: str, waiting: int) -> None:
        ServiceError.__init__(
            self,
            f"{waiting} sagas wait for `{participant}` already, as many as may while others need room: look why it is "
            "slow or does not answer, and try again a little later. Sagas that begin elsewhere are started.",
            {"participant": participant, "limit": str(waiting)},
        )


class ShuttingDown(ServiceError):
    """The server is on its way out and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down: try again, it goes on where it was after its restart.")


class NotWaitedFor(ServiceError):
    """A session does not report the end of a saga, because it waits for too many or the saga is too large."""

    def __init__(self, namespace: str, saga_id: str) -> None:
        super().__init__(
            f"The end of saga `{saga_id}` in namespace `{namespace}` is not reported here: ask for it with GetSaga.",
            {"namespace": namespace, "saga_id": saga_id},
        )


class EventsNotKept(ServiceError):
    """A saga has no such events."""

    def __init__(self, saga_id: str, after_sequence: int, sequence: int) -> None:
        super().__init__(
            f"Saga `{saga_id}` has {sequence} events, and {after_sequence} is behind the last: watch from {sequence}.",
            {"saga_id": saga_id, "sequence": str(sequence)},
        )


class SagaHalted(ServiceError):
    """A saga that this server cannot carry on: a record that it cannot read, or a bug. Others go on."""

    def __init__(self, namespace: str, saga_id: str, why: str) -> None:
        super().__init__(
            f"Saga `{saga_id}` in namespace `{namespace}` cannot be carried on ({why}). Look at the server's log; once "
            "the cause is mended, restart the server and it goes on where it was.",
            {"namespace": namespace, "saga_id": saga_id},
        )


class CorruptRecord(ServiceError):
    """A record of a journal that cannot be read. It stops its saga and no other."""

    def __init__(self, namespace: str, saga_id: str, sequence: int, reason: str) -> None:
        super().__init__(
            f"Event {sequence} of saga `{saga_id}` in namespace `{namespace}` cannot be read: {reason}. Run the "
            "version of the server that wrote it, or restore the store from a backup.",
            {"namespace": namespace, "saga_id": saga_id, "sequence": str(sequence)},
        )
        self.saga_id = saga_id
        self.sequence = sequence
        self.reason = reason
