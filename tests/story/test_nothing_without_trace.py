"""Whoever writes where, and whatever is away: no value goes without a trace, and none is called lost that was seen."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.base import Base
from reconciler.errors import StoreAway
from reconciler.spool import Part, drop
from reconciler.state import Field, decode
from reconciler.store import AwayStore
from reconciler.workspace import Workspace
from tests.story.desk import Desk

PLACES = ("file", "raw", "hub", "durable", "offline", "drop", "manifest")
RUNS = int(os.environ.get("RECONCILER_TRACE_RUNS", "6"))
STEPS = 16


class Crowd:
    """Writers of one field, each in a place of its own. `saw`: of each value those that its writer could see there;
    `perhaps`: values that a round without Redis must take for seen."""

    def __init__(self, desk: Desk, chance: random.Random) -> None:
        self.desk, self.chance = desk, chance
        self.saw: dict[str, set[str]] = {}
        self.perhaps: set[str | None] = set()
        self.declared: str | None = None

    def write(self, place: str) -> None:
        value = f"{place} {len(self.saw)}"
        there: tuple[str | None, ...] = getattr(self, f"by_{place}")(value)
        self.saw[value] = {known for known in there if known is not None}

    def by_file(self, value: str) -> tuple[str | None, ...]:
        there = self.desk.record("mary").get("context", {}).get("task")
        self.desk.set("mary", context={"task": value})
        return (there,)

    def by_raw(self, value: str) -> tuple[str | None, ...]:
        there = self.live()
        self.desk.hset("mary", context=json.dumps({"task": value}))
        return (there,)

    def by_hub(self, value: str, durable: bool = False) -> tuple[str | None, ...]:
        there = self.live()
        with UnifiedMemoryHub(settings=self.desk.settings) as hub:
            hub.update_agent_context("mary", {"task": value}, durable=durable)
        return (there,)

    def by_durable(self, value: str) -> tuple[str | None, ...]:
        """In the journal it looks like a write that knew what base holds."""
        self.perhaps.add(self.known())
        return self.by_hub(value, durable=True)

    def by_offline(self, value: str) -> tuple[str | None, ...]:
        there = self.known()
        with UnifiedMemoryHub(settings=replace(self.desk.settings, redis="redis://127.0.0.1:1")) as hub:
            hub.update_agent_context("mary", {"task": value})
        return (there,)

    def by_drop(self, value: str) -> tuple[str | None, ...]:
        drop(self.desk.settings, "mary", [Part("task", "text", value.encode())])
        return ()

    def by_manifest(self, value: str) -> tuple[str | None, ...]:
        there, self.declared = self.declared, value
        self.desk.manifest("mary", f"spec: {{context: {{task: {value}}}}}")
        return (there,)

    def live(self) -> str | None:
        there = self.desk.live("mary").get("context", {}).get("task")
        return None if there is None else str(there)

    def known(self) -> str | None:
        """What base and the journal hold."""
        there = Base(self.desk.settings.folder).known("mary").get("context.task")
        return str(decode(there.text)) if there and there.text else None

    def reconcile(self) -> str:
        if self.chance.random() < 0.4:
            self.desk.round(away)
            return "round away"
        self.desk.apply()
        return "round"

    def knew(self, value: str, other: str) -> bool:
        """Whether who wrote `value` could see `other`, or something that was written on top of it."""
        return any(there == other or self.knew(there, other) for there in self.saw.get(value, ()))


def away(workspace: Workspace) -> Workspace:
    return replace(workspace, store=AwayStore(StoreAway("away")))


@pytest.mark.parametrize("seed", range(RUNS))
def test_every_value_stands_or_was_seen_or_is_kept(shared: Desk, seed: int) -> None:
    """Seven kinds of writers, and rounds with and without Redis, in any order."""
    crowd = Crowd(shared, random.Random(seed))
    told = []
    for _ in range(STEPS):
        if crowd.chance.random() < 0.6:
            place = crowd.chance.choice(PLACES)
            crowd.write(place)
            told.append(next(reversed(crowd.saw)))
        else:
            told.append(crowd.reconcile())
    shared.apply()
    shared.apply()
    shared.assert_agree()
    stands = {crowd.live(), *crowd.perhaps, *(there for some in crowd.saw.values() for there in some)}
    with UnifiedMemoryHub(settings=shared.settings) as hub:
        stands |= {change["new"] for event in hub.history("mary") for change in event.changes}
    ledger = [(plain(c.lost), plain(c.won)) for c in Base(shared.settings.folder).conflicts()]
    assert [value for value in crowd.saw if value not in {*stands, *(lost for lost, _ in ledger)}] == [], (told, ledger)
    assert [(lost, won) for lost, won in ledger if crowd.knew(won, lost)] == [], (told, ledger)


def plain(value: Field) -> str:
    return str(decode(value.text or "null"))
