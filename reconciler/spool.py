"""The spool: what hooks dropped without waiting for anyone, until Redis has it.

    .reconciler/spool/1762934400123456-4711.drop   a drop: one write of one agent, made at that µs by process 4711
    .reconciler/spool/1762934400123456-4711.kept   the same, in base and in context.json; Redis has not taken it yet
    .reconciler/spool/rejected/                    what is no drop, each with its reason beside it

A drop is written under a hidden name and renamed. Its name is its stamp, so a drop that is taken in twice changes
nothing the second time.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import files
from .drops import NAME, Drop, NotADrop, Part, pack, parse, stamp_of
from .errors import InputError, Place, Problem
from .merge import merge_agent
from .plan import Change
from .settings import Settings
from .stamp import LAST
from .state import Agent, Field, State

__all__ = ["NOTHING", "Backlog", "Drop", "NotADrop", "Part", "Rejected", "Spool", "Waiting", "backlog", "drop", "pack",
           "parse", "put"]  # fmt: skip

REJECTED = "rejected"
PATIENCE = 60_000_000
"""µs for which a file that is not whole is waited for: whoever writes it may be slow."""
MAX_BYTES = 16 << 20
MOST, MOST_BYTES = 10_000, 64 << 20
"""What one round takes of new drops; the next one goes on."""
_PART, _PART_BYTES = 100, 1 << 20
"""What goes to Redis in one go: it must be done within the time a command has."""
_SLOWEST = 1_000_000
"""µs for which later drops wait for one that is being written, and for which a crowd is thought to go on."""
_CROWD = 5
_STILL = 2_000_000_000
"""ns after which a folder whose time has not moved has not changed: some file systems count in seconds."""


class Rejected(NamedTuple):
    """A file that is no drop, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the spool holds, as one look found it. `state`: all of it, merged.

    `new`: the drops that base has not heard of. `more`: some were left for the next round. `rejected` is moved
    away when a round carries out its plan.
    """

    state: State
    new: tuple[Drop, ...] = ()
    more: bool = False
    rejected: tuple[Rejected, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def agents(self) -> frozenset[str]:
        """Those that something new is said about."""
        return frozenset(drop.agent for drop in self.new)


NOTHING = Waiting({})


class Spool:
    """The spool of one workspace as one process sees it, round after round: a drop is read when it is new, and once
    more when it is written later. `rest`: µs for which a drop is left alone, so that those of processes which drop at
    the same time are taken in the order of their stamps; in a crowd, where each process waits for its turn on the
    machine, ten times as long; 0 for one look that takes all."""

    def __init__(self, folder: Path, rest: int = 0) -> None:
        self.folder, self.rest = folder, rest
        self._files: dict[str, str] = {}
        self._agents: dict[str, str] = {}
        self._new: dict[str, Drop] = {}
        self._states: dict[str, Agent] = {}
        self._counts: Counter[str] = Counter()
        self._taken: set[str] = set()
        self._listed_at = self._crowded = 0
        self._told: tuple[Problem, ...] = ()
        self._more = False

    def look(self, now: int) -> Waiting:
        """What is there at `now` (µs). Moves and removes nothing."""
        try:
            self._files = self._list()
        except OSError as error:
            problem = Problem(Place(str(self.folder)), f"cannot be read: {error.strerror}", "mend it; drops wait there")
            return Waiting(dict(self._states), problems=(*self._told, problem))
        for name in self._agents.keys() - self._files.keys():
            self._forget(name)
        unread = sorted(self._files.keys() - self._agents.keys() - self._taken)
        latest = self._latest(unread, now)
        size = sum(drop.size for drop in self._new.values())
        more, rejected, problems = self._more, list[Rejected](), list(self._told)
        for name in unread:
            rests = latest < stamp_of(name) < now + _SLOWEST and name[17:23] != "inbox-"
            if rests or len(self._new) >= MOST or size >= MOST_BYTES:
                more = True
                continue
            try:
                drop = self._read(name, now)
                size += drop.size if drop else 0
            except NotADrop as error:
                rejected.append(Rejected(self._files[name], error.message))
                problems.append(refusal(self.folder / self._files[name], error.message))
            except InputError as error:
                problems += error.problems
        new = tuple(drop for _, drop in sorted(self._new.items()))
        return Waiting(dict(self._states), new, more, tuple(rejected), tuple(problems))

    def _list(self) -> dict[str, str]:
        """Name to file, as it was where nothing can have changed."""
        try:
            changed = self.folder.stat().st_mtime_ns
            if changed == self._listed_at and time.time_ns() - changed > _STILL:
                return self._files
            found = os.listdir(self.folder)
        except FileNotFoundError:
            return {}
        self._listed_at = changed
        matches = {file: NAME.fullmatch(file) for file in found}
        return {match[2] if match else file: file for file, match in matches.items()
                if match or (not file.startswith(".") and file != REJECTED)}  # fmt: skip

    def _latest(self, unread: Collection[str], now: int) -> int:
        """The stamp up to which all drops are there, as far as can be told: also the hidden ones, whose writers are at
        work, have theirs as their names."""
        if not self.rest:
            return LAST
        if len(unread) >= _CROWD:
            self._crowded = now
        rest = self.rest * (10 if now - self._crowded < _SLOWEST else 1)
        written = (stamp_of(name) for name in unread if self._files[name].endswith(".tmp"))
        return min(now - rest, *(at - 1 for at in written if at > now - _SLOWEST), LAST)

    def _read(self, name: str, now: int) -> Drop | None:
        """Take a drop up; None for one that is still being written. Raises NotADrop, InputError."""
        file = self._files[name]
        found = files.read(self.folder / file, MAX_BYTES)
        if found is None:
            return None
        young = now - found[1].mtime_ns // 1000 < PATIENCE
        if young and file.endswith(".tmp"):
            return None
        try:
            drop = parse(name, found[0])
        except NotADrop as error:
            if error.torn and young:
                return None
            raise
        self._add(drop)
        return drop

    def _add(self, drop: Drop) -> None:
        self._agents[drop.name] = drop.agent
        self._counts[drop.agent] += 1
        self._states[drop.agent] = merge_agent(self._states.get(drop.agent, {}), drop.fields)
        if not self._files[drop.name].endswith(".kept"):
            self._new[drop.name] = drop

    def _forget(self, name: str) -> None:
        agent = self._agents.pop(name)
        self._new.pop(name, None)
        self._counts[agent] -= 1
        if not self._counts[agent]:
            del self._counts[agent], self._states[agent]

    def parts(self, agents: Collection[str]) -> Iterator[list[Drop]]:
        """The drops of these agents in order, in parts that Redis can take in one go."""
        part: list[Drop] = []
        for name in sorted(name for name, agent in self._agents.items() if agent in agents):
            drop = self._new.get(name) or self._again(name)
            if drop is not None and part and (len(part) == _PART or sum(d.size for d in part) > _PART_BYTES):
                yield part
                part = []
            if drop is not None:
                part.append(drop)
        if part:
            yield part

    def _again(self, name: str) -> Drop | None:
        try:
            found = files.read(self.folder / self._files[name], MAX_BYTES)
            return parse(name, found[0]) if found else None
        except (NotADrop, InputError):  # somebody spoilt it meanwhile: what it said is in base
            return None

    def holds(self, written: Field | Change) -> bool:
        """Whether this was written by a drop that is still here."""
        return f"{written.at:016}-{written.by.removeprefix('hook-')}" in self._agents

    def redate(self, agents: Collection[str], latest: int, now: int) -> None:
        """Give drops of the future (after `latest`, µs) the last moments before `now`, in their order. By their
        names: who is interrupted goes on with the same stamps."""
        late = sorted(name for name, agent in self._agents.items() if agent in agents and int(name[:16]) > latest)
        for agent in {self._agents[name] for name in late}:
            clamped = {key: field._replace(at=min(field.at, latest)) for key, field in self._states[agent].items()}
            self._states[agent] = clamped
        for number, name in enumerate(late, now + 1 - len(late)):
            drop = self._new.get(name) or self._again(name)
            file, renamed = self._files[name], f"{number:016}{name[16:]}"
            ending = ".kept" if file.endswith(".kept") else ".drop"
            if drop is None or not files.rename(self.folder / file, self.folder / (renamed + ending)):
                continue
            self._files[renamed] = renamed + ending
            self._forget(name)
            fields = {key: field._replace(at=number) for key, field in drop.fields.items()}
            self._add(drop._replace(name=renamed, fields=fields))

    def tell(self, problems: Iterable[Problem], *, more: bool) -> None:
        """What is wrong with those who bring drops, and whether they have more: it is found with the spool's own."""
        self._told, self._more = tuple(problems), more

    def took(self, drops: Iterable[Drop]) -> None:
        """Redis has these: they are not looked at again, and the next `settle` removes them."""
        for drop in drops:
            self._taken.add(drop.name)
            self._forget(drop.name)

    def reject(self, agents: Collection[str], reason: str) -> None:
        """Nobody will ever take the drops of these agents."""
        for name in [name for name, agent in self._agents.items() if agent in agents]:
            self._set_aside(Rejected(self._files[name], reason))
            self._forget(name)

    def settle(self, waiting: Waiting) -> None:
        """A round is over that looked at this: remove what Redis took, name what base has, move away what is none."""
        for name in sorted(self._taken):
            files.discard(self.folder / self._files.pop(name, name))
        self._taken.clear()
        for drop in waiting.new:
            if drop.name in self._new:
                kept = f"{drop.name}.kept"
                files.rename(self.folder / self._files[drop.name], self.folder / kept)
                self._files[drop.name] = kept
                del self._new[drop.name]
        for rejected in waiting.rejected:
            self._set_aside(rejected)

    def _set_aside(self, rejected: Rejected) -> None:
        set_aside(self.folder / rejected.name, files.private_folder(self.folder / REJECTED), rejected.reason)


