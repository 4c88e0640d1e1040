"""How what is remembered lies in the tables of `state.db`."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, overload

from ..edits import Key, Version
from ..files import Identity
from ..sources.manifests import File, Known, Manifest
from ..state import Agent, Field
from .memory import Conflict, Entry, Memory

FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE agent
    (name TEXT PRIMARY KEY, merged TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE file (name TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE file_version
    (id INTEGER PRIMARY KEY, written INTEGER NOT NULL, ours INTEGER NOT NULL, undo TEXT NOT NULL);
CREATE TABLE manifest_file (name TEXT PRIMARY KEY, said TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE manifest_field (name TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE journal
    (id INTEGER PRIMARY KEY AUTOINCREMENT, agent TEXT NOT NULL, field TEXT NOT NULL, text TEXT,
     at INTEGER NOT NULL, by TEXT NOT NULL);
CREATE TABLE conflict
    (id INTEGER PRIMARY KEY, seen INTEGER NOT NULL, agent TEXT NOT NULL, field TEXT NOT NULL, lost TEXT NOT NULL,
     won TEXT NOT NULL);
"""
SECOND = """
ALTER TABLE conflict ADD COLUMN told INTEGER NOT NULL DEFAULT 1;
ALTER TABLE conflict ADD COLUMN restored INTEGER;
CREATE INDEX conflict_of ON conflict (agent, field);
CREATE INDEX conflict_untold ON conflict (id) WHERE told = 0;
CREATE TABLE unlearnt (agent TEXT NOT NULL, field TEXT NOT NULL, was TEXT NOT NULL, PRIMARY KEY (agent, field));
"""
SCHEMA_VERSION = 2
KEEP_CONFLICTS = 10_000
KEEP_CONFLICTS_SIZE = 100_000_000
"""Characters of all values in the ledger; one value may have 16 million."""

T = TypeVar("T")
_make = tuple.__new__  # a NamedTuple's own constructor takes three times as long


def schema_version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def is_new(db: sqlite3.Connection) -> bool:
    """Whether nothing was ever saved there: the first save was cut off before its first commit."""
    return schema_version(db) == 0


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make what is missing, in one step: a schema without its version number would stop every later save."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        found = schema_version(db)  # others may have been faster
        for version, statements in enumerate((FIRST, SECOND)):
            for statement in statements.split(";") if found <= version else ():
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def has_ledger(db: sqlite3.Connection) -> bool:
    """Whether conflicts can be told and restored there: the next write brings an older database up to date."""
    return schema_version(db) >= 2


def read_unlearnt(db: sqlite3.Connection) -> dict[Key, Field | None]:
    rows = db.execute("SELECT agent, field, was FROM unlearnt").fetchall()
    return {(agent, name): Field(*was) if (was := json.loads(text)) else None for agent, name, text in rows}


def save_unlearnt(
    db: sqlite3.Connection, before: Mapping[Key, Field | None], after: Mapping[Key, Field | None]
) -> None:
    new = [(*key, json.dumps(was)) for key, was in after.items() if key not in before]
    db.executemany("INSERT OR REPLACE INTO unlearnt VALUES (?, ?, ?)", new)
    gone = [key for key in before if key not in after]
    db.executemany("DELETE FROM unlearnt WHERE agent = ? AND field = ?", gone)


def enter_conflicts(db: sqlite3.Connection, conflicts: Iterable[Conflict], now: int) -> None:
    """Write conflicts into the ledger, each once, also when a round starts again; the oldest ones leave it."""
    rows = [(now, c.agent, c.field, json.dumps(c.lost), json.dumps(c.won)) for c in conflicts]
    if not rows:
        return
    db.executemany(
        "INSERT INTO conflict (seen, agent, field, lost, won, told) SELECT ?1, ?2, ?3, ?4, ?5, 0"
        " WHERE NOT EXISTS (SELECT 1 FROM conflict WHERE agent = ?2 AND field = ?3 AND lost = ?4)",
        rows,
    )
    size = "SELECT id, sum(length(lost) + length(won)) OVER (ORDER BY id DESC) AS size FROM conflict"
    db.execute(
        "DELETE FROM conflict WHERE id <= (SELECT max(id) FROM conflict) - ?"
        f" OR id IN (SELECT id FROM ({size}) WHERE size > ?)",
        (KEEP_CONFLICTS, KEEP_CONFLICTS_SIZE),
    )


