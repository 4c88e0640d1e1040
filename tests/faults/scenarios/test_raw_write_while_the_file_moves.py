"""Somebody has just HSET a field when a round finds that the file moved under it: it is adopted all the same.

The round leaves an agent that is still being written for the next one, and must tell so although it started again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler import files
from reconciler.controller import Options, reconcile
from reconciler.view import Scope
from reconciler.workspace import open_workspace
from tests.story.desk import Desk

ONE = frozenset({"mary"})


def test_raw_write_while_the_file_moves(shared: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by histories of real processes: nobody looked at the agent again until it was written once more."""
    real, moved = files.replace, list[Path]()

    def replace(path: Path, data: bytes, *known: Any, **more: Any) -> files.Replaced:
        if not moved:
            moved.append(path)
            raise files.Moved(path)
        return real(path, data, *known, **more)

    with open_workspace(shared.settings, lambda text: None) as workspace:
        reconcile(workspace)
        monkeypatch.setattr(files, "replace", replace)
        shared.hset("gc", status="live")
        shared.hset("mary", status="raw")
        first = reconcile(workspace, Options(), Scope(frozenset({"gc", "mary"}), frozenset(), resting=ONE))
        assert moved
        assert shared.record("gc")["status"] == "live"
        assert first.again == ONE
        second = reconcile(workspace, Options(), Scope(first.again, frozenset()))
    assert not second.again
    assert shared.record("mary")["status"] == "raw"
    shared.assert_agree()
