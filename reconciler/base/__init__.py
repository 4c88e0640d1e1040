"""What is remembered between rounds, in `.reconciler/state.db`: the only module that knows SQLite.

The merged state with every stamp, what each source said when it was last read or written, the versions of
`context.json` that a stale copy may have been made from, the journal of writes made while Redis was away, and
the ledger of values that lost. Every commit is on disk when it returns. A rollback journal, not a write-ahead
log: reading must not create a file (`diff` writes nothing).
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from .. import files
from ..edits import KEEP_MOST, KEEP_SPAN, KEEP_VERSIONS, UNSEEN, Version
from ..errors import ReconcilerError
from ..failpoints import around
from ..files import Identity
from ..merge import merge_agent
from ..state import Agent, Field, State
from .memory import Clean, Conflict, Entry, Memory, part
from .rows import (
    SCHEMA_VERSION,
    Versions,
    bring_up_to_date,
    dump_fields,
    dump_file,
    dump_undo,
    enter_conflicts,
    has_ledger,
    is_new,
    newest_written,
    read_fields,
    read_journal,
    read_known,
    read_unlearnt,
    save_rows,
    save_unlearnt,
    schema_version,
    short,
    with_versions,
)  # fmt: skip

__all__ = ["Base", "Clean", "Conflict", "Entry", "Memory", "newest_written", "part"]


class Base:
    """The database of one workspace. `folder` is `.reconciler/`; nothing is created before the first save."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.db"
        self._placed: int | None = None

    def load(self) -> Memory:
        if not self.path.exists():
            return Memory()
        with self._open(read_only=True) as db:
            if is_new(db):
                return Memory()
            meta = dict(db.execute("SELECT key, value FROM meta"))
            agents = db.execute("SELECT name, merged, version FROM agent").fetchall()
            in_file = db.execute("SELECT name, fields FROM file").fetchall()
            versions = db.execute("SELECT written, ours, undo FROM file_version ORDER BY id DESC").fetchall()
            manifests, journal = read_known(db), tuple(read_journal(db))
            unlearnt = read_unlearnt(db) if has_ledger(db) else {}
            untold = has_ledger(db) and bool(db.execute("SELECT 1 FROM conflict WHERE told = 0").fetchone())
        with self._reported():  # nobody who commits waits for what takes time
            merged, file = self._states({name: text for name, text, _ in agents}, dict(in_file))
            clean = json.loads(meta.get("clean", "null"))
            return Memory(
                merged=merged,
                versions={name: version for name, _, version in agents},
                file=file,
                file_versions=Versions([short(*row) for row in versions], self._reported),
                manifests=manifests,
                journal=journal,
                epoch=meta.get("epoch", ""),
                clean=Clean(Identity(*clean[0]), tuple(clean[1])) if clean else None,
                empty="round" not in meta,
                unlearnt=unlearnt,
                untold=untold,
            )

    def _states(self, agents: Mapping[str, str], in_file: Mapping[str, str]) -> tuple[State, State]:
        """The merged state and the file's from their rows; most of it says the same and need not be there twice."""
        merged = {name: read_fields(text) for name, text in agents.items()}
        file = {name: merged[name] if agents.get(name) == text else read_fields(text) for name, text in in_file.items()}
        return merged, file

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
            save_rows(
                db, "agent", with_versions(before), with_versions(after), lambda row: (dump_fields(row[0]), row[1])
            )
            save_rows(db, "file", before.file, after.file, lambda fields: (dump_fields(fields),))
            save_rows(db, "manifest_file", before.manifests.files, after.manifests.files, dump_file)
            save_rows(
                db,
                "manifest_field",
                before.manifests.fields,
                after.manifests.fields,
                lambda fields: (dump_fields(fields),),
            )
            db.executemany(
                "INSERT INTO file_version (written, ours, undo) VALUES (?, ?, ?)",
                [(version.written, version.ours, dump_undo(version)) for version in new_versions],
            )
            newest = "(SELECT max(id) FROM file_version)"
            recent = "ifnull((SELECT min(id) FROM file_version WHERE written >= ?), id + 1)"
            db.execute(  # never one in the middle, as that of a file with an old time: each is a step back
                f"DELETE FROM file_version WHERE id < {recent} AND id <= {newest} - ? OR id <= {newest} - ?",
                (now - KEEP_SPAN, KEEP_VERSIONS, KEEP_MOST),
            )
            kept = {entry.id for entry in after.journal}
            done = [(entry.id,) for entry in before.journal if entry.id not in kept]
            db.executemany("DELETE FROM journal WHERE id = ?", done)
            save_unlearnt(db, before.unlearnt, after.unlearnt)
            enter_conflicts(db, conflicts, now)
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
            save_rows(db, "file", memory.file, file, lambda fields: (dump_fields(fields),))
            db.execute("DELETE FROM file_version WHERE id = (SELECT max(id) FROM file_version)")

    def conflicts(self, agent: str | None = None, *, untold: bool = False) -> list[Conflict]:
        """The ledger, newest first; of one agent, or those whose event was not published."""
        if not self.path.exists():
            return []
        with self._open(read_only=True) as db:
            if is_new(db):
                return []
            columns, where = "agent, field, lost, won, id, seen", "WHERE ? IN (agent, '')"
            if has_ledger(db):
                columns, where = f"{columns}, ifnull(restored, 0)", where + " AND told = 0" * untold
            rows = db.execute(f"SELECT {columns} FROM conflict {where} ORDER BY id DESC", (agent or "",))
            return [
                Conflict(name, field, Field(*json.loads(lost)), Field(*json.loads(won)), *more)
                for name, field, lost, won, *more in rows
            ]

    def told(self, numbers: Iterable[int]) -> None:
        """The events of these conflicts are published."""
        with self._open() as db:
            db.executemany("UPDATE conflict SET told = 1 WHERE id = ?", [(number,) for number in numbers])

    def restored(self, number: int, at: int) -> None:
        """Mark a conflict whose lost value was written back at a time (µs)."""
        with self._open() as db:
            db.execute("UPDATE conflict SET restored = ? WHERE id = ?", (at, number))

    def close(self) -> None:
        """Let go of the database, where it is kept open."""

    def mark(self) -> tuple[Identity, bytes] | None:
        """Another one after every commit: SQLite counts them in the head of the file. None for no database."""
        found = files.identify(self.path)
        if found is None:
            return None
        with open(self.path, "rb") as file:
            return found, file.read(28)[24:]

    def version(self, agent: str) -> int:
        """The last version known in Redis of one agent; 0 for none."""
        if not self.path.exists():
            return 0
        with self._open(read_only=True) as db:
            row = None if is_new(db) else db.execute("SELECT version FROM agent WHERE name = ?", (agent,)).fetchone()
            return int(row[0]) if row else 0

    def journal(self) -> tuple[Entry, ...]:
        """The writes that wait, oldest first."""
        if not self.path.exists():
            return ()
        with self._open(read_only=True) as db:
            return () if is_new(db) else tuple(read_journal(db))

    def known(self, agent: str) -> Agent:
        """What is remembered of one agent, with what waits in the journal."""
        if not self.path.exists():
            return {}
        with self._open(read_only=True) as db:
            row = None if is_new(db) else db.execute("SELECT merged FROM agent WHERE name = ?", (agent,)).fetchone()
            waiting = [] if is_new(db) else [entry for entry in read_journal(db) if entry.agent == agent]
            fields = read_fields(row[0]) if row else {}
        for entry in waiting:
            fields = merge_agent(fields, {entry.field: entry.value})
        return fields

    def owes(self) -> bool:
        """Whether writes were made on files only that Redis has perhaps not learnt yet; what waits in the journal is
        one, whoever believes to have taught Redis everything."""
        if not self.path.exists():
            return False
        asked = "SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'owing') OR EXISTS (SELECT 1 FROM journal)"
        with self._open(read_only=True) as db:
            return not is_new(db) and bool(db.execute(asked).fetchone()[0])

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
        with around("journal"), self._open() as db:
            db.executemany("INSERT INTO journal (agent, field, text, at, by) VALUES (?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction; committed at the end, rolled back on any error. All that one who only
        reads is told is of one moment."""
        commit = nullcontext() if read_only else around("commit")
        with self._reported(), closing(self._connect(read_only)) as db, commit, db:
            if read_only:
                db.execute("BEGIN")
            yield db

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Say the database's errors in this program's words."""
        try:
            yield
        except sqlite3.OperationalError as error:
            hint = "see that the folder belongs to you and the disk is not full"
            raise ReconcilerError(f"{self.path}: {error}", hint=hint) from None
        except (sqlite3.DatabaseError, *_DAMAGE) as error:
            hint = "move it away; the next apply is then a first run, in which newest wins and nothing is deleted"
            raise ReconcilerError(f"{self.path} is damaged: {error}", hint=hint) from None

    def _connect(self, read_only: bool) -> sqlite3.Connection:
        if read_only and not self._is_half_written():
            quoted = self.path.absolute().as_uri()
            return sqlite3.connect(f"{quoted}?mode=ro", uri=True, timeout=5)
        if not read_only:
            files.private_folder(self.path.parent)
        db = sqlite3.connect(self.path, timeout=5, check_same_thread=False)  # one at a time, whichever
        self.path.chmod(0o600)
        # The journal stays and its head is cleared: a commit costs a third of one that deletes it.
        db.execute("PRAGMA journal_mode = PERSIST")
        db.execute("PRAGMA journal_size_limit = 1000000")
        db.execute("PRAGMA synchronous = FULL")
        found = schema_version(db)
        if found < SCHEMA_VERSION:
            bring_up_to_date(db)
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


_DAMAGE = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError, zlib.error)
"""What reading a row raises that holds no JSON, JSON of another shape, or a number that is none."""
_JOURNAL_HEAD = bytes.fromhex("d9d505f920a163d7")
"""How SQLite's rollback journal begins while it counts."""
