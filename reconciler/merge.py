"""The join: of every field the newest write, and what policies say on top of it.

    replica A          replica B          merged
    status busy @5     status idle @7     status idle @7      newer wins
    status busy @5     (no status)        status busy @5      absence is no write
    status (gone) @9   status idle @7     status (gone) @9    a tombstone is a write
    status busy @5 x   status idle @5 y   status idle @5 y    same time: the writer's name decides
    status a @5 x      status b @5 x      status b @5 x       same stamp: the value's text decides

Commutative, associative and idempotent, because `Field.order` is total; tests/test_laws.py holds that.
Pure: no file, no clock, no client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from .stamp import format_time
from .state import LAST_UPDATE, Agent, Field, State, encode, same_text

Policy = Literal["follow", "pin", "seed"]


def merge(*replicas: State) -> dict[str, dict[str, Field]]:
    """Join any number of replicas; the arguments are left as they are."""
    merged: dict[str, dict[str, Field]] = {}
    for replica in replicas:
        for name, agent in replica.items():
            merged[name] = merge_agent(merged[name], agent) if name in merged else dict(agent)
    return merged


def merge_agent(one: Agent, other: Agent) -> dict[str, Field]:
    """Join one agent's fields from two replicas."""
    joined = dict(one)
    for name, field in other.items():
        known = joined.get(name)
        if known is None or known.order() < field.order():
            joined[name] = field
    return joined


def pin(merged: State, pins: Mapping[str, Agent]) -> dict[str, dict[str, Field]]:
    """Let pinned manifest fields win over everything, with a stamp just behind what they beat.

    `pins` holds for each agent the fields a manifest pins; their stamps are those of the manifest. The new
    stamp is needed so that every other replica, which knows nothing of policies, takes the pinned value over.
    """
    held = {name: dict(agent) for name, agent in merged.items()}
    for name, fields in pins.items():
        agent = held.setdefault(name, {})
        for field, pinned in fields.items():
            known = agent.get(field)
            if known is None or not same_text(known.text, pinned.text):
                at = pinned.at if known is None else max(pinned.at, known.at + 1)
                agent[field] = pinned._replace(at=at)
    return held


def seeds_only(seeds: State, others: Iterable[State]) -> dict[str, dict[str, Field]]:
    """Of the fields with policy `seed`, those that no other replica has a value or a tombstone for."""
    replicas = tuple(others)
    return {
        name: {
            field: value
            for field, value in agent.items()
            if not any(field in replica.get(name, {}) for replica in replicas)
        }
        for name, agent in seeds.items()
    }


def with_times(merged: State) -> dict[str, dict[str, Field]]:
    """Set each agent's `last_update` to its newest stamp, as the write script does; a deleted agent has none."""
    return {name: _timed(agent) for name, agent in merged.items()}


def _timed(agent: Agent) -> dict[str, Field]:
    others = [field for name, field in agent.items() if name != LAST_UPDATE]
    if not others:
        return dict(agent)
    known, newest = agent.get(LAST_UPDATE), max(others, key=Field.order)
    if all(field.text is None for field in others):
        if known is None or known.text is None:
            return dict(agent)
        return {**agent, LAST_UPDATE: Field(None, max(newest.at, known.at + 1), newest.by)}
    if known is not None and known.text is not None and known.at >= newest.at:
        return dict(agent)
    return {**agent, LAST_UPDATE: Field(encode(format_time(newest.at)), newest.at, newest.by)}
