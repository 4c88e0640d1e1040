"""What is remembered between rounds, in `.reconciler/state.db`: the only module that knows SQLite.

The merged state with every stamp, what each source said when it was last read or written, the versions of
`context.json` that a stale copy may have been made from, the journal of writes made while Redis was away, and
the ledger of values that lost. Every commit is on disk when it returns. A rollback journal, not a write-ahead
log: reading must not create a file (`diff` writes nothing).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from .edits import FILE, KEEP_MOST, KEEP_SPAN, KEEP_VERSIONS, UNSEEN, Version
from .errors import ReconcilerError
from .files import Identity
from .merge import merge_agent
from .sources.manifests import File, Known, Manifest
from .state import Agent, Field, State

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS agent
    (name TEXT PRIMARY KEY, merged TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file (name TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file_version
    (id INTEGER PRIMARY KEY, written INTEGER NOT NULL, ours INTEGER NOT NULL, undo TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS manifest_file (name TEXT PRIMARY KEY, said TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifest_field (name TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal
    (id INTEGER PRIMARY KEY AUTOINCREMENT, agent TEXT NOT NULL, field TEXT NOT NULL, text TEXT,
     at INTEGER NOT NULL, by TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS conflict
    (id INTEGER PRIMARY KEY, seen INTEGER NOT NULL, agent TEXT NOT NULL, field TEXT NOT NULL, lost TEXT NOT NULL,
     won TEXT NOT NULL);
PRAGMA user_version = 1;
"""
SCHEMA_VERSION = 1
KEEP_CONFLICTS = 10_000

T = TypeVar("T")


class Entry(NamedTuple):
    """One write waiting in the journal."""

    id: int
    agent: str
    field: str
    value: Field


class Clean(NamedTuple):
    """A file that need not be read again: its identity, and the sections that stayed out of what it says."""

    identity: Identity
    local_sections: tuple[str, ...]


class Conflict(NamedTuple):
    """A value that lost to a write which had not seen it."""

    agent: str
    field: str
    lost: Field
    won: Field


@dataclass(frozen=True, slots=True)
class Memory:
    """Everything remembered, as one value. `empty` before the first round.

    `names`: the agents that this is about, None for all of them.
    `clean`: the `context.json` that says exactly `file`, without problems.
    `file`: what `context.json` said last, each field with the stamp it had then.
    `versions`: agent to the last version known in Redis, so that a refilled server goes on counting.
    """

    merged: State = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    file: State = field(default_factory=dict)
    file_versions: Sequence[Version] = ()
    manifests: Known = field(default_factory=lambda: Known({}, {}))
    journal: tuple[Entry, ...] = ()
    epoch: str = ""
    clean: Clean | None = None
    empty: bool = True
    names: frozenset[str] | None = None

    def only(self, names: frozenset[str], paths: Iterable[str]) -> Memory:
        """What is remembered of these agents and of these manifest files; of anything else, nothing is told."""
        known = Known(part(self.manifests.files, paths), part(self.manifests.fields, names))
        return replace(
            self, merged=part(self.merged, names), versions=part(self.versions, names),
            file=part(self.file, {*names, FILE}), manifests=known, names=names,
        )  # fmt: skip


