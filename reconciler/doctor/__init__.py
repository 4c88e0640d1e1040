"""The doctor: what is wrong with a workspace and everything around it, and the command that mends each.

A check takes the `Chart` (what was looked at, once) and yields findings; the checks are in `CHECKS` by name. One that
cannot look says so and keeps no other from looking. Nothing is written here: a finding may carry `fix`, which mends it
where that can lose nothing, and is called only when somebody asks for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .. import files
from ..errors import Problem, ReconcilerError
from ..settings import Settings
from ..store.inspect import Facts

Fix = Callable[[], str]
"""Mends something and says what it did. Raises ReconcilerError, OSError."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong: what, where, and how to mend it. `severity`: error, or warning for what does no harm yet."""

    check: str
    where: str
    what: str
    mend: str
    severity: str = "error"
    fix: Fix | None = None


class Process(NamedTuple):
    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What the checks look at. `now` in µs since 1970 UTC; `home`: where the LaunchAgents are; `program`: how a mending
    command begins; `facts`: what the server said, None: it could not be asked; `problems`: what the inputs and Redis
    have, `stopped` why the round could not be planned."""

    settings: Settings
    now: int
    home: Path
    processes: tuple[Process, ...] = ()
    store: str = "redis"
    away: str = ""
    facts: Facts | None = None
    published: bool = False
    said: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    stopped: str = ""
    settings_problems: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Agent to field to JSON text, from every side that could be read."""

    def run(self, words: str) -> str:
        """A mending command of this program for this workspace."""
        return f"reconciler --root {shlex.quote(str(self.settings.root))} {words}"


Check = Callable[[Chart], Iterable[Finding]]


class Report(NamedTuple):
    """`healthy`: the checks that found nothing; `skipped`: those that had nothing to look at, and `blind`: those that
    failed to look, each with the reason."""

    findings: tuple[Finding, ...]
    healthy: tuple[str, ...]
    blind: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 1 if self.findings else 3 if self.blind else 0


def examine(chart: Chart, checks: Mapping[str, Check]) -> Report:
    """Every check, in order."""
    findings: list[Finding] = []
    healthy, blind, skipped = list[str](), list[str](), list[str]()
    for name, check in checks.items():
        try:
            found = list(check(chart))
        except (ReconcilerError, OSError) as error:
            blind.append(f"{name}: {error}")
            continue
        except NotLooked as reason:
            skipped.append(f"{name}: {reason}")
            continue
        findings += found
        if not found:
            healthy.append(name)
    return Report(tuple(findings), tuple(healthy), tuple(blind), tuple(skipped))


class NotLooked(Exception):
    """A check had nothing that it could look at; the reason."""


def swap(path: Path, data: bytes, read: files.Identity) -> None:
    """Put `data` in the place of the version that was read. Raises ReconcilerError when somebody was faster."""
    try:
        done = files.replace(path, data, read)
        if done.displaced is not None:
            files.replace(path, done.displaced, done.identity)
            raise files.Moved(path)
    except files.Moved:
        raise ReconcilerError(f"{path}: was changed meanwhile", hint="run this again") from None


def mend(findings: Iterable[Finding]) -> Iterator[tuple[Finding, str, bool]]:
    """Call each fix once; what it said, and whether it succeeded."""
    done: dict[int, tuple[str, bool]] = {}
    for finding in findings:
        if finding.fix is None:
            continue
        key = id(finding.fix)
        if key not in done:
            try:
                done[key] = (finding.fix(), True)
            except ReconcilerError as error:
                done[key] = (str(error), False)
            except OSError as error:
                done[key] = (f"{error.filename}: {error.strerror}", False)
        yield (finding, *done[key])
