"""The only module that writes files: atomic replacement, private files, locks, backups.

Nothing here knows what a file says. Whoever replaces a file passes on the `Identity` that was read, so that a
version somebody else put there in between is never lost: it is noticed before the swap (`Moved`) or handed
back after it (`Replaced.displaced`). No file is seen half written, none is left world-writable. POSIX only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from weakref import WeakSet

from reconciler.errors import InputError, Place, Problem, ReconcilerError, Refused, WorkspaceHeld
from reconciler.failpoints import around

_TRIES = 5
_NO_REPLACE, _EXCHANGE = (4, 2) if sys.platform == "darwin" else (1, 2)
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_TEMP = re.compile(r"\.(.+)\.(\d{1,10})\.[0-9a-f]{8}\.tmp", re.A)
_BORN = time.time()
_NO_SPACE = "free some space; the file is unchanged"
_NO_RIGHT = "give this user the right to write there; the file is unchanged"
_HINTS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "raise the limit on file size; the file is unchanged",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: "the file system is mounted read-only; the file is unchanged",
    errno.ENOENT: "create the folder",
}


class Moved(Exception):
    """The file is not the one that was read. For the caller, who reads again; a person never sees it."""


class Identity(NamedTuple):
    """What tells one version of a file from the next; a rename keeps it, a write changes it."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Replaced(NamedTuple):
    """`identity` of the new file; `displaced`: the bytes of a newer version that somebody else put there at
    the last moment, which this one took the place of and which the caller must merge.

    `aged`: how many nanoseconds, by the file system's own clock, its mtime is older at least than that of any version
    that somebody may write into it.
    """

    identity: Identity
    displaced: bytes | None = None
    displaced_mtime_ns: int | None = None
    aged: int = 0


def identify(path: Path) -> Identity | None:
    """The identity of what `path` leads to; None: nothing there."""
    return _identity(_stat(path))


def identify_entry(entry: os.DirEntry[str]) -> Identity | None:
    """The same for an entry of a folder that was listed; None also for what cannot be looked at."""
    try:
        found = entry.stat()
    except OSError:
        return None
    return tuple.__new__(Identity, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


def read(path: Path | str, limit: int) -> tuple[bytes, Identity] | None:
    """One consistent version of a file of at most `limit` bytes; None: nothing there.

    Raises InputError for anything that is not a readable regular file, without ever waiting on it.
    """
    try:
        for attempt in range(_TRIES):
            found = _read_once(path, limit)
            if found is not None:
                return found
            time.sleep(0.001 * 2**attempt)
    except FileNotFoundError:
        return None
    except OSError as error:
        hint = "give this user the right to read it" if isinstance(error, PermissionError) else ""
        raise _unreadable(path, f"cannot be read: {_reason(error)}", hint) from error
    raise _unreadable(path, "keeps changing while it is read", "another program is writing it; try again")


def replace(  # noqa: PLR0913 - four say what is there and what becomes of it
    path: Path,
    data: bytes,
    expected: Identity | None,
    mode: int | None = None,
    keep: Callable[[bytes, int], object] | None = None,
    said: bytes | None = None,
) -> Replaced:
    """Put `data` in the place of the version `expected` (None: of nothing), in one step. `said`: what was read of it,
    where its time is too young to tell whether it was changed since.

    Safe against a power cut. Mode (unless one is given), owner and extended attributes stay as far as this user may
    set them. A symlinked file is written through. Raises Moved when another version is there, Refused for a link that
    leads where it should not, ReconcilerError when it cannot be written; the old file is then untouched.

    `keep` is called with what is displaced, before it is removed: who is killed in it leaves it beside the file
    (`left_beside`).
    """
    with _reported(path):
        target = _through_link(path)
        old = _stat(target)
        if _identity(old) != expected:
            raise Moved(path)
        temp, identity = _write_beside(target, data, old, mode)
        try:
            with around("swap"):
                swapped = _swap(temp, target, expected)
        except BaseException:
            # An interrupt may come after the swap: then this is somebody's file and must stay.
            if identify(temp) == identity:
                os.unlink(temp)
            raise
        aged = _aged(target, identity)
        _sync_folder(target.parent)
        if not swapped:
            return Replaced(identity, aged=aged)
        displaced = _what_came_out(temp, target, identity, expected, said)
        if displaced and keep:
            keep(*displaced)
        with around("unlink"):
            os.unlink(temp)
        found, mtime_ns = displaced or (None, None)
        return Replaced(identity, found, mtime_ns, aged)


def left_beside(path: Path) -> list[Path]:
    """What processes that were killed left beside a file: a version half written, or one that a swap displaced.

    Nothing beside one that leads nowhere: who reads it says so.
    """
    with _reported(path, "looked at"):
        try:
            target = _through_link(path)
        except OSError:
            return []
        return sorted(path for name, path in _left(target.parent) if name == target.name)


def clear_left(folder: Path) -> None:
    """Remove what processes that were killed left half written in a folder in which nothing is swapped."""
    with _reported(folder, "cleared"):
        for _, path in _left(folder):
            path.unlink(missing_ok=True)


def _left(folder: Path) -> Iterator[tuple[str, Path]]:
    """What is left of writes that were cut off in a folder, each with the name of the file that it was for."""
    for name in os.listdir(folder):
        match = _TEMP.fullmatch(name)
        if match and _is_over(int(match[2]), folder / name):
            yield match[1], folder / name


def _is_over(pid: int, path: Path) -> bool:
    """Whether the process that made this is dead; its number may be ours by now, as in a container."""
    if pid == os.getpid():
        found = _stat(path)
        return found is not None and found.st_ctime < _BORN
    return _is_gone(pid)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    except OverflowError:  # no process can have this number
        return True
    return False


def remove(path: Path, expected: Identity | None) -> None:
    """Remove the version `expected`. Raises Moved when another one is there."""
    with _reported(path, "removed"):
        if identify(path) != expected:
            raise Moved(path)
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)


