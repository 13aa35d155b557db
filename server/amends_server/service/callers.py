"""Who calls: the peer of a call, or whoever an orchestrator of the same store says that it passes the call on for."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc

from amends_server.store.protocol import SagaKey

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Metadata = Iterable[tuple[str, str | bytes]]

CALLER = "amends-caller-bin"
"""The metadata of a call that is passed on: a proof, and then the name of the first caller."""

_PROOF_BYTES = 20
"""Of the hash: 160 bits cannot be guessed."""

_PURPOSE = b"amends-caller"
"""So that nothing else that the secret signs can be taken for this."""

_passed_on_for: ContextVar[str] = ContextVar("passed_on_for", default="")


def principal(context: Context) -> str:
    """Return who calls, as far as is known: the address of the first caller."""
    return _passed_on_for.get() or context.peer()


class Callers:
    """Tells the owner of a saga whom a call is from. `secret` is the store's, which nobody else has."""

    def __init__(self, secret: bytes) -> None:
        assert secret, "without a secret anybody could be anybody"
        self._secret = secret

    def name(self, caller: str, method: str, key: SagaKey) -> tuple[str, bytes]:
        """Return metadata that name the caller of that method for that saga."""
        return (CALLER, self._proof(caller, method, key) + caller.encode())

    def believe(self, metadata: Metadata | None, method: str, key: SagaKey) -> None:
        """Take whom the metadata name for the caller of the call that is being answered, if that is proven."""
        for name, value in metadata or ():
            if name == CALLER and isinstance(value, bytes):
                proof, caller = value[:_PROOF_BYTES], value[_PROOF_BYTES:].decode(errors="replace")
                if hmac.compare_digest(proof, self._proof(caller, method, key)):
                    _passed_on_for.set(caller)

    def _proof(self, caller: str, method: str, key: SagaKey) -> bytes:
        about = "\0".join((method, key.namespace, key.saga_id, caller)).encode()
        return hashlib.blake2b(about, key=self._secret, person=_PURPOSE, digest_size=_PROOF_BYTES).digest()
