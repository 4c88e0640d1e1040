"""A plan as a person or a program reads it: text, JSON, markdown. Pure; colours are marks, not codes.

`text_lines` gives (style, line) pairs; the command line turns the style into a colour on a terminal.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from .errors import Problem
from .plan import Change, Plan
from .stamp import SECOND, format_time
from .state import QUIET

SIGN = {"create": "+", "update": "~", "delete": "-"}


class Line(NamedTuple):
    """One line of text and what it is: agent, create, update, delete, quiet, withheld, note, sum."""

    style: str
    text: str


def text_lines(plan: Plan, columns: int | None = None) -> Iterator[Line]:
    """The plan for a person: per agent its fields, old → new, the direction, and why that value won.

    `columns`: the terminal's width; why a value won stands on a line of its own where it would not fit. None:
    one line a field, however long.
    """
    for agent, group in groupby(plan.changes, attrgetter("agent")):
        yield Line("agent", agent)
        yield from _agent_lines(_joined(group), columns)
    for held in plan.withheld:
        what = ".".join(part for part in (held.agent, held.field) if part) or "everything"
        yield Line("withheld", f"! {what} is not carried → {held.direction}: {held.reason}")
    for note in plan.notes:
        yield Line("note", f"* {note}")
    yield Line("sum", summary(plan))


def _joined(changes: Iterable[Change]) -> list[tuple[Change, str]]:
    """Changes with where they go; one that both sides must learn is one row. Times follow from an agent's other
    changes, so they are shown only where there is nothing else."""
    rows: dict[tuple[str, str | None, str | None], tuple[Change, str]] = {}
    for change in changes:
        key = _learnt(change)
        known = rows.get(key)
        rows[key] = (change, f"→ {change.direction}") if known is None else (known[0], "→ both")
    shown = [row for row in rows.values() if not row[0].quiet]
    return shown or list(rows.values())


_learnt = attrgetter("field", "old", "new")


def _agent_lines(rows: list[tuple[Change, str]], columns: int | None) -> Iterator[Line]:
    names = [clip(change.field, 32) for change, _ in rows]
    name_room = max(map(len, names))
    where_room = max(len(where) for _, where in rows)
    most = 44 if columns is None else max(20, min(60, columns - name_room - where_room - 8))
    texts = [values(change, most) for change, _ in rows]
    text_room = max(map(len, texts))
    for (change, where), name, text in zip(rows, names, texts, strict=True):
        op, reason = change.op, why(change)
        style = "quiet" if change.field in QUIET else op
        line = f"  {SIGN[op]} {name.ljust(name_room)}  {text.ljust(text_room)}  {where.ljust(where_room)}"
        if columns is None or len(line) + 2 + len(reason) <= columns:
            yield Line(style, f"{line}  {reason}")
        else:
            yield Line(style, line.rstrip())
            yield Line("quiet", f"      {reason}")


def summary(plan: Plan) -> str:
    """One line: how much there is to do."""
    counted = Counter(change.direction for change in plan.changes if change.field not in QUIET)
    differences = counted.total()
    quiet = len(plan.changes) - differences
    parts = [f"{counted[side]} → {side}" for side in ("redis", "file") if counted[side]]
    if quiet:
        parts.append(f"{quiet} timestamp{'s' * (quiet != 1)} carried along")
    if plan.withheld:
        parts.append(f"{len(plan.withheld)} withheld")
    away = "" if plan.redis_up else " (Redis is away: files and base only)"
    if plan.in_sync:
        return "In sync" + (f": {', '.join(parts)}" if parts else "") + "." + away
    return f"{differences} difference{'s' * (differences != 1)}: {', '.join(parts)}.{away}"


def why(change: Change) -> str:
    """Who wins and why: `raw 2025-11-12T08:00:00Z beats context.json, 3 s older`. To the second: what needs
    more says by how much it was newer."""
    won = f"{change.by} {short_time(change.at)}"
    beaten = change.beaten
    if beaten is None:
        return won
    if beaten.at == change.at:
        return f"{won} beats {beaten.by} at the same time by the tie-break"
    if not beaten.at:  # nobody knows when
        return f"{won} beats {beaten.by}"
    return f"{won} beats {beaten.by}, {ago(change.at - beaten.at)} older"


def ago(micros: int) -> str:
    """A span in the largest unit that leaves a number a person reads: `3 s`, `5 min`, `2 h`, `12 days`."""
    span = abs(micros)
    for unit, name in ((86_400, "day"), (3_600, "h"), (60, "min"), (1, "s")):
        count = span // (unit * SECOND)
        if count:
            return f"{count} {name}" + "s" * (name == "day" and count > 1)
    return f"{span // 1000} ms" if span >= 1_000 else f"{span} µs"


@lru_cache(maxsize=1_000)
def short_time(at: int) -> str:
    return format_time(at)[:19] + "Z"


def values(change: Change, width: int) -> str:
    """Old → new in at most `width` characters; a short one of the two leaves its room to the other."""
    if change.old is None or change.new is None:
        return clip(change.old or change.new or "", width)
    old, new = clip(change.old, width), clip(change.new, width)
    half = (width - 3) // 2
    old = clip(old, max(half, width - 3 - len(new)))
    return f"{old} → {clip(new, width - 3 - len(old))}"


def clip(text: str, width: int) -> str:
    """A text for one cell: control characters made visible, the rest cut with an ellipsis."""
    if len(text) <= width and text.isprintable():
        return text
    safe = text[: width + 1]
    if not safe.isprintable():
        safe = "".join(char if char.isprintable() else repr(char)[1:-1] for char in safe)
    return safe if len(safe) <= width else safe[: width - 1] + "…"


def to_json(plan: Plan) -> str:
    """The plan as JSON text, as `schemas/plan.schema.json` describes it; `apply --plan` reads it back.

    Values stand there token for token (`1.10`, `1E400`), so that what was reviewed is exactly what is applied.
    """
    facts: dict[str, object] = {
        "schema_version": 1,
        "id": plan.id,
        "in_sync": plan.in_sync,
        "redis": "up" if plan.redis_up else "away",
        "withheld": [held._asdict() for held in plan.withheld],
        "notes": list(plan.notes),
        "problems": [problem_to_json(problem) for problem in plan.problems],
    }
    texts = {name: _compact(fact) for name, fact in facts.items()}
    texts["changes"] = "[" + ",".join(map(_change, plan.changes)) + "]"
    order = ("schema_version", "id", "in_sync", "redis", "changes", "withheld", "notes", "problems")
    return object_text({name: texts[name] for name in order})


def _change(change: Change) -> str:
    facts: dict[str, object] = {
        "agent": change.agent,
        "field": change.field,
        "direction": change.direction,
        "op": change.op,
    }
    more: dict[str, object] = {
        "at": format_time(change.at),
        "by": change.by,
        "why": why(change),
        "quiet": change.quiet,
    }
    texts = {name: _compact(fact) for name, fact in facts.items()}
    texts |= {"old": change.old or "null", "new": change.new or "null"}
    return object_text(texts | {name: _compact(fact) for name, fact in more.items()})


def object_text(texts: Mapping[str, str]) -> str:
    """A JSON object of members that are JSON texts already."""
    return "{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}"


def _compact(fact: object) -> str:
    return json.dumps(fact, ensure_ascii=False, separators=(",", ":"))


def problem_to_json(problem: Problem) -> dict[str, Any]:
    return {
        "place": problem.place.source,
        "line": problem.place.line,
        "column": problem.place.column,
        "path": problem.path,
        "message": problem.message,
        "hint": problem.hint,
        "severity": problem.severity,
        "agent": problem.agent,
    }


def markdown(plan: Plan) -> Iterator[str]:
    """The plan as a table for a review or a chat."""
    yield f"**{summary(plan)}**"
    if plan.changes:
        yield ""
        yield "| agent | field | change | old | new | direction | why |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
    for change in plan.changes:
        cells = (
            change.agent, change.field, change.op, change.old or "", change.new or "",
            f"→ {change.direction}", why(change),
        )  # fmt: skip
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
    for held in plan.withheld:
        yield f"\n- withheld: {_cell(f'{held.agent}.{held.field}')}: {_cell(held.reason)}"
    for problem in plan.problems:
        yield f"\n- {problem.severity}: {_cell(str(problem))}"
    for note in plan.notes:
        yield f"\n- {_cell(note)}"


def _cell(text: str) -> str:
    escaped = clip(text, 80).replace("\\", "\\\\")
    for char in "|`*_<>[]":
        escaped = escaped.replace(char, "\\" + char)
    return escaped
