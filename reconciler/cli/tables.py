"""The shared state as a table for a person. rich is imported when something is printed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from ..events import Event
from ..render import ago, clip
from ..state import CONTEXT, QUIET, SHARED, Agent, NotJson, State, decode, encode, present

MOST = 50
"""Agents shown; more are counted."""


def print_agents(merged: State) -> None:
    """One line an agent: name, status, how fresh it is, what it holds."""
    now = time.time_ns() // 1000
    agents = [(name, fields) for name, fields in sorted(merged.items()) if present(fields) and name != SHARED]
    if not agents:
        click.echo("No agents.")
        return
    rows = [
        (name, _status(fields), ago(max(now - _newest(fields), 0)), _holds(fields)) for name, fields in agents[:MOST]
    ]
    print_table(("agent", "status", "age", "holds"), rows)
    if len(agents) > MOST:
        click.echo(f"and {len(agents) - MOST} more: reconciler get lists them")


def print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(clip(cell, 60)) for cell in row))
    console = Console(highlight=False, soft_wrap=False, emoji=False)  # there are none, and their names are many
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def change_lines(event: Event) -> Iterator[tuple[str, str]]:
    """What an event changed: create, update or delete, and a line for a person; or which value lost."""
    match event.more.get("conflict"):
        case {"field": field, "lost": {"value": lost, "by": loser}, "won": {"value": won, "by": winner}}:
            beaten, winner = f"{clip(shown(lost), 30)} by {clip(str(loser), 40)}", clip(str(winner), 40)
            yield "update", f"! {clip(str(field), 40)}  {beaten} lost to {clip(shown(won), 30)} by {winner}"
    for change in event.changes:
        op, field, by = str(change.get("op")), clip(str(change.get("field")), 40), clip(str(change.get("by")), 40)
        old, new = shown(change.get("old")), shown(change.get("new"))
        lines = {"create": f"+ {field}  {clip(new, 60)}", "delete": f"- {field}  {clip(old, 60)}"}
        text = lines.get(op, f"~ {field}  {clip(old, 30)} → {clip(new, 30)}")
        yield op, text + (f"  by {by}" if by != event.origin else "")


def shown(value: Any) -> str:
    """A value as a person sees it; also a number that is too large for Python, which no JSON can be made of."""
    try:
        return encode(value)
    except NotJson:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _status(fields: Agent) -> str:
    text = present(fields).get("status")
    return str(decode(text)) if text else "-"


def _newest(fields: Agent) -> int:
    return max((value.at for value in fields.values()), default=0)


def _holds(fields: Agent) -> str:
    names = [name.removeprefix(CONTEXT) for name in present(fields) if name != "status" and name not in QUIET]
    return ", ".join(sorted(names)) or "-"
