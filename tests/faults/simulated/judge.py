"""The verdict over a simulated history when everything is repaired and quiet: the rules by their numbers in
docs/faults.md."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from reconciler.base import Base
from reconciler.errors import ReconcilerError
from reconciler.stamp import parse_time
from reconciler.state import SHARED, Agent, encode
from reconciler.store import LiveAgent, Put, Write
from tests.faults import check
from tests.faults.record import Op
from tests.faults.simulated.machine import SimulatedStore
from tests.faults.simulated.world import World

_VANISHED = re.compile(r"replayed history \| redis: (\w+)\.(\S+): (.*) \| nothing")
ROUNDS = 12
"""After so many rounds everything is in sync, or never will be."""


def quiet(world: World) -> Iterator[str]:
    """Repair what is broken, and let everybody do their rounds until there is nothing to do."""
    machine = world.machine
    machine.away = machine.reply_lost = False
    world.repair()
    for number, place in enumerate(world.places):
        world.take(("skew", number, 0))
        world.take(("mend", number, f"mend{number}"))
        place.stop()
    for _ in range(ROUNDS):
        machine.tick(100_000_000)
        for number in range(len(world.places)):
            world.take(("teach", number))
        plans = [place.round().plan for place in world.places]
        world.look()
        if all(plan.in_sync and not plan.errors for plan in plans):
            return
    for place, plan in zip(world.places, plans, strict=True):
        changes = [f"{change.agent}.{change.field} > {change.direction}" for change in plan.changes]
        yield f"rule 2: {place.settings.root.name} is not in sync after {ROUNDS} rounds: {changes} {plan.errors}"


def verdict(world: World) -> list[str]:
    """Everything that is wrong, in lines that begin with the rule."""
    wrong = list(quiet(world))
    for op in world.records.ops.values():
        if world.widest and op.in_file:  # dated by a clock that was wrong, then or when it was read
            world.records.ops[op.id] = replace(op, at=0, start=op.start - world.widest, end=op.end + world.widest)
    try:
        wrong += [*_lost(world), *_equal(world), *_history(world), *_events(world), *_rest(world), *_left(world)]
        if not world.wiped:
            wrong += list(_order(world))
    except (ReconcilerError, ValueError) as error:
        wrong.append(f"rule 2: it cannot be read: {error}")
    return world.violations + wrong


def _lost(world: World) -> Iterator[str]:
    """Rules 1 and 5."""
    live = check.of_redis(world.machine.client)
    must = {op.id: _owed(world, op) for op in world.records.ops.values()} if world.wiped else None
    for line in check.lost(world.records, live, must, elsewhere=len(world.places) > 1 or world.widest > 0):
        yield f"rule {5 if line.startswith('invented') else 1}: {line}"


def _owed(world: World, op: Op) -> bool:
    """Whether a write must outlive a server that lost it: it was on a disk, or a round had brought it there."""
    if op.kind == "rollback":  # its values were there before, which proves nothing
        return False
    if op.agent in world.robbed and any(
        other.outcome in ("redis", "done") and other.start > op.start and other.sets.keys() & op.sets.keys()
        for other in world.records.ops.values()
        if other.agent == op.agent
    ):  # what beat it may have gone with the hash
        return False
    if op.in_file or op.kind in ("initial", "drop") or (op.durable and not op.clears):
        return True
    if op.id in world.echoes:
        return False
    texts = [(op.agent, name, text) for name, text in op.sets.items() if text is not None]
    return bool(texts) and any(all(text in place.seen for text in texts) for place in world.places)


def _said_again(world: World) -> set[tuple[str, str, str]]:
    """The values that more than one operation wrote: an update with what is there, a context that is replaced, a
    rollback. Who has the older one differs in nothing: the same value is never a difference."""
    said = Counter(
        (op.agent, name, text) for op in world.records.ops.values() for name, text in op.sets.items() if text
    )
    return {value for value, count in said.items() if count > 1}


def _equal(world: World) -> Iterator[str]:
    """Rule 2: files, Redis, bases and the API say the same, with the same stamps."""
    live = check.of_redis(world.machine.client)
    store = SimulatedStore(world.machine, "judge")
    found = store.observe({}).agents
    # What was written twice, or put back by the one of two who knew it with an older stamp, has two stamps.
    twice = world.cut or (world.wiped and len(world.places) > 1)
    for place in world.places:
        root = place.settings.root
        for name, values in (("file", check.of_file(root)), ("base", check.of_base(root))):
            yield from (f"rule 2: {line}" for line in check.differences(values, live, f"{root.name}: {name} | redis"))
        said = check.of_document(json.loads(place.writer().unified_text()))
        yield from (f"rule 2: {line}" for line in check.differences(said, live, f"{root.name}: hub | redis"))
        memory = Base(place.settings.folder).load()
        again = _said_again(world)
        for agent, fields in memory.merged.items():
            for name, field in fields.items() if agent != SHARED else ():
                there = found[agent].fields.get(name) if agent in found else None
                if field.text is None or name in check.TIMES or twice:
                    continue
                if there and there.at < field.at and (agent, name, field.text) in again:
                    continue
                if there is None or there.at != field.at:
                    yield f"rule 2: {root.name}: {agent}.{name}: base stamps it {field.at}, Redis {there and there.at}"


def _history(world: World) -> Iterator[str]:
    """Rules 6 and 7."""
    client = world.machine.client
    # Of two who fill a server that lost all, or of one whose first try came late, one may know of more versions: no
    # number is given twice, one is left out.
    gaps = world.older or (world.wiped and (len(world.places) > 1 or world.cut))
    for line in check.History.read(client).faults(client, gaps=gaps):
        if not (world.robbed and (line.endswith("but old says null") or _unheard_of(world, line))):
            yield f"rule {7 if 'gaps' in line or 'ends with' in line else 6}: {line}"


def _unheard_of(world: World, line: str) -> bool:
    """Whether a value went with a hash that somebody removed before any file had it, as far as can be told of one that
    was written twice, or before the agent was written anew: Redis cannot tell of it."""
    found = _VANISHED.fullmatch(line)
    if found is None:
        return False
    seen = any(found.groups() in place.seen for place in world.places)
    return found[1] in world.founded or not seen or found.groups() in _said_again(world)


def _events(world: World) -> Iterator[str]:
    """Rule 8: what was heard is what the history says, each once, in order; where nothing took them away."""
    world.listen()
    heard: dict[str, list[Any]] = {}
    for _, data in world.heard:
        event = json.loads(data)
        if event["event"] != "conflict":
            heard.setdefault(event["agent"], []).append(event)
    for agent, events in heard.items():
        versions = [event["version"] for event in events]
        if not world.wiped and versions != sorted(set(versions)):
            yield f"rule 8: events of {agent} came twice or out of order: {versions}"
    if world.wiped:
        return
    for agent, told in check.History.read(world.machine.client).events.items():
        numbers = [event["version"] for event in heard.get(agent, [])]
        if numbers != list(told):
            yield f"rule 8: events of {agent}: heard {numbers}, the history has {list(told)}"
        for event in heard.get(agent, []):
            if told.get(event["version"], event) != event:
                yield f"rule 8: event {event['id']} is not what the history says"


def _rest(world: World) -> Iterator[str]:
    """Rule 12: another round writes nothing, nowhere."""
    places = world.places
    before = [(place.path.read_bytes(), place.path.stat().st_ino) for place in places]
    keys = world.machine.keys("memory:*", "DUMP")
    heard = len(world.heard)
    world.machine.tick(1_000_000)
    for place in places:
        place.round()
    world.listen()
    if [(place.path.read_bytes(), place.path.stat().st_ino) for place in places] != before:
        yield "rule 12: a round with nothing to do wrote context.json"
    if world.machine.keys("memory:*", "DUMP") != keys:
        yield "rule 12: a round with nothing to do wrote to Redis"
    if len(world.heard) != heard:
        yield "rule 12: a round with nothing to do sent events"


def _left(world: World) -> Iterator[str]:
    """Rule 13: no drop, no journal and, unless a process died, no other file stays."""
    for place in world.places:
        journal = Base(place.settings.folder).journal()
        if journal:
            yield f"rule 13: {len(journal)} writes wait in the journal of {place.settings.root.name}"
        spool = place.settings.spool
        left = [path.name for path in spool.iterdir()] if spool.exists() else []
        if left:
            yield f"rule 13: the spool of {place.settings.root.name} holds {left}"
        others = [path.name for path in place.path.parent.iterdir() if path != place.path]
        if others and not world.died:
            yield f"rule 13: beside context.json there is {others}"


def _order(world: World) -> Iterator[str]:
    """Rule 3: the same writes in another order, some of them twice, lead to the same fields with the same stamps."""
    store = SimulatedStore(world.machine, "judge")
    live = store.observe({}).agents
    client = world.machine.client
    for agent, events in check.History.read(client).events.items():
        puts = [
            Put(change["field"], None if change["op"] == "delete" else encode(change["new"]),
                _micros(change["at"]), change["by"])
            for event in events.values() for change in event["changes"]
        ]  # fmt: skip
        shuffled = random.Random(len(puts)).sample(puts, len(puts)) + puts[: len(puts) // 3]
        store.write([Write("other", (put,), floor=0) for put in shuffled])
        other = store.observe({}).agents.get("other")
        client.delete(*client.keys("memory:*other*"))
        world.listen()
        here, there = _present(live[agent]), _present(other or LiveAgent())
        stamps = {(put.field, put.at, put.by) for put in puts}  # an equal value moves one and says nothing
        for name in sorted(here.keys() | there.keys()):
            one, another = here.get(name), there.get(name)
            moved = one and another and (name, one.at, one.by) not in stamps and one.text == another.text
            if one != another and not moved:
                yield f"rule 3: {agent}.{name}: {one} | in another order {another}"


def _present(agent: LiveAgent) -> Agent:
    return {name: field for name, field in agent.fields.items() if field.text is not None and name not in check.TIMES}


def _micros(time: str) -> int:
    found = parse_time(time)
    assert found is not None
    return found.at
