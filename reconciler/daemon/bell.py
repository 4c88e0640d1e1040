"""Rings as soon as something was written, so that nobody has to look for it all the time: inotify, on Linux alone.

It says what it heard, which may not be all: watchfiles tells the rest, on every system, but it looks for it at
intervals. A file that somebody writes in place rings when it is closed, so that it is not read half written.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

MODIFY, CLOSED, CREATE, IGNORED, FOLDER = 0x2, 0x8, 0x100, 0x8000, 0x4000_0000
GONE, ITSELF = 0x40 | 0x200, 0x400 | 0x800
OTHERS = GONE | ITSELF | 0x80
"""Moved away or removed; the folder itself; moved here (inotify(7))."""

EVENT = struct.Struct("iIII")


class Bell:
    """Of these folders and those in them. `kept`: the name of a file in them that whoever writes it keeps open; it
    rings at each write. Raises OSError where the system does not ring, or for no more of them."""

    def __init__(self, folders: Iterable[str], kept: str) -> None:
        if sys.platform != "linux":
            raise OSError("no inotify here")
        self._folders, self._kept = tuple(folders), kept.encode()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._events = self._call(self._libc.inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._rung = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            os.close(self._events)
            raise
        self._poll = select.poll()
        self._poll.register(self._events, select.POLLIN)
        self._poll.register(self._rung, select.POLLIN)
        self._where: dict[int, str] = {}
        try:
            self._watch()
        except OSError:
            self.close()
            raise

    def wait(self, seconds: float) -> list[tuple[str, bool]]:
        """Until something was written, or somebody rings, or so much time is over. The paths that it heard of, and
        whether each is gone."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready = {file for file, _ in self._poll.poll(left * 1000)}
            if self._rung in ready:
                break
            if self._events in ready and (heard := self._heard()):
                return heard
        return []

    def ring(self) -> None:
        """Whoever waits looks up, and whoever comes to wait: from any thread."""
        os.eventfd_write(self._rung, 1)

    def close(self) -> None:
        os.close(self._events)
        os.close(self._rung)

    def _heard(self) -> list[tuple[str, bool]]:
        """Take what there is that is worth a look: a file that was only begun is not. New folders count, and so does
        what was too much to be told: then any of the folders."""
        data, at, heard, came = os.read(self._events, 1 << 16), 0, dict[str, bool](), False
        while at < len(data):
            watch, mask, _, length = EVENT.unpack_from(data, at)
            begin, at = at + EVENT.size, at + EVENT.size + length
            name = data[begin:at].rstrip(b"\0")
            if mask not in (CREATE, MODIFY, IGNORED) or name == self._kept:
                folder = self._where.get(watch, self._folders[0])
                heard[os.path.join(folder, os.fsdecode(name)) if name else folder] = bool(mask & (GONE | ITSELF))
            came = came or bool(mask & FOLDER)
        if came:
            with suppress(OSError):  # what does not ring is looked at all the same, but later
                self._watch()
        return list(heard.items())

    def _watch(self) -> None:
        """Every folder there is now, but for those behind a link, in which nobody looks for manifests; one that is
        watched already stays so."""
        pending, seen = list(self._folders), set[str]()
        while pending:
            path = pending.pop()
            folder = os.path.realpath(path)
            if folder in seen:
                continue
            seen.add(folder)
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                events = CLOSED | CREATE | OTHERS | (MODIFY if folder in self._folders else 0)
                self._where[self._call(self._libc.inotify_add_watch, self._events, os.fsencode(folder), events)] = path
                with os.scandir(folder) as entries:
                    pending += [
                        os.path.join(path, entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)
                    ]

    def _call(self, function: ctypes._NamedFuncPointer, *args: int | bytes) -> int:
        answer = function(*args)
        if answer < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(answer)
