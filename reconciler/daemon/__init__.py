"""`run`: rounds until stopped. One worker runs them; everything else only wakes it.

    files, Redis, the clock ──> wakes ──> worker: reconcile(scope) ──> notices, health.json

Errors back off with their count and never end it. The first signal finishes the round, the second leaves; SIGHUP
reads the settings again; SIGUSR1 writes health.json, which `status` asks for.
"""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import date, datetime
from types import FrameType

from ..base.warm import WarmBase
from ..bulk import give_back
from ..controller import Options, Round, Scope, back_up, reconcile
from ..errors import ReconcilerError, StoreAway, StoreError
from ..files import Lock
from ..health import RUN, STARTING, write_health
from ..settings import Settings
from ..spool import Spool
from ..state import is_agent_name
from ..store import AwayStore
from ..store.layout import keys_of
from ..workspace import Workspace, open_workspace
from .news import News, Notice, Tell
from .triggers import Clock, Files, Writes, crontab
from .wakes import REST, Wakes, after

__all__ = ["Daemon", "Notice"]

AGAIN = 1.0
"""Seconds until an agent is looked at again whose write Redis refused."""

HEALTH_AGE = 5.0
"""Seconds after which health.json is written anew although only the time of the last round changed."""


class Daemon:
    """The loop of one workspace. `tell` hears of every change of state; `reread` gives the settings anew."""

    def __init__(self, settings: Settings, options: Options, tell: Tell, reread: Callable[[], Settings]) -> None:
        self.settings, self.options, self.reread = settings, options, reread
        self.tell = _unless_nobody_reads(tell)
        self.wakes = Wakes(settings.quiet.total_seconds())
        self.news = News(self.tell)
        self._stopping = self._reloading = self._reporting = self._ended = False
        self._health_at = 0.0
        self._tidied: date | None = None
        self._error: BaseException | None = None

    def run(self, lock: Lock) -> None:
        """Until stopped. The worker has a thread of its own, so that a signal finds nothing locked.

        `lock` is the workspace's, held. A second signal leaves while the worker may be in the middle of a round, so
        nobody else has the workspace until this process is gone.
        """
        with self._signals() as (bell, ring), _asked(lock):
            worker = threading.Thread(target=self._run, args=(ring,), name="worker", daemon=True)
            try:
                worker.start()
                while not self._ended:
                    bell.recv(64)
                worker.join()
            except KeyboardInterrupt:
                lock.keep()
                raise
        if self._error is not None:
            raise self._error

    def _run(self, ring: socket.socket) -> None:
        try:
            while not self._stopping:
                with self._session() as (workspace, watcher):
                    self._work(workspace, watcher)
        except BaseException as error:  # the main thread raises it
            self._error = error
        finally:
            self._ended = True
            with suppress(OSError):  # a second Ctrl-C was faster: nobody listens any more
                ring.send(b".")

    @contextmanager
    def _session(self) -> Iterator[tuple[Workspace, Files]]:
        """The workspace, opened with the settings as they are now, and everything that wakes."""
        settings, wakes = self.settings, self.wakes
        self._tidied = None
        wakes.quiet = settings.quiet.total_seconds()
        with ExitStack() as opened:
            opening = open_workspace(settings, self.news.warn, lasting=True, on_return=wakes.everything)
            workspace = opened.enter_context(opening)
            base = opened.enter_context(closing(WarmBase(settings.folder)))
            writes = opened.enter_context(closing(Writes(workspace.store, wakes, self.news.warn)))
            opened.enter_context(closing(Clock(settings, wakes, lambda: writes.following)))
            watcher = opened.enter_context(closing(Files(settings, wakes, self.news.warn)))
            wakes.everything()
            yield replace(workspace, base=base, spool=Spool(settings.spool, rest=int(REST * 1_000_000))), watcher

    def _work(self, workspace: Workspace, watcher: Files) -> None:
        """Rounds, until it is time to stop or to reload; then what is left, once."""
        not_before = 0.0
        while not (self._stopping or self._reloading):
            scope = self.wakes.take(not_before)
            if self._reporting:
                self._reporting = False
                self._write_health(workspace)
            if scope is not None:
                not_before = self._round(workspace, scope, not_before)
                workspace.sources.rest()
                if scope.paths is None:  # folders may have come, or another one into the place of one
                    watcher.watch()
                if scope.agents is None:
                    give_back(is_agent_name, keys_of)
        leftover = self.wakes.leftover()
        if leftover is not None:
            self._round(workspace, leftover, not_before)
        if self._stopping:
            self.news.stopped()
            self._write_health(workspace)
        else:
            self._reload()

    def _round(self, workspace: Workspace, scope: Scope, not_before: float) -> float:
        """One round, whatever happens in it; the moment before which there is no next one, as `not_before` was."""
        began = time.monotonic()
        try:
            done, away = self._reconcile(workspace, scope)
            if scope.agents is None:
                back_up(workspace.settings, done)
                if away is None:
                    self._tidy(workspace, done)
        except Exception as error:
            if self.news.health.redis == "" and isinstance(error, ReconcilerError):
                raise  # even the first round is impossible: somebody is there to read it
            pause, notice = self.news.failed(error)
            self.wakes.everything()
            self._write_health(workspace)
            if notice is not None:
                self.tell(notice)
            return time.monotonic() + pause
        if self.news.health.redis == "away" and away is None and scope.agents is not None:
            self.wakes.everything()  # rounds on files forgot who was written
        news = self.news.round(done, away, workspace.store.name)
        now = time.monotonic()
        if any(notice.event != "round" for notice in news) or (news and now - self._health_at > HEALTH_AGE):
            self._write_health(workspace)
        for notice in news:
            self.tell(notice)
        self.wakes.settle(scope, done.again, began, AGAIN)
        if done.more:
            self.wakes.drop()
        if scope.paths is None:  # errors keep what they went through, and Python hardly ever looks for it (cli.main)
            gc.collect(1 if scope.agents is not None else 2)
        return after(not_before, began, now)

    def _tidy(self, workspace: Workspace, done: Round) -> None:
        """After a full round with Redis: it has learnt what anybody wrote on files; and once a day, and with new
        settings, histories become as long as they are to be."""
        base = workspace.base
        if not done.refused and base.owes() and not base.journal():
            base.owe(False)
        today = datetime.now().astimezone().date()
        if self._tidied == today:
            return
        try:
            workspace.store.trim()
        except StoreError as error:
            self.news.warn(f"histories are not shortened: {error}")
        except StoreAway:
            return
        self._tidied = today

    def _reconcile(self, workspace: Workspace, scope: Scope) -> tuple[Round, StoreAway | StoreError | None]:
        """A round, and why it was one on files, if it was: Redis is away, or refuses this program.

        One that was cut off in the middle is done again over everything: what it had taken in is no news any more.
        """
        try:
            return reconcile(workspace, self.options, scope), None
        except (StoreAway, StoreError) as error:  # one that was raised would keep the whole round that it ended
            reason = type(error)(error.message, hint=error.hint)
        away = AwayStore(StoreAway(reason.message, hint=reason.hint))
        again = scope if self.news.health.redis == "away" else replace(scope, agents=None, paths=None)
        return reconcile(replace(workspace, store=away), self.options, again), reason

    def _write_health(self, workspace: Workspace) -> None:
        self._health_at = time.monotonic()
        try:
            memory = workspace.base.load()
            write_health(workspace.settings, self.news.measured(memory.agents(), len(memory.journal)))
        except ReconcilerError as error:  # no disk is left, or no right: the log must do
            self.news.warn(str(error))

    def _reload(self) -> None:
        self._reloading = False  # before, so that the next SIGHUP is not lost
        try:
            settings = self.reread()
            crontab(settings)
            self.settings = settings
            self.tell(Notice("reloaded", "info", "the settings were read again"))
        except ReconcilerError as error:
            self.tell(Notice("reloaded", "error", f"the settings stay as they were: {error}"))

    @contextmanager
    def _signals(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Handlers for the signals, and a bell that each of them rings: the kernel may hand a signal to any thread,
        while handlers only run in the main one, which must wake up for it. Gives the bell, and what rings it."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                self._reloading = True
            elif number == signal.SIGUSR1:
                self._reporting = True
            elif self._stopping:
                raise KeyboardInterrupt
            else:
                self._stopping = True
            self.wakes.interrupt()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        before = {number: signal.signal(number, on_signal) for number in numbers}
        bell, ring = socket.socketpair()
        ring.setblocking(False)
        woken = signal.set_wakeup_fd(ring.fileno(), warn_on_full_buffer=False)
        try:
            yield bell, ring
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            bell.close()
            ring.close()


@contextmanager
def _asked(lock: Lock) -> Iterator[None]:
    """Only while the signals are handled: SIGUSR1 would end a process that does not expect it."""
    lock.sign(RUN)
    try:
        yield
    finally:
        lock.sign(STARTING)


def _unless_nobody_reads(tell: Tell) -> Tell:
    """A log whose reader is gone ends no daemon: the work matters, and health.json tells how it stands."""

    def say(notice: Notice) -> None:
        with suppress(OSError):
            tell(notice)

    return say
