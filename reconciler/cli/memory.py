"""get, set, delete, history, rollback: reading and writing the shared memory by hand."""

from __future__ import annotations

import re

import click

from ..controller import Options, Round, reconcile_or_away
from ..errors import StoreAway, UsageError
from ..events import Event
from ..hub import OneShotHub, WriteResult, check_name, unified
from ..render import clip
from ..settings import Settings
from ..state import CONTEXT, NotJson, decode, encode, read_json, split_object
from ..store import AwayStore
from ..updates import Json
from ..workspace import Workspace, open_workspace
from .common import busy, number_from_1, output_option, print_data, print_text, read_input, report, verb, warn
from .tables import change_lines


def _hub(settings: Settings, *, reading: bool = False) -> OneShotHub:
    return OneShotHub(settings=settings, warn=warn, reading=reading)


@verb("get")
@click.argument("agent", required=False)
@output_option("json", "yaml")
def get_command(settings: Settings, agent: str | None, output: str) -> int:
    """Print the shared memory as JSON, or one agent's record. From the files while Redis is away."""
    if agent is None:
        found = _merged(settings)
        print_text(unified(found.merged), output)
        return found.exit_code
    with _hub(settings, reading=True) as hub:
        print_text(hub.agent_text(agent), output)
        store = hub.workspace.store
    return _say_files(store.reason) if isinstance(store, AwayStore) else 0


def _say_files(why: object) -> int:
    click.echo(f"files were used: {why}", err=True)
    return StoreAway.exit_code


def _merged(settings: Settings) -> Round:
    """The shared memory as a round would leave it, with what cannot be read told on stderr."""
    with open_workspace(settings, warn, reading=True) as workspace, busy("Reading"):
        found = reconcile_or_away(workspace, Options(dry=True))
    report(found.plan.problems)
    if not found.plan.redis_up:
        click.echo("Redis is away; files were used", err=True)
    return found


@verb("set")
@click.argument("agent")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--json", "source", metavar="FILE", help="A JSON object of context keys; - reads stdin.")
@click.option("--field", "fields", multiple=True, metavar="KEY=VALUE", help="A hash field beside the context.")
@output_option("text", "json")
def set_command(
    settings: Settings,
    agent: str,
    pairs: tuple[str, ...],
    source: str | None,
    fields: tuple[str, ...],
    output: str,
) -> int:
    """Set context keys of an agent; `status=...` sets its status. Everything else stays as it is.

    A VALUE that reads as JSON is JSON (count=3, done=true, tags='["a"]'), anything else is text; '"3"' is the
    text 3.
    """
    check_name(agent)
    values = dict(_pair(pair) for pair in pairs)
    context = {**(_read_object(source) if source is not None else {})}
    status = values.pop("status", None)
    if isinstance(status, Json):
        said = decode(status)
        if said is None:
            raise UsageError("status=null: the status is text", hint="status=idle, or status='\"null\"' for that word")
        status = said if isinstance(said, str) else str(status)
    for key, value in values.items():
        context[key.removeprefix(CONTEXT)] = value
    with _hub(settings) as hub:
        done = hub.update_agent_context(agent, context, status=status, fields=dict(_pair(pair) for pair in fields))
        say_written(done, output)
        return code_of(done, hub.workspace)


def _pair(pair: str) -> tuple[str, str]:
    """A key and its value: text, or Json where it reads as that."""
    key, equals, text = pair.partition("=")
    if any("\ud800" <= character <= "\udfff" for character in pair):
        raise UsageError(f"{ascii(pair)[:40]} is not UTF-8 text", hint="is the terminal's locale UTF-8?")
    if not equals or not key.removeprefix(CONTEXT):
        raise UsageError(f"{clip(pair, 40)!r} is not KEY=VALUE", hint="for example: status=busy task='\"a b\"'")
    if not re.match(r'[{\["]|-?\d|(true|false|null)$', text):
        return key, text
    try:
        return key, Json(_plain(read_json(text)))
    except NotJson as error:
        if text[0] in '{["':
            raise UsageError(f"{key}: not JSON: {error.message}", hint=f"text is quoted: {key}='\"...\"'") from None
        return key, text


