"""Play simulated histories on all processors, and print what went wrong and how to see it again."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time

from tests.faults.simulated.history import plainly, theatre


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.faults.simulated", description=__doc__)
    arguments.add_argument("--histories", type=int, default=1_000, help="how many (%(default)s)")
    arguments.add_argument(
        "--seed", default=str(random.randrange(1 << 32)), help="of all of them; a new one if left out"
    )
    arguments.add_argument("--only", type=int, help="the number of one history: it is made as short as it goes wrong")
    arguments.add_argument("--part", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.only is not None:
        with theatre() as stage:
            told = stage.shortest(f"{chosen.seed}:{chosen.only}")
        sys.stdout.write("\n".join([plainly(told.steps), *told.wrong, told.trace, ""]))
        return 1 if told.wrong else 0
    if chosen.part:
        return play(chosen.seed, range(*map(int, chosen.part.split(":"))))
    return share_out(chosen.seed, chosen.histories)


def play(seed: str, numbers: range) -> int:
    """Play these, print what goes wrong, and at last how many operations there were and how many went wrong."""
    operations = wrong = 0
    with theatre() as stage:
        for number in numbers:
            told = stage.play(f"{seed}:{number}")
            operations += told.operations
            if told.wrong:
                wrong += 1
                lines = [f"python -m tests.faults.simulated --seed {seed} --only {number}", *told.wrong[:5]]
                sys.stdout.write("\n  ".join(lines) + "\n")
                sys.stdout.flush()
    sys.stdout.write(f"{operations} {wrong}\n")
    return 1 if wrong else 0


def share_out(seed: str, histories: int) -> int:
    """Each processor plays its part; the summary in one line is the last that is printed."""
    begun, parts = time.monotonic(), os.cpu_count() or 1
    command = [sys.executable, "-m", "tests.faults.simulated", "--seed", seed, "--part"]
    players = [
        subprocess.Popen([*command, f"{part}:{histories}:{parts}"], stdout=subprocess.PIPE, text=True)
        for part in range(parts)
    ]
    operations = wrong = 0
    failed = False
    for player in players:
        *lines, last = player.communicate()[0].splitlines() or [""]
        sys.stdout.writelines(f"{line}\n" for line in lines)
        found = last.split()
        failed |= player.returncode != 0 or len(found) != 2
        if len(found) == 2:
            operations, wrong = operations + int(found[0]), wrong + int(found[1])
    sys.stdout.write(
        f"faults: tier=B histories={histories} operations={operations} seed={seed} "
        f"seconds={time.monotonic() - begun:.0f} violations={wrong}\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
