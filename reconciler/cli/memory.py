"""get, set, delete, history, export: reading and writing the shared memory by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from ..controller import Options, look
from ..errors import ReconcilerError, UsageError
from ..events import Event
from ..hub import UnifiedMemoryHub, WriteResult, check_name
from ..render import clip
from ..settings import Settings
from ..sources.manifests import to_yaml_plain
from ..sources.yaml_text import write_document
from ..state import CONTEXT, SHARED, NotJson, decode, encode, present, reindent
from ..store import AwayStore
from .common import output_option, print_json, read_input, verb, warn


def _hub(settings: Settings) -> UnifiedMemoryHub:
    return UnifiedMemoryHub(settings=settings, warn=warn)


def _away_code(hub: UnifiedMemoryHub) -> int:
    """5, and one line about it, when the answer came from files."""
    store = hub.workspace.store
    if not isinstance(store, AwayStore):
        return 0
    click.echo(f"{store.reason}; files were used", err=True)
    return store.reason.exit_code


@verb("get")
@click.argument("agent", required=False)
@output_option("json", "yaml")
def get_command(settings: Settings, agent: str | None, output: str) -> int:
    """Print the shared memory as JSON, or one agent's record. From the files while Redis is away."""
    with _hub(settings) as hub:
        text = hub.agent_text(agent) if agent is not None else hub.unified_text()
        code = _away_code(hub)
    click.echo(reindent(text) if output == "json" else write_document(decode(text)).rstrip())
    return code


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
    context = {**(_read_object(source) if source else {})}
    status = values.pop("status", None)
    if status is not None and not isinstance(status, str):
        status = encode(status)
    for key, value in values.items():
        context[key.removeprefix(CONTEXT)] = value
    with _hub(settings) as hub:
        done = hub.update_agent_context(agent, context, status=status, fields=dict(_pair(pair) for pair in fields))
        _say(done, output)
        return _away_code(hub) or _hint_mirror(settings)


def _pair(pair: str) -> tuple[str, Any]:
    key, equals, text = pair.partition("=")
    if not equals or not key:
        raise UsageError(f"{clip(pair, 40)!r} is not KEY=VALUE", hint="for example: status=busy task='\"a b\"'")
    if not re.match(r'[{\["]|-?\d|(true|false|null)$', text):
        return key, text
    try:
        return key, decode(text)
    except NotJson as error:
        if text[0] in '{["':
            raise UsageError(f"{key}: not JSON: {error.message}", hint=f"text is quoted: {key}='\"...\"'") from None
        return key, text


def _read_object(source: str) -> dict[str, Any]:
    try:
        value = decode(read_input(source, "--json"))
    except NotJson as error:
        raise UsageError(f"--json {source}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"--json {source}: a JSON object is needed", hint='for example: {"task": "deploy"}')
    return value


def _say(done: WriteResult, output: str) -> None:
    if output == "json":
        print_json({"schema_version": 1, "agent": done.agent, "won": list(done.won), "stale": list(done.stale),
                    "version": done.version, "store": done.store})  # fmt: skip
    elif done.store == "file":
        click.echo(f"{done.agent}: {', '.join(done.won)} written to files")
    elif done.won:
        click.echo(f"{done.agent}: {', '.join(done.won)} (version {done.version})")
    else:
        click.echo(f"{done.agent}: nothing changed")


def _hint_mirror(settings: Settings) -> int:
    from ..files import Lock

    if Lock.holder(settings.folder / "lock") is None:
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
            _say(done, output)
        else:
            click.echo(f"{agent}: deleted ({len(done.won)} fields)")
        return _away_code(hub) or _hint_mirror(settings)


@verb("history")
@click.argument("agent")
@click.option("-n", "--count", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many.")
@output_option("text", "json")
def history_command(settings: Settings, agent: str, count: int, output: str) -> int:
    """Show an agent's versions, newest first: when, by whom, what changed."""
    with _hub(settings) as hub:
        events = hub.history(agent, count)
    if output == "json":
        versions = [event.to_plain() for event in events]
        print_json({"schema_version": 1, "agent": agent, "versions": versions})
        return 0
    for event in events:
        _print_version(event)
    return 0


def _print_version(event: Event) -> None:
    click.secho(f"{event.version:>6}  {event.timestamp}  {event.event}  {event.origin}", bold=True)
    for change in event.changes:
        old = clip(encode(change.get("old")), 30)
        new = clip(encode(change.get("new")), 30)
        click.echo(f"        {change.get('field')}  {old} → {new}  {change.get('by')}")


@verb("export")
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@click.option("--to", "folder", metavar="DIR", help="Write one file an agent there instead of to stdout.")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def export_command(settings: Settings, agents: tuple[str, ...], folder: str | None, force: bool) -> int:
    """Write live agents as manifests, to stdout or into a folder."""
    with _hub(settings) as hub:
        merged = look(hub.workspace, Options(dry=True)).merged
        code = _away_code(hub)
    unknown = [agent for agent in agents if not present(merged.get(agent, {}))]
    if unknown:
        raise UsageError(f"no agent {', '.join(unknown)}", hint="reconciler get lists them")
    chosen = agents or tuple(sorted(name for name, fields in merged.items() if present(fields)))
    texts = {name: write_document(to_yaml_plain(name, present(merged[name]))) for name in chosen}
    if folder is None:
        click.echo("---\n".join(texts.values()), nl=False)
        return code
    _write_manifests(Path(folder), texts, force)
    click.echo(f"{len(texts)} manifests in {folder}", err=True)
    return code


def _write_manifests(folder: Path, texts: dict[str, str], force: bool) -> None:
    from .. import files

    names = {name: folder / f"{'shared' if name == SHARED else name}.yaml" for name in texts}
    there = [str(path) for path in names.values() if path.exists()]
    if there and not force:
        raise ReconcilerError(f"{there[0]} is there already ({len(there)} in all)", hint="--force overwrites")
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in names.items():
        files.replace(path, texts[name].encode(), files.identify(path))
