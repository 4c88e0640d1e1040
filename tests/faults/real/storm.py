"""The nursery of the kill storm: children that write `context.json`, each killed at a random moment.

    python -m tests.faults.real.storm '{"root": ..., "redis": ..., "kills": 2000, "seed": 7}'

It has everything imported, so that a child is a fork and costs milliseconds. Children are by turns hubs that find
nobody at the server's address, and so write journal and file, and daemons that do one round after the other. While
a child lives, somebody saves an edit. After each death the file must be whole, and hold, with the journal, all that was
acknowledged. What was wrong is told in lines, and at last how many writes there were.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from reconciler import UnifiedMemoryHub, files
from reconciler.base.warm import WarmBase
from reconciler.controller import reconcile_or_away
from reconciler.errors import ReconcilerError
from reconciler.workspace import open_workspace, read_settings
from tests.faults.record import now

NOBODY = "unix:///tmp/nobody-listens-here"
AGENTS = ("a0", "a1", "a2")
KEYS = ("k0", "k1", "k2")
LONGEST = 0.1
"""Seconds that a child has once it is at work; nearly all of them die in the middle of a write."""


class Storm:
    """One workspace, and everything that was acknowledged in it: field to the number of its newest value."""

    def __init__(self, chosen: dict[str, Any]) -> None:
        self.root, self.redis = Path(chosen["root"]), str(chosen["redis"])
        self.path = self.root / "shared_memory" / "context.json"
        self.random = random.Random(chosen["seed"])
        self.numbers = count(1)
        self.acknowledged: dict[tuple[str, str], int] = {}
        self.writes = 0
        self.wrong: list[str] = []

    def rage(self, kills: int) -> None:
        for kill in range(kills):
            child = self.hub if kill % 2 else self.rounds
            with self.child(child) as said:
                self.wait_and_edit()
            for line in said:
                agent, key, number = line.split()
                self.acknowledge(agent, key, int(number))
            self.look(f"kill {kill}")

    @contextmanager
    def child(self, work: Callable[[int], None]) -> Iterator[list[str]]:
        """A process at work; killed at the end. Gives what it has said by then."""
        reader, writer = os.pipe()
        first = next(self.numbers)
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            try:
                self.numbers = count(first)
                work(writer)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(writer)
        said: list[str] = []
        with open(reader, "rb", closefd=True) as heard:
            started = heard.readline()
            if started != b"at work\n":
                self.wrong.append(f"a child ended by itself: {started!r}")
            yield said
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            said += heard.read().decode().splitlines()
        self.numbers = count(first + 1_000)

    def wait_and_edit(self) -> None:
        """Somebody reads the file, changes a value, and puts his file over it: sometimes within a swap."""
        pause = self.random.uniform(0, LONGEST)
        time.sleep(pause / 2)
        data = json.loads(self.path.read_text(encoding="utf-8"))
        number, key = next(self.numbers), self.random.choice(KEYS)
        data["agents"].setdefault("edit", {}).setdefault("context", {})[key] = number
        temp = self.path.with_name("somebody's.tmp")
        temp.write_text(json.dumps(data, indent=2), encoding="utf-8")
        os.replace(temp, self.path)
        self.acknowledge("edit", key, number)
        time.sleep(pause / 2)

    def acknowledge(self, agent: str, key: str, number: int) -> None:
        self.writes += 1
        self.acknowledged[agent, key] = max(number, self.acknowledged.get((agent, key), 0))

    def hub(self, said: int) -> None:
        """Writes and says so, for ever; each value is a number that is higher than all before."""
        with UnifiedMemoryHub(str(self.root), NOBODY) as hub:
            os.write(said, b"at work\n")
            while True:
                agent, key, number = self.random.choice(AGENTS), self.random.choice(KEYS), next(self.numbers)
                done = hub.update_agent_context(agent, {key: number})
                assert done.store == "file"
                os.write(said, f"{agent} {key} {number}\n".encode())

    def rounds(self, said: int) -> None:
        """One round after the other, as `run` does them; what the hubs left, and the edit, is what there is to do."""
        settings = read_settings(str(self.root), {"redis": self.redis})
        with ExitStack() as opened:
            opened.enter_context(files.Lock(files.private_folder(settings.folder) / "lock", 5.0))
            workspace = opened.enter_context(open_workspace(settings, lambda text: None, lasting=True))
            workspace = replace(workspace, base=WarmBase(settings.folder))
            os.write(said, b"at work\n")
            while True:
                reconcile_or_away(workspace)

    def look(self, when: str) -> None:
        """The file is whole, and nothing that was acknowledged is older there, or gone."""
        try:
            json.loads(self.path.read_text(encoding="utf-8"), parse_constant=float)
            with UnifiedMemoryHub(str(self.root), NOBODY, reading=True) as hub:
                agents = hub.get_unified_context()["agents"]
        except (OSError, ValueError, ReconcilerError) as error:
            self.wrong.append(f"{when}: {error}")
            return
        for (agent, key), number in self.acknowledged.items():
            found = agents.get(agent, {}).get("context", {}).get(key, 0)
            if found < number:
                self.wrong.append(f"{when}: {agent} {key} is {found}, and {number} was acknowledged at {now()}")


def main() -> int:
    chosen = json.loads(sys.argv[1])
    storm = Storm(chosen)
    storm.rage(chosen["kills"])
    sys.stdout.write("".join(f"{line}\n" for line in [*storm.wrong, str(storm.writes)]))
    return 1 if storm.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
