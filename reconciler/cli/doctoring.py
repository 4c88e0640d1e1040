"""doctor: what is wrong with a workspace and all around it, each with the command that mends it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from ..settings import Settings, build, find_root
from .common import busy, common_options, output_option, print_data, remember_options

if TYPE_CHECKING:  # `--help` must stay fast
    from ..doctor import Finding, Report


@click.command("doctor")
@common_options
@output_option("text", "json", "yaml")
@click.option("--fix", is_flag=True, help="Mend what can be mended without losing anything, and say each.")
@click.option("-v", "--verbose", is_flag=True, help="Name the checks that found nothing too.")
@click.pass_context
def doctor_command(ctx: click.Context, /, output: str, fix: bool, verbose: bool, **given: str | None) -> int:
    """Check the whole chain: Redis, files, hooks, services; name each fault and the command that mends it.

    Exit code 0: healthy; 1: something was found; 3: nothing was found, but a check could not look.
    """
    from ..doctor import examine, mend
    from ..doctor.looking import CHECKS, draw

    remember_options(ctx, given)
    settings, wrong = _settings(ctx.obj)
    with busy("looking"):
        report = examine(draw(settings, wrong), CHECKS)
    mended = list(mend(report.findings)) if fix and not wrong else []
    if mended:
        with busy("looking again"):
            report = examine(draw(settings, wrong), CHECKS)
    if output != "text":
        print_data(_to_json(report, mended, settings), output)
        return report.exit_code
    said = dict.fromkeys((text, well) for _, text, well in mended)
    for text, well in said:
        click.secho(f"{'mended' if well else 'not mended'}: {text}", fg="green" if well else "red")
    _print(report, fix, verbose)
    if fix and wrong:  # with the defaults in their place another server could be meant
        click.secho("nothing was mended: mend the settings first", fg="red")
    return report.exit_code


def _settings(chosen: Mapping[str, str | None]) -> tuple[Settings, tuple[str, ...]]:
    """The settings; where reconciler.yaml or a password cannot be read, those without it, and what is wrong with it."""
    from ..errors import UsageError
    from ..workspace import read_settings

    flags = {name: value for name, value in chosen.items() if name != "root"}
    try:
        return read_settings(chosen.get("root"), flags), ()
    except InputError as error:
        wrong = tuple(map(str, error.problems))
    except UsageError as error:
        wrong = (str(error),)
    return build(find_root(chosen.get("root"), os.environ), {}, os.environ, flags), wrong


def _to_json(report: Report, mended: list[tuple[Finding, str, bool]], settings: Settings) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "healthy": not report.findings and not report.blind,
        "root": str(settings.root),
        "findings": [
            {"check": f.check, "severity": f.severity, "where": f.where, "what": f.what, "mend": f.mend,
             "fixable": f.fix is not None}
            for f in report.findings
        ],
        "mended": [{"check": f.check, "where": f.where, "said": said, "done": well} for f, said, well in mended],
        "healthy_checks": list(report.healthy),
        "skipped": list(report.skipped),
        "not_looked": list(report.blind),
    }  # fmt: skip


def _print(report: Report, fix: bool, verbose: bool) -> None:
    for name in report.healthy if verbose else ():
        click.secho(f"ok       {name}", fg="green")
    for finding in report.findings:
        colour = "red" if finding.severity == "error" else "yellow"
        click.echo(click.style(f"{finding.severity:8} {finding.check}", fg=colour) + f"  {finding.where}")
        click.echo(textwrap.indent(finding.what, "         "))
        click.echo(f"         mend: {finding.mend}" + ("" if finding.fix is None or fix else "   [--fix does it]"))
    for line in report.blind:
        click.secho(f"not seen {line}", fg="magenta")
    for line in report.skipped:
        click.echo(f"skipped  {line}")
    count, safe = len(report.findings), sum(f.fix is not None for f in report.findings)
    text = f"{count} found" if count else "Healthy" if not report.blind else "Nothing found"
    text += f", {safe} of them safe to mend with --fix" if safe and not fix else ""
    click.echo(f"{text}; {len(report.healthy)} checks are well.")
