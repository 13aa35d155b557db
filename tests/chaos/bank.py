"""A bank of the chaos as a process: `python -m tests.chaos.bank NAME DB`. Prints `ready HOST:PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

from amends.participant.serve import run
from tests.chaos.transfers import ACCOUNTS, BALANCE, bank


def main(name: str, db: str) -> None:
    it = bank(name)
    with it.ledger.opened(Path(db), dict.fromkeys(ACCOUNTS, BALANCE)):
        run(it.participant)


if __name__ == "__main__":
    main(*sys.argv[1:])
