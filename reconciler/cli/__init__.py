"""The command line: `reconciler VERB`. Data goes to stdout, everything else to stderr.

Verbs are imported when they are called, and their one-line help stands here, so that `--help` stays fast. Every
error is one line with the way out, and the exit code of its class; no traceback reaches a person.
"""

from __future__ import annotations

import atexit
import errno
import gc
import importlib.util
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING

import click

from .. import __version__
from .common import common_options, remember_options, report

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VERBS = {
    "diff": ("comparing", "Show what differs between the files and Redis. Writes nothing."),
    "apply": ("rounds", "Make files and Redis agree, once."),
    "run": ("rounds", "Keep files and Redis in agreement until stopped."),
    "validate": ("checks", "Check manifests, context.json and Redis against their schemas."),
    "status": ("checks", "Show agents, freshness, the store, and what is wrong."),
    "doctor": ("doctoring", "Name what is wrong, from Redis to the hooks, and how to mend it."),
    "get": ("memory", "Print the shared memory, or one agent."),
    "set": ("memory", "Set context keys or the status of an agent."),
    "record": ("recording", "Drop a result into the spool, as the hooks do; needs no Redis."),
    "delete": ("memory", "Delete an agent everywhere."),
    "watch": ("watching", "Print events as they happen."),
    "history": ("memory", "Show the versions of an agent."),
    "rollback": ("memory", "Make an agent what it was at a version."),
    "explain": ("explaining", "Show why a field has its value."),
    "conflicts": ("explaining", "Show values that lost to a write which had not seen them."),
    "export": ("exporting", "Write live agents as manifests."),
    "schema": ("checks", "Print a JSON Schema."),
    "init": ("starting", "Make a workspace, or complete one; overwrites nothing."),
    "install": ("installing", "Put hooks, shim, launchd or systemd in place."),
    "uninstall": ("installing", "Take them away again; every file is what it was before."),
    "completion": ("completing", "Print what completes this command in zsh or bash."),
}

LASTING = ("run", "watch")
"""They have threads, of which two could load a module that is loaded late at once; and a start is little of them."""


class Verbs(click.Group):
    """Finds a verb's module by the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        from .examples import EXAMPLES

        if cmd_name not in LASTING:
            _import_later(importlib, "metadata")  # redis-py asks it for its own version, which store.connect tells it
        module = importlib.import_module(f".{VERBS[cmd_name][0]}", __package__)
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        command.epilog = "\b\nExamples:\n" + "".join(f"  {line}\n" for line in EXAMPLES[cmd_name])
        if "_RECONCILER_COMPLETE" in os.environ:
            from .completing import teach

            teach(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs from the table: nothing is imported for them."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=what) for name, (_, what) in VERBS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

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


def _import_later(package: ModuleType, name: str) -> None:
    """Have a module of a package loaded when something in it is used, as `from package import name` alone does not."""
    whole = f"{package.__name__}.{name}"
    found = None if whole in sys.modules else importlib.util.find_spec(whole)
    if found is not None and found.loader is not None:
        found.loader = importlib.util.LazyLoader(found.loader)
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        sys.modules[whole] = module
        setattr(package, name, module)


MAX_WIDTH = 100
EPILOG = """\
\b
Exit codes:
  0  yes, in sync, done
  1  the answer is no: differences, not valid, not healthy, no such agent
  2  usage
  3  failed, or part of the work quarantined
  4  refused by a guard
  5  done on files only, Redis is away
  6  another reconciler holds the workspace
"""


@click.group(
    cls=Verbs,
    epilog=EPILOG,
    no_args_is_help=False,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_WIDTH},
)
@click.version_option(__version__, prog_name="reconciler")
@common_options
@click.pass_context
def cli(ctx: click.Context, /, **given: str | None) -> None:
    """Keep the shared memory of several agents the same in files and in Redis."""
    ctx.color = _colour()
    remember_options(ctx, given)


def _colour() -> bool | None:
    """False where nobody wants any; else what is a terminal gets it."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


