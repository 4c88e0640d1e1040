"""Time what this program costs, beside the physical limit and its peers: `make bench`.

Absolute times say little about another machine, so what counts is printed as ratios. Each group of rows is measured
in rounds that call everything by turns; a row's ratio is the median of its rounds' own ratios, and its spread is their
middle half. Servers, files and workspaces are in temporary folders; peers are installed into build/peers, once. A
whole run of the usual size writes docs/performance.md and its plot.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import table
from .group import Group, Result, Scale, Taken, judge, keep, kept, take
from .groups import GROUPS
from .page import write_page
from .rig import PROJECT

USUAL = Scale()
ROUNDS = 7


def main() -> None:
    chosen, names = parse()
    for name in [name for name in os.environ if name.startswith(("RECONCILER_", "REDIS_", "LUKA_"))]:
        del os.environ[name]
    peers = None if chosen.no_peers else chosen.build / "peers"
    scale = Scale(chosen.agents, chosen.crowd, chosen.calls, peers)
    print(table.machine(scale), flush=True)
    taken: dict[str, Taken] = {}
    results: list[Result] = []
    for group in GROUPS:
        if group.name in names:
            why = ""
            try:
                taken[group.name] = measure(group, scale, chosen)
            except SystemExit as failed:  # what else there is to measure does not wait for it
                why = f"failed: {failed}".partition("\n")[0]
                print(failed, file=sys.stderr)
            judged = judge(group, taken.get(group.name, {}), scale, why)
            print("".join(f"{table.line(result)}\n" for result in judged), end="", flush=True)
            results += judged
    print("\n".join(table.summary(results)))
    usual = scale[:3] == USUAL[:3] and chosen.rounds >= ROUNDS
    if not chosen.only and (chosen.docs or usual):
        write_page(chosen.docs or PROJECT / "docs", results, taken, scale)
    if len(taken) < len(names):
        sys.exit("a group failed")


def parse() -> tuple[argparse.Namespace, list[str]]:
    """The options, and the groups that are asked for."""
    names = [group.name for group in GROUPS]
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = arguments.add_argument
    add("--only", default="", help=f"groups, by comma, of: {', '.join(names)}")
    add("--rounds", type=int, default=ROUNDS, help="how often each row is timed (%(default)s)")
    add("--agents", type=int, default=USUAL.agents, help="in place of the goals' %(default)s agents")
    add("--crowd", type=int, default=USUAL.crowd, help="in place of the goals' %(default)s agents")
    add("--calls", type=int, default=USUAL.calls, help="calls in a block of the short ones (%(default)s)")
    add("--no-peers", action="store_true", help="install nothing, compare with what is here")
    add("--keep", action="store_true", help="go on with what an earlier run of the same size measured")
    add("--build", type=Path, default=PROJECT / "build", help="where peers and measures are kept (%(default)s)")
    add("--docs", type=Path, help="write the page of a run of another size, into this folder")
    chosen = arguments.parse_args()
    only = chosen.only.split(",") if chosen.only else names
    unknown = sorted({*only} - {*names})
    if unknown:
        arguments.error(f"there is no group {', '.join(unknown)}; there are {', '.join(names)}")
    if min(chosen.rounds, chosen.agents, chosen.crowd, chosen.calls) < 1:
        arguments.error("rounds, agents, crowd and calls are at least 1")
    return chosen, only


def measure(group: Group, scale: Scale, chosen: argparse.Namespace) -> Taken:
    """What an earlier run has kept, else what is taken now."""
    folder = chosen.build / "bench"
    taken = kept(group, folder, scale, chosen.rounds) if chosen.keep else None
    if taken is None:
        taken = take(group, scale, chosen.rounds)
        keep(group, folder, scale, chosen.rounds, taken)
    return taken


if __name__ == "__main__":
    main()
