"""The event loop of the processes that we start ourselves."""

from __future__ import annotations

import asyncio
import sys

import pytest

from amends._loop import run


async def kind_of_loop() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_uvloop_is_used_where_it_is_installed() -> None:
    pytest.importorskip("uvloop")
    assert run(kind_of_loop()) == "uvloop"


def test_without_uvloop_the_loop_is_that_of_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(kind_of_loop()) == "asyncio"
