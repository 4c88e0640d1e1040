"""What every verb shares: the options that choose a workspace, and how problems and plans are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import Problem, UsageError
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


def verb(name: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """A verb: its function gets the settings first, then its own options."""
    from . import VERBS

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @click.pass_context
        def run(ctx: click.Context, /, **options: Any) -> int | None:
            common = {flag[2:]: options.pop(flag[2:]) for flag, _, _ in _COMMON}
            remember_options(ctx, common)
            return function(settings_of(ctx), **options)

        run.__doc__ = function.__doc__
        run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        return click.command(name, short_help=VERBS[name][1])(common_options(run))

    return decorate


def settings_of(ctx: click.Context) -> Settings:
    from ..workspace import read_settings

    chosen: dict[str, str | None] = ctx.ensure_object(dict)
    return read_settings(chosen.get("root"), {key: value for key, value in chosen.items() if key != "root"})


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
    try:
        if name == "-":
            return sys.stdin.buffer.read().decode()
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{option} {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option} {name}: not UTF-8 text") from None


def print_json(value: object) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=not _utf8()))


def _utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def output_option(*formats: str) -> Callable[[F], F]:
    """-o FORMAT; the first one is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Output format.",
    )
