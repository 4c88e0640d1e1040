"""The laboratory: run all tiers, each with a new seed, and write `docs/faults.md`.

    make faults                                  everything, an hour or more
    make faults ARGS="--scale 0.01"              a look, a few minutes; nothing is written
    make faults ARGS="--only B,E --seed 7"       these tiers, with this seed; nothing is written

The exit code is 1 when a tier failed. The page is written all the same, and says so.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults import report
from tests.faults.tiers import PROJECT, TIERS, run_all

PAGE = PROJECT / "docs" / "faults.md"


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [tier.name for tier in TIERS]
    parser.add_argument("--only", default=",".join(names), help="of %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of each; %(default)s")
    seed = random.randrange(1 << 31)
    parser.add_argument("--seed", type=int, default=seed, help="of every tier; a new one if left out")
    parser.add_argument("--to", type=Path, help="the page to write; docs/faults.md when all is run whole, else none")
    parser.add_argument("--soaked", default="", metavar="LINE", help="the last line of a soak, for the page")
    given = parser.parse_args(args)
    chosen = given.only.split(",")
    if unknown := set(chosen) - set(names):
        parser.error(f"no tier {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    outcomes = run_all([tier for tier in TIERS if tier.name in chosen], given.scale, given.seed, say)
    page = given.to or (PAGE if len(outcomes) == len(TIERS) and given.scale >= 1 else None)
    if page:
        report.write(page, outcomes, report.here(os.cpu_count() or 1), given.soaked)
    for found in outcomes.values():
        count = f"{found.count} {found.tier.unit}, seed {found.seed}, {found.seconds:.0f} s"
        say(f"{found.tier.name}: {found.wrong or 'no violations'} ({count})\n    {found.command}")
    return 1 if any(found.wrong for found in outcomes.values()) else 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
