"""A machine whose clock moves only when it is told to, whose Redis is away when it is told to be, and on which a
process can be made to end at any step that it takes towards the disk or the server.

The controller, base, hub, spool, the writer of files and the write script are the real ones. The server is a real
Valkey that keeps nothing on disk; one word of its script is changed, so that the time it sees is the machine's.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import redis

from reconciler import files, hub, offline, writing
from reconciler.base import Base
from reconciler.base.warm import WarmBase
from reconciler.stamp import format_time
from reconciler.store import redis_store
from reconciler.store.redis_store import Limits, RedisStore
from reconciler.store.wire import NOT_AFTER, Command, Wire

START = 1_900_000_000_250_000
CLOCK = "sim:clock"
PATIENCE = 2_000_000
"""µs until a server that hung goes on."""
_WAY = 41
"""µs that a command takes to the server."""
Real = Callable[..., Any]
_EACH = """
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  found[#found + 1], found[#found + 2] = key, redis.call(ARGV[2], key)
end
return found
"""


class Died(BaseException):
    """A process ends here, without a word."""


class Machine:
    """`now`: the server's clock, in µs; `skew`: how far the clock of the process at work is ahead of it.

    `fuse`: how many points the process at work still passes before it ends; negative, it does not end.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.wire = SimulatedWire(self)
        self.begin()

    def begin(self) -> None:
        """Nothing has happened yet."""
        self.now, self.skew = START, 0
        self.clock: list[Command] = []
        self.away = self.reply_lost = self.hangs = self.full = False
        self.held: tuple[int, list[Command]] | None = None
        self.fuse = -1
        self._written: set[int] = set()
        self._synced: set[int] = set()
        self._before: dict[Path, bytes | None] = {}
        self.client.flushall()
        self.client.script_flush()
        self.tick(0)

    def tick(self, micros: int) -> None:
        """Time goes on; the server hears of it with the next commands."""
        self.now += micros
        self.clock = [("HSET", CLOCK, "s", str(self.now // 1_000_000), "u", str(self.now % 1_000_000))]

    def not_after(self) -> str:
        """The last word of a command whose caller waits for a second, as the real wire says it."""
        minute = self.now - self.now % 60_000_000
        return f"{self.now + 1_000_000} {minute // 1_000_000} {format_time(minute)[:17]}"

    def work_off(self) -> None:
        """A server that hung does what it was asked then, unless it lost that; nobody waits for it any more."""
        if self.held is not None and (self.away or self.held[0] < self.now):
            commands, self.held = self.held[1], None
            if not self.away:
                self.wire.send(commands)

    def keys(self, pattern: str, command: str) -> dict[bytes, Any]:
        """The keys that are like this, and what the command says of each, in one round trip."""
        found = self.client.eval(_EACH, 0, pattern, command)
        return dict(zip(found[::2], found[1::2], strict=True))

    def local(self) -> int:
        return self.now + self.skew

    def point(self) -> None:
        """A place at which a process may end. Raises Died."""
        if self.fuse == 0:
            self.fuse = -1
            raise Died
        self.fuse -= self.fuse > 0

    def synced(self, fd: int) -> None:
        """A file or a folder is on disk, as far as it was written."""
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            self._before.clear()
        else:
            self._synced.add(found.st_ino)

    def renames(self, source: Path, target: Path) -> None:
        """A new version of a file is about to take its place."""
        self._written.add(source.stat().st_ino)
        self._before.setdefault(target, target.read_bytes() if target.exists() else None)

    def saved(self, path: Path) -> None:
        """Somebody else's version is in place, and on disk; so is every name that was given before it."""
        self._before.pop(path, None)

    def cut_power(self, path: Path) -> None:
        """What was not on disk is lost: the name stands for what it stood for, the content is gone."""
        if path in self._before:
            before = self._before.pop(path)
            path.unlink(missing_ok=True)
            if before is not None:
                path.write_bytes(before)
        elif path.exists() and (inode := path.stat().st_ino) in self._written and inode not in self._synced:
            path.write_bytes(b"")


class SimulatedWire(Wire):
    """The wire, with a machine between the two ends."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.client)
        self.machine = machine

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        self.machine.point()
        self._reach()
        self.machine.tick(_WAY)
        timely = [self._timely(words) for words in commands]
        if self.machine.hangs and commands and commands[0][0] == "EVALSHA":
            self.machine.hangs, self.machine.held = False, (self.machine.now + PATIENCE, timely)
            raise redis.TimeoutError("no answer")
        answers = self.send(timely)
        self.machine.point()
        if self.machine.reply_lost and commands and commands[0][0] == "EVALSHA":
            self.machine.reply_lost = False
            raise redis.TimeoutError("the answer was lost")
        return answers

    def _timely(self, words: Command) -> Command:
        """A command by the machine's clock."""
        if words[0] == "TIME":
            return "HMGET", CLOCK, "s", "u"
        return (*words[:-1], self.machine.not_after()) if words[-1] is NOT_AFTER else words

    def send(self, commands: Sequence[Command]) -> list[Any]:
        clock, self.machine.clock = self.machine.clock, []
        return super().exchange([*clock, *commands])[len(clock) :]

    def _reach(self) -> None:
        if self.machine.away:
            raise redis.ConnectionError("away")


class SimulatedStore(RedisStore):
    """The store, by the machine's clock and over its wire."""

    def __init__(self, machine: Machine, origin: str) -> None:
        super().__init__(machine.client, origin, Limits(history=1_000_000))
        self.wire = machine.wire

    def close(self) -> None:
        """The client is the machine's."""


def simulated_script(script: str) -> str:
    """The write script, by the machine's clock."""
    found = script.replace("call('TIME')", f"call('HMGET', '{CLOCK}', 's', 'u')")
    assert found != script
    return found


@contextmanager
def at_work(machine: Machine, spoil: Callable[[str], str] = lambda script: script) -> Iterator[None]:
    """The program, in this process, on this machine; `spoil` makes another script of the write script."""
    script = spoil(simulated_script(redis_store.SCRIPT))
    sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    fsync, rename = os.fsync, files._rename

    def synced(fd: int) -> None:
        machine.point()
        if machine.full and not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)
        machine.synced(fd)
        machine.point()

    def renamed(source: Path, target: Path, flag: int) -> bool:
        machine.point()
        if target.name == "context.json":
            machine.renames(source, target)
        return rename(source, target, flag)

    with ExitStack() as stack:
        patch = stack.enter_context
        patch(mock.patch.multiple(redis_store, SCRIPT=script, SCRIPT_SHA=sha))
        for module in (hub, offline, writing):
            patch(mock.patch.object(module, "wall_clock", machine.local))
        patch(mock.patch.object(offline, "_TAKE", 0.0))
        patch(mock.patch.object(os, "fsync", synced))
        patch(mock.patch.object(files, "_rename", renamed))
        for base in (Base, WarmBase):
            patch(mock.patch.object(base, "_open", _pointed(machine, base._open)))
        yield


def _pointed(machine: Machine, real: Real) -> Real:
    """A transaction in which a process may end before it begins, before it is committed, and behind it."""

    @contextmanager
    def opened(self: Base, *, read_only: bool = False) -> Iterator[Any]:
        machine.point()
        with real(self, read_only=read_only) as db:
            yield db
            machine.point()
            if machine.full and db.in_transaction and not read_only:
                raise sqlite3.OperationalError("database or disk is full")
        machine.point()

    return opened
