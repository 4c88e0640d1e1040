"""watch: events as they happen."""

from __future__ import annotations

import re
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import click

from ..events import Event
from ..render import clip
from ..settings import Settings
from .common import STYLES, number_from_1, printable, verb, warn
from .tables import change_lines, shown

if TYPE_CHECKING:
    from ..follow import Since
    from ..subscribe import Subscription

LOOK = 1.0
"""Seconds after which a silent `watch` looks whether anybody still reads it."""


@verb("watch")
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@click.option("--event", "events", multiple=True, metavar="NAME", help="Only events of this name; may be repeated.")
@click.option(
    "--since",
    metavar="VERSION|TIME",
    help="First what the history holds: after a version, or from a time on (2025-11-12T08:00, or seconds with a dot).",
)
@click.option("--count", type=number_from_1(), metavar="N", help="End after N events.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("text", "json")),
    metavar="FORMAT",
    help="text or json, one document a line. Default: text on a terminal, else json.",
)
def watch_command(
    settings: Settings, agents: tuple[str, ...], events: tuple[str, ...], since: str | None, count: int, output: str
) -> int:
    """Print events as they happen, of all agents or of those named, until Ctrl-C.

    Redis away is waited for, and what was missed meanwhile is read from the history.
    """
    from ..subscribe import Subscription
    from ..workspace import open_store

    say = print_event if (output or _default()) == "text" else print_line
    with (
        open_store(settings, warn, lasting=True) as store,
        Subscription(store, agents, events, _since(since), warn=warn) as subscription,
        _ending(subscription),
    ):
        _follow(subscription, say, count)
    return 0


def _default() -> str:
    return "text" if sys.stdout and sys.stdout.isatty() else "json"


def _since(text: str | None) -> Since:
    """A version is written in digits only, with fewer than ten of them; everything else is a time."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else text


def _follow(subscription: Subscription, say: Callable[[Event], None], count: int | None) -> None:
    given = 0
    while count is None or given < count:
        event = subscription.next_event(LOOK)
        if event is not None:
            say(event)
            if sys.stdout:
                sys.stdout.flush()
            given += 1
        elif subscription.closed:
            return
        elif not _is_read():
            raise BrokenPipeError


def _is_read() -> bool:
    """Whether anybody can still read what is printed; a pipe tells before it is written to."""
    with suppress(OSError, ValueError, TypeError):
        poll = select.poll()
        poll.register(sys.stdout, 0)
        return not any(state & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, state in poll.poll(0))
    return True


@contextmanager
def _ending(subscription: Subscription) -> Iterator[None]:
    """The first signal ends it after the event in hand, the second at once."""

    def end(number: int, frame: FrameType | None) -> None:
        if subscription.closed:
            raise KeyboardInterrupt
        subscription.close()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_line(event: Event) -> None:
    click.echo(printable(event.line))


def print_event(event: Event) -> None:
    """When, who, what; below it the fields that changed."""
    urgent = STYLES["delete"] if event.priority == "high" else {}
    name = click.style(clip(event.agent, 64), **STYLES["agent"])
    what = click.style(clip(event.event, 40), **urgent)
    facts = [f"version {event.version}"] if event.version else []
    facts += [clip(event.origin, 40)] if event.origin else []
    facts += [event.priority] if event.priority != "normal" else []
    facts += ["replayed"] if event.replayed else []
    quiet = click.style("  ".join(facts), **STYLES["quiet"])
    click.echo(f"{click.style(clip(event.timestamp, 40), **STYLES['quiet'])}  {name}  {what}  {quiet}".rstrip())
    for op, line in change_lines(event):
        click.secho(f"        {line}", **STYLES.get(op, {}))
    if not event.changes and event.data:
        click.echo(f"        {clip(shown(event.data), 100)}")
