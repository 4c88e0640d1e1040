"""What installing is: a list of file changes, computed first, then shown or made, remembered, and undone.

A target (hooks, shim, launchd, systemd) says which files it wants; the rest is here. `.reconciler/installed.json` holds
of each file what was there before and a fingerprint of what was put there; `.reconciler/installed/` has the copies. So
the second time there is nothing to do, and uninstalling restores every byte. What somebody edited since is theirs: a
marked block is taken out of it, anything else is left unless it is forced.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ReconcilerError, Refused
from ..settings import Settings

NAMES = ("hooks", "shim", "launchd", "systemd")
LIMIT = 16 << 20
"""Bytes; a larger file is not edited."""
EDITED = ".edited"
"""How the copies end of what somebody had edited in files or blocks of ours: they stay."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file as a target wants it.

    `edit`: from what is there (None: no such file) to what shall be; None or the same: it stays as it is. `undo` takes
    out of a file, whatever else was edited in it, what `edit` put in; without one the file is the target's as a whole.
    `mode`: of a new file, less the umask; of one that exists only the right to execute is added.
    """

    path: Path
    edit: Callable[[bytes | None], bytes | None]
    undo: Callable[[bytes], bytes] | None = None
    mode: int = 0o644


def whole(path: Path, data: bytes, mode: int = 0o644) -> Wanted:
    """A file that is the target's own, whatever was there."""
    return Wanted(path, lambda _: data, mode=mode)


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be installed: module `service.<name>` has it as `TARGET`.

    `start` makes it run once the files are there; it is told whether any of them changed, and may say lines. `stop` is
    called before they are taken away. Both raise ReconcilerError. `commands`: what the two run, for `--dry-run`.
    `ready` raises it for what would keep the target from working, before anything is written. `service`: it runs, and
    is taken away as a whole or not at all.
    """

    name: str
    wanted: Callable[[Settings], Sequence[Wanted]]
    start: Callable[[Settings, bool, Say], None] = lambda settings, changed, say: None
    stop: Callable[[Settings, Say], None] = lambda settings, say: None
    commands: Callable[[Settings, bool], Sequence[str]] = lambda settings, installing: ()
    ready: Callable[[Settings], None] = lambda settings: None
    service: bool = False


def find(name: str) -> Target:
    """The target of one of NAMES."""
    target = importlib.import_module(f".{name}", __package__).TARGET
    assert isinstance(target, Target)
    return target


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file from `before` to `after` (None: no file). `mode`: what it has afterwards, None: whatever it has now."""

    path: Path
    before: bytes | None
    after: bytes | None
    identity: files.Identity | None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What the record holds of one file: the copy of what was there (None: nothing was), its mode, the fingerprint of
    what was put there, and the folders that were made for it."""

    copy: str | None
    mode: int | None
    after: str
    folders: tuple[str, ...] = ()


Record = dict[str, dict[str, Entry]]
"""Target, path (relative where it is in the workspace), entry."""


@dataclass(frozen=True, slots=True)
class Work:
    """What installing or uninstalling one target does. `entries`: its record afterwards; `copies`: those to keep,
    name to bytes; `refused`: the files that stay as somebody edited them, each with a reason."""

    target: Target
    changes: tuple[FileChange, ...]
    entries: Mapping[str, Entry]
    copies: Mapping[str, bytes] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


def installing(settings: Settings, target: Target) -> Work:
    """What it takes to have a target installed. Writes nothing."""
    known = read_record(settings).get(target.name, {})
    changes, entries, copies = [], dict(known), {}
    for wanted in target.wanted(settings):
        before, identity, mode = _look(wanted.path)
        after = wanted.edit(before)
        if after is None:
            continue
        name = short_name(settings, wanted.path)
        entry = known.get(name)
        if before is None or entry is None or entry.after != fingerprint(before):
            original, mode_before = _without_ours(wanted, before), mode
            if original == after:
                continue  # somebody's own file that will do
            if before is not None and after != before and _is_ours(wanted, before):
                copies[_copy_name(wanted.path, before) + EDITED] = before
                if entry and not wanted.undo:
                    original = None if entry.copy is None else _read_copy(settings, entry.copy)
                    mode_before = entry.mode
            entry = Entry(
                None if original is None else _copy_name(wanted.path, original),
                None if original is None else mode_before,
                "",
                entry.folders
                if entry
                else tuple(short_name(settings, folder) for folder in _missing(wanted.path.parent)),
            )
            if entry.copy and original is not None:
                copies[entry.copy] = original
        entries[name] = Entry(entry.copy, entry.mode, fingerprint(after), entry.folders)
        right = wanted.mode if mode is None else mode | ((mode & 0o444) >> 2 if wanted.mode & 0o111 else 0)
        if (after, right) != (before, mode):
            changes.append(FileChange(wanted.path, before, after, identity, None if right == mode else right))
    return Work(target, tuple(changes), entries, copies)


def uninstalling(settings: Settings, target: Target, *, force: bool = False) -> Work:
    """What it takes to have everything as it was before a target was installed. Writes nothing."""
    wanted = {short_name(settings, each.path): each for each in target.wanted(settings)}
    changes, entries, refused = [], {}, []
    known = read_record(settings).get(target.name, {})
    for name, entry in known.items():
        path = settings.root / name
        before, identity, mode = _look(path)
        original = None if entry.copy is None else _read_copy(settings, entry.copy)
        undo = wanted[name].undo if name in wanted else None
        if force or (before is not None and fingerprint(before) == entry.after) or before == original:
            after, right = original, entry.mode
        elif before is None:  # a file of our own that is gone is in nobody's way; a script with our block was theirs
            after, right = (None, None) if undo else (original, entry.mode)
        elif undo:
            after, right = undo(before), None
        else:
            refused.append(f"{name}: was edited since it was installed")
            entries[name] = entry
            continue
        if after != before or right not in (None, mode):
            changes.append(FileChange(path, before, after, identity, right))
    if refused and target.service:
        changes, entries = [], dict(known)
    return Work(target, tuple(changes), entries, refused=tuple(refused))


def carry_out(settings: Settings, work: Work) -> None:
    """Make the changes and remember them. Raises ReconcilerError; what was not reached is as it was."""
    if not work.changes and read_record(settings).get(work.target.name, {}) == work.entries:
        return
    folder = files.private_folder(settings.folder)
    with _alone(folder / "install.lock"):
        record = read_record(settings)
        old = record.pop(work.target.name, {})
        now = record | {work.target.name: {**work.entries}} if work.entries else record
        if work.copies:
            files.private_folder(_copies(settings))
        for name, data in work.copies.items():
            files.write_private(_copies(settings) / name, data)
        # First the union: were this the last that is done, everything could still be undone.
        _write_record(settings, record | {work.target.name: {**old, **work.entries}})
        for change in work.changes:
            _make(change)
        gone = [entry for name, entry in old.items() if name not in work.entries]
        for path in sorted({settings.root / name for entry in gone for name in entry.folders}, reverse=True):
            files.remove_folder(path, *(Path(name).stem for name in old))
        _write_record(settings, now)


def read_record(settings: Settings) -> Record:
    """What was installed into this workspace. Raises ReconcilerError when it cannot be read."""
    path = settings.folder / "installed.json"
    found = files.read(path, LIMIT)
    try:
        targets = json.loads(found[0])["targets"] if found else {}
        return {target: {name: _entry(**entry) for name, entry in known.items()} for target, known in targets.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ReconcilerError(
            f"{path}: is not a record of what was installed", hint="move it away and install again"
        ) from error


def fingerprint(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _entry(copy: str | None, mode: int | None, after: str, folders: Sequence[str]) -> Entry:
    return Entry(copy, mode, after, tuple(folders))


def _write_record(settings: Settings, record: Record) -> None:
    """And keep of the copies only those that it names."""
    path, copies = settings.folder / "installed.json", _copies(settings)
    if not any(record.values()):
        files.remove(path, files.identify(path))
    else:
        plain: dict[str, Any] = {
            target: {name: {"copy": entry.copy, "mode": entry.mode, "after": entry.after, "folders": entry.folders}
                     for name, entry in known.items()}
            for target, known in record.items() if known
        }  # fmt: skip
        files.write_private(path, json.dumps({"version": 1, "targets": plain}, indent=2).encode() + b"\n")
    if copies.is_dir():
        kept = {entry.copy for known in record.values() for entry in known.values()}
        for copy in copies.iterdir():
            if copy.name not in kept and not copy.name.endswith(EDITED):
                files.remove(copy, files.identify(copy))
        files.remove_folder(copies)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = files.FileLock(path)
    if not lock.take(seconds=5):
        raise Refused("another install or uninstall is at work in this workspace", hint="try again when it is done")
    try:
        yield
    finally:
        lock.release()


def _look(path: Path) -> tuple[bytes | None, files.Identity | None, int | None]:
    """Bytes, identity and mode of a file; three times None where there is none."""
    found = files.read(path, LIMIT)
    return (found[0], found[1], stat.S_IMODE(os.stat(path).st_mode)) if found else (None, None, None)


def _is_ours(wanted: Wanted, before: bytes) -> bool:
    """Whether a file, or a block in it, was put there by `install`, whatever was edited in it since."""
    return wanted.undo(before) != before if wanted.undo else b"`reconciler install " in before


def _without_ours(wanted: Wanted, before: bytes | None) -> bytes | None:
    """What would be there had this target never been installed; only a lost record makes this differ from `before`."""
    if before is None:
        return None
    return wanted.undo(before) if wanted.undo else None if before == wanted.edit(None) else before


def _make(change: FileChange) -> None:
    try:
        if change.after is None:
            files.remove(change.path, change.identity)
            return
        files.make_folder(change.path.parent)
        done = files.replace(change.path, change.after, change.identity, change.mode)
        if done.displaced is not None:
            files.replace(change.path, done.displaced, done.identity)
            raise files.Moved(change.path)
    except files.Moved:
        raise ReconcilerError(f"{change.path}: was changed meanwhile", hint="run this again") from None


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def short_name(settings: Settings, path: Path) -> str:
    """A path as the record has it: relative where it is in the workspace."""
    return str(path.relative_to(settings.root) if path.is_relative_to(settings.root) else path)


def _copies(settings: Settings) -> Path:
    return settings.folder / "installed"


def _copy_name(path: Path, data: bytes) -> str:
    return f"{fingerprint(data)[:16]}-{path.name}"


def _read_copy(settings: Settings, name: str) -> bytes:
    path = _copies(settings) / name
    found = files.read(path, LIMIT)
    if found is None:
        raise ReconcilerError(f"{path}: is gone; it is what was there before", hint="see .reconciler/installed.json")
    return found[0]
