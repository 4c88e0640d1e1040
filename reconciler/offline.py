"""Writes while Redis is away: on disk before they are acknowledged, in `context.json` at once, in Redis later.

A write is one scoped round on files (`controller.reconcile` with `AwayStore`), which costs what writing the file
costs, however many came before. Whoever cannot have the workspace's lock puts the write into the journal; the
holder takes it in. When Redis is back a round of everything teaches it what it missed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from . import files
from .base import Entry, Memory
from .base.warm import WarmBase
from .controller import Scope, reconcile
from .errors import ReconcilerError, StoreAway, UsageError, WorkspaceHeld
from .failpoints import around
from .merge import merge_agent
from .settings import Settings
from .sources.desired import Sources
from .state import Agent, Field
from .store import AwayStore
from .workspace import Workspace, wall_clock

FIRST, _LONGEST = 0.1, 5.0
"""Seconds between two looks whether Redis is back."""
_TAKE = 0.01
"""Seconds to wait for the lock: only those who look who holds it have it for less."""
_ROUNDS = 100
_MANY = 250
"""Durable writes after which this process looks whether anybody takes them out of the journal."""
_TRUST = 10.0
"""Seconds after which whoever holds the workspace is trusted to have taught Redis, whatever can be seen of it."""


class _Pending(WarmBase):
    """Base with the writes that a round is to take in: its first commit puts them on disk, without a journal."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.folder)
        self.pending: tuple[Entry, ...] = ()

    def load(self) -> Memory:
        memory = super().load()
        return replace(memory, journal=memory.journal + self.pending) if self.pending else memory

    def known_here(self, agent: str) -> Agent:
        """As `known`, from what is kept."""
        memory = super().load()
        fields = memory.merged.get(agent, {})
        for entry in memory.journal:
            if entry.agent == agent:
                fields = merge_agent(fields, {entry.field: entry.value})
        return fields


class _Ticket:
    """One caller's write: `make` gives the fields to write from those that are known. `written` once on disk."""

    def __init__(self, agent: str, make: Callable[[Agent, int], Agent]) -> None:
        self.agent, self.make = agent, make
        self.fields: Agent = {}
        self.written: Agent | None = None
        self.error: ReconcilerError | None = None


