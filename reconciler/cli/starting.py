"""init: a workspace to begin with, or one that is there already."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from ..errors import UsageError
from .common import common_options, remember_options, settings_of


@click.command("init")
@click.argument("folder", required=False, metavar="[DIR]")
@common_options
@click.pass_context
def init_command(ctx: click.Context, /, folder: str | None, **given: str | None) -> int:
    """Make a workspace in DIR, or complete the one that is there; nothing is overwritten.

    Without DIR it is --root, else LUKA_SOT, else ~/02luka. Makes shared_memory/context.json, reconciler.yaml with
    every setting's default, sample manifests, the schemas for editors, logs/ and .reconciler/. Where there is a
    context.json already, the samples end in .sample, so that they declare nothing.
    """
    from .. import files
    from ..service.samples import begin

    remember_options(ctx, given)
    chosen: dict[str, str | None] = ctx.obj
    if folder and chosen.get("root") not in (None, folder):
        raise UsageError(f"DIR is {folder} and --root is {chosen['root']}", hint="give one of the two")
    given_name = folder or chosen.get("root")
    named = given_name or os.environ.get("LUKA_SOT") or "~/02luka"
    expanded = os.path.expanduser(named)
    if folder == "" or expanded.startswith("~"):
        raise UsageError(f"{named!r} names no folder" if folder else "DIR is empty", hint="name one, such as ~/02luka")
    root = Path(os.path.abspath(expanded))
    files.make_folder(root)
    chosen["root"] = str(root)
    settings = settings_of(ctx, None)
    for found in begin(settings):
        shown = os.path.relpath(found.path, root) + ("/" if found.path.is_dir() else "")
        click.echo(f"{'made' if found.made else 'kept'}  {shown}")
    option = f" --root {shlex.quote(given_name)}" if given_name else ""
    click.echo(f"Next: reconciler{option} diff  (shows what a first round would do, and writes nothing)", err=True)
    return 0
