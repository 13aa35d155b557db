"""Tries out every mutant: `python -m tests.mutants [PART OF A NAME]`; fails if one is not caught."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.faults import MUTANTS
from tests.mutants.lab import Result, try_out

AT_A_TIME = 2
LINES_SHOWN = 15


def main() -> int:
    wanted = [mutant for mutant in MUTANTS if all(part in mutant.name for part in sys.argv[1:])]
    began = time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        survivors = [result for result in pool.map(try_out, wanted) if not _tell(result)]
    print(f"{len(wanted) - len(survivors)} of {len(wanted)} mutants caught in {time.monotonic() - began:.0f} s")
    return 1 if survivors or not wanted else 0


def _tell(result: Result) -> bool:
    print(f"{'caught  ' if result.caught else 'SURVIVED'}  {result.mutant.name}", flush=True)
    if not result.caught:
        print(f"          {result.mutant.caught_by} ended with code {result.code}")
        print("\n".join(result.output.splitlines()[-LINES_SHOWN:]))
    return result.caught


if __name__ == "__main__":
    sys.exit(main())
