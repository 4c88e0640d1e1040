"""What happens in a history: drawn from a seed, a list of steps that can be shortened."""

from __future__ import annotations

import random

from tests.faults.simulated.machine import START
from tests.faults.simulated.world import AGENTS, KEYS, Step

FIELDS = (*(f"context.{key}" for key in KEYS), "status", "insight")


def draw(seed: str) -> tuple[int, list[Step]]:
    """How many workspaces, and the steps."""
    chance = random.Random(seed)
    places = chance.choice([1, 1, 1, 2])
    calm, agents = chance.random() < 0.3, (*AGENTS, *[chance.choice(AGENTS)] * 6)  # one of them is in most of it
    steps = [_step(chance, f"s{number}", places, calm, agents) for number in range(chance.randint(6, 30))]
    return places, steps


def _step(chance: random.Random, mark: str, places: int, calm: bool, agents: tuple[str, ...]) -> Step:
    """One step; in a calm history nothing breaks."""
    place, agent = chance.randrange(places), chance.choice(agents)
    kind = chance.choices(tuple(WEIGHTS), [0 if calm and kind in BREAKS else n for kind, n in WEIGHTS.items()])[0]
    if kind in ("kill", "power"):
        within = chance.choice(["round", "round", "update", "teach"])
        return (kind, place, chance.randrange(24), _made(chance, within, mark, place, agent))
    return _made(chance, kind, mark, place, agent)


WEIGHTS = {
    "round": 16, "update": 16, "edit": 10, "raw": 9, "raw context": 2, "manifest": 3, "drop": 5, "delete": 2,
    "journal": 2, "keep copy": 3, "tick": 6, "teach": 3, "stop": 2,
    "away": 4, "back": 5, "lose reply": 2, "wipe": 1, "take snapshot": 1, "restore": 1, "forget scripts": 1,
    "spoil": 3, "mend": 3, "skew": 1, "kill": 5, "power": 3,
    "many": 3, "rollback": 3, "hang": 2, "full": 2, "room": 4, "spoil manifest": 2, "remove hash": 1, "poison": 1,
}  # fmt: skip
BREAKS = frozenset(
    ("away", "lose reply", "wipe", "restore", "forget scripts", "spoil", "skew", "kill", "power", "stop", "hang",
     "full", "spoil manifest", "remove hash", "poison")
)  # fmt: skip


def _made(chance: random.Random, kind: str, mark: str, place: int, agent: str) -> Step:
    names = tuple(chance.sample(FIELDS, chance.randint(1, 3)))
    if kind == "update":
        manner = chance.choice(["plain", "plain", "plain", "same", "durable", "replace"])
        return (kind, place, agent, tuple(sorted(names)), manner, mark)
    if kind == "edit":
        manner = chance.choice(["plain", "plain", "says", "stale", "remove"])
        return (kind, place, agent, tuple(sorted(names)), manner, mark)
    if kind == "raw":
        end = chance.choice(["", "\n"])  # the short way of the script leaves control characters to the long one
        return (kind, agent, chance.choice(["status", "insight", "note"]), mark, end, chance.random() < 0.15)
    if kind == "raw context":
        return (kind, mark)
    if kind in ("manifest", "drop", "delete"):
        return (kind, place, agent, mark)
    if kind == "many":
        return (kind, place, tuple(sorted(chance.sample(AGENTS, 3))), mark)
    if kind == "rollback":
        return (kind, place, agent, chance.randint(1, 3), mark)
    if kind == "spoil manifest":
        return (kind, place, agent, chance.choice(["gone", "torn"]))
    if kind == "remove hash":
        return (kind, agent)
    if kind == "journal":
        return (kind, place, agent, chance.choice(("status", "context.k0")), mark, START + chance.randrange(3) * 5_000)
    if kind == "tick":
        return (kind, chance.choice([400_000, 3_000_000, 7_000_000, 61_000_000]))
    if kind == "spoil":
        return (kind, place, chance.choice(["torn", "empty", "no agents", "foreign", "missing"]))
    if kind == "mend":
        return (kind, place, mark)
    if kind == "skew":
        return (kind, place, chance.choice([-90_000_000, -2_000_000, 2_000_000, 50_000_000]))
    if kind in ("keep copy", "round", "teach", "stop"):
        return (kind, place)
    return (kind,)
