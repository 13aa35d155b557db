"""The bank as a process: `python -m participants.bank --db bank.db`. Prints `ready HOST:PORT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from amends.participant.serve import ServeError, run
from participants.bank.accounts import ACCOUNTS, bank, ledger


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    try:
        with ledger.opened(options.db, dict(options.account or ACCOUNTS.items())):
            run(bank, listen=options.listen, orchestrator=options.orchestrator, advertise=options.advertise)
    except (ServeError, ValueError) as error:
        sys.exit(f"bank: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m participants.bank", description=__doc__)
    parser.add_argument("--db", type=Path, default=Path("bank.db"), help="the file of the ledger")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 is a free one")
    parser.add_argument("--orchestrator", metavar="HOST:PORT", help="where to register")
    parser.add_argument("--advertise", metavar="HOST:PORT", help="where the orchestrator finds the bank")
    parser.add_argument("--account", action="append", type=_account, metavar="NAME=AMOUNT", help="an account to open")
    return parser


def _account(text: str) -> tuple[str, int]:
    name, _, amount = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=AMOUNT")
    return name, int(amount)


if __name__ == "__main__":
    main()
