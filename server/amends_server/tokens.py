"""Completion tokens: who holds one was given it with a call, and may bring the outcome of that call.

A token names the attempt and proves, by a keyed hash over the call's key and the time at which the saga was started,
that this store's orchestrator made it. The time tells the saga from a later one that has its id.
"""

from __future__ import annotations

import hashlib
import hmac

from amends_server.engine.policy import Time

_ATTEMPT_BYTES = 4
_TIME_BYTES = 8
_PROOF_BYTES = 20
"""Of the hash: 160 bits cannot be guessed."""


class Tokens:
    """Makes and checks tokens. `secret` is the store's, so that they hold over restarts."""

    def __init__(self, secret: bytes) -> None:
        assert secret, "without a secret anybody could make tokens"
        self._secret = secret

    def issue(self, key: str, start: Time, attempt: int) -> str:
        """Return the token of an attempt of the call with that key, of the saga that was started at that time."""
        number = attempt.to_bytes(_ATTEMPT_BYTES, "big")
        return (number + self._proof(key, start, number)).hex()

    def attempt_of(self, key: str, start: Time, token: str) -> int | None:
        """Return the attempt of that call in that saga that a token was made for; None if it was made for no such."""
        try:
            data = bytes.fromhex(token)
        except ValueError:
            return None
        number, proof = data[:_ATTEMPT_BYTES], data[_ATTEMPT_BYTES:]
        return int.from_bytes(number, "big") if hmac.compare_digest(proof, self._proof(key, start, number)) else None

    def _proof(self, key: str, start: Time, number: bytes) -> bytes:
        about = number + start.to_bytes(_TIME_BYTES, "big", signed=True) + key.encode()
        return hashlib.blake2b(about, key=self._secret, digest_size=_PROOF_BYTES).digest()
