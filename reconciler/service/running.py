"""What the two services have in common: the command they run, its environment, its password, and the wait until it is
healthy.

A service sees nothing of the shell that installs it, so what was set there goes with it; a password goes into a file
of mode 0600 in `.reconciler`, and nowhere else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from .. import files, password
from ..address import read_hosts, take_password
from ..errors import ReconcilerError, StoreAway, UsageError, WorkspaceHeld
from ..health import ask_health, is_run
from ..settings import Settings, environment
from ..workspace import settings_of_file
from . import Say

LABEL = "com.02luka.memory.hub"
WAIT = 30.0
"""Seconds in which a started service must be healthy."""
COMMAND_WAIT = 60.0
"""Seconds in which launchctl or systemctl must answer."""
_FOLDERS = ("/opt/homebrew/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")


def program() -> list[str]:
    """The words that start this program as it is installed here: absolute, whatever PATH a service has."""
    script = Path(sys.executable).with_name("reconciler")
    # -P: a folder `reconciler` in the workspace, where a service starts, is not this program.
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-P", "-m", "reconciler"]


def variables(settings: Settings, name: str) -> dict[str, str]:
    """The environment of a service: where programs are, the workspace, and the settings that are not in its file.

    Raises UsageError for what cannot be written into a service's file.
    """
    folders = dict.fromkeys((os.path.dirname(sys.executable), *_FOLDERS))
    found = {"PATH": ":".join(filter(os.path.isdir, folders)), "LUKA_SOT": str(settings.root)}
    url, secret = _to_keep(settings)
    found |= environment(replace(settings, redis=url), settings_of_file(settings.root))
    if secret:
        found["REDIS_PASSWORD_FILE"] = str(_password_file(settings, name))
    for key, value in found.items():
        if re.search(r"[\0-\x1f\ud800-\udfff]", value):
            raise UsageError(f"{key}={value!r} cannot be written into a service's file", hint="choose another name")
    if secret and secret.strip().splitlines() != [secret]:
        raise UsageError(
            "a password with a blank at its end cannot be kept in a file", hint="use redis_password_keychain"
        )
    return found


def _to_keep(settings: Settings) -> tuple[str, str | None]:
    """The address as a service is told it, and the password that only this environment or command line knows."""
    url, secret = settings.redis, None
    if url != settings_of_file(settings.root).redis:
        url, secret = take_password(url)
        hosts = read_hosts(url)
        if hosts and hosts.sentinel_password:
            raise UsageError(
                "the address holds the password of the sentinels, which every user could read in a service's file",
                hint="write the address into reconciler.yaml, with mode 0600",
            )
    if secret is None and settings.password is not None and settings.password != password.stored(settings):
        secret = settings.password
    return url, secret


def _password_file(settings: Settings, name: str) -> Path:
    return settings.folder / f"{name}.password"


def keep_password(settings: Settings, name: str) -> bool:
    """Put the password of a service into its file, or away where it needs none; whether that changed anything."""
    path, secret = _password_file(settings, name), _to_keep(settings)[1]
    found = files.read(path, 1 << 16)
    if secret is None:
        files.discard(path)
    elif found is None or found[0] != secret.encode() + b"\n":
        files.write_private(path, secret.encode() + b"\n")
    else:
        return False
    return secret is not None or found is not None


def forget_password(settings: Settings, name: str) -> None:
    files.discard(_password_file(settings, name))


def check(settings: Settings, *, running: bool) -> None:
    """Raises WorkspaceHeld where somebody's `run` would keep a service waiting for ever; `running`: it is its own."""
    holder = files.Lock.holder(settings.folder / "lock")
    if holder and not running and is_run(settings, holder):
        raise WorkspaceHeld(
            f"another reconciler (pid {holder}) runs in this workspace", hint="stop it, then install again"
        )


class Answer(NamedTuple):
    """How a command ended, and the last thing it said."""

    code: int
    said: str


def call(*words: str) -> Answer:
    """Run launchctl or systemctl. Raises UsageError when there is none, ReconcilerError when it does not end."""
    find(words[0])
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_WAIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReconcilerError(f"{words[0]} {words[1]}: {error}", hint="try again") from None
    said = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace")
    return Answer(done.returncode, said.rpartition("\n")[2])


def demand(*words: str, hint: str) -> None:
    """`call`, and raise ReconcilerError with what it said unless it ends with 0."""
    answer = call(*words)
    if answer.code:
        raise ReconcilerError(f"{' '.join(words)}: {answer.said or f'exit code {answer.code}'}", hint=hint)


_SYSTEMS = {
    "launchctl": ("macOS", "here it may be: reconciler install systemd"),
    "systemctl": ("a Linux with systemd", "on macOS it is: reconciler install launchd; elsewhere: reconciler run"),
}


def is_there(name: str) -> bool:
    return shutil.which(name) is not None


def find(name: str) -> None:
    """Raises UsageError where launchctl or systemctl is not on PATH."""
    if not is_there(name):
        system, hint = _SYSTEMS[name]
        raise UsageError(f"{name} is not on PATH; it comes with {system}", hint=hint)


def wait_until_healthy(settings: Settings, log: tuple[Path, int] | None, say: Say) -> None:
    """Until the `run` of this workspace says that its last round left nothing wrong; each step is said once.

    `log`: where its errors go, and from which byte on they are its own. Raises StoreAway, ReconcilerError.
    """
    deadline, before = time.monotonic() + WAIT, ""
    while True:
        pid, stands, away = _stands(settings)
        if not stands:
            say(f"{LABEL} runs (pid {pid}) and is healthy")
            return
        if time.monotonic() > deadline:
            break
        if stands != before:
            say(f"waiting: {stands}")
            before = stands
        time.sleep(0.1)
    raise (StoreAway if away else ReconcilerError)(
        f"{LABEL} is installed, but after {WAIT:g} s {stands}{_end_of(*log) if log else ''}",
        hint="it goes on trying; `reconciler status` shows how it stands",
    )


def _stands(settings: Settings) -> tuple[int, str, bool]:
    """The pid of the `run`, what is not well with it ("": nothing), and whether that is Redis being away."""
    pid = files.Lock.holder(settings.folder / "lock")
    if not pid or not is_run(settings, pid):
        return 0, "it is starting" if pid else "it has not started", False
    health = ask_health(settings, pid, 1.0)
    if health is None or health.pid != pid:
        return pid, "it does not answer", False
    away = health.redis == "away" and not health.wrong
    wrong = "Redis is away" if away else "; ".join(health.wrong[:3]) or "its first round is not done"
    return pid, wrong if health.code or not health.at else "", away


def _end_of(path: Path, start: int) -> str:
    """The last lines that a service wrote, as the end of a message."""
    found = files.read(path, sys.maxsize - 1)
    lines = (found[0][start:] if found else b"").decode("utf-8", "replace").splitlines()[-5:]
    return "".join([f"; {path} ends with:", *(f"\n  {line}" for line in lines)]) if lines else ""
