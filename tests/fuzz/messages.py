"""Hostile messages: any that a descriptor allows, with values that mean something more often than luck would have it.

And bytes that are no messages: cut off, flipped, of lengths that are lies, with text that is no UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

DEPTH_MAX = 12
KIB, MIB = 1 << 10, 1 << 20

INTEGERS = (0, 1, 2, 7, 99, 1_000, -1, -7, (1 << 31) - 1, -(1 << 31), 1 << 31, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1)
DOUBLES = (0.0, -0.0, 1.5, -1.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))

TEXTS = (
    "",
    " ",
    "x",
    "a b",
    "a/b",
    "a\0b",
    "\n",
    "ä",
    "e\u0301",
    "\U0001f4a5",
    "\ufeff",
    "\u202e",
    "../../etc/passwd",
    "'; drop table saga; --",
    "%s%n{0}",
    "-1",
    "1e999",
    "NaN",
    "true",
    "null",
    "[]",
    "{}",
    '"',
    '"\\ud800"',
    "[" * 70,
    '{"a":' * 70,
    "1" * 400,
)
EXPRESSIONS = r"""
input
input.order
input.order.id
input[0]
input["a b"]
steps.one.output
steps.one.error.code
steps.none.output
saga.id
saga.labels.k
error.code
input > 1
input.a + 1
1/0
1 +
((((
// comment
[1,2].map(x, [1,2].map(y, [1,2].map(z, x)))
'a'.matches('(a+)+$')
has(input.a)
size(input) > 2
-9223372036854775808
18446744073709551615u
timestamp('x')
duration('1s')
b'\xff'
dyn(input)
input.all(x, x)
"\u{110000}"
""".strip().split("\n")
SCHEMAS = r"""
true
7
{"type":"object"}
{"type":"objekt"}
{"$ref":"#"}
{"$ref":"http://localhost:1/x"}
{"pattern":"("}
{"pattern":"(a+)+$"}
{"$defs":{"a":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}
{"multipleOf":0}
{"minLength":-1}
{"properties":{"a":{"type":"string"}},"required":["a"]}
{"maximum":1e400}
{"enum":[]}
{"$schema":"urn:x"}
""".strip().split("\n")
TOKENS = ("", "?", "AAAA", "W10=", "WyJ4IiwxXQ==", "bnVsbA==", "W1tbW1tb", "e30=")
ADDRESSES = (
    "127.0.0.1:1",
    "localhost:0",
    "[::1]:1",
    "192.0.2.1:80",
    "127.0.0.1:99999",
    ":1",
    "unix:/x",
    "a" * 300 + ":1",
    "127.0.0.1:１",
)


class Maker:
    """Makes messages of any type. `known` are good values by the name of their field; the same seed, the same ones."""

    def __init__(self, random: Random, known: dict[str, Sequence[str]]) -> None:
        self._random = random
        self._known = known
        self._kinds: dict[str, Callable[[], str]] = {
            "input_template": self.template,
            "output_template": self.template,
            "template": self.template,
            "json": self.template,
            "when": self.expression,
            "input_schema": lambda: self._pick(SCHEMAS),
            "output_schema": lambda: self._pick(SCHEMAS),
            "page_token": lambda: self._pick(TOKENS),
            "token": lambda: self._pick(TOKENS),
            "address": lambda: self._pick(ADDRESSES),
        }

    def message(self, kind: Descriptor, depth: int = 0) -> Any:
        """Make one, with some of its fields."""
        message: Any = GetMessageClass(kind)()
        chance = self._random.choice((0.3, 0.7, 0.95)) if depth < DEPTH_MAX else 0.0
        for field in kind.fields:
            if self._random.random() < chance:
                self._fill(message, field, depth)
        return message

    def text(self, name: str) -> str:
        """Make a text for a field of that name: mostly one that makes sense there."""
        luck = self._random.random()
        if luck < 0.7 and name in self._known:
            return self._pick(self._known[name])
        if luck < 0.9 and name in self._kinds:
            return self._kinds[name]()
        if luck > 0.98:
            return self._pick(("x", "ä", "[", "\U0001f4a5")) * self._pick((129, 1_001, 2_001, 65 * KIB, 2 * MIB))
        return self._pick(TEXTS)

    def template(self) -> str:
        """A JSON template, or what is none."""
        value: Any = self._pick(
            ("${" + self.expression() + "}", self._pick(TEXTS), self._pick(DOUBLES), self._pick(INTEGERS), None)
        )
        for _ in range(self._random.randrange(4)):
            value = self._pick(({self._pick(TEXTS): value}, [value, value], {"a": value, "b": 1}))
        return self._pick((json.dumps(value), json.dumps(value, ensure_ascii=False), self._pick(TEXTS)))

    def expression(self) -> str:
        """An expression, or two that somebody has put together, or part of one."""
        whole = self._pick(("{0}", "{0}", "{0}", "{0} && {1}", "[{0}, {1}]", "{{'a': {0}}}", "{0} == {1} ? {0} : {1}"))
        made: str = whole.format(self._pick(EXPRESSIONS), self._pick(EXPRESSIONS))
        return made if self._random.random() < 0.9 else made[: self._random.randrange(len(made))]

    def _fill(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if not _is_repeated(field):
            if field.message_type is not None:
                getattr(message, field.name).CopyFrom(self._inner(field.message_type, depth))
            else:
                setattr(message, field.name, self._scalar(field))
            return
        entry = field.message_type
        count = self._pick((0, 1, 1, 2, 3, 17, 60))
        if entry is not None and entry.GetOptions().map_entry:
            for _ in range(count):
                getattr(message, field.name)[self.text(field.name)] = self.text(field.name)
        elif entry is not None:
            getattr(message, field.name).extend(self._inner(entry, depth) for _ in range(min(count, 3)))
        else:
            getattr(message, field.name).extend(self._scalar(field) for _ in range(count))

    def _inner(self, kind: Descriptor, depth: int) -> Message:
        made: Message = self.message(kind, depth + 1)
        return made

    def _scalar(self, field: FieldDescriptor) -> Any:
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return self._random.randbytes(self._pick((0, 1, 20, 4 * KIB)))
            case FieldDescriptor.CPPTYPE_STRING:
                return self.text(field.name)
            case FieldDescriptor.CPPTYPE_BOOL:
                return self._random.random() < 0.5
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return self._pick(DOUBLES)
            case FieldDescriptor.CPPTYPE_ENUM:
                return self._pick((0, 1, 2, 3, 4, 5, 99, -1, (1 << 31) - 1))
            case FieldDescriptor.CPPTYPE_INT32:
                return _within(self._pick(INTEGERS), 32, signed=True)
            case FieldDescriptor.CPPTYPE_INT64:
                return _within(self._pick(INTEGERS), 64, signed=True)
            case FieldDescriptor.CPPTYPE_UINT32:
                return _within(self._pick(INTEGERS), 32, signed=False)
            case _:
                return _within(self._pick(INTEGERS), 64, signed=False)

    def _pick(self, choices: Sequence[Any]) -> Any:
        return self._random.choice(choices)

    # Bytes

    def bytes_of(self, kind: Descriptor) -> bytes:
        """Make the bytes of a message, or bytes that are nearly those of one, or none at all."""
        whole: bytes = self.message(kind).SerializeToString()
        luck = self._random.random()
        if luck < 0.7:
            return whole
        return self._pick((self._cut, self._flip, self._lie, self._no_utf8, self._deep, self._noise, self._more))(whole)  # type: ignore[no-any-return]

    def _cut(self, whole: bytes) -> bytes:
        return whole[: self._random.randrange(len(whole) + 1)]

    def _flip(self, whole: bytes) -> bytes:
        spoilt = bytearray(whole)
        for _ in range(self._random.randrange(1, 8) if spoilt else 0):
            spoilt[self._random.randrange(len(spoilt))] ^= 1 << self._random.randrange(8)
        return bytes(spoilt)

    def _lie(self, whole: bytes) -> bytes:
        return whole + b"\x0a\xff\xff\xff\xff\x07"  # field 1 is said to have 2 GiB

    def _no_utf8(self, whole: bytes) -> bytes:
        return whole + b"\x0a\x02\xc3\x28\x12\x02\xff\xfe"

    def _deep(self, whole: bytes) -> bytes:
        return whole + self._pick((b"\x0b", b"\xa3\x06")) * self._pick((99, 101, 50_000))  # groups that never end

    def _noise(self, whole: bytes) -> bytes:
        return self._random.randbytes(self._pick((1, 10, 300, 70 * KIB)))

    def _more(self, whole: bytes) -> bytes:
        return whole + b"\xc2\x3e\x03abc" * self._pick((1, 1_000, 100_000))  # fields that nobody knows


def _within(number: int, bits: int, *, signed: bool) -> int:
    wrapped = number & ((1 << bits) - 1)
    return wrapped - (1 << bits) if signed and wrapped >> (bits - 1) else wrapped


def _is_repeated(field: Any) -> bool:
    """Protobuf 6 has another name for it than 5, and takes the old one ill."""
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
