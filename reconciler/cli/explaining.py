"""explain, conflicts: why a field has its value, and which values lost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing

import click

from ..base import Base, Conflict
from ..errors import NotFound
from ..explain import Explanation, Holder, explain, standing
from ..offline import Offline
from ..render import ago, clip, object_text, short_time
from ..settings import Settings
from ..stamp import format_time
from ..state import Field, encode
from ..updates import WriteResult, check_known
from ..workspace import Workspace, open_workspace
from ..writing import Writer
from .common import STYLES, number_from_1, output_option, print_text, verb, warn
from .memory import code_of, say_written

SHOWN = 3
"""Earlier values and conflicts that `explain` shows; -o json has them all."""


@verb("explain")
@click.argument("agent")
@click.argument("field")
@output_option("text", "json")
def explain_command(settings: Settings, agent: str, field: str, output: str) -> int:
    """Show why a field has its value: who wrote it and when, how that time is known, whom it beat, what pins it.

    FIELD is `status`, `context.KEY` or just KEY. Works on files while Redis is away, with exit code 5.
    """
    with open_workspace(settings, warn, reading=True) as workspace:
        found = explain(workspace, agent, field)
    if output == "json":
        print_text(_explained(found), output)
    else:
        for what, text in _lines(found):
            click.echo(click.style(f"{what:<10}", **STYLES["quiet"]) + text if what else text)
    if found.away is None:
        return 0
    click.echo(f"files were used: {found.away}", err=True)
    return found.away.exit_code


def _lines(found: Explanation) -> Iterator[tuple[str, str]]:
    won = found.won
    name = click.style(f"{found.agent} {clip(found.field, 60)}", **STYLES["agent"])
    yield "", f"{name} = {clip(won.text, 100)}" if won.text is not None else f"{name} is deleted"
    yield "written", f"{format_time(won.at)}, {ago(found.now - won.at)} ago, by {clip(won.by, 60)}"
    yield "time", found.obtained
    for holder in found.holders:
        if holder.where != "base" or standing(found, holder)[0] not in ("won", "same"):
            yield holder.where, _holder(found, holder)
    yield "policy", _policy(found)
    for reason in found.withheld:
        yield "withheld", reason
    for version in [v for v in found.earlier or () if v.time != format_time(won.at)][:SHOWN]:
        yield "before", f"{_shown(version.text)}  by {clip(version.by, 40)} {version.time}, version {version.version}"
    if found.earlier is None:
        yield "before", "unknown: the history is in Redis, which is away"
    for conflict in found.conflicts[:SHOWN]:
        again = f", restored {ago(found.now - conflict.restored)} ago" if conflict.restored else ""
        yield "lost", f"{_shown(conflict.lost.text)}  by {_by(conflict.lost)}, conflict {conflict.number}{again}"


def _holder(found: Explanation, holder: Holder) -> str:
    how, span = standing(found, holder)
    told = {
        "won": "this write",
        "same": f"the same value, by {_by(holder.value)}",
        "tie": f"by {_by(holder.value)}: the same time, lost by the tie-break",
        "older": f"by {clip(holder.value.by, 40)}, {ago(span)} older",
        "newer": f"by {clip(holder.value.by, 40)}, {ago(span)} newer, and not carried",
    }[how]
    if how == "newer" and holder.where == "manifest" and found.policy == "seed":
        told = "a seed: only where nothing else is"
    return f"{_shown(holder.value.text)}  {told}" + (f"  {holder.place}" if holder.place else "")


def _shown(text: str | None) -> str:
    return "(deleted)" if text is None else clip(text, 50)


def _by(value: Field) -> str:
    return f"{clip(value.by, 40)} {short_time(value.at)}"


def _policy(found: Explanation) -> str:
    match found.policy:
        case "pin":
            return f"pin: the manifest wins, whoever wrote when  {found.policy_place}"
        case "seed":
            return f"seed: the manifest counts only where nothing else is  {found.policy_place}"
        case "follow":
            return "follow: the newest write wins"
        case _:
            return "none: no manifest names it, the newest write wins"


def _explained(found: Explanation) -> str:
    """The explanation as JSON text, every value token for token."""
    holders = [
        object_text({"where": encode(holder.where), **_side(holder.value), "place": _or_null(holder.place),
                 "standing": encode(standing(found, holder)[0])})
        for holder in found.holders
    ]  # fmt: skip
    earlier = [
        object_text({"version": str(version.version), "value": version.text or "null", "at": encode(version.time),
                 "by": encode(version.by), "deleted": encode(version.text is None)})
        for version in found.earlier or ()
    ]  # fmt: skip
    return object_text({
        "schema_version": "1",
        "agent": encode(found.agent),
        "field": encode(found.field),
        **_side(found.won),
        "age_s": str(round(max(found.now - found.won.at, 0) / 1_000_000, 3)),
        "obtained": encode(found.obtained),
        "holders": _list(holders),
        "policy": _or_null(found.policy or ""),
        "policy_place": _or_null(found.policy_place),
        "withheld": encode(list(found.withheld)),
        "history": "null" if found.earlier is None else _list(earlier),
        "conflicts": _list(map(_row, found.conflicts)),
        "redis": encode("up" if found.away is None else "away"),
    })  # fmt: skip


def _side(value: Field) -> dict[str, str]:
    stamp = {"at": encode(format_time(value.at)), "by": encode(value.by)}
    return {"value": value.text or "null", **stamp, "deleted": encode(value.text is None)}


def _row(conflict: Conflict) -> str:
    return object_text({
        "number": str(conflict.number),
        "seen": encode(format_time(conflict.seen)),
        "agent": encode(conflict.agent),
        "field": encode(conflict.field),
        "lost": object_text(_side(conflict.lost)),
        "won": object_text(_side(conflict.won)),
        "restored": _or_null(format_time(conflict.restored) if conflict.restored else ""),
    })  # fmt: skip


def _or_null(text: str) -> str:
    return encode(text) if text else "null"


def _list(texts: Iterable[str]) -> str:
    return "[" + ",".join(texts) + "]"


@verb("conflicts")
@click.argument("agent", required=False)
@click.option("-n", "--count", type=number_from_1(), default=20, show_default=True, help="How many.")
@click.option("--restore", "number", type=number_from_1(), metavar="N", help="Write the value that lost back.")
@output_option("text", "json")
def conflicts_command(settings: Settings, agent: str | None, count: int, number: int | None, output: str) -> int:
    """Show values that lost to a write which had not seen them, newest first; this workspace's own, without Redis.

    --restore N is a new write with a new stamp, as `set` makes it: exit code 5 if it went to files only.
    """
    base = Base(settings.folder)
    found = base.conflicts(agent)
    if agent is not None and not found:
        check_known([agent], base.load().merged)
    if number is not None:
        return _restore(settings, base, found, number, output)
    if output == "json":
        print_text(object_text({"schema_version": "1", "conflicts": _list(map(_row, found[:count]))}), output)
    else:
        _print_conflicts(found, count)
    return 0


def _print_conflicts(found: list[Conflict], count: int) -> None:
    now = time.time_ns() // 1000
    for conflict in found[:count]:
        again = f"  restored {ago(now - conflict.restored)} ago" if conflict.restored else ""
        head = f"{conflict.number:>6}  {format_time(conflict.seen)}  {conflict.agent}  {clip(conflict.field, 60)}"
        click.echo(click.style(head, **STYLES["agent"]) + again)
        for what, value in (("lost", conflict.lost), ("won", conflict.won)):
            click.echo(f"        {what:<4}  {_shown(value.text)}  by {clip(value.by, 40)} {format_time(value.at)}")
    if not found:
        click.echo("No conflicts.")
    elif len(found) > count:
        click.echo(f"and {len(found) - count} more: -n {len(found)} shows them", err=True)


def _restore(settings: Settings, base: Base, found: list[Conflict], number: int, output: str) -> int:
    conflict = next((conflict for conflict in found if conflict.number == number), None)
    if conflict is None:
        raise NotFound(f"no conflict {number}", hint="reconciler conflicts lists them")
    with open_workspace(settings, warn) as workspace, closing(Offline(settings, lambda: None)) as offline:
        done = Writer(workspace, offline).write(conflict.agent, {conflict.field: conflict.lost.text})
    base.restored(number, done.at)
    return _tell(workspace, conflict, done, output)


def _tell(workspace: Workspace, conflict: Conflict, done: WriteResult, output: str) -> int:
    say_written(done, output)
    if conflict.won.by.endswith((".yaml", ".yml")):
        where = f"reconciler explain {conflict.agent} {conflict.field}"
        click.echo(f"{conflict.won.by} won: if it pins the field, the next round sets it back; {where}", err=True)
    return code_of(done, workspace)