def read_fields(text: str) -> dict[str, Field]:
    return {name: _make(Field, parts) for name, parts in json.loads(text).items()}


def dump_fields(fields: Agent) -> str:
    """Sorted, so that equal fields are equal rows."""
    return json.dumps(fields, separators=(",", ":"), sort_keys=True)


VersionRow = tuple[int, int, str | bytes]
"""When, whether it was ours, and the undo as JSON; packed where it is long, as that of the first version is."""
_LONG = 10_000


class Versions(Sequence[Version]):
    """The versions of the file, newest first; each is decoded only when somebody walks back that far."""

    def __init__(
        self, rows: list[VersionRow], reported: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """`reported` says in this program's words what is wrong with a damaged row."""
        self.rows, self.reported = rows, reported

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Version: ...
    @overload
    def __getitem__(self, index: slice) -> list[Version]: ...
    def __getitem__(self, index: int | slice) -> Version | list[Version]:
        rows = self.rows[index]  # an index out of range is no damage
        with self.reported():
            return [_version(*row) for row in rows] if isinstance(rows, list) else _version(*rows)


def newest_written(versions: Sequence[Version]) -> int:
    """When the newest version of the file was written, 0 for none; told without decoding it."""
    if not versions:
        return 0
    return versions.rows[0][0] if isinstance(versions, Versions) else versions[0].written


def short(written: int, ours: int, undo: str | bytes) -> VersionRow:
    """A row as it is kept."""
    if isinstance(undo, str) and len(undo) > _LONG:  # a damaged one is told when it is decoded
        return written, ours, zlib.compress(undo.encode(), 1)
    return written, ours, undo


def _version(written: int, ours: int, undo: str | bytes) -> Version:
    return Version(written, bool(ours), _undo(undo))


def _undo(text: str | bytes) -> dict[tuple[str, str], Field | None]:
    if isinstance(text, bytes):
        text = zlib.decompress(text).decode()
    return {(agent, name): Field(*old) if old else None for agent, name, old in json.loads(text)}


def dump_undo(version: Version) -> str:
    return json.dumps([(*key, old) for key, old in version.undo.items()], separators=(",", ":"))


def save_rows(
    db: sqlite3.Connection,
    table: str,
    before: Mapping[str, T],
    after: Mapping[str, T],
    row: Callable[[T], tuple[Any, ...]],
) -> None:
    """Write the rows of `after` that differ from `before`, and take out those it lacks."""
    rows = [(name, *row(value)) for name, value in after.items() if before.get(name) != value]
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)
    db.executemany(f"DELETE FROM {table} WHERE name = ?", [(name,) for name in before.keys() - after.keys()])


def with_versions(memory: Memory) -> dict[str, tuple[Agent, int]]:
    return {name: (fields, memory.versions.get(name, 0)) for name, fields in memory.merged.items()}


def dump_file(file: File) -> tuple[str]:
    return (json.dumps([file.identity, file.saved, file.manifests, file.racy]),)


def read_known(db: sqlite3.Connection) -> Known:
    found = {}
    for path, said in db.execute("SELECT name, said FROM manifest_file"):
        identity, saved, manifests, racy = json.loads(said)
        found[path] = File(path, Identity(*identity), saved, tuple(Manifest(*parts) for parts in manifests), racy)
    rows = db.execute("SELECT name, fields FROM manifest_field")
    return Known(found, {agent: read_fields(text) for agent, text in rows})


def read_journal(db: sqlite3.Connection) -> Iterator[Entry]:
    for number, agent, name, text, at, by in db.execute("SELECT * FROM journal ORDER BY id"):
        yield Entry(number, agent, name, Field(text, at, by))
