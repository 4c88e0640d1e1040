"""The user unit `com.02luka.memory.hub.service`: systemd starts `run` with its user's session, and again when it ends.

What it says goes to the journal, which bounds itself.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence
from pathlib import Path

from .. import files
from ..errors import ReconcilerError
from ..settings import Settings
from . import Say, Target, Wanted, running
from .running import LABEL

UNIT = f"{LABEL}.service"
NOT_LOADED = 5
"""What `systemctl stop` ends with for a unit that systemd does not know."""
THROTTLE = 10
"""Seconds between two starts of a service that ends at once."""


def unit_path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".config") / "systemd" / "user" / UNIT


def render(settings: Settings) -> bytes:
    words = [*running.program(), "--root", str(settings.root), "run"]
    variables = running.variables(settings, "systemd")
    lines = [
        "# Put here by `reconciler install systemd`.",
        "[Unit]",
        "Description=The shared memory of several agents, in files and in Redis",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        # The colon: no $ in it is a variable.
        f"ExecStart=:{' '.join(map(_quoted, words))}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in variables.items()),
        "Restart=always",
        f"RestartSec={THROTTLE}",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    return '"' + text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'


def _wanted(settings: Settings) -> Sequence[Wanted]:
    return [Wanted(unit_path(), lambda _: render(settings))]


def _ready(settings: Settings) -> None:
    running.find("systemctl")
    answer = _systemctl("is-active", UNIT)
    if answer.said.startswith("Failed to connect"):
        raise ReconcilerError(f"systemctl --user: {answer.said}", hint=_SESSION)
    running.check(settings, running=answer.code == 0)


def _start(settings: Settings, changed: bool, say: Say) -> None:
    changed |= running.keep_password(settings, "systemd")
    hint = f"journalctl --user -u {UNIT} may tell more; {_SESSION}"
    if changed or _systemctl("is-enabled", UNIT).code:
        running.demand(*_USER, "daemon-reload", hint=hint)
        running.demand(*_USER, "enable", UNIT, hint=hint)
    if changed or _systemctl("is-active", UNIT).code:
        running.demand(*_USER, "restart", UNIT, hint=hint)
    if changed and not Path("/var/lib/systemd/linger", getpass.getuser()).exists():
        say("it ends when you log out; `loginctl enable-linger` keeps it running")
    running.wait_until_healthy(settings, None, say)


def _stop(settings: Settings, say: Say) -> None:
    if running.is_there("systemctl"):
        if os.path.lexists(unit_path()):
            running.demand(*_USER, "disable", "--now", UNIT, hint=_SESSION)
        else:  # somebody removed it: what cannot be disabled any more can be stopped
            answer = _systemctl("stop", UNIT)
            if answer.code not in (0, NOT_LOADED):
                raise ReconcilerError(f"systemctl --user stop {UNIT}: {answer.said}", hint=_SESSION)
            files.discard(unit_path().parent / "default.target.wants" / UNIT)
    running.forget_password(settings, "systemd")


_USER = ("systemctl", "--user")
_SESSION = "systemd's user session is needed: log in as this user"


def _systemctl(*words: str) -> running.Answer:
    return running.call(*_USER, *words)


def _commands(settings: Settings, installing: bool) -> Sequence[str]:
    end = f"disable --now {UNIT}" if os.path.lexists(unit_path()) else f"stop {UNIT}"
    words = ("daemon-reload", f"enable {UNIT}", f"restart {UNIT}") if installing else (end,)
    return [f"systemctl --user {word}" for word in words]


TARGET = Target("systemd", _wanted, _start, _stop, _commands, _ready, service=True)
