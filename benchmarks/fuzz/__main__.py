"""Try hostile and ordinary inputs at every door of tsllm, and count what comes back.

    PYTHONPATH=benchmarks python -m fuzz
    PYTHONPATH=benchmarks python -m fuzz --doors horizons tables --cases 200
    PYTHONPATH=benchmarks python -m fuzz --case horizons:17       # once more, with its traceback

The counts: clear (a refusal in one sentence of ours), sane (an answer that an independent oracle
confirms), raw (another exception, or a message that is no sentence), wrong (an answer that the
oracle refutes, or ordinary input that is refused), hang (past a time limit, or a dead process).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

# Read when the packages that compute are first imported; the workers inherit them.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
sys.path.append(str(Path(__file__).parents[1]))

from measuring import write

from fuzz.cases import BAD, COUNTS, DOORS, Outcome, attacks_of, run_case
from fuzz.runner import LIMIT, Job, run_jobs

#: Cases of all doors together.
CASES = 2000


def main() -> int:
    """Run the cases, print the table and write the file of results."""
    arguments = argparse.ArgumentParser(
        prog="python -m fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--doors", nargs="+", default=list(DOORS), metavar="DOOR")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--cases", type=int, default=CASES, help="of all doors together")
    arguments.add_argument("--case", metavar="DOOR:NUMBER", help="run one, with its traceback")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--limit", type=float, default=LIMIT, help="seconds of a case")
    arguments.add_argument("--out", type=Path, help="folder for fuzz.json; none: only the table")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="tsllm-fuzz-store-") as store:
        os.environ["TSLLM_STORE"] = store  # not the user's own
        return show(chosen.case, chosen.seed) if chosen.case else run(chosen)


def run(chosen: argparse.Namespace) -> int:
    """Run the cases that the options choose."""
    begun = time.perf_counter()
    jobs = plan(chosen.doors, chosen.cases, chosen.seed)
    outcomes = run_jobs(jobs, workers=chosen.workers, limit=chosen.limit, report=tell)
    results = {
        "seed": chosen.seed,
        "seconds": round(time.perf_counter() - begun, 1),
        "table": table(outcomes),
        "failing": [one.to_row() for one in outcomes if one.count in BAD],
    }
    for row in results["table"]:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if chosen.out is not None:
        write("fuzz", results, chosen.out)
    return 1 if results["failing"] else 0


def plan(doors: list[str], cases: int, seed: int) -> list[Job]:
    """Share the cases among the doors by the number of their attacks."""
    sizes = {door: len(attacks_of(door)) for door in doors}
    rounds = max(1, round(cases / sum(sizes.values())))
    return [Job(door, number, seed) for door in doors for number in range(rounds * sizes[door])]


def table(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Count the outcomes of each door, and of all."""
    rows = []
    for door in [*dict.fromkeys(one.door for one in outcomes), "all"]:
        counts = Counter(one.count for one in outcomes if door in (one.door, "all"))
        rows.append(
            {"door": door, "cases": counts.total(), **{name: counts[name] for name in COUNTS}}
        )
    return rows


def tell(outcome: Outcome) -> None:
    """Print a failing case as it comes."""
    if outcome.count in BAD:
        print(f"{outcome.count:5s} {outcome.case} {outcome.attack}({outcome.drawn})", flush=True)
        print(f"      {outcome.said}", flush=True)


def show(address: str, seed: int) -> int:
    """Run one case in this process and print all that is known of it."""
    door, number = address.split(":")
    outcome = run_case(door, int(number), seed)
    print(f"{outcome.case} {outcome.attack}({outcome.drawn}): {outcome.count}")
    print(outcome.traceback or outcome.said)
    return int(outcome.count in BAD)


if __name__ == "__main__":
    sys.exit(main())
