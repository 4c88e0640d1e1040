"""install, uninstall: putting hooks, drop-ins and services in place, and taking them away again."""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Iterator, Sequence

import click

from ..errors import Refused
from ..service import NAMES, FileChange, Work, carry_out, find, installing, read_record, short_name, uninstalling
from ..settings import Settings
from .common import verb

_targets = click.argument("targets", nargs=-1, required=True, type=click.Choice(NAMES), metavar="TARGET...")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done, as a diff; write nothing.")


@verb("install")
@_targets
@_dry_run
def install_command(settings: Settings, targets: tuple[str, ...], dry_run: bool) -> None:
    """Put TARGETs in place: hooks, shim, launchd, systemd. What was there before is kept.

    \b
    hooks    tools/*_memory_hook.zsh and reconciler.zsh, which the dispatcher
             scripts that are there source
    shim     agents/memory_hub/memory_hub.py and tools/memory_sync.sh
    launchd  the LaunchAgent com.02luka.memory.hub, and starts it
    systemd  the user unit, and starts it
    """
    for name in dict.fromkeys(targets):
        target = find(name)
        work = installing(settings, target)
        if dry_run:
            _preview(settings, work, target.commands(settings, True) if work.changes else ())
            continue
        target.ready(settings)
        carry_out(settings, work)
        _tell(settings, work)
        target.start(settings, bool(work.changes), _say)


@verb("uninstall")
@_targets
@_dry_run
@click.option("--force", is_flag=True, help="Put back what was there also where somebody edited it since.")
def uninstall_command(settings: Settings, targets: tuple[str, ...], dry_run: bool, force: bool) -> None:
    """Take TARGETs away; every file is again what it was before, byte for byte.

    Out of a script that was edited since, only the lines of `install` are taken. Any other file that was edited since
    stays, which is exit code 4; --force restores it.
    """
    refused: list[str] = []
    for name in dict.fromkeys(targets):
        target = find(name)
        work = uninstalling(settings, target, force=force)
        refused += work.refused
        there = [os.path.lexists(settings.root / path) for path in read_record(settings).get(name, ())]
        lost = target.service and bool(there) and not any(there)  # it may run although its files are gone
        if dry_run:
            _preview(settings, work, target.commands(settings, False) if work.changes or lost else ())
            continue
        if work.changes or lost:
            target.stop(settings, _say)
        carry_out(settings, work)
        if lost and not work.changes:
            click.echo(f"{name}: ended; its files were gone")
        else:
            _tell(settings, work)
    if refused:
        raise Refused("\n".join(refused), hint="--force puts back what was there before; the edits are then lost")


def _tell(settings: Settings, work: Work) -> None:
    """One line for each file that changed."""
    for change in work.changes:
        sign = "+" if change.before is None else "-" if change.after is None else "~"
        name = short_name(settings, change.path)
        kept = work.entries[name].copy if name in work.entries else None
        where = f"  (what was there: .reconciler/installed/{kept})" if kept else ""
        click.echo(f"{work.target.name}: {sign} {name}{where}")
    if not work.changes and not work.refused:
        click.echo(f"{work.target.name}: nothing to do")


def _preview(settings: Settings, work: Work, commands: Sequence[str]) -> None:
    for change in work.changes:
        for line in _diff(short_name(settings, change.path), change):
            click.echo(line)
    for command in commands:
        click.echo(f"{work.target.name}: would run: {command}", err=True)
    if not work.changes and not work.refused and not commands:
        click.echo(f"{work.target.name}: nothing to do", err=True)


def _diff(name: str, change: FileChange) -> Iterator[str]:
    """A change as a unified diff; what is no UTF-8 is shown as escapes."""
    if change.mode is not None:
        yield f"mode {change.mode:o} {name}"
    before, after = (
        [line.decode("utf-8", "backslashreplace") for line in io.BytesIO(data or b"")]  # at \n only
        for data in (change.before, change.after)
    )
    sides = (
        "/dev/null" if change.before is None else f"a/{name}",
        "/dev/null" if change.after is None else f"b/{name}",
    )
    for line in difflib.unified_diff(before, after, *sides):
        yield line.rstrip("\n").replace("\r", "\\r")
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"


def _say(text: str) -> None:
    click.echo(text, err=True)
