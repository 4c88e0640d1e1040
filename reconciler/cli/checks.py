"""validate, status, schema: questions about a workspace; nothing is changed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import click

from .. import files, render, schema
from ..base import Base
from ..controller import Options, Round, reconcile_or_away
from ..errors import InputError, Problem, StoreAway, UsageError
from ..health import Health, ask_health, is_run, read_health
from ..settings import FILE, Settings, build
from ..sources import context_file, manifests
from ..sources.text import MAX_BYTES
from ..spool import Backlog, Spool, backlog
from ..stamp import format_time
from ..state import CONTEXT, SHARED, decode, present
from ..store import AwayStore
from ..view import context_check
from ..workspace import Workspace, open_workspace, problems_of, read_file
from .common import output_option, print_data, report, verb, warn
from .tables import print_agents


@verb("validate", checks="paths")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@output_option("text", "json", "yaml")
def validate_command(settings: Settings, wrong: list[Problem], paths: tuple[str, ...], output: str) -> int:
    """Check files against their schemas: every problem at once, with its place.

    Without PATH: all manifests, context.json, reconciler.yaml and what Redis holds. A PATH is a manifest
    (.yaml, .yml), a context file (.json) or a folder of manifests. Exit code 0: valid; 1: not.
    """
    checked, problems, away = _check_paths(settings, paths) if paths else _check_all(settings, wrong)
    errors = sum(problem.severity == "error" for problem in problems)
    if output != "text":
        listed = [render.problem_to_json(problem) for problem in problems]
        print_data({"schema_version": 1, "valid": not errors, "checked": checked, "problems": listed}, output)
    else:
        report(problems, warnings=True)
        click.echo(f"{'Not valid' if errors else 'Valid'}: {', '.join(checked)}; {_count(problems)}.")
    return 1 if errors else 5 if away else 0


def _count(problems: list[Problem]) -> str:
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    parts = [f"{n} {word}{'s' * (n != 1)}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    return ", ".join(parts) or "no problems"


def _check_all(settings: Settings, wrong: list[Problem]) -> tuple[list[str], list[Problem], bool]:
    """`wrong`: what is wrong with reconciler.yaml, so that nobody knows which server is meant: none is asked."""
    if wrong:
        store, base = AwayStore(StoreAway("not asked")), Base(settings.folder)
        found = reconcile_or_away(Workspace(settings, base, store, spool=Spool(settings.spool)), Options(dry=True))
        return [FILE, "manifests", "context.json"], [*wrong, *found.plan.problems], False
    with open_workspace(settings, warn, reading=True) as workspace:
        found = reconcile_or_away(workspace, Options(dry=True))
        name = workspace.store.name
    agents = sum(agent != SHARED and bool(present(fields)) for agent, fields in found.merged.items())
    checked = ["manifests", "context.json", f"{agents} agents in {name}"]
    if not found.plan.redis_up:
        checked = checked[:2]
        click.echo("Redis is away: only files were checked; is the server running?", err=True)
    return checked, list(found.plan.problems), not found.plan.redis_up


def _check_paths(settings: Settings, paths: tuple[str, ...]) -> tuple[list[str], list[Problem], bool]:
    problems: list[Problem] = []
    together: dict[str, list[manifests.Manifest]] = {}
    found = _expand(settings, paths)
    for path, folder in found.items():
        try:
            content = files.read(path, context_file.MAX_BYTES)
            if content is None:
                raise UsageError(f"{path} does not exist")
            problems += _check_bytes(settings, content[0], path, together.setdefault(folder, []))
        except InputError as error:
            problems += error.problems
    for declared in together.values():
        for manifest in declared:
            if manifest.context_schema is not None:
                try:
                    context_check(Path(), manifest)
                except InputError as error:
                    problems += error.problems
        problems += manifests.one_each(declared)[1]
    return list(map(str, found)), problems, False


def _expand(settings: Settings, paths: tuple[str, ...]) -> dict[Path, str]:
    """The files that are meant, each once, and the folder in which there is one manifest for each agent: what is named,
    or the workspace's own, if a file is in it."""
    folders = [Path(path) for path in paths if os.path.isdir(path)]
    above = [os.path.realpath(folder) for folder in (*folders, settings.manifests)]
    files_of = {folder: manifests.manifest_files(folder) for folder in folders}
    for folder, found in files_of.items():
        if not found:
            raise UsageError(f"{folder} holds no manifests", hint="they end in .yaml or .yml")
    expanded: dict[tuple[str, str], tuple[Path, str]] = {}
    for path in (*(one for found in files_of.values() for one in found), *map(Path, paths)):
        if path not in files_of:
            real = os.path.realpath(path.parent)
            inside = (folder for folder in above if f"{real}{os.sep}".startswith(f"{folder}{os.sep}"))
            expanded.setdefault((real, path.name), (path, next(inside, real)))
    return dict(expanded.values())


def _check_bytes(settings: Settings, data: bytes, path: Path, declared: list[manifests.Manifest]) -> list[Problem]:
    """What is wrong with a file; what a good manifest says is added to `declared`."""
    shown = str(path)
    if path.name == FILE:
        try:
            build(path.parent.absolute(), read_file(data, shown), {}, {})
        except (InputError, UsageError) as error:
            return list(problems_of(error, shown))
        return []
    if path.suffix in (".yaml", ".yml"):
        good, problems = manifests.parse(data[: MAX_BYTES + 1], shown)
        declared += good
        return problems
    if path.suffix == ".json":
        return list(context_file.parse(data, shown, settings.local_sections).problems)
    raise UsageError(f"{path} is neither a manifest nor a context file", hint="they end in .yaml, .yml or .json")


