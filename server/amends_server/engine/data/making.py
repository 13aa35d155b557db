"""What templates and expressions make within one decision: payloads are parsed once, and all of it is bounded."""

from __future__ import annotations

from amends_server.engine.data.jsonvalue import JsonValue, TemplateError, parse_json, to_json
from amends_server.engine.payload import Json

AT_ONCE_BYTES_MAX = 32 << 20
"""Read and made by the templates of one decision, all together: everybody waits for it, about a second at the most.

Two payloads of the largest size fit in any case, one to be read and one to be made. What is too much for a decision is
left to the next one. Each gets on with something, and may begin to count anew for it: for a condition, an input, and
the output of the saga.
"""


LEAVES_FEW = 16
"""So often may large data that was not read from payloads stand in what is made, before it is measured first."""


class TooMuch(TemplateError):
    """This decision has read and made as much as it may; another one may do more."""


class Making:
    """One decision's reading and making. `payload_bytes_max` bounds each thing that is made."""

    __slots__ = ("_parsed", "_spent", "payload_bytes_max")

    def __init__(self, payload_bytes_max: int) -> None:
        self.payload_bytes_max = payload_bytes_max
        self._spent = 0
        self._parsed: dict[int, tuple[Json, JsonValue]] = {}  # with the payload, so that its id stays its own

    def parse(self, payload: Json) -> JsonValue:
        """Return what a payload says; nobody may change it.

        :raises TemplateError: if it is not JSON, or this decision has read enough.
        """
        kept = self._parsed.get(id(payload))
        if kept is None:
            self._spent += len(payload.text)
            if self._spent > AT_ONCE_BYTES_MAX:
                self._check()
            kept = self._parsed[id(payload)] = (payload, parse_json(payload.text))
        return kept[1]

    def write(self, value: JsonValue, leaves: int) -> Json:
        """Return a value as a payload. `leaves`: in how many places of it something that was read may stand.

        :raises TemplateError: if it is larger than a payload may be, or this decision has made enough.
        """
        most = self.payload_bytes_max
        if (leaves > LEAVES_FEW or self._spent * leaves > most) and _size(value, most) > most:
            raise self._too_large()
        made = to_json(value)
        size_bytes = len(made.text) if made.text.isascii() else len(made.text.encode())
        if size_bytes > most:
            raise self._too_large()
        self._spent += size_bytes
        if self._spent > AT_ONCE_BYTES_MAX:
            self._check()
        return made

    def _too_large(self) -> TemplateError:
        return TemplateError(f"It has more than the {self.payload_bytes_max} bytes that a payload may have.")

    def _check(self) -> None:
        if self._spent > 2 * self.payload_bytes_max:
            raise TooMuch("It takes more data at once than may be read and made: pass on less, or references to it.")


def _size(value: JsonValue, enough: int) -> int:
    """Count at least one for each character and item that is written, and stop when there are enough.

    What is shared in memory is written out each time, so that a short template over large data could make gigabytes.
    """
    total, left = 0, [value]
    while left and total <= enough:
        item = left.pop()
        if isinstance(item, str):
            total += len(item) + 2
        elif isinstance(item, dict):
            total += 2 + sum(map(len, item)) + 3 * len(item)
            left.extend(item.values())
        elif isinstance(item, list):
            total += 2 + len(item)
            left.extend(item)
        else:
            total += 1
    return total
