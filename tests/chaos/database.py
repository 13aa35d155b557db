"""The PostgreSQL servers of the chaos: a primary that can crash, and a synchronous standby that can take its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.node import starter
from tests.postgres import Database, as_server_user, postgres, server_user

STANDBY = "standby"
WAIT_S = 30


class Cluster:
    """The database as its clients see it: one server, and maybe one that waits to take over."""

    def __init__(self, primary: Database) -> None:
        self._primary = primary
        self._standby: Database | None = None
        self.lost = ""

    @property
    def socket(self) -> str:
        """The path at which the server listens that takes writes."""
        return f"{self._primary.folder}/.s.PGSQL.5432"

    def sql(self, statement: str) -> str:
        return self._primary.sql(statement)

    def stop(self) -> None:
        """End the server at once, as `pg_ctl stop -m immediate` does."""
        self._primary.stop()

    def start(self) -> None:
        self._primary.start()

    def terminate_sessions(self) -> None:
        """Break all sessions of clients off, wherever they are."""
        self.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )

    def add_standby(self) -> None:
        """Copy the primary, and have each commit wait for the copy from now on."""
        first = self._primary
        folder = first.folder / STANDBY
        folder.mkdir()
        if user := server_user():
            os.chown(folder, user["user"], user["group"])
        copy: list[Path | str] = [
            first.programs / "pg_basebackup",
            "-h",
            first.folder,
            "-U",
            "amends",
            "-D",
            folder / "data",
        ]
        as_server_user([*copy, "-R", "-X", "stream", "-c", "fast"])
        self._standby = Database(folder, first.programs, {"wal_retrieve_retry_interval": "500ms"}, starter)
        self._standby.start()
        self.sql("alter system set synchronous_standby_names = '*'")
        self.sql("select pg_reload_conf()")
        first.wait_for("select count(*) = 1 from pg_stat_replication where sync_state = 'sync'")

    def stop_standby(self) -> None:
        """End the standby: commits wait for it until it is there again."""
        assert self._standby is not None, "there is no standby"
        self._standby.stop()

    def start_standby(self) -> None:
        assert self._standby is not None, "there is no standby"
        self._standby.start()

    def url(self, **more: str) -> str:
        """Return the URL of the server that takes writes."""
        return self._primary.url(**more)

    def url_of_both(self) -> str:
        """Return a URL that names the standby first."""
        assert self._standby is not None, "there is a standby"
        standby, primary = self._standby.folder, self._primary.folder
        return self._primary.url().replace(f"host={primary}", f"host={standby},{primary}")

    def fail_over(self) -> None:
        """Lose the primary for good, and promote the standby."""
        assert self._standby is not None, "there is one standby"
        self.lost = self.socket
        self._primary.stop()
        self._primary, self._standby = self._standby, None
        self.sql(f"select pg_promote(true, {WAIT_S})")
        self._primary.wait_for("select not pg_is_in_recovery()")

    def fail_over_to_what_was_lost(self) -> None:
        """Lose the primary for good, and promote the standby, which was lost before it."""
        assert self._standby is not None, "there is one standby"
        self._primary.stop()
        self._standby.start()
        self.fail_over()

    def close(self) -> None:
        """End the servers that this has started."""
        for server in (self._primary, self._standby):
            if server is not None:
                server.stop()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a primary and its synchronous standby as long as the block lasts.

    :raises tests.postgres.CannotRun: if that is impossible here.
    """
    with postgres(starter=starter) as primary:
        it = Cluster(primary)
        try:
            it.add_standby()
            yield it
        finally:
            it.close()
