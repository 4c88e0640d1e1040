"""The memory of a workspace, on the disk."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.base import Base, Memory
from reconciler.base.rows import FIRST
from reconciler.edits import Version
from reconciler.errors import ReconcilerError
from reconciler.state import Field


def test_a_first_save_that_was_cut_off_is_no_memory(tmp_path: Path) -> None:
    """An empty database is what a crash before the first commit leaves; the next save goes on from there."""
    base = Base(tmp_path)
    base.path.touch()
    assert base.load() == Memory()
    assert base.version("mary") == 0
    after = Memory(merged={"mary": {"status": Field('"busy"', 5, "x")}}, versions={"mary": 3}, empty=False)
    base.save(Memory(), after, now=10)
    assert base.load().merged == after.merged
    assert base.version("mary") == 3


def test_the_schema_is_made_in_one_step(tmp_path: Path) -> None:
    """Tables without a version number would stop every later save."""
    base = Base(tmp_path)
    base.append_journal({"mary": {"status": Field(None, 5, "x")}})
    assert [entry.value for entry in base.load().journal] == [Field(None, 5, "x")]
    assert base.load().empty


def test_a_damaged_database_is_told_with_the_way_out(tmp_path: Path) -> None:
    """Garbage is never read as an empty memory."""
    base = Base(tmp_path)
    base.path.write_bytes(b"this is no database" * 100)
    with pytest.raises(ReconcilerError, match=r"state\.db is damaged.*move it away"):
        base.load()


def test_a_database_of_an_earlier_version_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    """Reading leaves it as it is; the next write adds what is new, and its conflicts count as told."""
    base = Base(tmp_path)
    earlier = sqlite3.connect(base.path)
    earlier.executescript(FIRST + "PRAGMA user_version = 1")
    row = (5, "mary", "status", '["\\"a\\"",1,"x"]', '["\\"b\\"",2,"y"]')
    earlier.execute("INSERT INTO conflict (seen, agent, field, lost, won) VALUES (?, ?, ?, ?, ?)", row)
    earlier.commit()
    earlier.close()
    before = base.path.read_bytes()
    assert [conflict.lost.text for conflict in base.conflicts()] == ['"a"']
    assert not base.load().untold
    assert base.path.read_bytes() == before
    base.restored(1, 7)
    assert [(conflict.number, conflict.restored) for conflict in base.conflicts()] == [(1, 7)]
    assert base.conflicts(untold=True) == []


@pytest.mark.parametrize(
    "damage",
    [
        "file_version SET undo = ''",
        "file_version SET undo = '[1]'",
        "agent SET version = ''",
        "agent SET merged = '[]'",
    ],
)
def test_a_damaged_row_is_told_with_the_way_out(tmp_path: Path, damage: str) -> None:
    """Also one that is decoded late, and JSON of another shape."""
    base = Base(tmp_path)
    after = Memory(merged={"mary": {"status": Field('"busy"', 5, "x")}}, versions={"mary": 3}, empty=False)
    base.save(Memory(), after, now=10, new_versions=[Version(10, True, {})])
    with closing(sqlite3.connect(base.path)) as db, db:
        db.execute(f"UPDATE {damage}")
    with pytest.raises(ReconcilerError, match=r"state\.db is damaged"):
        _read_all(base)


def _read_all(base: Base) -> None:
    base.version("mary")
    list(base.load().file_versions)


def test_what_is_read_together_is_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that comes while memory is read waits for it: else what was written would pass for somebody's edits."""

    def memory(text: str) -> Memory:
        state = {"mary": {"status": Field(text, 5, "x")}}
        return Memory(merged=state, file=state, epoch=text, empty=False)

    base, old, new = Base(tmp_path), memory('"old"'), memory('"new"')
    base.save(Memory(), old, now=10)
    more = {"now": 20, "new_versions": [Version(20, True, {})]}
    saving, real = threading.Thread(target=base.save, args=(old, new), kwargs=more), Base._connect

    def connect(self: Base, read_only: bool) -> sqlite3.Connection:
        db = real(self, read_only)
        if read_only:
            db.set_trace_callback(lambda statement: meanwhile() if "FROM file_version" in statement else None)
        return db

    def meanwhile() -> None:
        saving.start()
        saving.join(0.2)

    monkeypatch.setattr(Base, "_connect", connect)
    found = base.load()
    saving.join()
    monkeypatch.undo()
    assert (found.merged, found.file, list(found.file_versions), found.epoch) == (old.merged, old.file, [], old.epoch)
    assert base.load().file == new.file


def test_a_version_that_is_no_whole_number_is_damage(tmp_path: Path) -> None:
    base = Base(tmp_path)
    base.save(Memory(), Memory({"mary": {"status": Field('"idle"', 1, "x")}}, empty=False), now=1)
    with closing(sqlite3.connect(base.path)) as database, database:
        database.execute("UPDATE agent SET version = 9e999")
    with pytest.raises(ReconcilerError, match="damaged"):
        base.version("mary")
