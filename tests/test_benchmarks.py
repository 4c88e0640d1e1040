"""The benchmarks run and print every row; nothing is said here about how long anything takes.

RECONCILER_BENCH_GROUPS names other groups than the quick ones, by comma; `all` is a minute or two.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.crowd import name_of, sizes
from benchmarks.explained import EXPLAINED
from benchmarks.group import Group, Scale, Taken, judge
from benchmarks.groups import GROUPS
from benchmarks.page import KEY_COLUMNS, SIZE_COLUMNS, write_page
from benchmarks.table import line

PROJECT = Path(__file__).parent.parent
QUICK = "update,event,read,hook,memory"
SMALL = Scale(20, 20, 2)
ASKED = os.environ.get("RECONCILER_BENCH_GROUPS", QUICK)
CHOSEN = [group for group in GROUPS if ASKED == "all" or group.name in ASKED.split(",")]


def bench(*options: str, folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--build", f"{folder}/build", "--no-peers", *options],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": folder},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("group", CHOSEN, ids=[group.name for group in CHOSEN])
def test_a_small_benchmark_prints_every_row_of_a_group_and_leaves_nothing_behind(group: Group) -> None:
    """One round gives a number for each row, or says why there is none; its servers and its files are gone."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:  # short: a socket's path has a limit
        done = bench("--only", group.name, "--agents", "20", "--crowd", "20", "--calls", "2", "--rounds", "1",
                     folder=folder)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"^.+ processors, .+\nPython .+redis .+\npeers: .+\n", done.stdout)
        for row in group.rows:
            text = re.escape(row.text.format(agents=20, crowd=20))
            assert re.search(rf"^ *{text} +(\d[\d.,]* .+|skipped: .+ not here)$", done.stdout, re.M), done.stdout
        assert re.search(r"^\d+ of \d+ goals met, \d+ missed, \d+ not measured$", done.stdout, re.M)
        assert os.listdir(folder) == ["build"]


def test_a_benchmark_of_nothing_is_refused() -> None:
    """No agents, no rounds, or a group that does not exist are a usage error and start nothing."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        assert bench("--agents", "0", folder=folder).returncode == 2
        assert bench("--rounds", "0", folder=folder).returncode == 2
        assert "there is no group elsewhere" in bench("--only", "elsewhere", folder=folder).stderr
        assert os.listdir(folder) == []


def test_the_page_has_every_goal_and_tells_what_stands_in_the_way_of_the_missed_ones(tmp_path: Path) -> None:
    """Misses stand first, each with its paragraph; a peer that is absent is named; the plot is well-formed."""
    taken = {group.name: everything(group, 2.0) for group in GROUPS}
    taken["crowd"] |= {f"{column}, {name}": [2.0] for column in SIZE_COLUMNS for name in ("10", "crowd")}
    taken["keys"] = {f"{column}, {size}": [2.0] for column in KEY_COLUMNS for size in sizes(SMALL.agents)}
    del taken["event"]["etcd"]
    results = [result for group in GROUPS for result in judge(group, taken[group.name], SMALL)]
    write_page(tmp_path, results, taken, SMALL)
    page = (tmp_path / "performance.md").read_text("utf-8")
    goals = [result for result in results if result.row.goal is not None]
    table = page.partition("## Goals\n")[2].partition("## What")[0]
    assert [table.count(f"| {result.row.text} |") for result in goals] == [1] * len(goals)
    assert "skipped: etcd is not here" in table
    verdicts = re.findall(r"\*\*missed\*\*|(?<=\| )met(?= \|)", table)
    assert verdicts == sorted(verdicts) and {*verdicts} == {"**missed**", "met"}
    missed = [result.row.text for result in goals if result.met is False]
    assert sorted(re.findall(r"^\*\*(.+)\*\*: ", page, re.M)) == sorted(missed)
    ElementTree.fromstring((tmp_path / "performance.svg").read_text("utf-8"))


def everything(group: Group, cost: float) -> Taken:
    """As if each measure that a group's rows name had cost the same."""
    return {name: [cost] for row in group.rows for name in (row.ours, row.theirs) if name}


def test_a_row_says_by_how_much_it_misses_its_goal() -> None:
    """The ratio is the median of the rounds' own ratios, not the ratio of the medians."""
    group = next(group for group in GROUPS if group.name == "update")
    first = judge(group, {"hub": [1.0, 8.0, 3.0], "bare": [1.0, 2.0, 4.0], "at hand": [1.0, 1.0, 1.0]}, SMALL)[0]
    assert (first.value, first.ours, first.theirs) == (1.0, 3.0, 2.0)
    assert "MISSED: 1.05 x" in line(first)


def test_each_explanation_is_of_a_row_with_a_goal() -> None:
    """A row that is renamed keeps its explanation."""
    rows = {(group.name, row.ours, row.theirs) for group in GROUPS for row in group.rows if row.goal is not None}
    assert {*EXPLAINED} <= rows


def test_sizes_grow_tenfold_up_to_the_crowd() -> None:
    """The largest has a name of its own, which the goals use."""
    assert sizes(100_000) == (10, 100, 1_000, 10_000, 100_000)
    assert [name_of(size, SMALL) for size in sizes(20)] == ["10", "crowd"]
