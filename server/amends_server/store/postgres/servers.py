"""Which of the servers in a URL is meant, and how it is reached though one that stands before it does not answer."""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_NEXT = (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)
"""What leads on to the next server: this one is not there, or takes no writes. Who refuses us is not passed over."""


def to_writer(url: str) -> str:
    """Return a URL that leads to the server that takes writes, where it names several and does not say to which."""
    if len(servers_of(url)) == 1 or "target_session_attrs" in dict(parse_qsl(urlsplit(url).query)):
        return url
    return f"{url}{'&' if '?' in url else '?'}target_session_attrs=read-write"


async def connect(url: str, *, timeout: float, **more: Any) -> Connection:
    """Connect as the driver does, but give each server an equal part of the time.

    The driver gives all of it to the first one, and a machine that is gone never says so.
    """
    servers = servers_of(url)
    for server in servers[:-1]:
        try:
            return await asyncpg.connect(server, timeout=timeout / len(servers), **more)
        except _NEXT:
            continue
    return await asyncpg.connect(servers[-1], timeout=timeout / len(servers), **more)


def servers_of(url: str) -> list[str]:
    """Return a URL for each server that this one names, in its order."""
    parts, query = urlsplit(url), dict(parse_qsl(urlsplit(url).query))
    user, at, hosts = parts.netloc.rpartition("@")
    if hosts:
        return [parts._replace(netloc=user + at + host).geturl() for host in hosts.split(",")]
    named, ports = query.get("host", "").split(","), query.get("port", "").split(",")
    if len(named) == 1 or len(ports) not in (1, len(named)):  # of which the driver says what is wrong
        return [url]
    places = [{"host": host} for host in named]
    if len(ports) > 1:
        places = [place | {"port": port} for place, port in zip(places, ports, strict=True)]
    return [f"{url.partition('?')[0]}?{urlencode(query | place)}" for place in places]
