"""`run`: rounds until stopped. One worker runs them; the clock and the file watcher only wake it.

Errors back off with their count and never end it; the first signal finishes the round, the second leaves.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import watchfiles
from apscheduler.schedulers.background import BackgroundScheduler

from .controller import Options, Round, reconcile
from .errors import ReconcilerError, StoreAway
from .settings import Settings
from .store import AwayStore
from .workspace import Warn, Workspace, open_workspace

LONGEST_PAUSE = 60.0
"""Seconds between two tries when round after round fails."""

Tell = Callable[[Round], None]


class Daemon:
    """The loop of one workspace. `tell` hears of every round that is news, `warn` of every new trouble."""

    def __init__(self, settings: Settings, options: Options, tell: Tell, warn: Warn) -> None:
        self.settings, self.options, self.tell, self.warn = settings, options, tell, warn
        self.stop, self.wake = threading.Event(), threading.Event()
        self._failures = 0
        self._news: object = None
        self._warned = ""
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def run(self) -> None:
        """Until stopped: open the store, run rounds in it, open it again when it went away.

        Raises what makes even the first round impossible: somebody is there to read it.
        """
        with self._signals(), self._triggers():
            while not self.stop.is_set():
                try:
                    with open_workspace(self.settings, self._warn_once) as workspace:
                        self._rounds(workspace)
                except StoreAway as reason:
                    self._warn_once(str(reason))
                except ReconcilerError as error:
                    if self._news is None:
                        raise
                    self._failures += 1
                    self._warn_once(str(error))
                    self.stop.wait(min(LONGEST_PAUSE, 0.5 * 2.0 ** min(self._failures, 10)))

    def _rounds(self, workspace: Workspace) -> None:
        while True:
            self.wake.clear()
            self._note(reconcile(workspace, self.options))
            self.wake.wait()
            if self.stop.is_set() or isinstance(workspace.store, AwayStore):
                return

    def _note(self, done: Round) -> None:
        if self._news is None:
            self._watcher.start()  # not before: the first round may make the folder that is watched
        if self._failures:
            self.warn(f"rounds succeed again after {self._failures} that failed")
        self._failures, self._warned = 0, ""
        news = (done.exit_code, done.plan.problems, done.plan.redis_up)
        if done.plan.changes or news != self._news:
            self._news = news
            self.tell(done)

    def _warn_once(self, text: str) -> None:
        if text != self._warned:
            self._warned = text
            self.warn(text)

    @contextmanager
    def _triggers(self) -> Iterator[None]:
        clock = BackgroundScheduler()
        clock.add_job(self.wake.set, "interval", seconds=self.settings.interval.total_seconds())
        clock.start()
        try:
            yield
        finally:
            self.stop.set()
            clock.shutdown(wait=False)
            if self._watcher.is_alive():
                self._watcher.join(timeout=2)

    def _watch(self) -> None:
        """Wake on any change of the sources. The clock finds what a watcher misses."""
        folders = [folder for folder in (self.settings.context_file.parent, self.settings.manifests) if folder.is_dir()]
        if not folders:
            return
        real = {folder.resolve() for folder in folders}
        for _ in watchfiles.watch(*real, stop_event=self.stop, step=10, debounce=50, rust_timeout=500):
            self.wake.set()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.stop.is_set():
                raise KeyboardInterrupt
            self.stop.set()
            self.wake.set()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
