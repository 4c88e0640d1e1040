"""The LaunchAgent `com.02luka.memory.hub`: launchd starts `run` when its user logs in, and again when it ends.

launchd expands nothing, makes no folder and hides nothing: its plist has absolute paths and no password.
"""

from __future__ import annotations

import os
import plistlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ReconcilerError
from ..settings import Settings
from . import Say, Target, Wanted, read_record, running, short_name
from .running import LABEL
from .shipped import shipped

LOGS = ("memory_hub.out.log", "memory_hub.err.log")
LEAVING = 30.0
"""Seconds in which a service is gone that was told to end: launchd kills it after 20."""


def plist_path() -> Path:
    return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def render(settings: Settings) -> bytes:
    """The template with this machine's paths in it, and the environment that `run` needs."""
    job = plistlib.loads((shipped("launchd") / f"{LABEL}.plist").read_bytes())
    words = {"@RECONCILER@": running.program()}

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [each for word in value for each in words.get(word, [filled(word)])]
        return value.replace("@ROOT@", str(settings.root)) if isinstance(value, str) else value

    job = {key: filled(value) for key, value in job.items()}
    job["EnvironmentVariables"] = running.variables(settings, "launchd")
    said = b"<!-- Put here by `reconciler install launchd`. -->\n<plist "
    return plistlib.dumps(job, sort_keys=False).replace(b"<plist ", said, 1)


def _wanted(settings: Settings) -> Sequence[Wanted]:
    # Each is only made when it is to be written: taking them away needs neither the template nor a password.
    made = Wanted(_made(settings), lambda there: there or _not_there(settings))
    return [made, Wanted(plist_path(), lambda _: render(settings))]


def _made(settings: Settings) -> Path:
    """A file that says which logs there were not before, so that they may go when the service goes."""
    return settings.folder / "launchd.logs"


def _not_there(settings: Settings) -> bytes | None:
    """The names of those logs, `.` for their folder."""
    names = [name for name in (*LOGS, ".") if not os.path.lexists(settings.root / "logs" / name)]
    return "".join(f"{name}\n" for name in names).encode() or None


def _ready(settings: Settings) -> None:
    running.find("launchctl")
    running.check(settings, running=_loaded())


def _start(settings: Settings, changed: bool, say: Say) -> None:
    changed |= running.keep_password(settings, "launchd")
    log = settings.root / "logs" / LOGS[1]
    loaded = _loaded()
    if loaded and changed:
        _boot_out()
    found = files.identify(log)
    if changed or not loaded:
        files.make_folder(log.parent)
        hint = "LaunchAgents run in a session on the screen: log in there, and install again"
        running.demand("launchctl", "enable", _service(), hint=hint)
        running.demand("launchctl", "bootstrap", f"gui/{os.getuid()}", str(plist_path()), hint=hint)
    running.wait_until_healthy(settings, (log, found.size if found else 0), say)


def _stop(settings: Settings, say: Say) -> None:
    if running.is_there("launchctl") and _loaded():
        _boot_out()
    running.forget_password(settings, "launchd")
    made = files.read(_made(settings), 1 << 10)
    names = made[0].decode().split() if made else []
    logs = settings.root / "logs"
    for name in names:
        for path in (logs / name, *logs.glob(f"{name}.*")) if name in LOGS else ():
            files.discard(path)
    if "." in names:
        files.remove_folder(logs)
    entry = read_record(settings).get("launchd", {}).get(short_name(settings, plist_path()))
    if entry and entry.copy:
        say(f"what was there before is not started: launchctl bootstrap gui/{os.getuid()} {plist_path()}")


def _boot_out() -> None:
    """Take the service out of launchd and wait until it is gone: until then it cannot be taken in again."""
    answer = running.call("launchctl", "bootout", _service())
    deadline = time.monotonic() + LEAVING
    while _loaded():
        if time.monotonic() > deadline:
            said = f": {answer.said}" if answer.code else ""
            raise ReconcilerError(f"launchctl bootout {_service()} did not end it{said}", hint="try again")
        time.sleep(0.1)


def _loaded() -> bool:
    return running.call("launchctl", "print", _service()).code == 0


def _service() -> str:
    return f"gui/{os.getuid()}/{LABEL}"


def _commands(settings: Settings, installing: bool) -> Sequence[str]:
    taking_in = [f"launchctl enable {_service()}", f"launchctl bootstrap gui/{os.getuid()} {plist_path()}"]
    return [f"launchctl bootout {_service()}", *(taking_in if installing else ())]


TARGET = Target("launchd", _wanted, _start, _stop, _commands, _ready, service=True)