class Offline:
    """The files of one workspace, written by this process while Redis is away. Safe to share between threads.

    `online` opens the workspace for the round that follows when Redis is back; it answers None while it is away.
    """

    def __init__(self, settings: Settings, online: Callable[[], Workspace | None]) -> None:
        self.settings, self._online = settings, online
        self._turn, self._queueing = threading.Lock(), threading.Lock()
        self._queue: list[_Ticket] = []
        self._base: _Pending | None = None
        self._sources = Sources()
        self._teacher: threading.Thread | None = None
        self._ended = threading.Event()
        self._owed: dict[str, Agent] = {}
        self._back_since: float | None = None
        self.owing = False
        self._durable = 0

    def write(self, agent: str, make: Callable[[Agent, int], Agent]) -> Agent:
        """Write what `make` gives for the fields that are known and the time (µs); what was written.

        On disk when this returns; in `context.json` too unless somebody else holds the workspace, or nobody could
        write the file. Raises ReconcilerError when it could not be kept.
        """
        ticket = _Ticket(agent, make)
        with self._queueing:
            self._queue.append(ticket)
        try:
            with self._turn:
                if ticket.written is None and ticket.error is None:
                    with self._queueing:
                        batch, self._queue = self._queue, []
                    self._serve(batch)
        except BaseException:  # Ctrl-C while waiting: nobody writes it later, with the time of then
            with self._queueing, suppress(ValueError):
                self._queue.remove(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        assert ticket.written is not None
        return ticket.written

    def _serve(self, batch: list[_Ticket]) -> None:
        try:
            files.private_folder(self.settings.folder)
            base = self._base = self._base or _Pending(self.settings)
            lock = files.Lock(self.settings.folder / "lock", _TAKE)
            try:
                with lock:
                    base.refresh()
                    self._note_debt(base)
                    self._round(base, batch)
            except WorkspaceHeld:
                self._keep(base, batch)
            self._take_in(base)
        except ReconcilerError as error:
            for ticket in batch:
                ticket.error = ticket.error if ticket.written is not None else error
        finally:
            for ticket in batch:
                if ticket.written is None and ticket.error is None:
                    ticket.error = ReconcilerError(f"the write of {ticket.agent} was interrupted", hint="try again")
        self._teach_later()

    def _round(self, base: _Pending, batch: list[_Ticket]) -> None:
        """One round on files takes the batch in; where it cannot, the journal keeps it for one that can."""
        state = self._fields(base.known_here, batch)
        base.pending = tuple(
            Entry(-1, agent, name, value) for agent, fields in state.items() for name, value in fields.items()
        )
        try:
            merged = reconcile(self._files(base), scope=Scope(frozenset(state), frozenset())).merged
            missing = {agent: fields for agent, fields in state.items() if not _holds(merged.get(agent, {}), fields)}
            for ticket in batch:
                if ticket.agent not in merged and missing.pop(ticket.agent, None) is not None:
                    ticket.error = UsageError(
                        f"agent {ticket.agent} differs from a known one only in its letters' case"
                    )
        except ReconcilerError:
            missing = state
        finally:
            base.pending = ()
        if missing:
            base.append_journal(missing)
        self._acknowledge(batch)

    def _fields(self, known: Callable[[str], Agent], batch: list[_Ticket]) -> dict[str, Agent]:
        """What the callers want, each on top of those before it."""
        state: dict[str, Agent] = {}
        for ticket in batch:
            before = state.get(ticket.agent, {})
            ticket.fields = ticket.make(merge_agent(known(ticket.agent), before), wall_clock())
            state[ticket.agent] = merge_agent(before, ticket.fields)
        return state

    def _acknowledge(self, batch: list[_Ticket]) -> None:
        """It is on disk: only now."""
        with around("answer"):
            for ticket in batch:
                ticket.written = ticket.fields
                self._owed[ticket.agent] = merge_agent(self._owed.get(ticket.agent, {}), ticket.fields)

    def _keep(self, base: _Pending, batch: list[_Ticket]) -> None:
        """Somebody else holds the workspace: the journal, which is theirs too."""
        base.append_journal(self._fields(base.known, batch))
        self._acknowledge(batch)
        self._note_debt(base)

    def _take_in(self, base: _Pending) -> None:
        """Take in what others put into the journal because this process held the workspace."""
        lock = files.Lock(self.settings.folder / "lock", 0.0)
        for _ in range(_ROUNDS):
            if not base.journal():
                return
            try:
                with lock:
                    base.refresh()
                    reconcile(self._files(base), scope=Scope(frozenset(), frozenset()))
            except ReconcilerError:  # held, or refused: it stays in the journal, where the next round finds it
                return

    def _files(self, base: WarmBase) -> Workspace:
        return Workspace(self.settings, base, AwayStore(StoreAway("not asked")), sources=self._sources)

    def _note_debt(self, base: WarmBase) -> None:
        """So that a later process knows, if this one ends before Redis is back."""
        if not self.owing:
            base.owe(True)
            self.owing = True

    def note_durable(self) -> None:
        """A durable write is in the journal. Where no reconciler takes it in, this process does, every now and then
        and when it ends; a later one, if it cannot."""
        self._durable += 1
        if self._durable % _MANY == 0:
            self._teach_later()

    def _teach_later(self) -> None:
        with self._queueing:
            if self._teacher is None and not self._ended.is_set():
                teacher = threading.Thread(target=self._teach_on, name="teach", daemon=True)
                with suppress(RuntimeError):  # no more threads: the next write tries again, or a later process
                    teacher.start()
                    self._teacher = teacher

    def wake(self) -> None:
        """Teach Redis what an earlier process left behind; at once if it is there, else when it is back."""
        self.owing = True
        self._teach_later()

    def _teach_on(self) -> None:
        pause = FIRST
        try:
            while not self._ended.wait(pause) and not self.teach():
                if self._online() is not None:  # it is there, and takes nothing
                    pause = min(pause * 2, _LONGEST)
        finally:
            with self._queueing:
                if self._teacher is threading.current_thread():
                    self._teacher = None

    def teach(self) -> bool:
        """One round of everything with Redis, if it is back; whether nothing is left to be taught by this process.

        Somebody else who holds the workspace for long does it in their rounds; until then what is on disk is newer.
        """
        workspace = self._online()
        if workspace is None:
            self._back_since = None
            return False
        with self._turn:
            try:
                with files.Lock(self.settings.folder / "lock", 1.0):
                    done = reconcile(workspace)
                if not done.plan.redis_up or done.refused:
                    return False
                workspace.base.owe(False)
            except WorkspaceHeld:
                if not self._is_learnt(workspace):
                    return False
            except ReconcilerError:
                return False
            self._owed, self._back_since, self.owing, self._durable = {}, None, False, 0
            with self._queueing:
                self._teacher = None
            return True

    def _is_learnt(self, workspace: Workspace) -> bool:
        """Whether Redis has what this process wrote while it was away, or something newer."""
        now = time.monotonic()
        self._back_since = self._back_since if self._back_since is not None else now
        try:
            live = workspace.store.observe({}, self._owed)
        except ReconcilerError:
            return False
        there = (live.agents[agent].fields if agent in live.agents else {} for agent in self._owed)
        learnt = live.up and all(map(_holds, there, self._owed.values()))
        return learnt or now - self._back_since > _TRUST

    def close(self) -> None:
        """Teach Redis if it is there, else leave it to a later process; let go of the database."""
        self._ended.set()
        teacher = self._teacher
        if teacher is not None and teacher is not threading.current_thread():
            teacher.join(5)
        if self.owing or (self._durable and files.Lock.holder(self.settings.folder / "lock") is None):
            self.teach()
        with self._turn:
            if self._base is not None:
                self._base.close()
                self._base = None


def _holds(merged: Agent, fields: Agent) -> bool:
    """Whether these fields, or newer ones, are there."""
    return all(name in merged and merged[name].order() >= value.order() for name, value in fields.items())


def stamped(values: Mapping[str, str | None], by: str) -> Callable[[Agent, int], Agent]:
    """These values written at a time, or just after what stands there if that is later."""

    def make(known: Agent, now: int) -> Agent:
        return {name: Field(text, max(now, known[name].at + 1) if name in known else now, by)
                for name, text in values.items()}  # fmt: skip

    return make