def make_folder(path: Path) -> list[Path]:
    """Make `path` and what is missing above it; what was made, the outermost first."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)][::-1]
    with _reported(path):
        for folder in missing:
            folder.mkdir(exist_ok=True)
        if not path.is_dir():
            raise ReconcilerError(f"{path}: is not a folder", hint="move it away; a folder is needed there")
    return missing


def remove_folder(path: Path, *stems: str) -> None:
    """Remove a folder if nothing is in it but what Python compiled from modules of these names."""
    with suppress(OSError):
        for stem in stems:
            for compiled in path.glob(f"__pycache__/{stem}.*.pyc"):
                compiled.unlink()
        with suppress(FileNotFoundError):
            (path / "__pycache__").rmdir()
        path.rmdir()


def discard(path: Path) -> None:
    """Remove a file; nothing happens if it is gone."""
    with _reported(path, "removed"):
        path.unlink(missing_ok=True)


def rename(path: Path, target: Path) -> bool:
    """Give a file another name, whatever was there; False if it was gone."""
    with _reported(path, "renamed"):
        try:
            with around("rename"):
                os.rename(path, target)
        except FileNotFoundError:
            return False
    return True


def move(path: Path, target: Path) -> Path | None:
    """Move a file on one file system, never over another one: where `target` is taken, to `target` with a number.

    Where it is now; None if it was gone. The folder of `target` must exist.
    """
    with _reported(path, "moved"):
        for number in range(1, sys.maxsize):
            free = target if number == 1 else target.with_name(f"{target.stem}.{number}{target.suffix}")
            try:
                with around("rename"):
                    if not _rename(path, free, _NO_REPLACE):
                        os.link(path, free, follow_symlinks=False)
                        os.unlink(path)
                return free
            except FileExistsError:
                continue
            except FileNotFoundError:
                if _stat(target.parent) is None:
                    raise
                return None
    raise AssertionError("there is always a free name")


def write_private(path: Path, data: bytes) -> None:
    """Put `data` at `path`, atomically, readable by this user only. The folder must exist."""
    with _reported(path):
        temp, _ = _write_beside(path, data, None, mode=0o600)
        try:
            with around("rename"):
                os.rename(temp, path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def private_folder(path: Path) -> Path:
    """Make `path` a folder of mode 0700, with its parents; an existing one of this user is closed to others.

    A link to such a folder will do if this user made it, so nobody else can choose where private files go.
    """
    with _reported(path):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        link = path.lstat()
        found = _stat(path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise ReconcilerError(f"{path}: is not a folder", hint="move it away; a folder is needed there")
        if {link.st_uid, found.st_uid} != {os.getuid()}:
            raise ReconcilerError(f"{path}: belongs to another user", hint="run as that user, or remove it")
        if found.st_mode & 0o077:
            path.chmod(0o700)
    return path


def backup(path: Path, folder: Path, day: date, keep: int) -> Path | None:
    """Copy `path` to `folder` as `<stem>-<day><suffix>` unless that exists; keep the newest `keep` copies.

    Returns the copy that was made; None when the day has one already or there is nothing to copy.
    """
    copy = private_folder(folder) / f"{path.stem}-{day.isoformat()}{path.suffix}"
    found = None if copy.exists() else read(path, sys.maxsize - 1)
    if found is None:
        return None
    clear_left(folder)
    write_private(copy, found[0])
    with _reported(folder):
        copies = sorted(folder.glob(f"{path.stem}-????-??-??{path.suffix}"))
        for old in copies[: max(0, len(copies) - keep)]:
            old.unlink(missing_ok=True)
    return copy


def rotate(fd: int, path: Path, limit: int, keep: int) -> bool:
    """Begin the log anew that `fd` writes and `path` names, once it has more than `limit` bytes; whether it did.

    What it holds is then in `<path>.1`, what that held in `.2`, and so on to `keep`. It is copied and cut rather than
    moved, since whoever started this process may hold the file too; a line that another thread writes in the
    microseconds between the two is lost.
    """
    with _reported(path):
        if os.fstat(fd).st_size <= limit:
            return False
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)  # no hole where it was
        parts = [_copy_of(path), *(path.with_name(f"{path.name}.{number}") for number in range(1, keep + 1))]
        for newer, older in reversed(list(pairwise(parts))):
            with suppress(FileNotFoundError):
                os.rename(newer, older)
        os.ftruncate(fd, 0)
    return True


def _copy_of(path: Path) -> Path:
    """A hidden copy beside a file that may be growing."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with open(path, "rb") as file, open(temp, "xb") as copy:
            os.fchmod(copy.fileno(), os.fstat(file.fileno()).st_mode & 0o664)
            while data := file.read(1 << 20):
                copy.write(data)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    return temp


