"""The command that runs an orchestrator."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amends_server.cli.exits import CommandError, run, usage_error
from amends_server.cli.options import Form
from amends_server.cli.output import print_json, print_line

if TYPE_CHECKING:
    from amends_server.config import Settings

SETTINGS = (
    "Each setting can be given as AMENDS_… in the environment, or in the TOML file: listen, store, participants, "
    "participant_allow, payload_bytes_max, drain_s, lease_s, advertise, metrics, reflection, log_level, log_format. An "
    "argument goes before the environment, and that before the file.\n\n"
    "Exit codes: 0 stopped by a signal; 1 it could not start or go on; 2 wrong usage or settings."
)


Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings as TOML. Default: what AMENDS_CONFIG names, else ./amends.toml."
    ),
]


def serve(
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", metavar="HOST:PORT", help="Where to serve; port 0 is a free one. Default: 127.0.0.1:7242."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="sqlite:///PATH",
            help="Where sagas are kept; four slashes for an absolute path. Default: in the data folder.",
        ),
    ] = None,
    config: Config = None,
    form: Annotated[
        Form, typer.Option("--format", "-o", help="json: the line that says it is ready as a JSON document.")
    ] = Form.TEXT,
) -> None:
    """Run an orchestrator. It says on stdout when it is ready, and logs to stderr.

    SIGTERM or Ctrl-C lets calls in flight end; a second one stops it at once.
    """
    run(_serve(read_settings(listen, store, config), form))


def read_settings(listen: str | None, store: str | None, config: Path | None) -> Settings:
    """The settings, with those of the command line first; what cannot be used ends the command."""
    from amends_server.cli.exits import fail
    from amends_server.config import ENV_CONFIG, SettingsError, load_settings

    try:
        if config is not None:
            if not config.is_file():
                raise usage_error(f"--config names the file {config}, which does not exist: check its name.")
            os.environ[ENV_CONFIG] = str(config)
        return load_settings(listen=listen, store=store)
    except CommandError as error:
        fail(error)
    except SettingsError as error:
        fail(usage_error(str(error)))


async def _serve(settings: Settings, form: Form) -> None:
    from amends_server.app import StartError, serving
    from amends_server.interpreter import tune_interpreter
    from amends_server.logs import set_up_logs

    set_up_logs(settings.log_level, settings.log_format)
    task = asyncio.current_task()
    assert task is not None
    stopped = _stop_at_signals(task)
    try:
        tune_interpreter()
        async with serving(settings) as server:
            if form is Form.JSON:
                print_json({"address": server.address, "store": settings.store}, indent=None)
            else:
                print_line(f"amends serves at {server.address}, sagas are in {settings.store}")
            await server.broken()
    except StartError as error:
        raise CommandError(str(error)) from None
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
    except ExceptionGroup as group:
        import structlog

        structlog.get_logger(__name__).error("broken", exc_info=group)
        raise CommandError(
            "The server cannot go on: the log says why. Sagas go on where they were after a restart."
        ) from None


def _stop_at_signals(task: asyncio.Task[None]) -> asyncio.Event:
    """Cancel the task at the first signal; the second one then does what the system does with it."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        stopped.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        task.cancel()

    for number in numbers:
        loop.add_signal_handler(number, stop)
    return stopped
