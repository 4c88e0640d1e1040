"""diff: the round, dry, and how a plan is shown."""

from __future__ import annotations

import shutil
import sys

import click

from .. import render
from ..bulk import making_many
from ..errors import NotFound, UsageError
from ..plan import Plan
from ..settings import FIRST_RUN, Settings
from ..settled import is_settled
from ..workspace import Workspace, open_workspace
from .common import STYLES, busy, output_option, print_text, report, verb, warn

prune_option = click.option(
    "--prune", is_flag=True, help="Delete agents that one side has lost. Default: restore them."
)
first_run_option = click.option(
    "--first-run",
    type=click.Choice(FIRST_RUN),
    metavar="WHO",
    help="Who wins when there is no base yet: newer, files or live. Default: newer.",
)


@verb("diff")
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@prune_option
@first_run_option
@output_option("text", "json", "markdown")
@making_many()
def diff_command(settings: Settings, agents: tuple[str, ...], prune: bool, first_run: str | None, output: str) -> int:
    """Show what `apply` would do: per agent and field the old and the new value, the direction, and why.

    Writes nothing, anywhere. Exit code 0: in sync; 1: differences; 3: part of it cannot be read.
    """
    with open_workspace(settings, warn, reading=True) as workspace, busy("Comparing"):
        known = not agents and not prune and is_settled(workspace)
        plan = Plan() if known else _look(workspace, agents, prune, first_run)
    show(plan, output)
    report(plan.problems)
    if plan.errors:
        return 3
    if not plan.redis_up:
        return 5
    return 0 if plan.in_sync else 1


def _look(workspace: Workspace, agents: tuple[str, ...], prune: bool, first_run: str | None) -> Plan:
    """The plan of a dry round; only what concerns `agents`, if any are named."""
    from ..controller import Options, reconcile_or_away  # where nothing changed, this costs more than the rest

    found = reconcile_or_away(workspace, Options(dry=True, prune=prune, first_run=first_run))
    if not agents:
        return found.plan
    from ..hub import check_known

    try:
        check_known(agents, found.merged)
    except NotFound as error:  # 1 would say that there are differences
        raise UsageError(error.message, hint=error.hint) from None
    return found.plan.only(agents)


def show(plan: Plan, output: str) -> None:
    if output == "json":
        print_text(render.to_json(plan), output)
    elif output == "markdown":
        click.echo("\n".join(render.markdown(plan)))
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
        lines = render.text_lines(plan, columns)
        marks = {style: click.style("\0", **how).split("\0") for style, how in STYLES.items()}
        click.echo("\n".join(line.text.join(marks[line.style]) for line in lines))
