"""An editor saves between our last look at the file and our rename: its version is noticed, and nothing is lost."""

from __future__ import annotations

import os

import pytest

from tests.story.desk import Desk


def test_rewritten_before_the_rename(shared: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are there afterwards: the live update that was being written, and the edit."""
    shared.hset("gc", status="live")
    real, edits = os.fsync, list[int]()

    def fsync(descriptor: int) -> None:
        if not edits and len(os.listdir(shared.path.parent)) > 1:  # ours lies beside it
            edits.append(descriptor)
            shared.set("mary", status="at the last moment")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    shared.apply()
    assert edits
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "at the last moment"
    assert shared.record("gc")["status"] == "live"
    shared.assert_agree()
