"""A digest of what an action is called with: by it a call is known for the one that used the key before, or is not.

It is of what the wire brings, before anything is decoded: types of participants change, and a call stays the same call.
What says the same is the same: JSON is compared by its values, since it may have been written again by another version
of a client or of an orchestrator, after a restore for one. Messages and opaque bytes nobody but their users can
read, so these are compared as they are.
"""

from __future__ import annotations

import json
from hashlib import sha256

from amends.v1 import payload_pb2


def digest_of(action: str, input: payload_pb2.Payload) -> bytes:
    """Return 32 bytes. They are kept for as long as verdicts are, so they can never be made in another way."""
    digest = sha256()
    for part in (action.encode(), *_parts(input)):
        digest.update(len(part).to_bytes(8, "big"))  # so that no two lists of parts are the same bytes
        digest.update(part)
    return digest.digest()


def _parts(payload: payload_pb2.Payload) -> tuple[bytes, ...]:
    match payload.WhichOneof("kind"):
        case "json":
            return b"json", _canonical(payload.json)
        case None:
            return b"json", b"null"  # as it is decoded
        case "message":
            return b"message", payload.message.type_url.encode(), payload.message.value
        case "opaque":
            return b"opaque", payload.opaque.content_type.encode(), payload.opaque.data


def _canonical(text: str) -> bytes:
    """The value of a JSON text, whatever the order of its members, its spaces, its escapes and its ways with numbers.

    A text that Python does not read, such as one with a number of thousands of digits, stands for itself.
    """
    try:
        return _encode(_decode(text)).encode()
    except (ValueError, RecursionError):
        return text.encode()


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number  # 2.0 says what 2 says


_decode = json.JSONDecoder(parse_float=_number).decode
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