def part(whole: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """The entries that there are of these names."""
    return {name: whole[name] for name in names if name in whole}


class Base:
    """The database of one workspace. `folder` is `.reconciler/`; nothing is created before the first save."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.db"
        self._placed: int | None = None

    def load(self) -> Memory:
        if not self.path.exists():
            return Memory()
        with self._open(read_only=True) as db:
            if _is_new(db):
                return Memory()
            meta = dict(db.execute("SELECT key, value FROM meta"))
            clean = json.loads(meta.get("clean", "null"))
            agents = db.execute("SELECT name, merged, version FROM agent").fetchall()
            return Memory(
                merged={name: _fields(text) for name, text, _ in agents},
                versions={name: version for name, _, version in agents},
                file={name: _fields(text) for name, text in db.execute("SELECT name, fields FROM file")},
                file_versions=_Versions(
                    db.execute("SELECT written, ours, undo FROM file_version ORDER BY id DESC").fetchall()
                ),
                manifests=_known(db),
                journal=tuple(_journal(db)),
                epoch=meta.get("epoch", ""),
                clean=Clean(Identity(*clean[0]), tuple(clean[1])) if clean else None,
                empty="round" not in meta,
            )

    def save(
        self,
        before: Memory,
        after: Memory,
        *,
        now: int,
        new_versions: Iterable[Version] = (),
        conflicts: Iterable[Conflict] = (),
    ) -> None:
        """Make `after` the memory, in one transaction; only what differs from `before` is written.

        The journal entries in `before` that `after` lacks are done with; others may have come meanwhile and stay.
        """
        with self._open() as db:
            self._note_placed(db)
            _save_rows(db, "agent", _with_versions(before), _with_versions(after), lambda row: (_dump(row[0]), row[1]))
            _save_rows(db, "file", before.file, after.file, lambda fields: (_dump(fields),))
            _save_rows(db, "manifest_file", before.manifests.files, after.manifests.files, _dump_file)
            _save_rows(
                db, "manifest_field", before.manifests.fields, after.manifests.fields, lambda fields: (_dump(fields),)
            )
            db.executemany(
                "INSERT INTO file_version (written, ours, undo) VALUES (?, ?, ?)",
                [(version.written, version.ours, _dump_undo(version)) for version in new_versions],
            )
            newest = "(SELECT max(id) FROM file_version)"
            db.execute(
                f"DELETE FROM file_version WHERE written < ? AND id <= {newest} - ? OR id <= {newest} - ?",
                (now - KEEP_SPAN, KEEP_VERSIONS, KEEP_MOST),
            )
            kept = {entry.id for entry in after.journal}
            done = [(entry.id,) for entry in before.journal if entry.id not in kept]
            db.executemany("DELETE FROM journal WHERE id = ?", done)
            db.executemany(
                "INSERT INTO conflict (seen, agent, field, lost, won) VALUES (?, ?, ?, ?, ?)",
                [(now, c.agent, c.field, json.dumps(c.lost), json.dumps(c.won)) for c in conflicts],
            )
            db.execute("DELETE FROM conflict WHERE id <= (SELECT max(id) FROM conflict) - ?", (KEEP_CONFLICTS,))
            facts = {"epoch": after.epoch, "clean": json.dumps(after.clean), "round": "1"}
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())

    def placed(self, at: int) -> None:
        """The newest version of `context.json` is in place since `at` (µs); before, nobody can have seen it."""
        self._placed = at
        with self._open() as db:
            self._note_placed(db)

    def _note_placed(self, db: sqlite3.Connection) -> None:
        if self._placed is not None:
            db.execute("UPDATE file_version SET written = ? WHERE written = ?", (self._placed, UNSEEN))
            self._placed = None

    def unwrite(self, memory: Memory, file: State) -> None:
        """Forget the newest version of `context.json`: it never came to be. `file` is what was read there instead."""
        with self._open() as db:
            _save_rows(db, "file", memory.file, file, lambda fields: (_dump(fields),))
            db.execute("DELETE FROM file_version WHERE id = (SELECT max(id) FROM file_version)")

    def close(self) -> None:
        """Let go of the database, where it is kept open."""

    def version(self, agent: str) -> int:
        """The last version known in Redis of one agent; 0 for none."""
        if not self.path.exists():
            return 0
        with self._open(read_only=True) as db:
            row = None if _is_new(db) else db.execute("SELECT version FROM agent WHERE name = ?", (agent,)).fetchone()
        return int(row[0]) if row else 0

    def journal(self) -> tuple[Entry, ...]:
        """The writes that wait, oldest first."""
        if not self.path.exists():
            return ()
        with self._open(read_only=True) as db:
            return () if _is_new(db) else tuple(_journal(db))

    def known(self, agent: str) -> Agent:
        """What is remembered of one agent, with what waits in the journal."""
        if not self.path.exists():
            return {}
        with self._open(read_only=True) as db:
            row = None if _is_new(db) else db.execute("SELECT merged FROM agent WHERE name = ?", (agent,)).fetchone()
            waiting = [] if _is_new(db) else [entry for entry in _journal(db) if entry.agent == agent]
        fields = _fields(row[0]) if row else {}
        for entry in waiting:
            fields = merge_agent(fields, {entry.field: entry.value})
        return fields

    def owes(self) -> bool:
        """Whether writes were made on files only that Redis has perhaps not learnt yet."""
        if not self.path.exists():
            return False
        with self._open(read_only=True) as db:
            return not _is_new(db) and bool(db.execute("SELECT 1 FROM meta WHERE key = 'owing'").fetchone())

    def owe(self, owing: bool) -> None:
        """Note it, or that Redis has learnt them."""
        statement = (
            "INSERT OR REPLACE INTO meta VALUES ('owing', '1')" if owing else "DELETE FROM meta WHERE key = 'owing'"
        )
        with self._open() as db:
            db.execute(statement)

    def append_journal(self, state: State) -> None:
        """Keep writes until a round has merged them; on disk when this returns."""
        rows = [
            (agent, name, value.text, value.at, value.by)
            for agent, fields in state.items()
            for name, value in fields.items()
        ]
        with self._open() as db:
            db.executemany("INSERT INTO journal (agent, field, text, at, by) VALUES (?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction; committed at the end, rolled back on any error."""
        with self._reported(), closing(self._connect(read_only)) as db, db:
            yield db

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Say the database's errors in this program's words."""
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "see that the folder belongs to you and the disk is not full"
            raise ReconcilerError(f"{self.path}: {error}", hint=hint) from None
        except (sqlite3.DatabaseError, json.JSONDecodeError, TypeError) as error:
            hint = "move it away; the next apply is then a first run, in which newest wins and nothing is deleted"
            raise ReconcilerError(f"{self.path} is damaged: {error}", hint=hint) from None

    def _connect(self, read_only: bool) -> sqlite3.Connection:
        if read_only and not self._is_half_written():
            quoted = self.path.absolute().as_uri()
            return sqlite3.connect(f"{quoted}?mode=ro", uri=True, timeout=5)
        db = sqlite3.connect(self.path, timeout=5, check_same_thread=False)  # one at a time, whichever
        self.path.chmod(0o600)
        # The journal stays and its head is cleared: a commit costs a third of one that deletes it.
        db.execute("PRAGMA journal_mode = PERSIST")
        db.execute("PRAGMA journal_size_limit = 1000000")
        db.execute("PRAGMA synchronous = FULL")
        found = _schema_version(db)
        if found == 0:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        elif found != SCHEMA_VERSION:
            db.close()
            hint = "use that version, or move the file away"
            raise ReconcilerError(f"{self.path} was written by another version of this program", hint=hint)
        return db

    def _is_half_written(self) -> bool:
        """Whether a crash left a commit behind that only one who may write can take back."""
        try:
            with open(self.path.with_name("state.db-journal"), "rb") as journal:
                return journal.read(8) == _JOURNAL_HEAD
        except OSError:
            return False


_JOURNAL_HEAD = bytes.fromhex("d9d505f920a163d7")
"""How SQLite's rollback journal begins while it counts."""


class WarmBase(Base):
    """The database as the one process sees it that holds the workspace's lock: nobody else writes it, but for
    the journal, so what it says is kept. `save` takes parts (`Memory.only`) as well. One thread at a time, one
    connection; one who let go of the lock in between calls `refresh` first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._memory: Memory | None = None
        self._db: sqlite3.Connection | None = None
        self._inode = self._seen = -1

    def load(self) -> Memory:
        """As it is kept; writes that others have put into the journal are noticed."""
        if self._memory is None or self._moved():
            self._memory = super().load()
            self._seen = self._data_version()
        elif self._seen != (seen := self._data_version()):
            with self._open() as db:
                self._memory = replace(self._memory, journal=tuple(_journal(db)))
            self._seen = seen
        return self._memory

    def refresh(self) -> None:
        """Believe nothing that was kept if anybody has written since."""
        if self._memory is not None and (self._moved() or self._seen != self._data_version()):
            self._memory = self._placed = None

    def save(
        self,
        before: Memory,
        after: Memory,
        *,
        now: int,
        new_versions: Iterable[Version] = (),
        conflicts: Iterable[Conflict] = (),
    ) -> None:
        added = list(new_versions)
        super().save(before, after, now=now, new_versions=added, conflicts=conflicts)
        known = self._memory or Memory()
        versions = _trimmed([*reversed(added), *known.file_versions], now)
        whole = _whole(known, before, after)
        done = {entry.id for entry in before.journal}
        journal = tuple(entry for entry in known.journal if entry.id not in done)
        self._memory = replace(whole, file_versions=versions, journal=journal)

    def unwrite(self, memory: Memory, file: State) -> None:
        super().unwrite(memory, file)
        known = self._memory or Memory()
        restored = _folded(known.file, memory.file, file)
        self._memory = replace(known, file=restored, file_versions=list(known.file_versions)[1:])

    def placed(self, at: int) -> None:
        """Known at once; it is written with the next save, or at the end."""
        self._placed = at
        if self._memory is not None:
            newest = [version._replace(written=at) for version in self._memory.file_versions[:1]]
            self._memory = replace(self._memory, file_versions=[*newest, *self._memory.file_versions[1:]])

    def append_journal(self, state: State) -> None:
        super().append_journal(state)
        self._seen = -1

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error), self._db:  # a round that finds the file as it is notes it too
                self._note_placed(self._db)
            self._db.close()
            self._db = None

    def _moved(self) -> bool:
        """Whether somebody took the file away, or put another one in its place."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _data_version(self) -> int:
        """Changes when another connection has committed something."""
        if self._db is None:
            return -1
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def _open(self, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
        if self._moved():
            self.close()
        with self._reported():
            if self._db is None:
                self._db = self._connect(read_only=False)
                self._inode = self.path.stat().st_ino
            with self._db as db:
                yield db


def _whole(known: Memory, before: Memory, after: Memory) -> Memory:
    """Everything remembered, with what differs between `before` and `after` changed."""
    manifests = Known(
        _folded(known.manifests.files, before.manifests.files, after.manifests.files),
        _folded(known.manifests.fields, before.manifests.fields, after.manifests.fields),
    )
    return replace(
        after, merged=_folded(known.merged, before.merged, after.merged),
        versions=_folded(known.versions, before.versions, after.versions),
        file=_folded(known.file, before.file, after.file), manifests=manifests, names=None,
    )  # fmt: skip


def _folded(whole: Mapping[str, T], before: Mapping[str, T], after: Mapping[str, T]) -> dict[str, T]:
    """Exactly what `_save_rows` writes: what differs, and nothing that both have in common. A version of the file
    that was taken back (`unwrite`) is in both."""
    changed = {**whole, **{name: value for name, value in after.items() if before.get(name) != value}}
    for name in before.keys() - after.keys():
        changed.pop(name, None)
    return changed


def _trimmed(versions: list[Version], now: int) -> list[Version]:
    """Newest first, without those that no stale copy can have been made from any more; as `save` keeps them."""
    kept = versions[:KEEP_MOST]
    while len(kept) > KEEP_VERSIONS and kept[-1].written < now - KEEP_SPAN:
        kept.pop()
    return kept


_make = tuple.__new__  # a NamedTuple's own constructor takes three times as long


def _schema_version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _is_new(db: sqlite3.Connection) -> bool:
    """Whether nothing was ever saved there: the first save was cut off before its first commit."""
    return _schema_version(db) == 0


def _fields(text: str) -> dict[str, Field]:
    return {name: _make(Field, parts) for name, parts in json.loads(text).items()}


def _dump(fields: Agent) -> str:
    return json.dumps(fields, separators=(",", ":"))


class _Versions(Sequence[Version]):
    """The versions of the file, newest first; each is decoded only when somebody walks back that far."""

    def __init__(self, rows: list[tuple[int, int, str]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Version: ...
    @overload
    def __getitem__(self, index: slice) -> list[Version]: ...
    def __getitem__(self, index: int | slice) -> Version | list[Version]:
        if isinstance(index, slice):
            return [_version(*row) for row in self.rows[index]]
        return _version(*self.rows[index])


def _version(written: int, ours: int, undo: str) -> Version:
    return Version(written, bool(ours), _undo(undo))


def _undo(text: str) -> dict[tuple[str, str], Field | None]:
    return {(agent, name): Field(*old) if old else None for agent, name, old in json.loads(text)}


def _dump_undo(version: Version) -> str:
    return json.dumps([(*key, old) for key, old in version.undo.items()], separators=(",", ":"))


def _save_rows(
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


def _with_versions(memory: Memory) -> dict[str, tuple[Agent, int]]:
    return {name: (fields, memory.versions.get(name, 0)) for name, fields in memory.merged.items()}


def _dump_file(file: File) -> tuple[str]:
    return (json.dumps([file.identity, file.saved, file.manifests, file.racy]),)


def _known(db: sqlite3.Connection) -> Known:
    found = {}
    for path, said in db.execute("SELECT name, said FROM manifest_file"):
        identity, saved, manifests, racy = json.loads(said)
        found[path] = File(path, Identity(*identity), saved, tuple(Manifest(*parts) for parts in manifests), racy)
    rows = db.execute("SELECT name, fields FROM manifest_field")
    return Known(found, {agent: _fields(text) for agent, text in rows})


def _journal(db: sqlite3.Connection) -> Iterator[Entry]:
    for number, agent, name, text, at, by in db.execute("SELECT * FROM journal ORDER BY id"):
        yield Entry(number, agent, name, Field(text, at, by))
