"""Idempotency keys: what a participant tells one call from another by (I11)."""

from __future__ import annotations


def call_key(namespace: str, saga_id: str, step: str, *, compensation: bool) -> str:
    """Return the key of a call, equal for every attempt. No part may hold a slash, so no two calls share a key."""
    return f"{namespace}/{saga_id}/{step}/{'compensate' if compensation else 'execute'}"
