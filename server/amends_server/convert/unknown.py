"""Finds what a later version has written into a message, and what this one would leave out unseen."""

from __future__ import annotations

from google.protobuf.message import Message


def drop_unknown(message: Message) -> bool:
    """Take out, at every depth, the fields that this version does not know, and tell whether there were any."""
    size = message.ByteSize()
    message.DiscardUnknownFields()
    return message.ByteSize() != size
