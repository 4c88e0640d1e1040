"""The password of Redis where it is kept: in a file, or in the macOS keychain. What is said here quotes none of it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from . import files
from .errors import UsageError
from .settings import Settings

WAIT = 10.0
"""Seconds in which the keychain must answer: a locked one asks on the screen, where perhaps nobody is."""


def stored(settings: Settings) -> str | None:
    """The password that the settings only point to; None where they point nowhere. Raises InputError, UsageError."""
    if settings.password_file is not None:
        return _first_line(settings.password_file)
    return _from_keychain(settings.password_keychain) if settings.password_keychain else None


def _first_line(path: Path) -> str:
    found = files.read(path, 1 << 16)
    lines = found[0].decode("utf-8", "replace").splitlines() if found else []
    password = lines[0].strip() if lines else ""
    if not password or "\ufffd" in password:
        what = "holds no password" if found else "does not exist"
        raise UsageError(f"redis_password_file {path} {what}", hint="put the password on its first line")
    return password


def _from_keychain(name: str) -> str:
    what = f"redis_password_keychain {name!r}"
    try:
        done = subprocess.run(
            ["security", "find-generic-password", "-s", name, "-w"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=WAIT,
            check=False,
        )
    except OSError:
        raise UsageError(
            f"{what} needs the command security, which only macOS has", hint="use redis_password_file here"
        ) from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"{what}: the keychain did not answer in {WAIT:g} s", hint="unlock it: security unlock-keychain"
        ) from None
    password = done.stdout.decode("utf-8", "replace").rstrip("\n")
    if done.returncode or not password:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2] or "it is empty"
        hint = f"put it there: security add-generic-password -a redis -s {shlex.quote(name)} -w"
        raise UsageError(f"{what} gives no password: {said}", hint=hint)
    return password
