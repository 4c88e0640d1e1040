"""What wakes the worker: files that change, Redis keys that are written, and the clock.

Each runs in a thread of its own and only ever wakes. Whatever one of them misses, the clock's full round finds.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import watchfiles
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from ..errors import ReconcilerError, StoreAway, StoreError, UsageError
from ..files import make_folder
from ..settings import Settings
from ..sources.manifests import shown
from ..store import LiveStore
from .bell import Bell
from .logs import bound, own_logs
from .wakes import Wakes

STEP = 10
"""Milliseconds between two looks for changed files where no bell rings: 5 would halve the delay and cost most of one
percent of a core."""

SOON = 1
"""Milliseconds between two looks beside a bell, for at most LATE milliseconds."""

LATE = 30

UNHEARD = 1.0
"""Seconds between two looks although no bell has rung: a file may be written and never closed."""

LOOK = 300
"""Milliseconds between two looks at every file where the system does not tell which ones change."""

STATE = "state.db"
"""What of the program's own folder others write, and may keep open: the journal is in it."""

POLL = 1.0
"""Seconds between two full rounds where Redis does not tell who was written."""

SURE, WHOLE = 60.0, 3600.0
"""Seconds after which the clock's round reads all of Redis although Redis tells who was written, to make sure: the
least and the most; between them SPARING times as long as it takes, in which nothing else is done."""

SPARING = 1_000


class Files:
    """Wakes on every change of the sources and of the journal."""

    def __init__(self, settings: Settings, wakes: Wakes, warn: Callable[[str], None]) -> None:
        self.settings, self.wakes, self.warn = settings, wakes, warn
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._bell: Bell | None = None
        self._watched: dict[str, Path] = {}

    def watch(self) -> None:
        """Watch the folders that are there now; called again after each round over all files, since one may be new, or
        another one in its place."""
        folders = {self.settings.context_file.parent, self.settings.manifests, self.settings.folder}
        if self.settings.inbox:
            folders.add(self._inbox())
        found = {os.path.realpath(folder): folder for folder in folders if folder.is_dir()}
        if found == self._watched:
            return
        self.close()
        self._watched, self._stop = found, threading.Event()
        with suppress(OSError):  # where nothing rings it is looked at short intervals
            self._bell = Bell(found, STATE)
        self._thread = threading.Thread(target=self._run, args=(found, self._stop), name="files", daemon=True)
        self._thread.start()

    def _inbox(self) -> Path:
        """Made where it is not there, so that the first file in it is seen at once."""
        folder = self.settings.inbox_folder
        try:
            make_folder(folder)
        except ReconcilerError as error:
            self.warn(str(error))
        return folder

    def close(self) -> None:
        self._stop.set()
        if self._bell is not None:
            self._bell.ring()
        if self._thread is not None:
            self._thread.join(timeout=2)
            if self._bell is not None and not self._thread.is_alive():
                self._bell.close()
        self._thread = self._bell = None
        self._watched = {}

    def _run(self, folders: dict[str, Path], stop: threading.Event) -> None:
        """Where the system does not tell (it has run out of inotify watches), the files are looked at."""
        try:
            self._follow(folders, stop, polling=False)
        except (OSError, RuntimeError) as error:
            self.warn(f"the system does not tell which files change, so they are looked at all the time: {error}")
            try:
                self._follow(folders, stop, polling=True)
            except (OSError, RuntimeError) as worse:  # the next full round watches what is there then
                self._watched = {}
                self.warn(f"files are not watched, so edits wait for the next full round: {worse}")

    def _follow(self, folders: dict[str, Path], stop: threading.Event, *, polling: bool) -> None:
        watching, bell = False, None if polling else self._bell
        step, patience = (SOON, LATE) if bell else (STEP, 1_000)
        for changes in watchfiles.watch(
            *folders, watch_filter=None, stop_event=stop, step=step, debounce=step, rust_timeout=patience,
            raise_interrupt=False, yield_on_timeout=True, force_polling=polling or None, poll_delay_ms=LOOK,
        ):  # fmt: skip
            if not watching:
                self.wakes.everything()  # what happened before the watch began
                watching = True
            for change, path in changes:
                self._changed(path, folders, gone=change == watchfiles.Change.deleted)
            if bell:
                self._listen(bell, folders, stop)

    def _listen(self, bell: Bell, folders: dict[str, Path], stop: threading.Event) -> None:
        """For UNHEARD seconds; what was heard then comes once more, with what was not, and costs one round."""
        end = time.monotonic() + UNHEARD
        while not stop.is_set() and (left := end - time.monotonic()) > 0:
            for path, gone in bell.wait(left):
                self._changed(path, folders, gone=gone)

    def _changed(self, path: str, folders: dict[str, Path], *, gone: bool) -> None:
        real = max((folder for folder in folders if path.startswith(folder)), key=len, default="")
        name = Path(path).name
        if not real or path == real:
            if gone:  # perhaps another one is in its place, which `watch` finds after the round
                self._watched = {}
            self.wakes.everything()
            return
        folder, spool = folders[real], self.settings.spool.name
        if folder == self.settings.folder:
            if name == STATE:  # not its journal, which merely reading touches where root reads
                self.wakes.file()
            elif not gone and os.path.relpath(path, real) in (spool, os.path.join(spool, name)):
                self._dropped(name)
        elif folder == self.settings.inbox_folder:
            if name.endswith(".json") and not gone and os.path.dirname(path) == real:
                self.wakes.drop()
        elif folder == self.settings.manifests:
            self._manifest_changed(folder / os.path.relpath(path, real))
        elif name == self.settings.context_file.name:
            self.wakes.file()

    def _dropped(self, name: str) -> None:
        if name.endswith(".drop"):
            self.wakes.drop(time.time() - int(name[:16]) / 1_000_000 if name[:16].isdecimal() else 0.0)
        elif name == self.settings.spool.name:  # just made: what is in it already has told nobody
            self.wakes.drop()

    def _manifest_changed(self, path: Path) -> None:
        if path.suffix in (".yaml", ".yml"):
            self.wakes.manifests([shown(path, self.settings.manifests_base)])
        elif path.suffix == ".json":  # a contextSchema: any agent may break it now
            self.wakes.everything()
        elif not path.is_file():  # a folder that came, went or was renamed
            self.wakes.manifests(None)


