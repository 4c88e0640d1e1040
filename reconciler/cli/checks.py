"""validate, status, schema: questions about a workspace; nothing is changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .. import files, render, schema
from ..controller import Options, Round, reconcile_or_away
from ..errors import InputError, Problem, UsageError
from ..health import read_health
from ..settings import FILE, Settings
from ..sources import context_file, manifests
from ..sources.yaml_text import MAX_BYTES, locator, read_documents
from ..stamp import format_time
from ..state import SHARED, present
from ..workspace import open_workspace
from .common import output_option, print_data, report, verb, warn
from .tables import print_agents


@verb("validate", here="paths")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@output_option("text", "json", "yaml")
def validate_command(settings: Settings, paths: tuple[str, ...], output: str) -> int:
    """Check files against their schemas: every problem at once, with its place.

    Without PATH: all manifests, context.json, reconciler.yaml and what Redis holds. A PATH is a manifest
    (.yaml, .yml), a context file (.json) or a folder of manifests. Exit code 0: valid; 1: not.
    """
    checked, problems, away = _check_paths(settings, paths) if paths else _check_all(settings)
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


def _check_all(settings: Settings) -> tuple[list[str], list[Problem], bool]:
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
    checked: list[str] = []
    for path in _expand(paths):
        checked.append(str(path))
        try:
            found = files.read(path, context_file.MAX_BYTES)
            if found is None:
                raise UsageError(f"{path} does not exist")
            problems += _check_bytes(settings, found[0], path)
        except InputError as error:
            problems += error.problems
    return checked, problems, False


def _expand(paths: tuple[str, ...]) -> list[Path]:
    expanded: list[Path] = []
    for path in map(Path, paths):
        found = manifests.manifest_files(path) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path} holds no manifests", hint="they end in .yaml or .yml")
        expanded += found
    return expanded


def _check_bytes(settings: Settings, data: bytes, path: Path) -> list[Problem]:
    shown = str(path)
    if path.name == FILE:
        documents = read_documents(data, shown)
        value: Any = documents[0].value if documents else {}
        return schema.validate("settings", value, locator(data, shown, 0), source=shown)
    if path.suffix in (".yaml", ".yml"):
        return manifests.parse(data[: MAX_BYTES + 1], shown)[1]
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
    wrong = what_is_wrong(found)
    if output != "text":
        print_data(_status_json(settings, found, store, journal, wrong), output)
    else:
        _print_status(settings, found, store, journal, wrong)
    return 1 if wrong else 0


def what_is_wrong(found: Round) -> list[str]:
    wrong = [str(problem) for problem in found.plan.errors]
    if not found.plan.redis_up:
        wrong.append("Redis is away; work goes on in files")
    return wrong


def _holder(settings: Settings) -> int | None:
    return files.Lock.holder(settings.folder / "lock")


def _status_json(settings: Settings, found: Round, store: str, journal: int, wrong: list[str]) -> dict[str, Any]:
    health = read_health(settings)
    return {
        "schema_version": 1,
        "healthy": not wrong,
        "root": str(settings.root),
        "store": store,
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
        "journal": journal,
        "reconciler_pid": _holder(settings),
        "last_round": format_time(health.at) if health else None,
        "last_good_round": format_time(health.succeeded) if health and health.succeeded else None,
        "wrong": wrong,
    }


def _print_status(settings: Settings, found: Round, store: str, journal: int, wrong: list[str]) -> None:
    now = time.time_ns() // 1000
    health, pid = read_health(settings), _holder(settings)
    round_text = f"{render.ago(now - health.at)} ago" if health else "never"
    if health and health.succeeded != health.at:
        good = f"{render.ago(now - health.succeeded)} ago" if health.succeeded else "never"
        round_text += f" (exit code {health.code}; last good one: {good})"
    click.echo(f"workspace   {settings.root}")
    click.echo(f"store       {store}" + ("" if found.plan.redis_up else " (away)"))
    click.echo(f"reconciler  {f'running, pid {pid}' if pid is not None else 'not running'}")
    click.echo(f"last round  {round_text}")
    click.echo(f"now         {render.summary(found.plan)}")
    if journal:
        click.echo(f"journal     {journal} writes wait for Redis")
    print_agents(found.merged)
    for line in wrong:
        click.secho(f"wrong: {line}", fg="red")


@click.command("schema")
@click.argument("name", required=False)
def schema_command(name: str | None) -> int:
    """Print a JSON Schema (draft 2020-12); without NAME, list them. Needs no workspace."""
    click.echo(schema.schema_text(name) if name else "\n".join(schema.schema_names()))
    return 0
