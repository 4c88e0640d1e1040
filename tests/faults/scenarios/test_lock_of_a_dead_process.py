"""The lock names a process that is dead, or a number that another program has by now: it holds up nobody."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk


def test_lock_of_a_dead_process(shared: Desk) -> None:
    """What counts is who holds it, not what is written in it."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getppid()):
        (shared.settings.folder / "lock").write_text(f"{pid} run\n")
        shared.hset("mary", status=f"busy {pid}")
        with hub(shared) as memory:
            assert memory.sync_from_file().held_by is None
        assert shared.record("mary")["status"] == f"busy {pid}"
