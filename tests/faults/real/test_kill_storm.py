"""Tier D: whoever writes `context.json` is killed in the middle of it, again and again.

    RECONCILER_KILLS=2000 RECONCILER_KILLS_SEED=7 pytest tests/faults/real/test_kill_storm.py -s

The seed decides who does what and how long he lives; where the kill finds him is the machine's affair.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.faults import check
from tests.faults.real.rig import Desk, env_number, repeat, say
from tests.faults.real.server import trial_server

KILLS = env_number("RECONCILER_KILLS", 30)
SEED = env_number("RECONCILER_KILLS_SEED", int(time.time()))


def test_whenever_its_writer_is_killed_the_file_is_whole_and_nothing_is_lost(tmp_path: Path) -> None:
    """After each death the file is one complete document, and holds with the journal all that was acknowledged; at
    the end one round makes all sides equal, and nothing half-written is left lying about."""
    begun = time.monotonic()
    with trial_server() as server, Desk(tmp_path / "work", server.url) as desk:
        desk.begin()
        chosen = {"root": str(desk.root), "redis": server.url, "kills": KILLS, "seed": SEED}
        words = [sys.executable, "-m", "tests.faults.real.storm", json.dumps(chosen)]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **desk.env}, check=False)
        *wrong, writes = done.stdout.splitlines() or [done.stderr]
        with server.client(socket_timeout=10) as client:
            assert desk("apply").code == 0
            wrong += repeat(lambda: check.quick(client, [desk.root]), 10)
            wrong += check.replicas(client, desk.root, server.url)
            wrong += check.History.read(client).faults(client)
        wrong += [f"left behind: {path.name}" for path in desk.root.rglob("*.tmp")]
        seconds = time.monotonic() - begun
    say(f"faults: tier=D kills={KILLS} operations={writes} faults_injected={KILLS} seed={SEED} "
        f"seconds={seconds:.0f} violations={len(wrong)}")  # fmt: skip
    assert (wrong, done.returncode) == ([], 0), f"seed {SEED}\n{check.shortened(wrong)}\n{done.stderr[-2000:]}"
