"""The database as one process sees it that does round after round: what it said is kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from sys import intern
from typing import TypeVar

from ..edits import KEEP_MOST, KEEP_SPAN, KEEP_VERSIONS, UNSEEN, Version
from ..failpoints import around
from ..sources.manifests import Known
from ..state import State
from . import Base
from .memory import Conflict, Memory
from .packed import Packed
from .rows import VersionRow, Versions, dump_undo, read_fields, read_journal, short

T = TypeVar("T")


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
            seen = self._data_version()  # before: what is committed meanwhile is noticed the next time
            self._memory, self._seen = super().load(), seen
        elif self._seen != (seen := self._data_version()):
            with self._open() as db:
                self._memory = replace(self._memory, journal=tuple(read_journal(db)))
            self._seen = seen
        return self._memory

    def _states(self, agents: Mapping[str, str], in_file: Mapping[str, str]) -> tuple[State, State]:
        """Packed: between two rounds nobody looks at most of it."""
        merged = Packed((intern(name), read_fields(text)) for name, text in agents.items())
        return merged, Packed(((intern(name), read_fields(text)) for name, text in in_file.items()), merged)

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
        rows = [short(version.written, int(version.ours), dump_undo(version)) for version in reversed(added)]
        versions = Versions(_trimmed([*rows, *_rows(known)], now), self._reported)
        whole = _whole(known, before, after)
        done = {entry.id for entry in before.journal}
        journal = tuple(entry for entry in known.journal if entry.id not in done)
        self._memory = replace(whole, file_versions=versions, journal=journal)

    def told(self, numbers: Iterable[int]) -> None:
        super().told(numbers)
        if self._memory is not None:
            self._memory = replace(self._memory, untold=bool(self.conflicts(untold=True)))

    def unwrite(self, memory: Memory, file: State) -> None:
        super().unwrite(memory, file)
        known = self._memory or Memory()
        restored = _repacked(known.file, memory.file, file, known.merged)
        self._memory = replace(known, file=restored, file_versions=Versions(_rows(known)[1:], self._reported))

    def placed(self, at: int) -> None:
        """Known at once; it is written with the next save, or at the end."""
        self._placed = at
        if self._memory is not None:
            # one that a crash kept from there as well: as `_note_placed` writes it
            rows = [(at if written == UNSEEN else written, ours, undo) for written, ours, undo in _rows(self._memory)]
            versions = Versions(rows, self._reported)
            self._memory = replace(self._memory, file_versions=versions)

    def append_journal(self, state: State) -> None:
        super().append_journal(state)
        self._seen = -1

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error), around("commit"), self._db:
                self._note_placed(self._db)  # a round that finds the file as it is notes it too
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
            with around("commit"), self._db as db:
                if read_only:
                    db.execute("BEGIN")
                yield db


def _whole(known: Memory, before: Memory, after: Memory) -> Memory:
    """Everything remembered, with what differs between `before` and `after` changed."""
    fold = _fold_in if before.names is not None else _folded
    manifests = Known(
        fold(known.manifests.files, before.manifests.files, after.manifests.files),
        fold(known.manifests.fields, before.manifests.fields, after.manifests.fields),
    )
    merged = _repacked(known.merged, before.merged, after.merged)
    return replace(
        after, merged=merged, file=_repacked(known.file, before.file, after.file, merged),
        versions=fold(known.versions, before.versions, after.versions), manifests=manifests, names=None,
        unlearnt={**{key: was for key, was in known.unlearnt.items() if key not in before.unlearnt}, **after.unlearnt},
    )  # fmt: skip


def _folded(whole: Mapping[str, T], before: Mapping[str, T], after: Mapping[str, T]) -> Mapping[str, T]:
    """Exactly what `_save_rows` writes: what differs, and nothing that both have in common. A version of the file
    that was taken back (`unwrite`) is in both."""
    return _fold_in({**whole}, before, after) if before != after else whole


def _fold_in(whole: Mapping[str, T], before: Mapping[str, T], after: Mapping[str, T]) -> Mapping[str, T]:
    """The same in place, where `before` is a part, and so nobody looks at the whole any more: a copy would cost as much
    as there is, whatever was changed."""
    assert isinstance(whole, dict)
    whole.update({name: value for name, value in after.items() if before.get(name) != value})
    for name in before.keys() - after.keys():
        whole.pop(name, None)
    return whole


def _repacked(whole: State, before: State, after: State, like: State | None = None) -> Packed:
    """As `_fold_in`, packed: what a round looks at is a part, or unpacked."""
    packed = whole if isinstance(whole, Packed) else Packed(whole.items())
    for name, fields in after.items():
        if (old := before.get(name)) is not fields and old != fields:
            packed.put(intern(name), fields, like if isinstance(like, Packed) else None)
    for name in before.keys() - after.keys():
        packed.drop(name)
    return packed


def _rows(memory: Memory) -> list[VersionRow]:
    """The versions of the file as they are kept; the first one may be about everything, so none is decoded."""
    versions = memory.file_versions
    return versions.rows if isinstance(versions, Versions) else []


def _trimmed(versions: list[VersionRow], now: int) -> list[VersionRow]:
    """Newest first, without those that no stale copy can have been made from any more; as `save` keeps them."""
    kept = versions[:KEEP_MOST]
    while len(kept) > KEEP_VERSIONS and kept[-1][0] < now - KEEP_SPAN:
        kept.pop()
    return kept
