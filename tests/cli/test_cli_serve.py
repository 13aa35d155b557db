"""`amends serve`: settings, the line when it is ready, rivals, and its end."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from amends_server.config import DRAIN_S
from tests.cli.programs import AMENDS, Ended, amends, orchestrator, program, script, troubled

STOPPED = -signal.SIGTERM


def test_it_says_when_it_is_ready_and_logs_to_stderr(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/a.db"
    with program(str(AMENDS), "serve", "--listen", "127.0.0.1:0", "--store", store) as serving:
        line = serving.line()
        ended = serving.end(signal.SIGTERM)
    assert line.startswith("amends serves at 127.0.0.1:")
    assert line.endswith(f"sagas are in {store}")
    assert (ended.code, ended.out) == (0, "")
    assert "listening" in ended.err
    assert "stopped" in ended.err


def test_54_a_second_server_is_refused_with_who_holds_it(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/a.db"
    with orchestrator(store) as (process, address):
        port = script("serve", "--listen", address, "--store", "memory:")
        file = script("serve", "--listen", "127.0.0.1:0", "--store", store)
    for ended in (port, file):
        assert (ended.code, ended.out) == (1, "")
        assert len([line for line in ended.err.splitlines() if line.startswith("amends: ")]) == 1
    assert f"amends: {address} is taken by process {process.pid} (amends): stop it" in port.err
    assert f"a.db is in use by process {process.pid}, which listens on " in file.err
    assert "--store" in file.err


def test_settings_come_from_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('listen = "127.0.0.1:0"\nstore = "memory:"\nlog_format = "json"\n', encoding="utf-8")
    with program(str(AMENDS), "serve", "-o", "json", "--config", str(file), AMENDS_LOG_LEVEL="warning") as serving:
        ready = json.loads(serving.line())
        ended = serving.end(signal.SIGINT)
    assert (ready["store"], ended.code, ended.err) == ("memory:", 0, "")


def test_wrong_settings_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("lisen = 1", encoding="utf-8")
    for arguments, env, sentence in (
        (["--listen", "here"], {}, "`here` is not HOST:PORT"),
        (["--store", "mysql://x"], {}, "neither sqlite:///PATH"),
        (["--config", "nowhere.toml"], {}, "nowhere.toml, which does not exist"),
        (["--config", "bad.toml"], {}, "There is no setting `lisen`"),
        ([], {"AMENDS_DRAIN_S": "x"}, "AMENDS_DRAIN_S"),
    ):
        ended = amends("serve", *arguments, **env)
        assert (ended.code, ended.out) == (2, "")
        assert sentence in ended.err


def test_sigterm_lets_calls_in_flight_end(tmp_path: Path) -> None:
    store, gate = f"sqlite:///{tmp_path}/a.db", tmp_path / "gate"
    with orchestrator(store) as (process, address), troubled(address):
        hang(address, tmp_path, gate)
        process.signal(signal.SIGTERM)
        not_serving(address)
        gate.touch()
        assert process.end().code == 0
    with orchestrator(store) as (_, address):
        saga = amends("show", "hung", "-o", "json", server=address).json["saga"]
    assert [saga["steps"][0]["status"], saga["steps"][0]["attempts"]] == ["STEP_STATUS_SUCCEEDED", 1]


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with orchestrator(f"sqlite:///{tmp_path}/a.db") as (process, address), troubled(address):
        hang(address, tmp_path, tmp_path / "gate")
        process.signal(signal.SIGTERM)
        not_serving(address)
        began = time.monotonic()
        assert process.end(signal.SIGTERM).code == STOPPED
        assert time.monotonic() - began < DRAIN_S / 2  # it did not wait for the call in flight


def test_watch_goes_on_across_a_crash(tmp_path: Path) -> None:
    store, gate = f"sqlite:///{tmp_path}/a.db", tmp_path / "gate"
    with orchestrator(store) as (process, address), troubled(address):
        hang(address, tmp_path, gate)
        with program(str(AMENDS), "watch", "hung", AMENDS_SERVER=address) as watching:
            seen = watching.lines_until("hang .*RUNNING")
            process.kill()
            with orchestrator(store, listen=address):
                gate.touch()
                seen += watching.lines_until("COMPLETED")
                assert watching.end().code == 0
    sequences = [int(line.split()[1]) for line in seen]
    assert sequences == list(range(1, len(seen) + 1))


def hang(address: str, folder: Path, gate: Path) -> None:
    """Start a saga whose call is in flight until the gate is open."""
    file = folder / "hanging.yaml"
    step = "{id: hang, participant: troubled, action: hang, compensation: {}, timeout: 60s}"
    file.write_text(f"name: hanging\nsteps: [{step}]", encoding="utf-8")
    given = ["--id", "hung", "--input", json.dumps({"path": str(gate)})]
    assert amends("start", "--file", str(file), *given, server=address).code == 0
    saga = amends("show", "hung", "-o", "json", server=address).json["saga"]
    assert saga["steps"][0]["status"] == "STEP_STATUS_RUNNING"


def not_serving(address: str) -> None:
    """Ask for the health until the orchestrator says that it is on its way out."""
    ended: Ended = amends("health", server=address)
    while ended.code == 0:
        ended = amends("health", server=address)
    assert (ended.code, ended.out) == (1, "NOT_SERVING\n")


def test_migrate_says_what_is_missing_does_it_and_is_content(tmp_path: Path) -> None:
    path = tmp_path / "sagas.db"
    store = ["--store", f"sqlite:///{path}"]
    dry = amends("migrate", *store, "--dry-run")
    assert (dry.code, path.exists()) == (0, False)
    assert re.search(r"needs 0001_sagas, 0002_\w+", dry.out), dry.out
    done = amends("migrate", *store, "-o", "json")
    assert done.json["migrations"][0] == "0001_sagas"
    again = amends("migrate", *store)
    assert (again.code, again.out.endswith("is up to date\n")) == (0, True)


def test_migrate_refuses_what_is_no_store_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "sagas.db"
    path.write_text("not a database, and long enough to be taken for the header of one" * 20)
    refused = amends("migrate", "--store", f"sqlite:///{path}", "--dry-run")
    assert (refused.code, "is not an SQLite database" in refused.err) == (1, True)
    assert amends("migrate", "--store", "mysql://x").code == 2


def test_migrate_looks_at_a_store_in_use(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'sagas.db'}"
    with orchestrator(store):
        assert "is up to date" in amends("migrate", "--store", store, "--dry-run").out
