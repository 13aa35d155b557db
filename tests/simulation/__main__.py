"""Runs seeds of the simulation: `python -m tests.simulation --seeds 10000 [--first 0]`, or one with `--seed 7`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.rare import RARE
from tests.simulation.runs import run_seed, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, help="run this one only, and tell its story")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed)
    seen: Counter[str] = Counter()
    numbers = range(options.first, options.first + options.seeds)
    with ProcessPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(run_seed, numbers, chunksize=20):
            seen.update(outcome.seen)
            if outcome.violation:
                print(shrink(outcome))
                print(f"Again: python -m tests.simulation --seed {outcome.seed}")
                pool.shutdown(cancel_futures=True)
                return 1
    for state in sorted(RARE):
        print(f"{seen[state]:8}  {state}")
    missing = sorted(RARE - seen.keys())
    print(f"{options.seeds} seeds, and all promises were kept")
    if missing:
        print(f"Never seen: {', '.join(missing)}. Run more seeds, or find out what keeps these from happening.")
    return 1 if missing else 0


def _one(seed: int) -> int:
    outcome = run_seed(seed)
    print(shrink(outcome) if outcome.violation else "\n".join(outcome.lines))
    return 1 if outcome.violation else 0


if __name__ == "__main__":
    sys.exit(main())
