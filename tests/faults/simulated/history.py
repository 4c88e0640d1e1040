"""One history, from its seed to its verdict; and the shortest one that still goes wrong."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import check
from tests.faults.simulated.draw import draw
from tests.faults.simulated.judge import verdict
from tests.faults.simulated.machine import Machine, at_work
from tests.faults.simulated.world import Step, World
from tests.servers import running

MEMORY = Path("/dev/shm")


class Told(NamedTuple):
    """What became of a history. `trace`: every step with its moment and outcome, and the state it ended in."""

    wrong: list[str]
    operations: int
    steps: list[Step]
    trace: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.trace.encode()).hexdigest()[:16]


class Theatre:
    """A server and a machine on which one history after the other is played."""

    def __init__(self, machine: Machine, url: str) -> None:
        self.machine, self.url = machine, url

    def play(self, seed: str) -> Told:
        return self.run(*draw(seed))

    def run(self, places: int, steps: Sequence[Step]) -> Told:
        with tempfile.TemporaryDirectory(prefix="sim-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
            world = World(Path(folder), self.machine, self.url, places)
            try:
                for step in steps:
                    world.take(step)
                wrong = verdict(world)
                ended = json.dumps(check.of_redis(self.machine.client), sort_keys=True)
                trace = "\n".join([*world.outcomes, ended, *sorted(wrong)])
            finally:
                for place in world.places:
                    place.die()
                world.ears.close()
            return Told(wrong, len(world.records.ops), list(steps), trace.replace(folder, ""))

    def shortest(self, seed: str) -> Told:
        """The history without every step that it goes wrong without, in the same rule."""
        places, steps = draw(seed)
        told = self.run(places, steps)
        rules = {line.partition(":")[0] for line in told.wrong}
        size = max(1, len(steps) // 2)
        while told.wrong and size:
            at = 0
            while at < len(told.steps):
                shorter = self.run(places, told.steps[:at] + told.steps[at + size :])
                if rules & {line.partition(":")[0] for line in shorter.wrong}:
                    told = shorter
                else:
                    at += size
            size //= 2
        return told


@contextmanager
def theatre(spoil: Callable[[str], str] = lambda script: script) -> Iterator[Theatre]:
    with running() as server, server.client(socket_timeout=20) as client:
        machine = Machine(client)
        with at_work(machine, spoil):
            yield Theatre(machine, server.url)


def plainly(steps: Sequence[Any]) -> str:
    return "\n".join(f"  {step!r}," for step in steps)