class Writes:
    """Wakes on every write to an agent's hash, whoever makes it; where Redis does not tell, at short intervals."""

    def __init__(self, store: LiveStore, wakes: Wakes, warn: Callable[[str], None]) -> None:
        self.store, self.wakes, self.warn = store, wakes, warn
        self._stop = threading.Event()
        self._tried = threading.Event()
        self.following = False
        """Whether Redis tells of every write, and has since the last full round was asked for."""
        self._thread = threading.Thread(target=self._run, name="writes", daemon=True)
        self._thread.start()
        self._tried.wait(1.5)  # so that the first round is not done twice

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except StoreAway:  # the breaker spares the server, and answers at once
                self._tried.set()
                self._stop.wait(random.uniform(0.05, 0.15))
            except StoreError as error:
                self._tried.set()
                self.warn(f"Redis does not tell who is written, so it is asked every {POLL:g} s: {error}")
                self._poll()

    def _follow(self) -> None:
        with closing(self.store.track()) as tracking:
            self.wakes.everything()  # what was written before anybody listened
            self._tried.set()
            try:
                self.following = True
                while not self._stop.is_set():
                    self.wakes.live(tracking.receive(0.5))
            finally:
                self.following = False

    def _poll(self) -> None:
        """For a minute; then it is tried again whether Redis tells."""
        for _ in range(60):
            if self._stop.wait(POLL):
                return
            self.wakes.everything()


class Clock:
    """Wakes for the round over everything: at intervals, or as a crontab says; and at the start of each day, for its
    backup. While `told`, Redis is left out of it, for it tells by itself; but now and then (SURE). An interval goes on
    where somebody sets the clock back.

    Each minute it looks whether a log has become too large."""

    def __init__(self, settings: Settings, wakes: Wakes, told: Callable[[], bool]) -> None:
        self._wakes, self._told, self._whole = wakes, told, time.monotonic()
        self._scheduler = BackgroundScheduler(job_defaults={"misfire_grace_time": None, "coalesce": True})
        self._ended = threading.Event()
        if (full := crontab(settings)) is not None:
            self._scheduler.add_job(self._strike, full)
        self._scheduler.add_job(wakes.everything, CronTrigger(hour=0, minute=0, jitter=600))
        if logs := own_logs(settings):
            bound(logs)
            self._scheduler.add_job(bound, IntervalTrigger(minutes=1), [logs])
        self._scheduler.start()
        if full is None:
            seconds = settings.interval.total_seconds()
            threading.Thread(target=self._tick, args=(seconds,), name="clock", daemon=True).start()

    def _tick(self, seconds: float) -> None:
        while not self._ended.wait(seconds * random.uniform(0.9, 1.1)):
            self._strike()

    def _strike(self) -> None:
        now = time.monotonic()
        if self._told() and now - self._whole < min(max(SURE, SPARING * self._wakes.whole), WHOLE):
            self._wakes.manifests(None)
        else:
            self._whole = now
            self._wakes.everything()

    def close(self) -> None:
        self._ended.set()
        self._scheduler.shutdown(wait=False)


def crontab(settings: Settings) -> CronTrigger | None:
    """When the full rounds are, if a crontab says so. Raises UsageError."""
    try:
        return CronTrigger.from_crontab(settings.cron) if settings.cron else None
    except ValueError as error:
        raise UsageError(f"cron {settings.cron!r}: {error}", hint="for example: */5 * * * *") from None
