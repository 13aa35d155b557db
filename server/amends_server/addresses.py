"""Network addresses as HOST:PORT, and the list of those that may be dialled.

Only that form is read. Everything else that gRPC would take as a target is refused, because it could lead elsewhere
than it seems to: other schemes, sockets in files, user names, paths, several addresses in one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

PORT_MAX = 65_535

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):(?P<port>[0-9]{1,5})", re.ASCII)
_PATTERN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):(?P<port>[0-9]{1,5}|\*)", re.ASCII)
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)
_HOST_LENGTH_MAX = 253
_FORM = "HOST:PORT, for example localhost:7301 or [::1]:7301"


@dataclass(frozen=True, slots=True)
class Address:
    """A host, in lower case and IPv6 in brackets and its shortest form, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """What to give to gRPC: with a scheme, or a host that is called like one (`unix:80`) would be taken for it."""
        return f"dns:///{self}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Addresses that are allowed: `host` may be `*` or begin with `*.`; `port` None is any."""

    host: str
    port: int | None

    def matches(self, address: Address) -> bool:
        """Tell whether the address is one of them."""
        return (self.port is None or self.port == address.port) and self._matches_host(address.host)

    def _matches_host(self, host: str) -> bool:
        if self.host.startswith("*."):
            return host.endswith(self.host[1:])
        return self.host in ("*", host)


def parse_address(text: str, *, port_min: int = 1) -> Address:
    """Read an address.

    :raises ValueError: if it is anything else than HOST:PORT, with a sentence.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not {_FORM}")
    port = int(match["port"])
    if not port_min <= port <= PORT_MAX:
        raise ValueError(f"the port of `{text}` must be from {port_min} to {PORT_MAX}")
    return Address(_host(match["host"], text), port)


def parse_pattern(text: str) -> Pattern:
    """Read an entry of an allow-list.

    :raises ValueError: if it is neither an address nor one with `*` for its port, its host or the begin of its host.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not {_FORM}; each part may be `*`, and a host may begin with `*.`")
    host = match["host"]
    if host != "*":
        host = "*." + _host(host[2:], text) if host.startswith("*.") else _host(host, text)
    return Pattern(host, None if match["port"] == "*" else int(match["port"]))


def is_allowed(address: str, patterns: Iterable[str]) -> bool:
    """Tell whether an address may be dialled. What is no address may not.

    :raises ValueError: if a pattern cannot be read.
    """
    known = [parse_pattern(pattern) for pattern in patterns]
    try:
        parsed = parse_address(address)
    except ValueError:
        return False
    return any(pattern.matches(parsed) for pattern in known)


def _host(text: str, whole: str) -> str:
    if text.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(text[1:-1])}]"
        except ValueError:
            raise ValueError(f"`{whole}` does not hold an IPv6 address in its brackets") from None
    if not _HOST.fullmatch(text) or len(text) > _HOST_LENGTH_MAX:
        raise ValueError(f"`{whole}` is not {_FORM}")
    return text.lower()
