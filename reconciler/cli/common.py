"""What every verb shares: the options that choose a workspace, and how problems and plans are printed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:  # `--help` imports this module, and must stay fast
    from ..errors import Problem
    from ..settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

STYLES: Mapping[str, dict[str, Any]] = {
    "agent": {"bold": True},
    "create": {"fg": "green"},
    "delete": {"fg": "red"},
    "update": {"fg": "yellow"},
    "quiet": {"dim": True},
    "withheld": {"fg": "magenta"},
    "note": {"fg": "cyan"},
    "sum": {"bold": True},
}

_COMMON = (
    ("--root", "DIR", "The workspace. Default: LUKA_SOT, else ~/02luka."),
    ("--redis", "URL", "redis://host:port/0, unix:///path, or embedded: for a private Valkey."),
    ("--manifests", "DIR", "The folder of manifests. Default: manifests in the workspace."),
)


def common_options(function: F) -> F:
    """--root, --redis and --manifests; they may stand before the verb or behind it."""
    for flag, metavar, text in reversed(_COMMON):
        function = click.option(flag, metavar=metavar, help=text)(function)
    return function


def remember_options(ctx: click.Context, given: Mapping[str, str | None]) -> None:
    """Keep what was given; an option behind the verb wins over one before it."""
    chosen: dict[str, str | None] = ctx.ensure_object(dict)
    chosen.update({name: value for name, value in given.items() if value is not None})


def verb(name: str, *, checks: str = "") -> Callable[[Callable[..., int | None]], click.Command]:
    """A verb of a workspace: its function gets the settings first, then its own options.

    `checks`: the parameter of a verb that checks what it names. With it the current folder will do where no workspace
    is named; and what is wrong with reconciler.yaml is for the verb to tell, as `wrong`.
    """
    from . import VERBS

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @click.pass_context
        def run(ctx: click.Context, /, **options: Any) -> int | None:
            common = {flag[2:]: options.pop(flag[2:]) for flag, _, _ in _COMMON}
            remember_options(ctx, common)
            if not checks:
                return function(settings_of(ctx), **options)
            wrong: list[Problem] = []
            return function(settings_of(ctx, "." if options[checks] else None, wrong), wrong=wrong, **options)

        run.__doc__ = function.__doc__
        run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        return click.command(name, Verb, short_help=VERBS[name][1])(common_options(run))

    return decorate


class Verb(click.Command):
    """A command whose every usage error names it: the parser's own do not."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


def settings_of(ctx: click.Context, otherwise: str | None = None, wrong: list[Problem] | None = None) -> Settings:
    """The settings; `otherwise` is the root where none is named. `wrong`: see `read_settings`."""
    from ..workspace import read_settings

    chosen: dict[str, str | None] = ctx.ensure_object(dict)
    root = chosen.get("root")
    if root is None and not os.environ.get("LUKA_SOT"):
        root = otherwise
    return read_settings(root, {key: value for key, value in chosen.items() if key != "root"}, wrong=wrong)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """On a terminal, a moving line with the time that went by, once it takes more than half a second."""
    if not (sys.stderr and sys.stderr.isatty()):
        yield
        return
    import threading

    done = threading.Event()

    def move() -> None:
        if done.wait(0.5):
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            progress.add_task(what, total=None)
            done.wait()

    mover = threading.Thread(target=move, name="progress")
    mover.start()
    try:
        yield
    finally:
        done.set()
        mover.join()


def warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


def report(problems: Iterable[Problem], *, warnings: bool = False) -> None:
    """Print problems on stderr, errors in full; warnings are counted unless asked for."""
    held_back = 0
    for problem in problems:
        if problem.severity == "warning" and not warnings:
            held_back += 1
            continue
        colour = "red" if problem.severity == "error" else "yellow"
        click.echo(click.style(f"{problem.severity}: ", fg=colour) + str(problem), err=True)
        if sys.stderr.isatty() and problem.text:
            from ..schema import caret

            click.echo(caret(problem), err=True)
    if held_back:
        click.echo(f"{held_back} warning{'s' * (held_back != 1)}: reconciler validate shows them", err=True)


def read_input(name: str, option: str) -> str:
    """The text of a file an option names, `-` for standard input. Raises UsageError."""
    from ..errors import UsageError

    try:
        if name == "-":
            return sys.stdin.buffer.read().decode() if sys.stdin else ""
        with open(name, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{option} {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option} {name}: not UTF-8 text") from None


def print_data(value: object, output: str) -> None:
    """Plain data as JSON or YAML."""
    import json

    print_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), output)


def print_text(text: str, output: str) -> None:
    """JSON text, laid out; every token stays as it was written. `output`: json or yaml."""
    if output == "json":
        from ..state import reindent

        click.echo(printable(reindent(text)))
        return
    import json

    from ..sources.yaml_text import write_document

    click.echo(write_document(json.loads(text)).rstrip())


def printable(text: str) -> str:
    """JSON text as stdout can show it."""
    utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return text if utf8 else _NOT_ASCII.sub(_escape, text)


_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def _escape(found: re.Match[str]) -> str:
    """A character as JSON writes it where only ASCII can be printed."""
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def number_from_1(most: int | None = None) -> Callable[[object], int]:
    """The type of an option: a number from 1 on, up to `most`."""

    def number(given: object) -> int:
        text = str(given)
        found = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0
        if not 1 <= found <= (most or found):
            raise click.BadParameter(f"{text[:40]!r} is not a number from 1 {f'to {most:,}' if most else 'on'}")
        return found

    return number


def output_option(*formats: str) -> Callable[[F], F]:
    """-o FORMAT; the first one is the default."""
    text = f"{', '.join(formats[:-1])} or {formats[-1]}. Default: {formats[0]}."
    choice = click.Choice(formats)
    return click.option("-o", "--output", type=choice, default=formats[0], metavar="FORMAT", help=text)
