"""The shop as a process: `python -m participants.shop --db-dir DIR`. Prints `ready NAME HOST:PORT` for each part."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from amends.participant.serve import ServeError, stopped_by_signals
from participants.shop.services import SERVICES, serving_shop


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_serve(options.db_dir, options.only or list(SERVICES), options.listen, options.orchestrator))
    except (ServeError, ValueError) as error:
        sys.exit(f"shop: {error}")


async def _serve(db_dir: Path, only: list[str], listen: str, orchestrator: str | None) -> None:
    async with (
        stopped_by_signals(),
        serving_shop(db_dir, only=only, listen=listen, orchestrator=orchestrator) as addresses,
    ):
        for name, address in addresses.items():
            print(f"ready {name} {address}", flush=True)
        await asyncio.Event().wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m participants.shop", description=__doc__)
    parser.add_argument("--db-dir", type=Path, default=Path("shop"), help="the folder of the ledgers")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 is a free one for each; N is N, N+1, …"
    )
    parser.add_argument("--orchestrator", metavar="HOST:PORT", help="where to register")
    parser.add_argument("--only", action="append", choices=list(SERVICES), help="serve this one; may be repeated")
    return parser


if __name__ == "__main__":
    main()