def _read_object(source: str) -> dict[str, str]:
    text = read_input(source, "--json").strip(" \t\r\n")
    try:
        if not isinstance(decode(text), dict):
            raise UsageError(f"--json {source}: a JSON object is needed", hint='for example: {"task": "deploy"}')
        found = split_object(text)  # refuses a key given twice
        return {key: Json(_plain(read_json(value))) for key, value in found.items()}
    except NotJson as error:
        hint = 'a JSON object is needed, for example: {"task": "deploy"}'
        raise UsageError(f"--json {source}: not JSON: {error.message}", hint=hint) from None


def _plain(text: str) -> str:
    """A string is spelt as the program does; every other token stays."""
    return encode(decode(text)) if text.startswith('"') else text


def say_written(done: WriteResult, output: str) -> None:
    if output == "json":
        facts = {
            "agent": done.agent,
            "won": done.won,
            "stale": done.stale,
            "version": done.version,
            "store": done.store,
        }
        print_data({"schema_version": 1} | facts, output)
    elif done.store == "file":
        click.echo(f"{done.agent}: {', '.join(done.won)} written to files")
    elif done.won:
        click.echo(f"{done.agent}: {', '.join(done.won)} (version {done.version})")
    else:
        click.echo(f"{done.agent}: nothing changed")


def code_of(done: WriteResult, workspace: Workspace) -> int:
    """5 for a write that only files took, else 0; and a line about it where that is not all."""
    from ..files import Lock

    if done.store == "file":
        store = workspace.store
        return _say_files(store.reason if isinstance(store, AwayStore) else "Redis took no write, and learns it later")
    if done.won and Lock.holder(workspace.settings.folder / "lock") is None:
        click.echo("no reconciler is running: context.json learns it with `reconciler apply`", err=True)
    return 0


@verb("delete")
@click.argument("agent")
@output_option("text", "json")
def delete_command(settings: Settings, agent: str, output: str) -> int:
    """Delete an agent from Redis, and from context.json with the next round; its history stays."""
    check_name(agent)
    with _hub(settings) as hub:
        done = hub.delete_agent(agent)
        if output == "json":
            say_written(done, output)
        else:
            click.echo(f"{agent}: deleted")
        return code_of(done, hub.workspace)


@verb("history")
@click.argument("agent")
@click.option("-n", "--count", type=number_from_1(100_000), default=20, show_default=True, help="How many.")
@output_option("text", "json", "yaml")
def history_command(settings: Settings, agent: str, count: int, output: str) -> int:
    """Show an agent's versions, newest first: when, by whom, what changed."""
    with _hub(settings, reading=True) as hub:
        events = hub.history(agent, count)
    if output != "text":
        versions = ",".join(event.line for event in events)  # every token as it was written
        print_text(f'{{"schema_version":1,"agent":{encode(agent)},"versions":[{versions}]}}', output)
        return 0
    for event in events:
        _print_version(event)
    return 0


def _print_version(event: Event) -> None:
    click.secho(f"{event.version:>6}  {event.timestamp}  {event.event}  {event.origin}", bold=True)
    for _, line in change_lines(event):
        click.echo(f"        {line}")


@verb("rollback")
@click.argument("agent")
@click.argument("version", type=number_from_1())
@output_option("text", "json")
def rollback_command(settings: Settings, agent: str, version: int, output: str) -> int:
    """Make an agent what it was at a version; `history` shows them. It is a new version, so nothing undoes it."""
    with _hub(settings) as hub:
        done = hub.rollback(agent, version)
        say_written(done, output)
        return code_of(done, hub.workspace)
