"""diff, apply, run: the round, dry, once, and until stopped."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from .. import files, render
from ..controller import Options, Round, reconcile_or_away
from ..errors import NotFound, UsageError
from ..health import write_health
from ..hub import check_known
from ..plan import Content, Limit, Plan
from ..settings import FIRST_RUN, Settings
from ..state import NotJson, decode, decode_at, members, split_object
from ..workspace import open_workspace
from .common import STYLES, busy, output_option, print_text, read_input, report, verb, warn
from .tables import print_agents

_prune = click.option("--prune", is_flag=True, help="Delete agents that one side has lost. Default: restore them.")
_first_run = click.option(
    "--first-run",
    type=click.Choice(FIRST_RUN),
    metavar="WHO",
    help="Who wins when there is no base yet: newer, files or live. Default: newer.",
)


@verb("diff")
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@_prune
@_first_run
@output_option("text", "json", "markdown")
def diff_command(settings: Settings, agents: tuple[str, ...], prune: bool, first_run: str | None, output: str) -> int:
    """Show what `apply` would do: per agent and field the old and the new value, the direction, and why.

    Writes nothing, anywhere. Exit code 0: in sync; 1: differences; 3: part of it cannot be read.
    """
    with open_workspace(settings, warn, reading=True) as workspace, busy("Comparing"):
        found = reconcile_or_away(workspace, Options(dry=True, prune=prune, first_run=first_run))
    plan = found.plan
    if agents:
        try:
            check_known(agents, found.merged)
        except NotFound as error:  # 1 would say that there are differences
            raise UsageError(error.message, hint=error.hint) from None
        plan = plan.only(agents)
    show(plan, output)
    report(plan.problems)
    if plan.errors:
        return 3
    if not plan.redis_up:
        return 5
    return 0 if plan.in_sync else 1


def show(plan: Plan, output: str) -> None:
    if output == "json":
        print_text(render.to_json(plan), output)
    elif output == "markdown":
        click.echo("\n".join(render.markdown(plan)))
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
        lines = render.text_lines(plan, columns)
        click.echo("\n".join(click.style(line.text, **STYLES.get(line.style, {})) for line in lines))


@verb("apply")
@click.option("--plan", metavar="FILE", help="Apply exactly this plan (from diff -o json; - for stdin), or nothing.")
@_prune
@click.option("--force", is_flag=True, help="No guard against deleting too much.")
@click.option("--max-deletes", metavar="N|N%", help="How many agents may be deleted. Default: 30%, and at least 3.")
@_first_run
@output_option("text", "json", "markdown")
def apply_command(settings: Settings, plan: str | None, output: str, **chosen: Any) -> int:
    """Make files and Redis agree: every field's newest value wins, in both directions.

    Exit code 0: done; 3: part of it is quarantined; 4: refused; 5: done on files only, Redis is away.
    """
    options = Options(reviewed=_read_plan(plan) if plan else None, **chosen)
    if options.max_deletes is not None:
        Limit.parse(options.max_deletes)
    # Redis first: where it refuses, not even a lock is left behind.
    with open_workspace(settings, warn) as workspace, held(settings):
        with busy("Reconciling"):
            done = reconcile_or_away(workspace, options)
        finish(settings, done)
    show(done.plan, output)
    report_round(done)
    if output == "text":
        click.echo(said(done))
    return done.exit_code


def said(done: Round) -> str:
    """One line: what was done."""
    if not done.plan.redis_up:
        return "Done on files only: Redis is away and learns the rest when it is back."
    done_what = "Done" if done.plan.changes else "Nothing to do"
    wrong = len(done.plan.errors) + len(done.refused)
    return f"{done_what}, but {wrong} error{'s' * (wrong != 1)} above." if wrong else f"{done_what}."


def held(settings: Settings) -> files.Lock:
    """The workspace's lock: one reconciler at a time."""
    files.private_folder(settings.folder)
    return files.Lock(settings.folder / "lock")


def finish(settings: Settings, done: Round) -> None:
    """What follows a round: health.json, and the day's backup."""
    from datetime import datetime

    write_health(settings, done)
    folder = settings.folder / "backups"
    if settings.backups and settings.context_file.exists() and "context.json" not in str(done.plan.errors):
        files.backup(settings.context_file, folder, datetime.now().astimezone().date(), settings.backups)


def _read_plan(name: str) -> tuple[Content, ...]:
    """The reviewed changes, as `Plan.contents` gives them, every value token for token."""
    text = read_input(name, "--plan")
    try:
        plan = decode(text)
        if plan["schema_version"] != 1 or not isinstance(plan["changes"], list):
            raise KeyError
        return tuple(content for change in _elements(text) if (content := _content(change)) is not None)
    except (NotJson, KeyError, TypeError, AttributeError):
        hint = "make one with: reconciler diff -o json"
        raise UsageError(f"--plan {name}: not a plan", hint=hint) from None


def _elements(text: str) -> list[dict[str, str]]:
    """The changes of a plan, each as its members' texts."""
    start = len(text) - len(text.lstrip(" \t\r\n"))
    changes = next(member for member in members(text, start) if member.key == "changes")
    position, found = changes.start + 1, []
    while position < changes.end - 1:
        if text[position] in ", \t\r\n":
            position += 1
            continue
        _, end = decode_at(text, position)
        found.append(split_object(text[position:end]))
        position = end
    return found


def _content(texts: dict[str, str]) -> Content | None:
    """None for a time that is only carried along."""
    if decode(texts["quiet"]):
        return None
    agent, field, direction, op, by = (decode(texts[key]) for key in ("agent", "field", "direction", "op", "by"))
    old = None if op == "create" else texts["old"]
    new = None if op == "delete" else texts["new"]
    return agent, field, direction, old, new, by


@verb("run")
@click.option("--once", is_flag=True, help="Stop after the first round.")
@_prune
def run_command(settings: Settings, once: bool, prune: bool) -> int:
    """Keep files and Redis in agreement until Ctrl-C; with --once, one round and its result in full.

    Prints the plan, what was done and the resulting shared state; after that, each round that changed something.
    """
    options = Options(prune=prune)
    if once:
        with open_workspace(settings, warn) as workspace, held(settings):
            with busy("Reconciling"):
                done = reconcile_or_away(workspace, options)
            tell(settings, done)
        print_agents(done.merged)
        return done.exit_code
    with open_workspace(settings, warn, reading=True):
        pass  # a server that refuses, or an address that is wrong, is told before anything is touched
    with held(settings):
        from ..daemon import Daemon

        shown: list[Round] = []

        def on_round(done: Round) -> None:
            tell(settings, done)
            if not shown:
                print_agents(done.merged)
                click.echo("Watching for changes. Ctrl-C stops.", err=True)
            shown[:] = [done]

        Daemon(settings, options, on_round, warn).run()
        click.echo("Stopped.", err=True)
    return 0


def tell(settings: Settings, done: Round) -> None:
    """One round for a person, and for health.json."""
    finish(settings, done)
    show(done.plan, "text")
    report_round(done)
    click.echo(said(done))


def report_round(done: Round) -> None:
    report(done.plan.problems)
    for line in done.refused:
        click.echo(f"error: refused by Redis: {line}", err=True)
