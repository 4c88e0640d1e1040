"""`docs/faults.md`: what is claimed, what was tried, what came out. Written from what the tiers told alone."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.faults.scenarios.catalogue import catalogue
from tests.faults.tiers import TIERS, Outcome, Tier, caught

RULES = (
    ("An acknowledged write is never lost, unless a newer write or deletion of that field beat it.", "A B C D E F"),
    ("Within 10 s of the last repair `context.json`, Redis, the Python API and the fold of the history say the same: "
     "values, JSON types and stamps.", "B C E F"),
    ("What comes out depends only on which writes were made, not on their order, repetition or route.", "A B E"),
    ("Stamps and versions never go back.", "B C E F"),
    ("Nothing is invented, and what was deleted does not return by itself.", "B C D E F"),
    ("The history of an agent, folded, is its live state.", "B C E F"),
    ("Versions have no gaps, and there is one for each change that had an effect.", "B C E F"),
    ("Events are in order, each once, without holes, and can be resumed.", "B C E F"),
    ("`context.json` is at every instant one complete old or complete new document of strict JSON.", "B C D E F"),
    ("A poisoned item delays nobody else by more than 1 s.", "C"),
    ("A write answers within 1 s whatever is wrong: done, or an honest refusal.", "C"),
    ("At rest nothing is written and no event is sent.", "B C E"),
    ("Descriptors, memory, temporary files and the journal stay bounded.", "C D F"),
    ("`status` is red within 5 s of a fault and green within 5 s of its repair.", "C"),
    ("The password appears nowhere.", "C E"),
)  # fmt: skip
"""The rules, each with the tiers that hold the program to it."""

HEAD = """\
# What the program survives

Written by `make faults`: each number is what a tier counted itself, and each line can be run again with its seed.

**Claim.** Whatever happens to the server, to the files, to the machine or to a process that takes part, no write
that was acknowledged is lost, nothing is invented, and when the trouble is over all sides hold the same.
"""

EDGE = """\
Acknowledged by Redis means in Redis' hands until a daemon has mirrored it, which takes milliseconds: a plain update
that only a server had which then lost everything is gone with it, unless it was made with `durable=True`. The tiers
that let a server come back empty or older hold the program to this line and not to a softer one.

Deleting an agent deletes what is found: what is on its way to files meanwhile may stay.

Seconds are those of a machine where nobody else is at work. C and F keep theirs busy, and allow 30 s in rule 2, 3 s in
rule 11 and 6 s in rule 14.
"""


class Machine(NamedTuple):
    """Where it ran."""

    cores: int
    python: str
    system: str

    def __str__(self) -> str:
        return f"{self.cores} cores, Python {self.python}, {self.system}"


def here(cores: int) -> Machine:
    return Machine(cores, platform.python_version(), f"{platform.system()} {platform.machine()}")


def write(path: Path, outcomes: Mapping[str, Outcome], machine: Machine, soaked: str = "") -> None:
    """Write the page; a tier that did not run, or failed, is shown as that."""
    path.write_text(page(outcomes, machine, soaked), encoding="utf-8")


def page(outcomes: Mapping[str, Outcome], machine: Machine, soaked: str = "") -> str:
    parts = [HEAD, "## The rules\n", *rules(), EDGE, "## The tiers\n", *tiers(outcomes), f"Machine: {machine}.\n",
             *failures(outcomes), "## The soak\n", soak(soaked), "## The mutants\n", *mutants(outcomes.get("mutants")),
             "## The scenarios\n", *scenarios(), "## Again\n", *again(outcomes)]  # fmt: skip
    return "\n".join(parts).rstrip("\n") + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def rules() -> list[str]:
    rows = [(str(number), text, tiers_) for number, (text, tiers_) in enumerate(RULES, 1)]
    return [table(("", "rule", "held by tier"), rows)]


def tiers(outcomes: Mapping[str, Outcome]) -> list[str]:
    head = ("tier", "what", "count", "operations", "faults", "seed", "time", "violations")
    return [table(head, [_row(tier, outcomes.get(tier.name)) for tier in TIERS])]


def _row(tier: Tier, found: Outcome | None) -> tuple[str, ...]:
    if found is None:
        return (tier.name, tier.what, "not run", "", "", "", "", "")
    skipped = found.figures.get("skipped", "0")
    count = f"{found.count} {tier.unit}" + (f", {skipped} skipped" if skipped != "0" else "")
    figures = found.figure("operations"), found.figure("faults_injected")
    verdict = f"**failed: {found.wrong}**" if found.wrong else "0"
    return (tier.name, tier.what, count, *figures, str(found.seed), f"{found.seconds:.0f} s", verdict)


def failures(outcomes: Mapping[str, Outcome]) -> list[str]:
    """The last words of each tier that failed."""
    return [
        f"Tier {found.tier.name} failed: {found.wrong}\n\n```text\n" + "\n".join(found.last[-20:]) + "\n```\n"
        for found in outcomes.values()
        if found.wrong
    ]


def soak(line: str) -> str:
    """F runs apart: hours do not fit into this."""
    told = f"Its last run said:\n\n```text\n{line}\n```\n" if line else "It was not run for this page.\n"
    return (
        "`make soak HOURS=8`: one server and one daemon live for hours under random writers and faults; the judge "
        f"comes every few minutes, and what is held is told each minute. {told}"
    )


def mutants(found: Outcome | None) -> list[str]:
    rows = caught(found.last) if found else []
    told = "A judge that cannot fail proves nothing: each of these mistakes was planted, and looked for by tier B."
    if not rows:
        return ["They were not run for this page.\n"]
    return [told + "\n", table(("planted", "found by rule", "after histories"), rows)]


def scenarios() -> list[str]:
    rows = [(f"[{one.name}]({one.link})", one.line) for one in catalogue()]
    return [f"{len(rows)} of them; each name leads to its test.\n", table(("name", "what happens"), rows)]


def again(outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = [found.command for found in outcomes.values()]
    return ["From the project's folder, with `.venv/bin` on PATH (`make test` makes it):\n",
            "```text\n" + "\n".join(["make faults", *lines]) + "\n```\n",
            "A simulated history is played again to the byte (`--only N`). With real processes a seed repeats what "
            "is done to whom after which pause; what they were doing then is the machine's affair.\n"]  # fmt: skip