class FileLock:
    """A lock on a file of its own, held until released or until its process ends, however that ends.

    Two objects exclude each other also within one process. A forked or started child never shares it, unless
    it is given `fileno()` on purpose and the lock is handed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def fileno(self) -> int:
        return self._fd

    def take(self, *, shared: bool = False, seconds: float = 0.0) -> bool:
        """Take it, trying for `seconds`; False: others hold it. Many may hold it `shared`."""
        if self.held:
            raise RuntimeError(f"{self.path}: is held by this object already")
        with _reported(self.path):
            access = os.O_RDONLY if shared else os.O_RDWR  # who may only read asks too
            self._fd = os.open(self.path, access | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _locks.add(self)
            deadline = time.monotonic() + seconds
            try:
                while not _flock(self._fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                    if time.monotonic() >= deadline:
                        self.release()
                        return False
                    time.sleep(0.01)
            except BaseException:
                self.release()
                raise
        return True

    def release(self) -> None:
        """Let go; nothing happens if it is not held."""
        if self.held:
            # Not by closing alone: a child that is just being forked may have the same file open.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self.hand_over()

    def hand_over(self) -> None:
        """Leave it to the child that was given `fileno()`: held until that process ends."""
        _locks.discard(self)
        if self.held:
            os.close(self._fd)
            self._fd = -1


class Lock(FileLock):
    """One reconciler per workspace: a context manager that raises WorkspaceHeld; the file holds the pid, and what the
    holder says of itself (`sign`).

    `seconds`: how long to wait for whoever holds it. Not 0: `holder` of a status command may have it for a moment.
    """

    def __init__(self, path: Path, seconds: float = 0.05) -> None:
        super().__init__(path)
        self.seconds = seconds
        self._kept = False

    def __enter__(self) -> Self:
        if not self.take(seconds=self.seconds):
            pid = Lock.holder(self.path)
            who = f"another reconciler (pid {pid})" if pid else "another reconciler"
            raise WorkspaceHeld(
                f"{who} holds this workspace ({self.path})",
                hint="let it do the work, or stop it; `reconciler status` shows what it does",
            )
        try:
            self.sign()
        except BaseException:
            self.release()
            raise
        return self

    def take(self, *, shared: bool = False, seconds: float = 0.0) -> bool:
        """Take it in turn: who waits holds the turn, without which nobody takes the lock. Else one who works, lets go
        and works again is faster than all who wait, for ever."""
        until = time.monotonic() + seconds
        turn = FileLock(self.path.with_name("turn.lock"))
        if not turn.take(seconds=seconds):
            return False
        try:
            return super().take(shared=shared, seconds=until - time.monotonic())
        finally:
            turn.release()

    def sign(self, word: str = "") -> None:
        """Say what the holder is: one word, which `signed` reads."""
        with _reported(self.path):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {word}".rstrip().encode() + b"\n", 0)

    def keep(self) -> None:
        """Hold it until this process ends, whatever else is left meanwhile."""
        self._kept = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kept:
            return
        if self.held:
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
        self.release()

    @staticmethod
    def holder(path: Path) -> int | None:
        """The pid that holds the lock now (0: held, but nobody signed); None: free. Makes no file."""
        with _reported(path, "looked at"):
            if _stat(path) is None:
                return None
            probe = FileLock(path)
            if probe.take(shared=True):
                probe.release()
                return None
            return _signature(path)[0]

    @staticmethod
    def signed(path: Path, pid: int) -> str:
        """What this holder says of itself; "" for nothing, or if it does not hold it any more."""
        with _reported(path, "looked at"):
            found, word = _signature(path) if _stat(path) is not None else (0, "")
        return word if found == pid else ""


def _signature(path: Path) -> tuple[int, str]:
    """Who signed, and its word; (0, "") for nobody, or a process that is gone: who took the lock over from a killed one
    has not signed for a moment."""
    words = path.read_text(errors="replace").split()
    if not words or not words[0].isdecimal() or _is_gone(int(words[0])):
        return 0, ""
    return int(words[0]), " ".join(words[1:])


_locks: WeakSet[FileLock] = WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_locks):
        lock.hand_over()


os.register_at_fork(after_in_child=_let_go_in_child)


def _flock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _identity(found: os.stat_result | None) -> Identity | None:
    return found and Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


@contextmanager
def _reported(path: Path, doing: str = "written") -> Iterator[None]:
    """Turn the system's errors into one line that names the path and the reason."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise ReconcilerError(f"{path}: cannot be {doing}: {_reason(error)}", hint=hint) from error


