"""Drawing the chart: everything is looked at once, and what cannot be is noted instead of ending the visit."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from .. import files
from ..errors import InputError, Problem, ReconcilerError, StoreAway, StoreError
from ..settings import EMBEDDED, Settings
from ..sources import context_file
from ..state import LAST_UPDATE, SHARED, Agent, encode, is_agent_name
from ..store import AwayStore
from ..store.inspect import accepts_published, declared_times, inspect
from ..view import Options, look
from ..workspace import open_store, open_workspace, wall_clock
from . import Chart, Check, Process, machine, memory, server

CONTEXT_FILE = "context.json"

CHECKS: dict[str, Check] = {
    "redis": server.reachable,
    "version": server.version,
    "persistence": server.persistence,
    "default-password": server.default_password,
    "rights": server.rights,
    "clock": server.clock,
    "settings": memory.settings_file,
    "base": memory.base,
    "encoded-twice": memory.encoded_twice,
    "naive-time": memory.naive_times,
    "future-time": memory.future_times,
    "quarantined": memory.quarantined,
    "raw-result": memory.raw_results,
    "schema": memory.other_warnings,
    "spool": memory.waiting,
    "journal": memory.journal,
    "lock": machine.locks,
    "mode": machine.modes,
    "leftover": machine.leftovers,
    "hooks": machine.hooks,
    "plist": machine.plists,
    "old-hub": machine.old_hub,
    "controllers": machine.controllers,
    "disk": machine.disk,
}


def draw(settings: Settings, settings_problems: tuple[str, ...] = ()) -> Chart:
    """Look at everything that the checks are about. Writes nothing."""
    chart = Chart(settings, wall_clock(), Path.home(), processes(), settings_problems=settings_problems)
    return _with_memory(_with_server(chart))


def processes() -> tuple[Process, ...]:
    """Every process but this one, as `ps` lists them."""
    command = ["ps", "-axo", "pid=,command="]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = (line.split(None, 1) for line in done.stdout.decode("utf-8", "replace").splitlines())
    found = (Process(int(line[0]), line[1]) for line in lines if len(line) == 2 and line[0].isdecimal())
    return tuple(each for each in found if each.pid not in (os.getpid(), os.getppid()))


def _with_server(chart: Chart) -> Chart:
    said: list[str] = []
    try:
        with open_store(chart.settings, said.append, reading=True) as store:
            chart = replace(chart, store=store.name)
            if isinstance(store, AwayStore):
                raise store.reason
            live = store.observe({})
            times = declared_times(store, live.agents)
            values = {f"{store.name} {agent}": _plain(found.fields) | _time(times, agent)
                      for agent, found in live.agents.items() if agent != SHARED}  # fmt: skip
            chart = replace(chart, facts=inspect(store), values=values, problems=live.problems)
    except ReconcilerError as error:
        chart = replace(chart, away=str(error), store="Redis")
    public = chart.settings.redis != EMBEDDED
    return replace(chart, published=public and accepts_published(chart.settings.redis), said=tuple(said))


def _plain(fields: Agent) -> dict[str, str]:
    return {name: value.text for name, value in fields.items() if value.text is not None}


def _time(times: Mapping[str, str], agent: str) -> dict[str, str]:
    return {LAST_UPDATE: encode(times[agent])} if agent in times else {}


def _with_memory(chart: Chart) -> Chart:
    """The files, and the problems that a round would find; without a base, those of each side by itself."""
    settings, found = chart.settings, list(chart.problems)
    values = dict(chart.values)
    try:
        data = files.read(settings.context_file, context_file.MAX_BYTES)
        if data is not None:
            context = context_file.parse(data[0], CONTEXT_FILE, settings.local_sections)
            found += context.problems
            values |= {f"{CONTEXT_FILE} {agent}": record for agent, record in context.values.items()
                       if is_agent_name(agent)}  # fmt: skip
    except InputError as error:
        found += error.problems
    try:
        with open_workspace(settings, lambda _: None, reading=True) as workspace:
            if chart.away:
                workspace = replace(workspace, store=AwayStore(StoreAway(chart.away)))
            found = _once([*look(workspace, Options(dry=True)).plan.problems, *found])
    except StoreError:  # said already
        pass
    except ReconcilerError as error:
        return replace(chart, values=values, problems=tuple(_once(found)), stopped=str(error))
    return replace(chart, values=values, problems=tuple(_once(found)))


def _once(problems: Iterable[Problem]) -> list[Problem]:
    seen = {(problem.place.line, problem.agent, problem.message): problem for problem in reversed(list(problems))}
    return list(seen.values())[::-1]
