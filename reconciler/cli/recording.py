"""record: a result is dropped into the spool, as the shell hooks do it, without Redis and without waiting."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import click

from ..drops import RAW, REASON, Part, pack, parse
from ..errors import UsageError
from ..files import Lock
from ..render import clip
from ..settings import Settings
from ..spool import MAX_BYTES, drop
from ..state import CONTEXT, NotJson, decode, read_json
from ..updates import check_name
from .common import F, verb

_KEYS = (
    ("task", "last_task", "text", "ID", "The task: last_task."),
    ("status", "task_status", "text", "TEXT", "How the task stands: task_status."),
    ("proposal", "last_proposal", "text", "ID", "The proposal: last_proposal."),
    ("outcome", "outcome", "text", "TEXT", "What came of the proposal: outcome."),
    ("error", "error", "text", "TEXT", "What went wrong: error."),
    ("metrics", "metrics", "json", "JSON", "Numbers: metrics."),
    ("score", "score", "json", "NUMBER", "The score: score."),
    ("score-delta", "score_delta", "json", "NUMBER", "How the score moved: score_delta."),
    ("learning", "learning", "text", "TEXT", "What was learnt: learning."),
)
"""Option, context key, type, what it takes, help: the keys are those of the shell hooks."""


def _options(function: F) -> F:
    for option, key, _, metavar, text in reversed(_KEYS):
        function = click.option(f"--{option}", key, metavar=metavar, help=text)(function)
    return function


@verb("record")
@click.argument("agent")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@_options
@click.option("--json", "source", metavar="FILE", help="The result, as JSON: result. - reads stdin.")
def record_command(
    settings: Settings, agent: str, pairs: tuple[str, ...], source: str | None, **keys: str | None
) -> int:
    """Drop a result into the spool: the next round takes it in, with the time of now. Needs no Redis.

    A result that is not JSON is kept as text under result_raw, with the reason. Of KEY=VALUE, a VALUE that reads as
    JSON is JSON, anything else is text.
    """
    check_name(agent)
    parts = [Part(key, kind, os.fsencode(_number(key, text)))
             for _, key, kind, _, _ in _KEYS if (text := keys[key]) is not None]  # fmt: skip
    if source is not None:
        parts.append(Part("result", "json", _read(source)))
    parts += map(_pair, pairs)
    if not parts:
        raise UsageError("nothing to record", hint="for example: --task WO-1 --status completed --json -")
    data = pack(agent, parts)
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{len(data)} bytes are more than a result may have, {MAX_BYTES}",
            hint="write it to a file of its own, and record its name",
        )
    name = drop(settings, agent, parts)
    fields = parse(name, data).fields
    said = [field.removeprefix(CONTEXT) for field, value in fields.items() if value.text and not field.endswith(REASON)]
    click.echo(f"{agent}: {', '.join(said)} recorded")
    for field, value in fields.items():
        if field.endswith(REASON) and value.text:
            key = field.removeprefix(CONTEXT).removesuffix(REASON)
            click.echo(f"warning: {key} is kept as {key}{RAW}: {decode(value.text)}", err=True)
    if Lock.holder(settings.folder / "lock") is None:
        click.echo("no reconciler is running: the next `reconciler apply` takes it in", err=True)
    return 0


def _number(key: str, text: str) -> str:
    """`+3` is how people write a change for the better; JSON has no such number."""
    return text.removeprefix("+") if key.startswith("score") else text


def _read(source: str) -> bytes:
    """The bytes of a file, `-` for standard input: what they are is for the drop to say."""
    try:
        if source == "-":
            return sys.stdin.buffer.read() if sys.stdin else b""
        return Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"--json {source}: {error.strerror}") from None


def _pair(pair: str) -> Part:
    key, equals, text = pair.partition("=")
    key = key.removeprefix(CONTEXT)
    if not equals or not key or not key.isprintable():
        raise UsageError(f"{clip(pair, 40)!r} is not KEY=VALUE", hint="for example: attempts=3 note='all good'")
    return Part(key, "json" if _is_json(text) else "text", os.fsencode(text))


def _is_json(text: str) -> bool:
    if not re.match(r'[{\["]|-?\d|(true|false|null)$', text):
        return False
    try:
        return bool(read_json(text))
    except NotJson:
        return False
