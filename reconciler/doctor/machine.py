"""Checks of the machine: hooks, LaunchAgents, locks, modes, leftovers, processes, disk."""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from .. import files
from ..errors import InputError
from ..service import carry_out, find, installing
from ..service.hooks import FILES
from ..service.running import LABEL
from ..settings import Settings
from . import Chart, Finding, Fix, swap

LIMIT = 1 << 22
_STRAY = re.compile(rb"^(?!\s*#).*\$\{\w+:?-\{\}\}", re.M)
"""`${3:-{}}` ends at its first brace: the second one is added to every value that was given."""
_TILDE = re.compile(rb"(<string>(?:[^<]*[:=])?)~(?=/)")
_LEFT_ALONE = 3600.0
"""Seconds after which a half-written file is nobody's."""
_LOW = 200 << 20
_NO_PLIST = (ValueError, plistlib.InvalidFileException, ExpatError, AttributeError, OverflowError, LookupError)
"""What `plistlib` raises for a file that is none."""


def hooks(chart: Chart) -> Iterator[Finding]:
    tools = chart.settings.root / "tools"
    fix = _install_hooks(chart.settings)
    for path in sorted([*tools.glob("*.zsh"), *tools.glob("*.sh")]):
        try:
            found = files.read(path, LIMIT)
        except InputError:
            continue
        bug = _STRAY.search(found[0]) if found else None
        if found and bug:
            line = found[0].count(b"\n", 0, bug.end()) + 1
            what = "a default of {} in ${...} adds a stray } to every value that is given"
            ours = path.name in FILES
            shim = chart.run("install shim") if path.name == "memory_sync.sh" else ""
            way = chart.run("install hooks") if ours else shim or "write json=${3-}; [ -n \"$json\" ] || json='{}'"
            yield Finding("hooks", f"{path}:{line}", what, way, fix=fix if ours else None)


def _install_hooks(settings: Settings) -> Fix:
    def fix() -> str:
        carry_out(settings, installing(settings, find("hooks")))
        return "the hooks were installed; what was there is kept (uninstall hooks)"

    return fix


def plists(chart: Chart) -> Iterator[Finding]:
    """launchd expands no `~`: such a job never starts, or writes its logs nowhere."""
    for path in sorted((chart.home / "Library" / "LaunchAgents").glob("*.plist")):
        found = files.read(path, LIMIT)
        if found is None or not re.search(rb"memory[._]hub", found[0]):
            continue
        try:
            strings = list(_strings(plistlib.loads(found[0])))
        except _NO_PLIST as error:
            yield Finding("plist", str(path), f"is no property list: {error}", chart.run("install launchd"))
            continue
        wrong = [text for text in strings if re.search(r"(^|[:=])~/", text)]
        if wrong:
            more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
            what = f"launchd does not expand the ~ in {wrong[0]!r}{more}"
            by_hand = f"write the whole path, then launchctl bootout and bootstrap {shlex.quote(str(path))}"
            way = chart.run("install launchd") if path.stem == LABEL else by_hand
            yield Finding("plist", str(path), what, way, fix=_expand(chart, path) if _TILDE.search(found[0]) else None)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(each)


def _expand(chart: Chart, path: Path) -> Fix:
    def fix() -> str:
        found = files.read(path, LIMIT)
        if found is None:
            return f"{path} is gone"
        home = os.fsencode(str(chart.home)).replace(b"&", b"&amp;").replace(b"<", b"&lt;")
        data, count = found[0], 1
        while count:  # a match is the last one of its string
            data, count = _TILDE.subn(lambda match: match[1] + home, data)
        swap(path, data, found[1])
        return f"every ~ in {path.name} is {chart.home} now; launchctl bootout and bootstrap make launchd read it"

    return fix


def locks(chart: Chart) -> Iterator[Finding]:
    path = chart.settings.folder / "lock"
    if not path.exists() or files.Lock.holder(path) is not None:
        return
    words = path.read_text(errors="replace").split()
    if words:
        what = f"names process {words[0]}, which does not hold it: it was killed; the next round takes the lock over"
        yield Finding("lock", str(path), what, f"rm {shlex.quote(str(path))}", "warning", _unsign(path))