@verb("status")
@output_option("text", "json", "yaml")
def status_command(settings: Settings, output: str) -> int:
    """One screen: agents and how fresh they are, the store, the last round, and what is wrong.

    Exit code 0: healthy; 1: not.
    """
    with open_workspace(settings, warn, reading=True) as workspace:
        found = reconcile_or_away(workspace, Options(dry=True))
        journal = len(workspace.base.load().journal)
        store = workspace.store.name
    waiting = backlog(settings)
    pid = _holder(settings)
    running = pid is not None and is_run(settings, pid)
    health = ask_health(settings, pid, ANSWER) if pid is not None and running else read_health(settings)
    now = Now(settings, found, store, journal, pid, running, health, waiting)
    wrong = now.wrong()
    if output != "text":
        print_data(_status_json(now, wrong), output)
    else:
        _print_status(now, wrong)
    return 1 if wrong else 0


ANSWER = 3.0
"""Seconds in which a `run` must say how it stands; one that does not is not healthy."""


class Now(NamedTuple):
    """What `status` tells: one look of its own, and what the `run` that holds the workspace says of itself."""

    settings: Settings
    found: Round
    store: str
    journal: int
    pid: int | None
    running: bool
    health: Health | None
    waiting: Backlog

    def wrong(self) -> list[str]:
        lines = [str(problem) for problem in self.found.plan.errors]
        if not self.found.plan.redis_up:
            lines.append("Redis is away; work goes on in files")
        lines += [f"spool/rejected/{name} is no drop: {reason}" for name, reason in self.waiting.rejected]
        if self.running and self.health is None:
            lines.append(f"the reconciler (pid {self.pid}) does not answer")
        if self.running and self.health is not None:
            lines += [line for line in self.health.wrong if line not in lines]
            if self.health.redis == "away" and self.found.plan.redis_up:
                lines.append("the reconciler cannot reach Redis; work goes on in files")
        return lines


def _holder(settings: Settings) -> int | None:
    return files.Lock.holder(settings.folder / "lock")


def _status_json(now: Now, wrong: list[str]) -> dict[str, Any]:
    found, health = now.found, now.health
    return {
        "schema_version": 1,
        "healthy": not wrong,
        "root": str(now.settings.root),
        "store": now.store,
        "redis": "up" if found.plan.redis_up else "away",
        "in_sync": found.plan.in_sync,
        "differences": sum(not change.quiet for change in found.plan.changes),
        "agents": {
            agent: {
                "last_update": format_time(max(value.at for value in fields.values())),
                "fields": len(present(fields)),
            }
            for agent, fields in sorted(found.merged.items())
            if agent != SHARED and present(fields)
        },
        "journal": now.journal,
        "spool": now.waiting.drops + now.waiting.kept,
        "reconciler_pid": now.pid,
        "last_round": format_time(health.at) if health and health.at else None,
        "last_good_round": format_time(health.succeeded) if health and health.succeeded else None,
        "last_good_round_age_s": _age(health.succeeded) if health and health.succeeded else None,
        "failures": health.failures if health else 0,
        "quarantined": [str(problem) for problem in found.plan.errors],
        "wrong": wrong,
    }


def _age(moment: int) -> float:
    return round(max(time.time_ns() // 1000 - moment, 0) / 1_000_000, 3)


def _print_status(now: Now, wrong: list[str]) -> None:
    health, found, moment = now.health, now.found, time.time_ns() // 1000
    round_text = f"{render.ago(moment - health.at)} ago" if health and health.at else "never"
    if health and health.succeeded != health.at:
        good = f"{render.ago(moment - health.succeeded)} ago" if health.succeeded else "never"
        round_text += f" (exit code {health.code}; last good one: {good})"
    if health and health.failures:
        round_text += f", failed {health.failures} times in a row since"
    click.echo(f"workspace   {now.settings.root}")
    click.echo(f"store       {now.store}" + ("" if found.plan.redis_up else " (away)"))
    click.echo(f"reconciler  {f'running, pid {now.pid}' if now.pid is not None else 'not running'}")
    click.echo(f"last round  {round_text}")
    click.echo(f"now         {render.summary(found.plan)}")
    if now.journal:
        click.echo(f"journal     {now.journal} write{'s wait' if now.journal != 1 else ' waits'} to be merged")
    if now.waiting.drops or now.waiting.kept:
        drops = f"{now.waiting.drops} drop{'s wait' if now.waiting.drops != 1 else ' waits'} for a round"
        click.echo(f"spool       {drops}, {now.waiting.kept} for Redis")
    for line in _raw(found):
        click.echo(f"raw         {line}")
    print_agents(found.merged)
    for line in wrong:
        click.secho(f"wrong: {line}", fg="red")


def _raw(found: Round) -> list[str]:
    """What was not JSON and is kept as text, with the reason."""
    return [
        f"{agent}: {name.removeprefix(CONTEXT)} is not JSON: {decode(reason.text)}"
        for agent, fields in sorted(found.merged.items())
        for name in sorted(fields)
        if name.endswith("_raw") and fields[name].text is not None
        and (reason := fields.get(f"{name}_reason")) is not None and reason.text is not None
    ]  # fmt: skip


@click.command("schema")
@click.argument("name", required=False)
def schema_command(name: str | None) -> int:
    """Print a JSON Schema (draft 2020-12); without NAME, list them. Needs no workspace."""
    click.echo(schema.schema_text(name) if name else "\n".join(schema.schema_names()))
    return 0