def set_aside(path: Path, folder: Path, reason: str) -> None:
    """Move a file that nobody can take in into a folder, and write the reason beside it."""
    moved = files.move(path, folder / path.name.lstrip("."))
    if moved is not None:
        files.write_private(moved.with_name(f"{moved.name}.reason"), f"{reason}\n".encode("utf-8", "backslashreplace"))


def refusal(path: Path, reason: str) -> Problem:
    """What a round says of such a file."""
    hint = f"{path.parent / REJECTED} has it: mend it and move it back, or delete it"
    return Problem(Place(str(path)), f"not taken in: {reason}", hint, once=True)


def drop(settings: Settings, agent: str, parts: Iterable[Part]) -> str:
    """Put a drop into the spool, on disk when this returns; its name. The agent's name must be legal."""
    name = f"{time.time_ns() // 1000:016}-{os.getpid()}"
    put(settings, name, pack(agent, parts))
    return name


def put(settings: Settings, name: str, data: bytes) -> None:
    """Put the bytes of a drop into the spool, on disk when this returns."""
    files.private_folder(settings.folder)
    files.write_private(files.private_folder(settings.spool) / f"{name}.drop", data)


class Backlog(NamedTuple):
    """What waits in the spool: drops that no round has seen, and those that only Redis lacks. `oldest`: the first one's
    µs since 1970, 0 for none. `rejected`: what was moved away, with the reasons."""

    drops: int = 0
    kept: int = 0
    oldest: int = 0
    rejected: tuple[Rejected, ...] = ()


def backlog(settings: Settings) -> Backlog:
    """How much waits, for those who tell how it stands; reads only names and reasons."""
    names = [match for file in names_in(settings.spool) if (match := NAME.fullmatch(file))]
    kept = sum(match[5] == "kept" for match in names)
    oldest = min((int(match[3]) for match in names), default=0)
    return Backlog(len(names) - kept, kept, oldest, tuple(rejected_in(settings.spool / REJECTED)))


def rejected_in(folder: Path) -> Iterator[Rejected]:
    """What was moved into a folder because it could not be taken in, sorted."""
    names = set(names_in(folder))
    for name in sorted(names):
        if f"{name}.reason" in names:
            try:
                found = files.read(folder / f"{name}.reason", 1 << 16)
            except InputError:
                found = None
            yield Rejected(name, found[0].decode("utf-8", "replace").strip() if found else "")


def names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
