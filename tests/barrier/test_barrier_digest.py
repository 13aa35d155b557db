"""Digests of inputs: what says the same has the same digest, for as long as tables are kept; anything else another."""

from __future__ import annotations

import pytest

from amends.barrier._digest import digest_of
from amends.payloads import Opaque, encode
from amends.v1 import participant_pb2, payload_pb2


def of_json(text: str) -> bytes:
    return digest_of("act", payload_pb2.Payload(json=text))


@pytest.mark.parametrize(
    ("payload", "digest"),
    [
        (
            payload_pb2.Payload(json='{"b":[1,2.5,"ü"],"a":null}'),
            "9f57aa4e3da72e8896186b9322fe5be10e9f8095f81d171f4e001b8c24ae9159",
        ),
        (encode(participant_pb2.Call(saga_id="s")), "7744d6e17bbbbb098c7eea18a66a3b8a7ea95bcc22ee467f7421ad6e3f40f3e6"),
        (
            encode(Opaque(b"\x00\x01", "text/secret")),
            "1c06d3bc85e72e8fc6914faad5d97ba5deb6fa3843d66d89d3ad05cae8f56f31",
        ),
        (payload_pb2.Payload(), "7c9eac83d870fa8ff83cdf497530e20f48b4f15b2d9b49b917778e058c3406bb"),
    ],
    ids=["json", "message", "opaque", "none"],
)
def test_a_digest_is_the_same_in_each_version(payload: payload_pb2.Payload, digest: str) -> None:
    """Participants have kept them: another one would turn their calls away."""
    assert digest_of("act", payload).hex() == digest


@pytest.mark.parametrize(
    "texts",
    [
        ('{"a": 1,\n "b": "x"}', '{"b":"x","a":1}'),
        ('"\\u00fc\\/"', '"ü/"'),
        ("[2, 100, 0, 12345678901234567890]", "[2.0, 1e2, -0.0, 12345678901234567890]"),
        ("0.1", "0.10", "1e-1"),
    ],
    ids=["members and spaces", "escapes", "whole numbers", "other numbers"],
)
def test_what_is_written_in_another_way_has_the_same_digest(texts: tuple[str, ...]) -> None:
    assert len(set(map(of_json, texts))) == 1


def test_what_says_another_thing_has_another_digest() -> None:
    texts = [
        *("null", "false", "0", '""', '"0"', "[]", "{}", "[0]", "[[0]]", '{"a":0}', '{"a":"0"}', '{"0":"a"}', "[1,2]"),
        *("[2,1]", "1", "1.5", "9007199254740992", "9007199254740993", "true", '"true"', "1e400", "9" * 5000),
        *("no json", '{"a":1', "[" * 2000 + "]" * 2000, "[" * 2001 + "]" * 2001),
    ]
    payloads = [
        *(payload_pb2.Payload(json=text) for text in texts),
        encode(participant_pb2.Call()),
        encode(participant_pb2.Call(saga_id="s")),
        encode(participant_pb2.ExecuteRequest()),
        *(encode(Opaque(data, kind)) for data in (b"", b"null", b"0") for kind in ("", "json", "null")),
    ]
    digests = [digest_of(action, payload) for payload in payloads for action in ("act", "ac")]
    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {32}


def test_no_data_are_the_null_as_which_they_are_decoded() -> None:
    assert digest_of("act", payload_pb2.Payload()) == of_json(" null ")
