"""How the command line names registered definitions: NAME, NAME@VERSION, or a digest."""

from __future__ import annotations

from amends.v1 import orchestrator_pb2
from amends_server.cli.exits import usage_error

DIGEST = "sha256:"


def read_reference(text: str) -> orchestrator_pb2.DefinitionRef:
    """What a reference means to the orchestrator."""
    if text.startswith(DIGEST):
        return orchestrator_pb2.DefinitionRef(digest=text)
    name, version = read_version(text)
    return orchestrator_pb2.DefinitionRef(name=name, version=version)


def read_version(text: str) -> tuple[str, int]:
    """A name, and a version or 0."""
    name, at, version = text.partition("@")
    if not at:
        return name, 0
    if not name or not version.isdecimal() or not 0 < int(version) < 1 << 63:
        raise usage_error(f"`{text}` names no definition: write NAME, NAME@VERSION with a version from 1, or sha256:….")
    return name, int(version)
