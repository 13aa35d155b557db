"""What templates and expressions make within one decision: payloads are parsed once, and all of it is bounded."""

from __future__ import annotations

from amends_server.engine.jsonvalue import JsonValue, TemplateError, parse_json, to_json
from amends_server.engine.payload import Json, payload_size_bytes

AT_ONCE_BYTES_MAX = 32 << 20
"""Read and made by the templates of one decision, all together: everybody waits for it, about a second at the most.

Two payloads of the largest size fit in any case, one to be read and one to be made.
"""


class TooMuch(TemplateError):
    """This decision has read and made as much as it may; another one may do more."""


class Making:
    """One decision's reading and making. `payload_bytes_max` bounds each thing that is made."""

    __slots__ = ("_left", "_parsed", "payload_bytes_max")

    def __init__(self, payload_bytes_max: int) -> None:
        self.payload_bytes_max = payload_bytes_max
        self._left = max(AT_ONCE_BYTES_MAX, 2 * payload_bytes_max)
        self._parsed: dict[int, tuple[Json, JsonValue]] = {}  # with the payload, so that its id stays its own

    def parse(self, payload: Json) -> JsonValue:
        """Return what a payload says; nobody may change it.

        :raises TemplateError: if it is not JSON, or this decision has read enough.
        """
        kept = self._parsed.get(id(payload))
        if kept is None:
            self._pay(len(payload.text))
            kept = self._parsed[id(payload)] = (payload, parse_json(payload.text))
        return kept[1]

    def write(self, value: JsonValue) -> Json:
        """Return a value as a payload.

        :raises TemplateError: if it is larger than a payload may be, or this decision has made enough.
        """
        if self._parsed and _size(value, self.payload_bytes_max) > self.payload_bytes_max:
            raise self._too_large()
        made = to_json(value)
        size_bytes = payload_size_bytes(made)
        if size_bytes > self.payload_bytes_max:
            raise self._too_large()
        self._pay(size_bytes)
        return made

    def _too_large(self) -> TemplateError:
        return TemplateError(f"It has more than the {self.payload_bytes_max} bytes that a payload may have.")

    def _pay(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TooMuch("Too much data would be read and made at once: have fewer steps begin together.")


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
