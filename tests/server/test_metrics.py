"""Figures for Prometheus: what the page says, and that it is there only when it is asked for."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from amends_server.app import StartError, serving
from amends_server.config import Settings, SettingsError, load_settings


def settings(folder: Path, metrics: str) -> Settings:
    return load_settings(listen="127.0.0.1:0", store=f"sqlite:///{folder / 'amends.db'}", metrics=metrics)


def read(address: str) -> dict[str, float]:
    with urlopen(f"http://{address}/metrics", timeout=30) as page:
        text = page.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(amends_\S+) (\S+)$", text, re.MULTILINE)}


async def test_the_one_orchestrator_of_a_file_shows_its_figures(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, "127.0.0.1:0")) as server:
        found = await asyncio.to_thread(read, server.metrics_address)
        address = server.metrics_address
    assert found == {
        "amends_partitions_owned": 1,
        "amends_partitions_gained_total": 1,
        "amends_sagas_active": 0,
        "amends_sagas_taken_over_total": 0,
    }
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(read, address)


async def test_without_the_setting_nothing_is_served(tmp_path: Path) -> None:
    async with serving(settings(tmp_path, "")) as server:
        assert server.metrics_address == ""


async def test_an_address_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    async with serving(settings(tmp_path / "one", "127.0.0.1:0")) as server:
        with pytest.raises(StartError, match="Choose another address in the setting metrics"):
            await serving(settings(tmp_path / "two", server.metrics_address)).__aenter__()
    with pytest.raises(SettingsError, match="metrics"):
        settings(tmp_path, "anywhere")


async def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "amends_server.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(StartError, match=r"pip install amends\[metrics\]"):
        await serving(settings(tmp_path, "127.0.0.1:0")).__aenter__()
