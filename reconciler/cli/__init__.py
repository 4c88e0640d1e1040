"""The command line: `reconciler VERB`. Data goes to stdout, everything else to stderr.

Verbs are imported when they are called, and their one-line help stands here, so that `--help` stays fast. Every
error is one line with the way out, and the exit code of its class; no traceback reaches a person.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from .. import __version__
from ..errors import InputError, ReconcilerError
from .common import common_options, remember_options, report

VERBS = {
    "diff": ("rounds", "Show what differs between the files and Redis. Writes nothing."),
    "apply": ("rounds", "Make files and Redis agree, once."),
    "run": ("rounds", "Keep files and Redis in agreement until stopped."),
    "validate": ("checks", "Check manifests, context.json and Redis against their schemas."),
    "status": ("checks", "Show agents, freshness, the store, and what is wrong."),
    "get": ("memory", "Print the shared memory, or one agent."),
    "set": ("memory", "Set context keys or the status of an agent."),
    "delete": ("memory", "Delete an agent everywhere."),
    "history": ("memory", "Show the versions of an agent."),
    "export": ("memory", "Write live agents as manifests."),
    "schema": ("checks", "Print a JSON Schema."),
}


class Verbs(click.Group):
    """Finds a verb's module by the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f".{VERBS[cmd_name][0]}", __package__)
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, what) for name, (_, what) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, 1)
            ctx.fail(f"no verb {args[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)


EPILOG = (
    "Exit codes: 0 yes, in sync, done; 1 no; 2 usage; 3 failed or part quarantined; 4 refused by a guard; "
    "5 done on files only, Redis is away; 6 another reconciler holds the workspace."
)


@click.group(cls=Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reconciler")
@common_options
@click.pass_context
def cli(ctx: click.Context, /, **given: str | None) -> None:
    """Keep the shared memory of several agents the same in files and in Redis."""
    remember_options(ctx, given)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; its exit code."""
    try:
        code = cli.main(args=args, prog_name="reconciler", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "reconciler"
        message = error.format_message().rstrip(".")
        return _fail(message[:1].lower() + message[1:], f"{path} --help shows how", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), "", 2)
    except InputError as error:
        report(error.problems)
        return error.exit_code
    except ReconcilerError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _fail("interrupted; the next round goes on where this one stopped", "", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", "see rights and free space there", 3)


def _fail(message: str, hint: str, code: int) -> int:
    click.echo(f"reconciler: {message}" + (f"; {hint}" if hint else ""), err=True)
    return code
