"""The benchmark runs, and prints every row; nothing is said here about how long anything takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parent.parent
RATIOS = (
    "cold apply : YAML C parse of the same files",
    "cold apply : the same hashes as pipelined HSET",
    "no-op apply : the same hashes by pipelined HGETALL",
    "no-op apply : YAML C parse of the same files",
    "diff, one change : the same hashes by pipelined HGETALL",
    "diff, one change : YAML C parse of the same files",
    "reconciler --help : python -c pass, CPU",
)


def run(*options: str, folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / "benchmarks" / "round.py"), *options],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": folder},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_small_benchmark_prints_every_ratio_and_leaves_nothing_behind() -> None:
    """Twenty agents and one round give a number for each comparison; its server and its files are gone."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:  # short: a socket's path has a limit
        done = run("--agents", "20", "--rounds", "1", folder=folder)
        assert (done.returncode, done.stderr) == (0, "")
        for row in RATIOS:
            assert re.search(rf"^{re.escape(row)} +\d+\.\d\d ", done.stdout, re.M), done.stdout
        assert re.search(r"^20 agents, 1 rounds, interleaved\n.+ processors, .+\nPython .+redis .+", done.stdout)
        assert os.listdir(folder) == []


def test_a_benchmark_of_nothing_is_refused() -> None:
    """No agents, or no rounds, is a usage error and starts nothing."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        assert run("--agents", "0", folder=folder).returncode == 2
        assert run("--rounds", "0", folder=folder).returncode == 2
        assert os.listdir(folder) == []