def _unsign(path: Path) -> Fix:
    def fix() -> str:
        with files.Lock(path):
            pass
        return "the lock is free"

    return fix


def modes(chart: Chart) -> Iterator[Finding]:
    """What others must not read, and what others must not write."""
    settings = chart.settings
    private = [settings.folder, settings.folder / "state.db", settings.folder / "spool"]
    private += [settings.password_file] if settings.password_file else []
    for path, bits, what in [*((path, 0o077, "is open to other users") for path in private),
                             (settings.context_file, 0o002, "may be written by everybody")]:  # fmt: skip
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0
        if mode & bits:
            way = f"chmod {'go=' if bits == 0o077 else 'o-w'} {shlex.quote(str(path))}"
            yield Finding("mode", str(path), f"{what} (mode {mode:04o})", way, fix=_chmod(path, bits))


def _chmod(path: Path, bits: int) -> Fix:
    def fix() -> str:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~bits)
        return f"{path.name} has mode {stat.S_IMODE(path.stat().st_mode):04o}"

    return fix


def leftovers(chart: Chart) -> Iterator[Finding]:
    """Half-written files of processes that were killed, and versions of context.json that were never whole."""
    context, folder = chart.settings.context_file, chart.settings.folder
    old = time.time() - _LEFT_ALONE
    for path in sorted([*context.parent.glob(f".{context.name}.*.tmp"), *folder.glob(".*.tmp")]):
        if path.stat().st_mtime < old:
            what = "was left half written by a process that was killed"
            yield Finding("leftover", str(path), what, f"rm {shlex.quote(str(path))}", "warning", _discard(path))
    for path in sorted((folder / "backups").glob("torn-*.json")):
        what = "somebody wrote this in place of context.json, and it could not be read"
        way = f"look whether it holds something you miss, then rm {shlex.quote(str(path))}"
        yield Finding("leftover", str(path), what, way, "warning")


def _discard(path: Path) -> Fix:
    def fix() -> str:
        files.discard(path)
        return f"{path.name} was removed"

    return fix


def old_hub(chart: Chart) -> Iterator[Finding]:
    for pid, command in chart.processes:
        script = next((word for word in command.split() if word.endswith("memory_hub.py")), "")
        if script and not _is_ours(chart.settings.root / script):
            what = f"the old memory hub runs (pid {pid}): it writes whole copies over context.json"
            way = f"launchctl bootout gui/{os.getuid()}/{LABEL}, or kill {pid}; then {chart.run('install shim')}"
            yield Finding("old-hub", script, what, way)


def _is_ours(script: Path) -> bool:
    try:
        found = files.read(script, LIMIT)
    except InputError:
        return False
    return found is not None and b"reconciler" in found[0]


def controllers(chart: Chart) -> Iterator[Finding]:
    """Two that reconcile one folder: the lock keeps them apart, but not on every network file system."""
    root = str(chart.settings.root)
    holder = files.Lock.holder(chart.settings.folder / "lock") if chart.settings.folder.exists() else None
    found = [each for each in chart.processes if _runs(each.command, root)]
    for pid, _ in found:  # what it was started with may hold a password
        if pid != holder and (holder or len(found) > 1):
            what = f"process {pid} reconciles this workspace too" + (f", beside {holder}" if holder else "")
            yield Finding("controllers", root, what, f"kill {pid} (and see what starts it)")


def _runs(command: str, root: str) -> bool:
    words = command.split()
    program = any(word.rpartition("/")[2] == "reconciler" for word in words)
    return program and "run" in words and (f"--root {root} " in f"{command} " or f"--root={root} " in f"{command} ")


def disk(chart: Chart) -> Iterator[Finding]:
    free = shutil.disk_usage(chart.settings.root).free
    if free < _LOW:
        what = f"only {free >> 20} MB are free; a round needs room for a second context.json"
        yield Finding("disk", str(chart.settings.root), what, "free some space")
