"""The memory of a workspace, on the disk."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.base import Base, Memory
from reconciler.base.packed import Packed
from reconciler.base.rows import FIRST, Versions
from reconciler.base.warm import WarmBase
from reconciler.edits import KEEP_VERSIONS, UNSEEN, Version
from reconciler.errors import ReconcilerError
from reconciler.state import SHARED, Field, encode, present


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


FIELDS = st.dictionaries(
    st.sampled_from(["status", "context.a", "context.é", "insight"]),
    st.builds(Field, st.none() | st.text(max_size=3).map(encode), st.integers(0, 1 << 62), st.sampled_from(["x", "y"])),
    max_size=4,
)
STATES = st.dictionaries(st.sampled_from(["mary", "gc", "rnd", SHARED]), FIELDS, max_size=4)
law = settings(derandomize=True, database=None, deadline=None, max_examples=200)


@law
@given(STATES, STATES)
def test_a_state_that_is_kept_packed_says_the_same(merged: dict[str, Any], file: dict[str, Any]) -> None:
    """Field by field, in order; unpacked at once or agent by agent, and what two states have in common."""
    packed = Packed(merged.items())
    memory = Memory(merged=packed, file=Packed({**file, **merged}.items(), packed))
    whole = memory.unpacked()
    assert packed == merged == whole.merged and memory.file == {**file, **merged} == whole.file
    assert [list(packed[name]) for name in packed] == [list(fields) for fields in merged.values()]
    assert memory.agents() == whole.agents() == sum(name != SHARED and bool(present(merged[name])) for name in merged)


@pytest.mark.parametrize("field", [Field("1", 1.5, "x"), Field("[1,\n2]", 1, "x"), Field(7, 1, "x")])  # type: ignore[arg-type]
def test_what_is_no_field_is_not_packed(field: Field) -> None:
    """A damaged row is told when it is read, not at some later look at it."""
    with pytest.raises((ValueError, TypeError)):
        Packed([("mary", {"status": field})])


def test_a_long_version_is_kept_short(tmp_path: Path) -> None:
    """The first version of a file is about everything in it, and hardly ever looked at."""
    base, undo = WarmBase(tmp_path), {("mary", f"context.{number}"): None for number in range(1_000)}
    base.save(Memory(), Memory(empty=False), now=10, new_versions=[Version(UNSEEN, True, undo)])
    base.placed(20)
    kept = base.load().file_versions
    assert isinstance(kept, Versions) and len(kept.rows[0][2]) < 5_000
    base.close()  # which writes the time
    assert list(kept) == list(Base(tmp_path).load().file_versions) == [Version(20, True, undo)]


UNDO = {("mary", "status"): None}


def test_a_version_that_a_crash_kept_from_its_place_is_noted_in_memory_as_on_disk(tmp_path: Path) -> None:
    """Else somebody's undo of it, much later, would be taken for an old copy until the process ends."""
    warm, memory = WarmBase(tmp_path), Memory(empty=False)
    warm.save(Memory(), memory, now=10, new_versions=[Version(UNSEEN, True, UNDO)])
    warm.close()
    warm = WarmBase(tmp_path)
    warm.save(warm.load(), memory, now=20, new_versions=[Version(15, False, UNDO), Version(UNSEEN, True, UNDO)])
    warm.placed(20)
    kept = [version.written for version in warm.load().file_versions]
    warm.close()
    assert kept == [version.written for version in Base(tmp_path).load().file_versions] == [20, 15, 20]


def test_no_version_is_forgotten_from_the_middle(tmp_path: Path) -> None:
    """One that was put there with an old time (`cp -p`) is a step back like the others."""
    warm, memory, now = WarmBase(tmp_path), Memory(empty=False), 10_000_000_000
    warm.save(Memory(), memory, now=now)
    for number in range(KEEP_VERSIONS + 16):
        written = 5 if number == 5 else now + number
        warm.save(memory, memory, now=now + number, new_versions=[Version(written, number != 5, UNDO)])
    kept = [version.written for version in warm.load().file_versions]
    warm.close()
    assert len(kept) == KEEP_VERSIONS + 16
    assert kept == [version.written for version in Base(tmp_path).load().file_versions]


def test_a_damaged_packed_version_is_told_with_the_way_out(tmp_path: Path) -> None:
    """Bytes that cannot be unpacked are damage like any other."""
    Base(tmp_path).save(Memory(), Memory(empty=False), now=10, new_versions=[Version(5, True, UNDO)])
    with closing(sqlite3.connect(tmp_path / "state.db")) as db, db:
        db.execute("UPDATE file_version SET undo = x'5b'")
    for base in (Base(tmp_path), WarmBase(tmp_path)):
        with pytest.raises(ReconcilerError, match=r"state\.db is damaged.*move it away"):
            list(base.load().file_versions)
        base.close()
