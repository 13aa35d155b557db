"""Runs seeds of the chaos: `python -m tests.chaos --seeds 4 --seconds 20 --store sqlite`, or one with `--seed 7`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.disk import CannotMount, have_own_mounts
from tests.chaos.nemesis import Story
from tests.chaos.run import run_seed
from tests.postgres import CannotRun

VIOLATIONS_SHOWN = 10


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _end)
    mounts = _can_mount()
    first, count = (options.first, options.seeds) if options.seed is None else (options.seed, 1)
    for seed in range(first, first + count):
        try:
            if not _run(seed, options, mounts=mounts):
                return 1
        except CannotRun as reason:
            print(f"skipped: {reason}")
            return 0
    return 0


def _run(seed: int, options: argparse.Namespace, *, mounts: bool) -> bool:
    """Run a seed, and tell what came of it: all of the story if it was not good, or was asked for."""
    story, good = Story(), False
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        outcome = asyncio.run(run_seed(seed, options.seconds, options.store, folder, story, mounts=mounts))
        good = not outcome.violations
        for violation in outcome.violations[:VIOLATIONS_SHOWN]:
            story.tell(f"VIOLATED: {violation}")
        if len(outcome.violations) > VIOLATIONS_SHOWN:
            story.tell(f"… and {len(outcome.violations) - VIOLATIONS_SHOWN} more")
        print(f"seed {seed}: {'' if good else 'VIOLATED: '}{outcome.summary}", flush=True)
    finally:
        if not good or options.seed is not None:
            print("\n".join(story.lines))
        if good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"Logs and diaries are in {folder}")
            print(f"Again: make chaos SEED={seed} SECONDS={options.seconds:g} STORE={options.store}")
    return good


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of faults, each seed")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, help="run this one only, and tell its story")
    return parser


def _can_mount() -> bool:
    try:
        have_own_mounts()
    except CannotMount as reason:
        print(f"no disk is filled, which takes the right to mount one: {reason}")
        return False
    return True


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # so that all that was started is taken away


if __name__ == "__main__":
    sys.exit(main())
