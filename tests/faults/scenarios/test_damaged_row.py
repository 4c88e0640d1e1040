"""One row of `state.db` is damaged: it is said in words, nothing is written over it, and live writes go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from reconciler.errors import ReconcilerError
from tests.faults.scenarios.kit import hub, unchanged
from tests.story.desk import Desk


@pytest.mark.parametrize("damage", ["agent SET merged = '[[],[]]'", "file_version SET undo = '{'"])
def test_damaged_row(shared: Desk, damage: str) -> None:
    """Found by fuzzing: valid JSON of another shape was a fault of the program."""
    shared.hset("mary", status="busy")
    shared.apply()
    shared.set("gc", status="edited")
    before = shared.path.read_bytes()
    with closing(sqlite3.connect(shared.settings.folder / "state.db")) as database, database:
        database.execute(f"UPDATE {damage}")
    with pytest.raises(ReconcilerError, match=r"state\.db.* damaged"):
        shared.apply()
    assert unchanged(shared.path, before)
    with hub(shared) as memory:
        assert memory.update_agent_context("mary", {"n": 1}).store == "redis"
