"""docs/performance.md: the goals, what stands in the way of the missed ones, and cost against size with its plot."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .crowd import name_of, sizes
from .explained import EXPLAINED
from .group import Result, Scale, Taken
from .plot import Panel, svg
from .table import machine, number, seconds, sides, spread, summary

HEAD = """\
# Performance

Written by `make bench`, which installs the peers by itself. Ratios carry over to another machine, absolute times do
not. Each group of rows is measured in one interleaved run: every round calls both sides of each ratio, in the one order
and in the other by turns. A row says the median of the rounds' own ratios and, as its spread, their middle half. Short
calls are taken in blocks, of which the median counts; bytes are not a ratio.
"""


def write_page(folder: Path, results: Sequence[Result], taken: Mapping[str, Taken], scale: Scale) -> None:
    """performance.md, and performance.svg if no group that it shows has failed."""
    whole = {"crowd", "growth", "keys"} <= taken.keys()
    goals = [result for result in results if result.row.goal is not None]
    folder.mkdir(parents=True, exist_ok=True)
    parts = (
        HEAD, f"Measured {time.strftime('%Y-%m-%d', time.gmtime())}, on:", f"```text\n{machine(scale)}\n```",
        "## Goals", "\n".join(_table(sorted(goals, key=_place))), [*summary(results)][-1].capitalize() + ".",
        "## What stands in the way", *_explained(goals),
        "## Beside the goals", "\n".join(_table([one for one in results if one.row.goal is None])),
        "## Cost against size", *(_sizes(folder, taken, scale) if whole else ["Not measured in this run."]),
    )  # fmt: skip
    (folder / "performance.md").write_text("\n\n".join(part.rstrip("\n") for part in parts) + "\n", "utf-8")


def _sizes(folder: Path, taken: Mapping[str, Taken], scale: Scale) -> tuple[str, ...]:
    """The plot, which is written, and its tables."""
    by_size, by_keys = _by_size(taken, scale), _by_keys(taken, scale)
    (folder / "performance.svg").write_text(svg(_panels(by_size, by_keys)), "utf-8")
    plot = "![cost against size](performance.svg)"
    return plot, SIZES, "\n".join(_size_table(by_size)), MANY_KEYS, "\n".join(_key_table(by_keys))


def _place(result: Result) -> tuple[bool, float]:
    """Where it stands among the goals: the misses first, by how much."""
    return bool(result.met), -result.over if result.met is False else 0.0


def _table(results: Sequence[Result]) -> Iterator[str]:
    yield "| what : beside what | at most | measured | spread | ours : theirs | rounds | |"
    yield "| --- | ---: | ---: | --- | --- | ---: | --- |"
    for one in results:
        row, goal = one.row, number(one.row.goal) if one.row.goal is not None else ""
        measured = [number(one.value), spread(one), sides(one) or row.unit, str(one.rounds)]
        met = "" if one.met is None else "met" if one.met else f"**missed**, {number(one.over)} x"
        cells = ["", "", one.missing, "", ""] if one.missing else [*measured, met]
        yield f"| {' | '.join([row.text, goal, *cells])} |"


def _explained(goals: Sequence[Result]) -> Iterator[str]:
    """A paragraph for each missed goal."""
    missed = sorted((one for one in goals if one.met is False), key=_place)
    for one in missed:
        why = EXPLAINED.get((one.group, one.row.ours, one.row.theirs), "Not explained yet.")
        yield f"**{one.row.text}**: {number(one.value)}, at most {number(one.row.goal or 0.0)}. {why}"
    if not missed:
        yield "Nothing: all goals are met."


SIZES = """\
So many agents, each with a status and five context keys. *Write* is `update_many`, *first apply* the whole process that
puts them into base and `context.json` (both once), *round* one of a warm daemon over everything in which nothing had
changed, *one change* a round of it after one write, `context.json` included. Times are for each agent, but for *one
change* and *second reading*; memory is for each agent, history of one version included."""
SIZE_COLUMNS = ("write", "apply", "nothing", "first", "change", "second", "redis", "daemon")
MANY_KEYS = """\
So many keys in one agent's context, of which one is written: the call, a round that takes it into `context.json`, the
reading of the agent, and the memory in Redis for each key."""
KEY_COLUMNS = ("write", "round", "read", "redis")
Table = dict[int, dict[str, float]]
"""By size, by column: medians; seconds, or bytes."""


def _by_size(taken: Mapping[str, Taken], scale: Scale) -> Table:
    """What is for each agent is divided by their number."""
    both = {**taken["crowd"], **taken["growth"]}
    found: Table = {}
    for size in sizes(scale.crowd):
        row = {column: statistics.median(both[f"{column}, {name_of(size, scale)}"]) for column in SIZE_COLUMNS}
        found[size] = {column: cost if column in ("change", "second") else cost / size for column, cost in row.items()}
    return found


def _by_keys(taken: Mapping[str, Taken], scale: Scale) -> Table:
    found: Table = {}
    for keys in sizes(scale.agents):
        row = {column: statistics.median(taken["keys"][f"{column}, {keys}"]) for column in KEY_COLUMNS}
        found[keys] = {**row, "redis": row["redis"] / keys}
    return found


def _size_table(table: Table) -> list[str]:
    lines = [
        "| agents | write | first apply | round, nothing new | first reading | one change | second reading | Redis "
        "| daemon |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    return lines + _rows(table, SIZE_COLUMNS)


def _key_table(table: Table) -> list[str]:
    lines = [
        "| keys | write of one | round after it | reading | Redis, per key |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    return lines + _rows(table, KEY_COLUMNS)


def _rows(table: Table, columns: Sequence[str]) -> list[str]:
    return [
        f"| {size:,} | {' | '.join(_cell(column, row[column]) for column in columns)} |" for size, row in table.items()
    ]


def _cell(column: str, cost: float) -> str:
    return f"{cost:,.0f} B" if column in ("redis", "daemon") else seconds(cost)


def _panels(by_size: Table, by_keys: Table) -> list[Panel]:
    def lines(table: Table, names: Mapping[str, str], scale: float) -> dict[str, dict[int, float]]:
        return {name: {size: row[column] * scale for size, row in table.items()} for column, name in names.items()}

    per_agent = {"write": "write", "apply": "first apply", "nothing": "round, no news", "first": "first reading"}
    at_once = {"change": "round, one change", "second": "second reading"}
    memory = {"redis": "Redis", "daemon": "daemon"}
    keys = {"write": "write of one", "round": "round after it", "read": "reading"}
    return [
        Panel("Time for each agent", "agents", "µs", lines(by_size, per_agent, 1e6)),
        Panel("Time in all", "agents", "ms", lines(by_size, at_once, 1e3)),
        Panel("Memory for each agent", "agents", "bytes", lines(by_size, memory, 1)),
        Panel("One key of many in a context", "keys", "ms", lines(by_keys, keys, 1e3)),
    ]
