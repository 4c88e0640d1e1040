"""Checks of what is remembered: contexts, times, what is quarantined, and what waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from .. import files
from ..base import Base
from ..controller import Options, reconcile_or_away
from ..errors import Problem
from ..render import ago
from ..settings import FILE, Settings
from ..sources import context_file
from ..spool import backlog
from ..stamp import format_time, parse_time
from ..state import decode, skip_blank
from ..workspace import open_workspace
from . import Chart, Finding, Fix, swap

TIMES = ("last_update", "last_seen")
_TWICE = ("encoded twice", "text instead of an object")
_NAIVE = "without a time zone"
_STILL_WAITING = 60_000_000
"""µs a drop may wait where a reconciler runs."""


def settings_file(chart: Chart) -> Iterator[Finding]:
    """The file, and a folder of manifests that is named but not there: rounds would see no manifests at all."""
    folder = chart.settings.manifests
    if folder != chart.settings.root / "manifests" and not folder.exists():
        way = f"make it, or correct --manifests, RECONCILER_MANIFESTS or {FILE}"
        yield Finding("settings", str(folder), "this folder of manifests does not exist", way)
    for problem in chart.settings_problems:
        yield Finding("settings", FILE, problem, chart.run(f"validate {FILE}") + "; the defaults stand in until then")


def base(chart: Chart) -> Iterator[Finding]:
    """`state.db` and the round that begins with it."""
    if chart.stopped:
        yield Finding("base", str(chart.settings.folder / "state.db"), chart.stopped, chart.run("diff"))


def encoded_twice(chart: Chart) -> Iterator[Finding]:
    in_redis, in_file = one_round(chart.settings), _decode_contexts(chart.settings)
    for problem in chart.problems:
        if any(words in problem.message for words in _TWICE):
            of_file = problem.place.line > 0
            way = chart.run("doctor --fix" if of_file else "apply")
            told = replace(problem, message=problem.message.removesuffix("; it was put right"))
            yield _finding("encoded-twice", told, way, in_file if of_file else in_redis)


def _decode_contexts(settings: Settings) -> Fix:
    """Only the spelling in the file changes, so no stamp does: a round reads both spellings as the same."""

    def fix() -> str:
        found = files.read(settings.context_file, context_file.MAX_BYTES)
        if found is None:
            return "context.json is gone"
        context = context_file.parse(found[0], settings.context_file.name, settings.local_sections)
        start = skip_blank(context.text, 0)
        records = json.loads(context.text)["agents"]
        edit = {agent: {"context": _decoded(records[agent]["context"])} for agent in sorted(context.legacy)
                if isinstance(records[agent], dict) and isinstance(records[agent].get("context"), str)}  # fmt: skip
        style = context_file.style_of(context.text, start)
        end = len(context.text.rstrip(" \t\r\n"))
        text = context_file.edit_value(context.text[start:end], {"agents": edit}, style, style.newline)
        swap(settings.context_file, (context.text[:start] + text + context.text[end:]).encode(), found[1])
        return f"in context.json the context of {', '.join(edit)} is an object again"

    return fix


def _decoded(text: str) -> str:
    """The object in one or two layers of JSON text, as it is spelt there."""
    inner = decode(text.strip())
    return _decoded(inner) if isinstance(inner, str) else text.strip()


def naive_times(chart: Chart) -> Iterator[Finding]:
    for problem in chart.problems:
        if _NAIVE in problem.message:
            way = chart.run(f"set {problem.agent} {_dating(chart, problem.message)}")
            yield _finding("naive-time", problem, way)


def _dating(chart: Chart, names: str) -> str:
    """The arguments of `set` that date what is named: any write dates `last_update`."""
    return f"--field last_seen={format_time(chart.now)}" if "last_seen" in names else "KEY=VALUE"


def future_times(chart: Chart) -> Iterator[Finding]:
    """Times that nobody can have written yet. Which time is meant cannot be told, so nothing mends them by itself."""
    latest = chart.now + int(chart.settings.max_skew.total_seconds() * 1_000_000)
    for place, fields in sorted(chart.values.items()):
        for name in TIMES:
            moment = parse_time(decode(fields[name])) if name in fields else None
            if moment is not None and moment.at > latest:
                what = f"{name} is {ago(moment.at - chart.now)} in the future; is the clock of its writer right?"
                way = chart.run(f"set {place.split()[-1]} {_dating(chart, name)}") + ", once that clock is right"
                yield Finding("future-time", place, what, way, "warning")


def quarantined(chart: Chart) -> Iterator[Finding]:
    for problem in chart.problems:
        if problem.severity == "error":
            yield _finding("quarantined", problem, problem.hint or chart.run("validate"))


def other_warnings(chart: Chart) -> Iterator[Finding]:
    """What validate says beside; here it is only counted."""
    known = (*_TWICE, _NAIVE)
    count = sum(p.severity == "warning" and not any(words in p.message for words in known) for p in chart.problems)
    if count:
        yield Finding("schema", str(chart.settings.root), f"{count} further warnings", chart.run("validate"), "warning")


def raw_results(chart: Chart) -> Iterator[Finding]:
    """Payloads that were not JSON and are kept as text."""
    for place, fields in sorted(chart.values.items()):
        for name in fields:
            if name.endswith("_raw") and f"{name}_reason" in fields:
                agent, key = place.split()[-1], name.removeprefix("context.").removesuffix("_raw")
                what = f"{name.removeprefix('context.')} is kept as text: {decode(fields[f'{name}_reason'])}"
                way = chart.run(f"record {agent} {key}=JSON") + ", once its writer is corrected, and a round"
                yield Finding("raw-result", place, what, way, "warning")


def waiting(chart: Chart) -> Iterator[Finding]:
    """What no round has taken in, or Redis has not learnt."""
    settings, fix = chart.settings, one_round(chart.settings)
    found = backlog(settings)
    running = files.Lock.holder(settings.folder / "lock") is not None
    age = chart.now - found.oldest if found.oldest else 0
    if (found.drops or found.kept) and not (running and age < _STILL_WAITING):
        drops = f"{found.drops} drop{'s wait' if found.drops != 1 else ' waits'} for a round"
        what = f"{drops} and {found.kept} for Redis, the oldest for {ago(max(age, 0))}"
        yield Finding("spool", str(settings.spool), what, chart.run("apply") + " (or run)", fix=fix)
    for file, reason in found.rejected:
        way = "look at it, then remove it and its .reason"
        yield Finding("spool", str(settings.spool / "rejected" / file), f"is no drop: {reason}", way, "warning")


def journal(chart: Chart) -> Iterator[Finding]:
    settings = chart.settings
    waits = len(Base(settings.folder).load().journal) if settings.folder.exists() else 0
    if waits and files.Lock.holder(settings.folder / "lock") is None:
        what = f"{waits} writes made while Redis was away wait for a round"
        where, way = str(settings.folder / "state.db"), chart.run("apply") + " (or run)"
        yield Finding("journal", where, what, way, fix=one_round(settings))


def one_round(settings: Settings) -> Fix:
    """The same round that `apply` does, with its guards: it takes in what waits and rewrites what is encoded twice."""

    def fix() -> str:
        files.private_folder(settings.folder)
        with files.Lock(settings.folder / "lock"), open_workspace(settings, lambda _: None) as workspace:
            done = reconcile_or_away(workspace, Options())
        return "one round was done" + ("" if done.plan.redis_up else ", on files only: Redis is away")

    return fix


def _finding(check: str, problem: Problem, mend: str, fix: Fix | None = None) -> Finding:
    what = (f"{problem.path}: " if problem.path else "") + problem.message
    return Finding(check, str(problem.place), f"{problem.agent}: {what}" if problem.agent else what, mend,
                   problem.severity, fix)  # fmt: skip
