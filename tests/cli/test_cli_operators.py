"""retry, resolve, fail, pause and resume, participants and health."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from amends.v1 import operator_pb2 as pb
from amends_server.cli.orchestrator.replicas import orphans_text, state_text
from tests.cli.programs import amends, orchestrator


def start_jammed(server: str, saga_id: str, gate: Path) -> None:
    """Start a saga that is STUCK until the gate is open."""
    given = ["--id", saga_id, "--input", json.dumps({"path": str(gate)})]
    started = amends("start", "jammed", *given, "--wait", server=server)
    assert started.code == 4
    assert re.search(rf"  the cause is mended +amends retry {shlex.quote(saga_id)}\n", started.out)
    assert f"{saga_id} is STUCK and not COMPLETED: see `amends show {saga_id}`" in started.err


def status(server: str, saga_id: str) -> str:
    shown = amends("cancel", saga_id, "--wait", "-o", "json", server=server)
    return str(shown.json["saga"]["status"]).removeprefix("SAGA_STATUS_")


def test_retry_lets_a_stuck_saga_go_on(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start_jammed(server, "retried", gate)
    assert [row["sagaId"] for row in stuck(server) if row["sagaId"] == "retried"] == ["retried"]
    gate.touch()
    assert amends("retry", "retried", "--reason", "unjammed", server=server).code == 0
    assert status(server, "retried") == "COMPENSATED"


def test_resolve_settles_a_step(server: str, tmp_path: Path) -> None:
    start_jammed(server, "resolved", tmp_path / "gate")
    resolve = ["resolve", "resolved", "hold", "--as", "compensated"]
    assert amends(*resolve, server=server).code == 2
    output = amends(*resolve, "--output", "{}", "--reason", "let go by hand", server=server)
    assert (output.code, "Only a step that succeeded has an output" in output.err) == (2, True)
    done = amends(*resolve, "--reason", "let go by hand", "-o", "json", server=server)
    assert done.json["saga"]["steps"][0]["resolution"]["reason"] == "let go by hand"
    assert status(server, "resolved") == "COMPENSATED"


def test_fail_gives_up(server: str, tmp_path: Path) -> None:
    start_jammed(server, "failed", tmp_path / "gate")
    failed = amends("fail", "failed", "--reason", "scrapped", "-o", "json", server=server)
    assert (failed.code, failed.json["saga"]["status"]) == (0, "SAGA_STATUS_FAILED")
    again = amends("fail", "failed", "--reason", "scrapped", server=server)
    assert (again.code, again.out) == (1, "")


def test_pause_and_resume(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    given = ["--id", "paused", "--input", json.dumps({"path": str(gate)})]
    assert amends("start", "hanging", *given, server=server).code == 0
    paused = amends("pause", "paused", "--reason", "audit", server=server)
    assert (paused.code, "(paused)" in paused.out) == (0, True)
    resumed = amends("resume", "paused", "--reason", "audited", "-o", "json", server=server)
    assert (resumed.code, resumed.json["saga"]["paused"]) == (0, False)
    gate.touch()
    assert amends("watch", "paused", server=server).code == 0


def test_stuck_shows_what_blocks_and_commands_that_repair(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start_jammed(server, "blocked;back", gate)
    shown = amends("stuck", "--definition", "jammed", server=server)
    assert shown.code == 0
    [block] = [each for each in shown.out.split("\n\n") if each.startswith("blocked;back ")]
    head, cause, step, *commands = block.splitlines()
    assert re.fullmatch(r"blocked;back  jammed@1, stuck since 2\S+ \S+Z, going back", head)
    assert "NO: never" in cause
    assert step == "  hold (the compensation of troubled.hold), 1 attempt: JAMMED: it cannot be let go"
    assert [command.split("  ")[-1].strip() for command in commands] == [
        "amends retry 'blocked;back'",
        "amends resolve --as compensated 'blocked;back' hold",
        "amends resolve --as skipped 'blocked;back' hold",
        "amends fail 'blocked;back'",
    ]
    one = amends("show", "blocked;back", server=server)
    assert [line.strip() for line in one.out.splitlines()[-6:]] == [
        "It needs an operator:",
        *(command.strip() for command in commands),
        shown.out.splitlines()[-1],
    ]
    gate.touch()
    assert pasted(commands[0], server) == 0
    assert status(server, "blocked;back") == "COMPENSATED"


def test_stuck_going_forward(server: str, tmp_path: Path) -> None:
    given = ["--id", "-lost", "--input", json.dumps({"path": str(tmp_path / "gate")})]
    assert amends("start", "lost", *given, "--wait", server=server).code == 4
    [block, _] = amends("stuck", "--definition", "lost", server=server).out.split("\n\n")
    head, step, *commands = block.splitlines()
    assert head.endswith(", going forward")
    assert "vanish (troubled.vanish), 1 attempt: " in step
    resolutions = [re.findall(r"--as (\w+) -- -lost vanish$", command) for command in commands]
    assert resolutions == [[], ["succeeded"], ["skipped"], ["compensated"], []]
    assert pasted(commands[1], server) == 0
    assert amends("stuck", "--definition", "lost", server=server).out == "No saga is stuck.\n"
    elsewhere = amends("stuck", "--namespace", "empty", "-o", "json", server=server)
    assert (elsewhere.code, elsewhere.json["sagas"]) == (0, [])


def test_many_sagas_are_paused_resumed_and_cancelled(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    for n in range(3):
        given = ["--id", f"bulk-{n}", "--label", "batch=one", "--input", json.dumps({"path": str(gate)})]
        assert amends("start", "hanging", *given, server=server).code == 0
    where = ["--where", "label=batch=one", "--where", "status=RUNNING"]
    dry = amends("pause", *where, "--dry-run", "--limit", "2", server=server)
    assert (dry.code, dry.out) == (0, "2 sagas would be paused, 1 more match.\n")
    assert amends("pause", *where, server=server).code == 2  # without a reason
    some = amends("pause", *where, "--limit", "2", "--reason", "audit", server=server)
    assert (some.code, some.out) == (0, "2 sagas paused, 1 more match: give the command again.\n")
    assert amends("pause", *where, "--reason", "audit", server=server).out == "1 saga paused.\n"
    resumed = amends("resume", *where, "--reason", "audited", "-o", "json", server=server)
    assert (resumed.code, resumed.json["result"]["changedCount"]) == (0, "3")
    assert amends("cancel", *where, "--reason", "recalled", server=server).out == "3 sagas cancelled.\n"
    gate.touch()
    assert [amends("watch", f"bulk-{n}", server=server).code for n in range(3)] == [4] * 3


def test_many_stuck_sagas_are_given_up_or_retried(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    for saga_id in ("heap-1", "heap-2"):
        started = amends(
            *("start", "jammed", "--id", saga_id, "--label", "batch=heap", "--wait"),
            *("--input", json.dumps({"path": str(gate)})),
            server=server,
        )
        assert started.code == 4
    where = ["--where", "label=batch=heap", "--where", "definition=jammed@1", "--where", "newer-than=1h"]
    given_up = amends("fail", *where, "--limit", "1", "--reason", "scrapped", server=server)
    assert given_up.out == "1 saga given up, 1 more match: give the command again.\n"
    gate.touch()
    assert amends("retry", *where, "--reason", "unjammed", server=server).out == "1 saga retried.\n"
    assert status(server, "heap-1") == "COMPENSATED"
    assert amends("list", "--status", "failed", "--label", "batch=heap", server=server).out.count("heap-2 ") == 1


def test_a_step_of_many_sagas_is_settled(server: str, tmp_path: Path) -> None:
    for saga_id in ("pile-1", "pile-2"):
        given = ["--id", saga_id, "--label", "batch=pile", "--input", json.dumps({"path": str(tmp_path / "gate")})]
        assert amends("start", "jammed", *given, "--wait", server=server).code == 4
    settle = ["resolve", "--as", "compensated", "hold", "--where", "label=batch=pile"]
    dry = amends(*settle, "--dry-run", "--limit", "1", server=server)
    assert (dry.code, dry.out) == (0, "1 saga would be settled at step hold, 1 more match.\n")
    nowhere = amends("resolve", "--as", "skipped", "refuse", *settle[4:], "--reason", "x", server=server)
    assert (nowhere.code, nowhere.out) == (0, "0 sagas settled at step refuse.\n")
    assert amends(*settle, "--reason", "let go", server=server).out == "2 sagas settled at step hold.\n"
    assert [status(server, f"pile-{n}") for n in (1, 2)] == ["COMPENSATED"] * 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pause", "--reason", "x"], "either SAGA, or --where"),
        (["cancel"], "either SAGA, or --where"),
        (["pause", "saga", "--where", "status=STUCK", "--reason", "x"], "either SAGA, or --where"),
        (["retry", "saga", "--dry-run", "--reason", "x"], "need --where"),
        (["retry", "--where", "state=STUCK", "--reason", "x"], "NAME one of status, definition, label"),
        (["retry", "--where", "status=BROKEN", "--reason", "x"], "There is no status `BROKEN`"),
        (["resolve", "saga", "--as", "skipped", "--reason", "x"], "either SAGA STEP, or STEP --where"),
        (["resolve", "s", "t", "--as", "skipped", "--where", "status=STUCK", "--reason", "x"], "either SAGA STEP"),
        (["resolve", "s", "t", "--as", "skipped", "--dry-run", "--reason", "x"], "need --where"),
        (["retry", "--where", "label=a", "--reason", "x"], "write --where label=KEY=VALUE"),
        (["retry", "--where", "older-than=99999999d", "--reason", "x"], "it must be 36500d or less"),
        (["retry", "--where", "status=STUCK", "--limit", "99999999999"], "'--limit'"),
        (["fail", "--where", "older-than=long", "--reason", "x"], "--where older-than cannot be `long`"),
        (["fail", "--where", "older-than=1h", "--where", "older-than=2h", "--reason", "x"], "given twice"),
        (["cancel", "--where", "status=RUNNING", "--wait", "--reason", "x"], "--wait is for one saga"),
    ],
)
def test_wrong_bulk_forms_ask_nothing(arguments: list[str], sentence: str) -> None:
    ended = amends(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err


def pasted(line: str, server: str) -> int:
    """Run the command at the end of a line, as somebody pastes it, with a reason."""
    command = shlex.split(line[line.index("amends ") :])
    return amends(command[1], "--reason", "pasted", *command[2:], server=server).code


def test_a_reason_is_asked_for() -> None:
    for command in (["retry", "x"], ["fail", "x"], ["pause", "x"], ["resume", "x"]):
        ended = amends(*command)
        assert (ended.code, "Say why with --reason TEXT" in ended.err) == (2, True)


def test_participants_are_added_and_removed(server: str) -> None:
    added = amends("participants", "add", "spare", "localhost:1", "--concurrency-max", "3", server=server)
    assert (added.code, "it does not answer now" in added.out) == (0, True)
    listed = amends("participants", "list", "-o", "json", server=server).json["participants"]
    assert {each["name"]: each["concurrencyMax"] for each in listed}["spare"] == 3
    assert "payment" in amends("participants", "list", server=server).out
    assert amends("participants", "remove", "spare", server=server).out == "spare removed\n"
    assert amends("participants", "remove", "spare", server=server).code == 1
    refused = amends("participants", "add", "far", "192.0.2.1:80", server=server)
    assert (refused.code, "participant_allow" in refused.err) == (1, True)
    assert amends("participants", "add", "odd", "here", server=server).code == 2


def test_health_is_for_probes(server: str, tmp_path: Path) -> None:
    serving = amends("health", server=server)
    assert (serving.code, serving.out) == (0, "SERVING\n")
    assert amends("health", "-o", "json", server=server).json == {"status": "SERVING"}
    with orchestrator(f"sqlite:///{tmp_path}/a.db") as (process, address):
        assert amends("health", server=address).code == 0
        process.kill()
        assert amends("health", server=address).code == 3


def stuck(server: str) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = amends("list", "--status", "stuck", "-o", "json", server=server).json["sagas"]
    return listed


def test_replicas_shows_the_one_of_a_file(server: str) -> None:
    shown = amends("replicas", server=server)
    assert shown.code == 0
    assert re.search(rf"^{re.escape(server)} \(asked\) +alone +\d{{4}}-.* 1 \(0\) ", shown.out, re.MULTILINE), shown.out
    document = amends("replicas", "-o", "json", server=server).json
    [replica], [partition] = document["replicas"], document["partitions"]
    assert replica["address"] == server
    assert partition["replicaId"] == replica["replicaId"]
    assert "Nobody owns" not in shown.out


def test_replicas_tells_who_lives_who_leaves_and_what_is_late_where_nobody_is() -> None:
    owned = [pb.Partition(number=number, replica_id="a") for number in (0, 1, 5)]
    replica = pb.Replica(replica_id="a", lease_left=Duration(seconds=3))
    assert state_text(replica, owned) == "alive, lease 3.0 s"
    replica.lease_left.FromSeconds(-20)
    assert state_text(replica, owned) == "leaving"
    assert state_text(replica, []) == "dead for 20.0 s"
    assert orphans_text(owned) == "Nobody owns 3 (0-1, 5): claimed within a second or two if an orchestrator is alive."
    owned[1].due_count = 7
    owned[1].oldest_due_time.FromSeconds(int(time.time()) - 90)
    assert re.search(r"alive\. Late sagas in them: 7, by \S+ ", orphans_text(owned))


def test_several_addresses_are_asked_until_one_answers(server: str) -> None:
    for both in (f"127.0.0.1:1,{server}", f"{server}, 127.0.0.1:1"):
        assert amends("participants", "list", server=both).code == 0
        assert amends("pause", "nobody", "--reason", "look", server=both).code == 1
    probed = amends("health", server=f"127.0.0.1:1,{server}")
    assert (probed.code, "one orchestrator at a time" in probed.err) == (2, True)
    assert amends("participants", "list", server=f"{server},").code == 2
    gone = amends("participants", "list", server="127.0.0.1:1,127.0.0.1:2")
    assert (gone.code, "No orchestrator answers at 127.0.0.1:1,127.0.0.1:2" in gone.err) == (3, True)
