"""A script writes the file in place twice within one tick of its clock, and a round reads in between: both count."""

from __future__ import annotations

import json
import os

import pytest

from reconciler.workspace import Workspace
from tests.story.desk import Desk


def test_saved_twice_within_a_tick(shared: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inode, size and time are the same, so that only what it says tells them apart."""
    shared.hset("gc", status="live")
    data, real, times = shared.file(), os.fsync, list[int]()

    def save(word: str) -> None:
        data["agents"]["mary"]["status"] = word
        shared.path.write_text(json.dumps(data, indent=2) + "\n")

    def once(workspace: Workspace) -> Workspace:
        save("saved once ")
        times.append(shared.path.stat().st_mtime_ns)
        return workspace

    def fsync(descriptor: int) -> None:
        if len(times) == 1 and len(os.listdir(shared.path.parent)) > 1:  # ours lies beside it
            save("saved twice")
            os.utime(shared.path, ns=(times[0], times[0]))
            times.append(times[0])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    shared.round(once)
    shared.apply()
    assert len(times) == 2
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "saved twice"
    assert shared.record("gc")["status"] == "live"
    shared.assert_agree()