def _unreadable(path: Path | str, message: str, hint: str = "") -> InputError:
    return InputError(Problem(Place(str(path)), message, hint))


def _check_readable(path: Path | str, found: os.stat_result, limit: int) -> None:
    if stat.S_ISREG(found.st_mode) and found.st_size <= limit:
        return
    if stat.S_ISDIR(found.st_mode):
        raise _unreadable(path, "is a folder, not a file", "move it away")
    if not stat.S_ISREG(found.st_mode):
        raise _unreadable(path, "is not a regular file", "move it away; it would never end or say nothing")
    raise _unreadable(path, f"is larger than {limit} bytes ({found.st_size})", "make it smaller")


def _read_once(path: Path | str, limit: int) -> tuple[bytes, Identity] | None:
    """None: it changed meanwhile."""
    # Looked at before it is opened (opening a device can do something) and again when it is.
    _check_readable(path, os.stat(path), limit)
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        before = os.fstat(number)
        _check_readable(path, before, limit)
        data = os.read(number, before.st_size + 1)
        while len(data) < before.st_size and (more := os.read(number, before.st_size + 1 - len(data))):
            data += more  # a very large file, or a file system that gives a part at a time
        after = _identity(os.fstat(number))
    finally:
        os.close(number)
    if after is None or after != _identity(before) or len(data) != before.st_size:
        return None
    return data, after


def _through_link(path: Path) -> Path:
    """The file that a write to `path` concerns: itself, or where its link leads if that is safe."""
    folder = path.parent.resolve()
    if not path.is_symlink():
        return folder / path.name
    target = Path(os.path.realpath(path))
    found = _stat(target)
    if found is None or not stat.S_ISREG(found.st_mode):
        why = "is not a regular file" if found else "does not exist"
        raise Refused(f"{path}: is a link to {target}, which {why}", hint="remove the link or mend it")
    # Also the link's own owner: in a shared folder nobody else may choose which file is written.
    if not {path.lstat().st_uid, found.st_uid} <= {folder.stat().st_uid, os.getuid()}:
        raise Refused(
            f"{path}: is a link to {target}, and one of the two belongs to another user",
            hint="replace the link with a file, or link to a file of your own",
        )
    return target


