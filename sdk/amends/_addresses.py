"""Addresses of servers: several in one text, and whether the way to one may lead through a proxy."""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(?:[a-z0-9]+:///)?(\[[^\]]+\]|[^:/]+)(?::\d+)?", re.IGNORECASE)


def addresses(target: str) -> list[str]:
    """The addresses in a text, which stand between commas.

    :raises ValueError: if there is none, or an empty one.
    """
    found = [address.strip() for address in target.split(",")]
    if not all(found):
        raise ValueError(f"{target!r} is no address: it must be HOST:PORT, or several of them with commas between")
    return list(dict.fromkeys(found))


def proxy_options(target: str) -> list[tuple[str, int]]:
    """Return channel options that keep what is on this machine away from the proxy that the environment names.

    A proxy cannot reach it. Other targets are for the environment to say, as usual in gRPC: `http_proxy`, `no_proxy`.
    """
    return [("grpc.enable_http_proxy", 0)] if _is_here(target) else []


def _is_here(target: str) -> bool:
    match = _HOST.fullmatch(target)
    host = match[1].strip("[]") if match else ""
    if host == "localhost" or target.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
