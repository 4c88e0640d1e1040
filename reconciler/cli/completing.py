"""completion: what teaches zsh or bash to complete verbs, options and the names of agents.

Completing asks neither Redis nor the base: each press of the key would wait for them. Names come from context.json,
which holds every agent that a round has seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import BashComplete, CompletionItem, ZshComplete

VARIABLE = "_RECONCILER_COMPLETE"
_LARGEST = 64 << 20


class _Bash(BashComplete):
    @staticmethod
    def _check_version() -> None:
        """Bash is asked by the script itself: which one will run it is not known here."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["zsh", "bash"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> int:
    """Print what completes this command in SHELL; needs no workspace.

    \b
    zsh   in ~/.zshrc, behind compinit:  eval "$(reconciler completion zsh)"
    bash  in ~/.bashrc:                  eval "$(reconciler completion bash)"

    bash must be 4.4 or newer; the one that macOS ships is older, so there use zsh.
    """
    kind = ZshComplete if shell == "zsh" else _Bash
    click.echo(kind(ctx.find_root().command, {}, "reconciler", VARIABLE).source())
    return 0


class _Agent(click.types.StringParamType):
    """The name of an agent."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _items(_records(ctx), incomplete)


class _FieldOf(click.types.StringParamType):
    """A field of the agent that was named before."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        record = _records(ctx).get(str(ctx.params.get("agent")))
        if not isinstance(record, dict):
            return []
        context = record.get("context")
        inside = [f"context.{key}" for key in context] if isinstance(context, dict) else []
        return _items([key for key in record if key != "context"] + inside, incomplete)


class _Target(click.types.StringParamType):
    """What can be installed."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from ..service import NAMES

        return _items(NAMES, incomplete)


_TYPES = {"agent": _Agent(), "agents": _Agent(), "field": _FieldOf(), "targets": _Target()}


def teach(command: click.Command) -> None:
    """Let the arguments of a verb that name agents, fields or targets know what there is; called only to complete."""
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and parameter.name in _TYPES:
            parameter.type = _TYPES[parameter.name]
        elif parameter.name in ("root", "manifests"):
            parameter.type = click.Path(file_okay=False)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and name.isprintable()]


def _records(ctx: click.Context) -> dict[str, object]:
    """The agents' records in context.json; none where it cannot be read."""
    context: click.Context | None = ctx
    root: str | None = None
    while context is not None and root is None:
        root, context = context.params.get("root"), context.parent
    path = Path(root or os.environ.get("LUKA_SOT") or "~/02luka")
    try:
        path = path.expanduser() / "shared_memory" / "context.json"
        if path.stat().st_size > _LARGEST:
            return {}
        agents = json.loads(path.read_bytes())["agents"]
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return agents if isinstance(agents, dict) else {}
