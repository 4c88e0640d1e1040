"""What a row of the table is, and how groups of them are timed.

A group opens what its rows need once, and gives measures: functions that do a piece of work and return what it cost.
Every round calls each measure once, in the one order and in the other by turns, so that a slow second hurts both sides
of a ratio; a first round is not counted. What was taken is kept in a file for each group, so that a run that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

Measures = Mapping[str, Callable[[], float]]
"""By name: what does the work once and returns seconds, or bytes."""
Taken = dict[str, list[float]]
"""By name: what each counted round took."""


class Row(NamedTuple):
    """A line of the table: two measures of one group, and what their ratio may be at most.

    Without `theirs` the goal is for the measure itself, in `unit`. Without a goal the row only informs. `{agents}` and
    `{crowd}` in the text are those of the run.
    """

    text: str
    ours: str
    theirs: str = ""
    goal: float | None = None
    unit: str = ""


class Group(NamedTuple):
    """Rows that share what they are measured on. `open` takes the scale of the run and gives the measures; those of
    peers that are not there are left out. `warm`: rounds that are not counted; `often`: short measures are taken so
    many times in a round; `most`: rounds of long ones."""

    name: str
    open: Callable[[Scale], AbstractContextManager[Measures]]
    rows: tuple[Row, ...]
    warm: int = 1
    often: int = 1
    most: int = 1_000


class Scale(NamedTuple):
    """How big a run is: `agents` stands for the 10,000 of the goals, `crowd` for their 100,000, `calls` for the calls
    in one block of the short ones. `peers` is where they are installed; None: they are left out."""

    agents: int = 10_000
    crowd: int = 100_000
    calls: int = 20
    peers: Path | None = None


class Result(NamedTuple):
    """A row of a group as it was measured: the medians, and the quartiles of the rounds' own ratios; `missing`: why it
    was not measured, in place of them."""

    group: str
    row: Row
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    ours: float = 0.0
    theirs: float = 0.0
    rounds: int = 0
    missing: str = ""

    @property
    def met(self) -> bool | None:
        """None: it has no goal, or was not measured."""
        return None if self.row.goal is None or self.missing else self.value <= self.row.goal

    @property
    def over(self) -> float:
        """How many times the goal it is: more than 1 is missed."""
        return self.value / self.row.goal if self.row.goal and not self.missing else 0.0


def take(group: Group, scale: Scale, rounds: int) -> Taken:
    """Time every measure of a group `rounds` times, interleaved."""
    taken: Taken = {}
    rounds = min(rounds, group.most) * group.often
    with group.open(scale) as measures:
        names = list(measures)
        for number in range(-group.warm, rounds):
            for name in names if number % 2 else reversed(names):
                cost = measures[name]()
                if number >= 0:
                    taken.setdefault(name, []).append(cost)
            tell(f"{group.name}: round {number + 1} of {rounds}", number + 1 == rounds)
    return taken


def kept(group: Group, folder: Path, scale: Scale, rounds: int) -> Taken | None:
    """What an earlier run of the same size took, if it took as many rounds."""
    try:
        found = json.loads((folder / f"{group.name}.json").read_text())
    except (OSError, ValueError):
        return None
    same = found["rounds"] >= rounds and found["size"] == list(scale[:3])
    return found["taken"] if same else None


def keep(group: Group, folder: Path, scale: Scale, rounds: int, taken: Taken) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    whole = {"at": at, "rounds": rounds, "size": scale[:3], "taken": taken}
    (folder / f"{group.name}.json").write_text(json.dumps(whole, indent=1))


def judge(group: Group, taken: Taken, scale: Scale, why: str = "") -> list[Result]:
    """Every row of a group; `why` nothing was taken."""
    return [_judge(group.name, row, taken, scale, why) for row in group.rows]


def _judge(group: str, row: Row, taken: Taken, scale: Scale, why: str) -> Result:
    """The median of the rounds' ratios (each round's two sides met the same machine), with its middle half."""
    row = row._replace(text=row.text.format(agents=f"{scale.agents:,}", crowd=f"{scale.crowd:,}"))
    absent = [name for name in (row.ours, row.theirs) if name and name not in taken]
    if absent:
        return Result(group, row, missing=why or f"skipped: {', '.join(absent)} is not here")
    ours, theirs = taken[row.ours], taken[row.theirs] if row.theirs else []
    each = [one / other for one, other in zip(ours, theirs, strict=True)] if theirs else ours
    low, _, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    middle = statistics.median(theirs) if theirs else 0.0
    return Result(group, row, statistics.median(each), low, high, statistics.median(ours), middle, len(each))


def tell(text: str, last: bool) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