def _write_beside(
    target: Path, data: bytes, old: os.stat_result | None, mode: int | None = None
) -> tuple[Path, Identity]:
    """Write `data`, synced, to a new hidden file beside `target`, with the rights of `old`, or with `mode`."""
    temp = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if old else mode or 0o644)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            if old:
                _keep_rights(fd, target, old)
                if mode is not None:
                    os.fchmod(fd, mode & 0o775)
            with around("fsync"):
                os.fsync(fd)
            written = os.fstat(fd)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    return temp, Identity(written.st_dev, written.st_ino, written.st_size, written.st_mtime_ns)


def _keep_rights(fd: int, target: Path, old: os.stat_result) -> None:
    mode = old.st_mode & 0o775
    with suppress(OSError):
        os.fchown(fd, old.st_uid, -1)
    try:
        os.fchown(fd, -1, old.st_gid)
    except OSError:
        # The bits were meant for another group; this one gets no more than everybody.
        os.fchmod(fd, mode & ~0o070 | (mode & 0o007) << 3)
        return
    os.fchmod(fd, mode)
    if sys.platform == "linux":
        # Access lists live here. Where there is one, the group bits are its mask: alone they say too much.
        with suppress(OSError):
            for name in os.listxattr(target):
                os.setxattr(fd, name, os.getxattr(target, name))
        os.fchmod(fd, mode)


def _swap(temp: Path, target: Path, expected: Identity | None) -> bool:
    """Put `temp` in the place of `target`. True: what was there is now in `temp`; False: `temp` is gone."""
    try:
        if expected is None:
            if not _rename(temp, target, _NO_REPLACE):
                os.link(temp, target)
                os.unlink(temp)
            return False
        if identify(target) != expected:
            raise Moved(target)
        if _rename(temp, target, _EXCHANGE):
            return True
        os.rename(temp, target)
    except (FileExistsError, FileNotFoundError) as error:
        raise Moved(target) from error
    return False


def _aged(target: Path, ours: Identity) -> int:
    """Its ctime is of the swap, or of our last change before that: whoever writes it does so later."""
    found = _stat(target)
    return max(found.st_ctime_ns - found.st_mtime_ns, 0) if found and _identity(found) == ours else 0


def _what_came_out(
    temp: Path, target: Path, ours: Identity, expected: Identity | None, said: bytes | None
) -> tuple[bytes, int] | None:
    """What `temp` holds, which was in the place until now: its bytes and its mtime; None if that is `expected`, and
    still says what it `said`, where that is given.

    What cannot be read goes back where it was, and Moved is raised: reading it again will say what it is.
    """
    came = os.lstat(temp)
    if _identity(came) == expected and said is None:
        return None
    try:
        found = read(temp, sys.maxsize - 1) if stat.S_ISREG(came.st_mode) else None
    except InputError:
        found = None
    if found is not None and _identity(came) == expected and found[0] == said:
        return None
    if found is None:
        _rename(temp, target, _EXCHANGE)
        if identify(temp) != ours:
            # Somebody was quicker once more: that newest file belongs in the place.
            _rename(temp, target, _EXCHANGE)
        os.unlink(temp)
        raise Moved(target)
    return found[0], found[1].mtime_ns


def _sync_folder(folder: Path) -> None:
    # The swap is done and cannot be undone; some file systems cannot sync a folder at all.
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with around("fsync-folder"):
                os.fsync(fd)
        finally:
            os.close(fd)


def _rename(source: Path, target: Path, flag: int) -> bool:
    """rename(2) with a flag; False: this system or this file system does not know it."""
    call = _rename_call()
    number = call(os.fsencode(source), os.fsencode(target), flag) if call else errno.ENOSYS
    if number in _UNSUPPORTED:
        return False
    if number:
        raise OSError(number, os.strerror(number), str(source), None, str(target))
    return True


@cache
def _rename_call() -> Callable[[bytes, bytes, int], int] | None:
    """The system's rename with flags, answering 0 or an error number; None: there is none."""
    try:
        import ctypes  # here, because most commands write nothing and start faster without it
    except ImportError:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, "renamex_np" if sys.platform == "darwin" else "renameat2", None)
    if function is None:
        return None

    def call(source: bytes, target: bytes, flag: int) -> int:
        here = ctypes.c_int(-100)
        paths = (source, target) if sys.platform == "darwin" else (here, source, here, target)
        return ctypes.get_errno() if function(*paths, ctypes.c_uint(flag)) else 0

    return call