class _Ended(KeyboardInterrupt):
    """A signal asked this process to end; what is open is closed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; its exit code."""
    _prepare_streams()
    gc.set_threshold(200_000, 50, 100)  # a round makes millions of values and no cycles: looking cost a third of it
    atexit.register(gc.freeze)  # what is there at the end need not be looked through: that cost a tenth of `get`
    with _ending_signals():
        try:
            _check_failpoint()
            code = cli.main(args=args, prog_name="reconciler", standalone_mode=False, terminal_width=_width())
            if sys.stdout:
                sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except BaseException as error:
            code = _explain(error)
    _drop_output()
    return code


def _check_failpoint() -> None:
    if "RECONCILER_FAILPOINT" in os.environ:
        from ..failpoints import armed

        armed(os.environ["RECONCILER_FAILPOINT"])


def _width() -> int:
    """Columns of a help text, as click counts them; but click imports three compressors to ask the terminal."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else 0
    with suppress(AttributeError, ValueError, OSError):  # no stdout, a closed one, no terminal
        width = width or os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
    return max(min(width or 80, MAX_WIDTH) - 2, 50)


def _explain(error: BaseException) -> int:
    """Say on stderr what went wrong, in one line for each fault; the exit code."""
    from ..errors import InputError, ReconcilerError

    match error:
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "reconciler"
            message = error.format_message().replace("Missing command", "no verb given").rstrip(".")
            message = message.replace(". Choose from:\n\t", ": ").replace(",\n\t", ", ")  # one line
            return _fail(message[:1].lower() + message[1:], f"{path} --help shows how", 2)
        case click.ClickException():
            return _fail(error.format_message(), "", 2)
        case InputError():
            with suppress(OSError), click.Context(cli, color=_colour()).scope():
                report(error.problems)
            return error.exit_code
        case ReconcilerError():
            return _fail(error.message, error.hint, error.exit_code)
        case KeyboardInterrupt() | click.exceptions.Abort():
            cause = error if isinstance(error, _Ended) else error.__cause__
            return _fail("interrupted", "", 128 + (cause.number if isinstance(cause, _Ended) else signal.SIGINT))
        case BrokenPipeError():
            return 128 + signal.SIGPIPE
        case OSError():
            where = error.filename or "writing the output"
            return _fail(f"{where}: {error.strerror or error}", _WAY_OUT.get(error.errno or 0, ""), 3)
        case Exception() if not os.environ.get("RECONCILER_DEBUG"):
            text = str(error).partition("\n")[0][:200]
            hint = "please report it with what RECONCILER_DEBUG=1 shows"
            return _fail(f"a fault of this program: {type(error).__name__}: {text}", hint, 3)
        case _:
            raise error


_WAY_OUT = {
    errno.EACCES: "give this user the right to it, or run as its owner",
    errno.EPERM: "give this user the right to it, or run as its owner",
    errno.ENOSPC: "free some space",
    errno.ENAMETOOLONG: "give a shorter name",
}


def _fail(message: str, hint: str, code: int) -> int:
    with suppress(OSError):  # nobody can be told
        joint = "\n" if "\n" in message else "; "
        click.echo(f"reconciler: {message}" + (joint + hint if hint else ""), err=True)
    return code


def _prepare_streams() -> None:
    """A closed standard stream must not be the number of the next file that is opened; and no text is unprintable."""
    while (spare := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(spare)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What could not be written is not tried again when Python ends, which would print a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _ending_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: what is open is closed. `run` finishes its round first."""
    chosen = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in chosen:
            signal.signal(number, _on_signal)
    except ValueError:  # not the main thread
        chosen = []
    try:
        yield
    finally:
        for number in chosen:
            signal.signal(number, signal.SIG_DFL)


def _on_signal(number: int, frame: object) -> None:
    raise _Ended(number)
