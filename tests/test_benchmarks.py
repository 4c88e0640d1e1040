"""The benchmarks run, and print every row; nothing is said here about how long anything takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

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
LIVE_RATIOS = (
    "hub.update_agent_context : bare HSET + PUBLISH, pipelined",
    "the same : bare HSET + PUBLISH, its JSON made beforehand",
    "hub.update_many of 1,000 : 1,000 bare HSET + PUBLISH, one pipeline",
    "hub.update_agent_context -> callback : bare HSET + PUBLISH -> bare listener",
)
PATHS = (
    "bare HSET + PUBLISH -> bare listener",
    "hub.update_agent_context -> callback",
    "hub.update_agent_context -> context.json",
    "raw HSET -> callback (100 ms of it quiet)",
    "raw HSET -> context.json (100 ms of it quiet)",
    "edit of context.json -> callback",
    "edit of a manifest -> callback",
    "a file like context.json, fsynced and renamed",
)


def run(*options: str, folder: str, script: str = "round.py") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / "benchmarks" / script), *options],
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


def test_a_small_benchmark_of_live_writes_prints_every_path_and_leaves_nothing_behind() -> None:
    """Two writes of each kind, over each path, are waited for at the other end; everything it started is gone."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        done = run("--agents", "2", "--writes", "2", "--rounds", "1", folder=folder, script="live.py")
        assert (done.returncode, done.stderr) == (0, "")
        for row in LIVE_RATIOS:
            assert re.search(rf"^{re.escape(row)} .* \d+\.\d\d ", done.stdout, re.M), done.stdout
        for row in PATHS:
            assert re.search(rf"^{re.escape(row)}( +\d+\.\d+ ms){{2}} +\d+\.\d$", done.stdout, re.M), done.stdout
        assert os.listdir(folder) == []


def test_a_benchmark_of_nothing_is_refused() -> None:
    """No agents, no rounds, or rounds without writes are a usage error and start nothing."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        assert run("--agents", "0", folder=folder).returncode == 2
        assert run("--rounds", "0", folder=folder).returncode == 2
        assert run("--writes", "3", "--rounds", "4", folder=folder, script="live.py").returncode == 2
        assert os.listdir(folder) == []


@pytest.mark.skipif(shutil.which("zsh") is None, reason="the hooks are zsh scripts, and there is no zsh on PATH")
def test_a_small_benchmark_of_hooks_prints_a_hook_beside_a_bare_shell_and_leaves_nothing_behind() -> None:
    """Two calls of each; a wrong number is a usage error."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        done = run("--calls", "2", folder=folder, script="hooks.py")
        assert (done.returncode, done.stderr) == (0, "")
        for row in ("zsh -f -c true", "mary_memory_hook.zsh", "rnd_memory_hook.zsh", "a function, in a zsh that runs"):
            assert re.search(rf"^{re.escape(row)} +\d+\.\d\d ms .* \d+\.\d\d$", done.stdout, re.M), done.stdout
        assert run("--calls", "0", folder=folder, script="hooks.py").returncode == 2
        assert os.listdir(folder) == []
