"""Completion tokens: each is good for one attempt of one step of one saga, and for nothing else."""

from __future__ import annotations

import base64

import pytest

from amends.v1 import orchestrator_pb2 as pb
from amends.v1 import saga_pb2
from amends_server.engine.decide import start
from amends_server.engine.key import call_key
from amends_server.errors import TokenInvalid
from amends_server.runner.reader import View
from amends_server.service.completion import read_completion
from amends_server.store.protocol import Birth, SagaKey
from amends_server.tokens import Tokens
from tests.engine.build import START, compensatable, define, graph_of, started

KEY = call_key("n", "s", "a", compensation=False)
GRAPH = graph_of(define(compensatable("a")))


def view_of(saga_id: str, at: int) -> View:
    """A saga that was started then."""
    birth = Birth(
        definition_name="test", definition_version=1, definition_digest=GRAPH.digest, fingerprint=b"", create_time=at
    )
    return View(SagaKey("n", saga_id), birth, start(GRAPH, started(GRAPH, saga_id, at=at)).state)


def request(token: str) -> pb.CompleteStepRequest:
    reply = saga_pb2.Reply(status=saga_pb2.REPLY_STATUS_SUCCESS)
    return pb.CompleteStepRequest(namespace="n", saga_id="s", step="a", token=token, reply=reply)


def test_a_token_names_its_attempt() -> None:
    tokens = Tokens(b"secret")
    assert [tokens.attempt_of(KEY, START, tokens.issue(KEY, START, attempt)) for attempt in (1, 2, 300)] == [1, 2, 300]


def test_a_token_is_not_that_of_another_call_time_or_store() -> None:
    token = Tokens(b"secret").issue(KEY, START, 1)
    assert Tokens(b"secret").attempt_of(call_key("n", "s", "b", compensation=False), START, token) is None
    assert Tokens(b"secret").attempt_of(KEY, START + 1, token) is None
    assert Tokens(b"another").attempt_of(KEY, START, token) is None


@pytest.mark.parametrize("attempt", [0, 2])
def test_the_attempt_in_a_token_cannot_be_changed(attempt: int) -> None:
    raw = base64.urlsafe_b64decode(Tokens(b"secret").issue(KEY, START, 1))
    forged = base64.urlsafe_b64encode(attempt.to_bytes(4, "big") + raw[4:]).decode()
    assert Tokens(b"secret").attempt_of(KEY, START, forged) is None


@pytest.mark.parametrize("token", ["", "x", "AAAA", "ÄÖ", "===="])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert Tokens(b"secret").attempt_of(KEY, START, token) is None


def test_a_token_does_not_outlive_its_saga() -> None:
    """A finished saga was deleted and its id taken again: whoever kept the old token may say nothing of the new one."""
    tokens = Tokens(b"secret")
    old, new = view_of("s", START), view_of("s", START + 1)
    token = tokens.issue(KEY, old.state.started.time, 1)
    assert read_completion(request(token), old, tokens, 1_000).attempt == 1
    with pytest.raises(TokenInvalid):
        read_completion(request(token), new, tokens, 1_000)
