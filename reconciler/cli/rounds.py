"""apply, run: the round, once, and until stopped."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from .. import files
from ..controller import Options, Round, back_up, reconcile_or_away
from ..errors import UsageError
from ..health import RUN, STARTING, after_round, write_health
from ..plan import Content, Limit
from ..settings import Settings
from ..settled import note_settled
from ..stamp import format_time
from ..state import NotJson, decode, decode_at, members, split_object
from ..workspace import open_workspace
from .common import busy, output_option, read_input, report, settings_of, verb, warn
from .comparing import first_run_option, prune_option, show
from .tables import print_agents

if TYPE_CHECKING:
    from ..daemon import Notice


@verb("apply")
@click.option("--plan", metavar="FILE", help="Apply exactly this plan (from diff -o json; - for stdin), or nothing.")
@prune_option
@click.option("--force", is_flag=True, help="No guard against deleting too much.")
@click.option("--max-deletes", metavar="N|N%", help="How many agents may be deleted. Default: 30%, and at least 3.")
@first_run_option
@output_option("text", "json", "markdown")
def apply_command(settings: Settings, plan: str | None, output: str, **chosen: Any) -> int:
    """Make files and Redis agree: every field's newest value wins, in both directions.

    Exit code 0: done; 3: part of it is quarantined; 4: refused; 5: done on files only, Redis is away.
    """
    options = Options(reviewed=_read_plan(plan) if plan is not None else None, **chosen)
    if options.max_deletes is not None:
        Limit.parse(options.max_deletes)
    # Redis first: where it refuses, not even a lock is left behind.
    with open_workspace(settings, warn) as workspace, held(settings):
        with busy("Reconciling"):
            done = reconcile_or_away(workspace, options)
            note_settled(workspace)
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
    """The workspace's lock: one reconciler at a time. A `run` keeps it, so nobody waits for that one; any other
    holder, such as a hub that writes the file while Redis is away, is soon done."""
    files.private_folder(settings.folder)
    path = settings.folder / "lock"
    holder = files.Lock.holder(path)
    lasting = holder is not None and files.Lock.signed(path, holder) in (STARTING, RUN)
    return files.Lock(path, 0.05 if lasting else SHORT_WORK)


def finish(settings: Settings, done: Round) -> None:
    """What follows a round by hand: health.json, and the day's backup."""
    write_health(settings, after_round(settings, done))
    back_up(settings, done)


LASTING = (
    "rich.box",
    "rich.console",
    "rich.table",
    "rich.text",
    "reconciler.sources.yaml_text",
    "reconciler.sources.yaml_usual",
)
"""What the first round of `run` needs anyway, imported before it: it makes very many objects, and where one that stays
lies among them their memory is not given back."""

SHORT_WORK = 10.0
"""Seconds to wait for those who hold the workspace's lock for one piece of work, one after the other."""


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
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    metavar="text|json",
    help="text for people; json: one document a line on stderr. Default: text.",
)
@prune_option
@click.pass_context
def run_command(ctx: click.Context, settings: Settings, once: bool, log_format: str, prune: bool) -> int:
    """Keep files and Redis in agreement until Ctrl-C; with --once, one round and its result in full.

    Prints the plan, what was done and the resulting shared state; after that, each round that changed something
    and each thing that went wrong or is good again. SIGHUP reads the settings again.
    """
    options = Options(prune=prune)
    if once:
        with open_workspace(settings, warn) as workspace, held(settings):
            with busy("Reconciling"):
                done = reconcile_or_away(workspace, options)
            finish(settings, done)
        show_round(done)
        print_agents(done.merged)
        return done.exit_code
    with held(settings) as lock:
        lock.sign(STARTING)
        from ..daemon import Daemon, Notice

        for module in LASTING:
            import_module(module)

        def tell(notice: Notice) -> None:
            with ctx.scope(cleanup=False):  # click keeps for each thread whether there are colours
                (log_line if log_format == "json" else tell_person)(notice)

        Daemon(settings, options, tell, lambda: settings_of(ctx)).run(lock)
        tell(Notice("stopped", "info", "Stopped."))
    return 0


def tell_person(notice: Notice) -> None:
    """A change of state for a person who watches; where nobody does, as one line of a log, but for the first round."""
    started, watched = notice.event == "started", sys.stdout.isatty()
    if notice.done is not None and (started or watched):
        show_round(notice.done)
    if notice.done is not None and started:
        print_agents(notice.done.merged)
        click.echo("Watching for changes. Ctrl-C stops.", err=True)
    elif notice.event == "stopped":
        click.echo(notice.text, err=True)
    elif notice.done is None or not watched:
        colour = {"error": "red", "warning": "yellow"}.get(notice.level)
        moment = "" if watched else format_time(time.time_ns() // 1000) + "  "
        level = "" if notice.level == "info" else click.style(f"{notice.level}: ", fg=colour)
        click.echo(moment + level + notice.text, err=True)


def log_line(notice: Notice) -> None:
    """A change of state as one JSON document."""
    moment = format_time(time.time_ns() // 1000)
    line = {"time": moment, "level": notice.level, "event": notice.event, "message": notice.text, **notice.facts}
    click.echo(json.dumps(line, ensure_ascii=False), err=True)


def show_round(done: Round) -> None:
    """One round for a person."""
    show(done.plan, "text")
    report_round(done)
    click.echo(said(done))


def report_round(done: Round) -> None:
    report(done.plan.problems)
    for line in done.refused:
        click.echo(f"error: refused by Redis: {line}", err=True)
