"""The soak: hours of random writers, faults and repairs, with the judge every few minutes.

    python -m tests.faults.soak --hours 8
    make soak HOURS=8 ARGS="--seed 7"

One server and one daemon live through all of it; in every third watch (so the stretch between two judgements is
called) the daemon and the writers are killed too, in every fifth the server comes back empty. A line a minute tells
what was done, and how much memory, files and descriptors daemon, server and a hub in this very process hold: they
are bounded, and more than the bound is a violation. Ctrl-C judges what there is, sums up, and ends.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import redis

from reconciler import UnifiedMemoryHub
from reconciler.base import Base
from reconciler.errors import ReconcilerError
from reconciler.workspace import read_settings
from tests.faults import check
from tests.faults.real.rig import Desk, Process, Witness, repeat, say
from tests.faults.real.server import Server, trial_server
from tests.faults.record import Op, now

CREW = {"hub1": "hub", "hub2": "hub", "raw": "raw", "edit": "edit", "man": "manifest"}
KEEPER = "keeper"
"""The agent that the hub in this process writes, all the time; nobody else does."""
KEPT = 20_000
"""Versions in each agent's history: more than one watch makes, and not more however long it goes on."""
PATIENCE = 30.0
"""Seconds within which all must be equal; the longest that it took is told."""
BOUNDS = {
    "daemon MB": 450, "daemon files": 64, "server MB": 400, "own MB": 300, "own files": 96, "state.db MB": 64,
    "journal": 20_000, "temporary files": 16,
}  # fmt: skip
"""What may be held at any minute. A daemon under a flood of edits keeps 2,000 versions of the file (`edits.KEEP_MOST`),
and levels off at 320 to 360 MB after ten minutes; without a flood it stays below 100."""


class Held(NamedTuple):
    """What is held now, by the names of `BOUNDS`; 0 for a process that is not there."""

    figures: dict[str, float]

    def excess(self) -> list[str]:
        return [
            f"bound: {name} is {there:.0f}, at most {BOUNDS[name]}"
            for name, there in self.figures.items()
            if there > BOUNDS[name]
        ]

    def __str__(self) -> str:
        return " ".join(f"{name.replace(' ', '-')}={there:.0f}" for name, there in self.figures.items())


def resident(pid: int) -> float:
    """MB in memory."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def give_back() -> None:
    """Let the system have what the judge needed for all those histories: what a hub holds is to be seen."""
    gc.collect()
    with suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


class Keeper:
    """A hub that lives as long as the soak: writes, reads back, and hears every event of its own."""

    def __init__(self, desk: Desk) -> None:
        self.hub = UnifiedMemoryHub(settings=read_settings(str(desk.root), {"redis": desk.redis}, desk.env))
        self.acknowledged = self.number = 0
        self.errors: list[str] = []
        self._stop, self._working = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._stop.wait(0.05):
            with self._working:
                self._step()

    def _step(self) -> None:
        self.number += 1
        try:
            done = self.hub.update_agent_context(KEEPER, {"n": self.number})
            if "context.n" in done.won:
                self.acknowledged = self.number
            self.hub.get_unified_context()
        except ReconcilerError:
            pass  # an honest refusal
        except Exception as error:  # whatever a caller should never meet
            self.errors.append(f"keeper: {type(error).__name__}: {error}")

    @contextmanager
    def resting(self) -> Iterator[None]:
        """It writes nothing meanwhile."""
        with self._working:
            yield

    def faults(self, client: Any) -> list[str]:
        errors, self.errors = self.errors, []
        there = check.of_redis(client).get(KEEPER, {}).get("context.n")
        return errors if int(there or 0) >= self.acknowledged else [*errors, f"lost: keeper holds {there}"]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.hub.close()


@dataclass
class Since:
    """What was there when a watch began: values and versions of each agent."""

    values: check.Values = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, client: Any) -> Since:
        return cls(check.of_redis(client), check.versions(client))

    def history(self, client: Any) -> tuple[check.History, check.History]:
        """The versions made since then: as they are, and behind one that made what was there before."""
        bare, founded = check.History.read(client), check.History()
        for agent, events in bare.events.items():
            first = self.versions.get(agent, 0)
            bare.events[agent] = {version: event for version, event in events.items() if version > first}
            changes = [
                {"field": name, "op": "create", "old": None, "new": json.loads(text), "by": ""}
                for name, text in self.values.get(agent, {}).items()
            ]
            founded.events[agent] = {first: {"changes": changes}, **bare.events[agent]}
        return bare, founded


class Soak:
    """One server, one workspace with its daemon, a hub of our own, and a crew of writers that changes."""

    between, longest = (0.2, 6.0), 5.0
    """Seconds between two faults, from and to, and how long one may last."""

    def __init__(self, desk: Desk, server: Server, seed: int) -> None:
        self.desk, self.server, self.random = desk, server, random.Random(seed)
        self.stopped = threading.Event()
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.operations = self.generation = self.watches = 0
        self.slowest = 0.0
        self.writers: dict[str, Process] = {}

    def begin(self) -> None:
        self.initial = self.desk.begin()
        self.desk.run()
        self.desk.settle(self.server)
        self.listener = self.desk.background("watch", *self.desk.words("watch", "--since", "0", "-o", "json"))
        with self.server.client() as client:  # before anybody writes: values and versions are read one after the other
            self.since = Since.read(client)
        self.keeper = Keeper(self.desk)

    def enlist(self, name: str) -> None:
        self.generation += 1
        self.writers[name] = self.desk.writer(
            CREW[name], name, self.generation, durable=self.loss, reads=not self.loss, pause=0.05
        )

    def watch(self, seconds: float) -> None:
        """Writers and faults for so long, then quiet and the judge."""
        self.watches += 1
        self.draw()
        begun = time.monotonic()
        with Witness(self.desk.root) as witness:
            for name in CREW:
                self.enlist(name)
            while time.monotonic() < begun + seconds and not self.stopped.wait(self.random.uniform(*self.between)):
                self.hurt()
                self.look_after()
            for process in self.writers.values():
                process.end()
            with self.keeper.resting():
                self.judge(witness)

    def draw(self) -> None:
        """Whether the server loses what it had in this watch, and whether processes are killed."""
        self.loss, self.kills = self.watches % 5 == 0, self.watches % 3 == 0

    def hurt(self) -> None:
        """One fault, for a moment or some seconds, and its repair."""
        chosen = self.random.choice(self.harm())
        self.faults[getattr(chosen, "__name__", "")] += 1
        with suppress(redis.RedisError):
            chosen()

    def harm(self) -> list[Callable[[], object]]:
        """What may go wrong; what stands there twice does so more often."""
        always: list[Callable[[], object]] = [
            self.kill_server, self.kill_server, self.freeze_server, self.forget_script, self.fill, self.make_replica,
            self.cut, self.poison, self.spoil_manifest, self.freeze_daemon,
        ]  # fmt: skip
        return always + [self.kill_daemon, self.kill_writer] * 2 if self.kills else always

    def away(self) -> None:
        self.stopped.wait(self.random.choice([0.0, self.random.uniform(0, 1), self.random.uniform(0, self.longest)]))

    def kill_server(self) -> None:
        self.server.kill()
        if self.loss and self.random.random() < 0.5:
            self.server.lose()
        self.away()
        self.server.start()

    def freeze_server(self) -> None:
        self.server.freeze()
        self.away()
        self.server.thaw()

    def freeze_daemon(self) -> None:
        assert self.desk.daemon
        self.desk.daemon.freeze()
        self.away()
        self.desk.daemon.thaw()

    def kill_daemon(self) -> None:
        assert self.desk.daemon
        self.desk.daemon.kill()
        self.away()
        self.desk.daemon.start()

    def kill_writer(self) -> None:
        name = self.random.choice(list(CREW))
        self.writers[name].kill()
        self.enlist(name)

    def forget_script(self) -> None:
        self._ask("SCRIPT", "FLUSH")

    def cut(self) -> None:
        for sort in ("normal", "pubsub"):
            self._ask("CLIENT", "KILL", "TYPE", sort)

    def fill(self) -> None:
        """OOM."""
        self._for_a_while(("CONFIG", "SET", "maxmemory", "1mb"), ("CONFIG", "SET", "maxmemory", "0"))

    def make_replica(self) -> None:
        """READONLY."""
        self._for_a_while(("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"))

    def poison(self) -> None:
        """A key of another type where an agent would be."""
        self._for_a_while(("SET", "memory:agents:poison", "no hash"), ("DEL", "memory:agents:poison"))

    def spoil_manifest(self) -> None:
        path = self.desk.root / "manifests" / "spoilt.yaml"
        path.write_bytes(b"apiVersion: [reconciler\n\xff")
        self.away()
        path.unlink()

    def _for_a_while(self, harm: tuple[str, ...], repair: tuple[str, ...]) -> None:
        self._ask(*harm)
        self.away()
        self._ask(*repair)

    def _ask(self, *words: str) -> None:
        with self.server.client(socket_timeout=10) as client:
            client.execute_command(*words)

    def look_after(self) -> None:
        """Nobody ends without being killed."""
        for process in [*self.writers.values(), self.desk.daemon, self.listener]:
            if process and (code := process.ended()) is not None:
                self.wrong.append(f"quit: {process.path.stem} ended with {code}: {process.said()[-300:]}")
                process.kill()
                process.start()

    def judge(self, witness: Witness) -> None:
        """Everything must be equal, whole and there; what this watch left behind is cleared away."""
        root, begun = self.desk.root, time.monotonic()
        self.judged = records = self.desk.records()
        self.operations += len(records.ops)
        records.initial(self.initial)
        with self.server.client(socket_timeout=10) as client:
            wrong = repeat(lambda: check.quick(client, [root]), PATIENCE)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            wrong += repeat(lambda: check.replicas(client, root, self.server.url), 5)
            wrong += [*witness.faults, *check.unfit(records), *self.keeper.faults(client)]
            bare, founded = self.since.history(client)
            if not self.loss:
                wrong += list(founded.faults(client))
                told = [op for op in records.ops.values() if op.outcome == "redis" and op.version and not op.clears]
                wrong += [line for op in told for line in bare.lacks(op)]
                wrong += repeat(lambda: bare.unheard(self._heard()), 15)
            must = {op.id: owed(op, witness) for op in records.ops.values()} if self.loss else None
            final = {agent: values for agent, values in check.of_redis(client).items() if agent != KEEPER}
            wrong += check.lost(records, final, must)
            wrong += repeat(self._unsaid, 5)
            self.initial = final
            self.since = Since.read(client)
        self.wrong += wrong
        if wrong:
            say(f"watch {self.watches}: {len(wrong)} violations\n{check.shortened(wrong)}")
        self._clear(keep=bool(wrong))
        give_back()

    def _unsaid(self) -> list[str]:
        """What `diff`, `status` and the daemon say when all is well."""
        wrong = []
        for verb in ("diff", "status"):
            done = self.desk(verb)
            wrong += [f"{verb}: {done.code} {done.out}{done.err}"] if done.code else []
        said = self.desk.daemon.said() if self.desk.daemon else ""
        return wrong + ([f"traceback: {said[-2000:]}"] if "Traceback" in said else [])

    def _heard(self) -> Path:
        """What `watch` printed of this watch's versions."""
        found = []
        for line in self.listener.path.read_bytes().split(b"\n")[:-1]:
            event: dict[str, Any] = json.loads(line) if line.startswith(b"{") else {}
            if event.get("version", 0) > self.since.versions.get(event.get("agent", ""), 0):
                found.append(line + b"\n")
        path = self.desk.logs / "heard"
        path.write_bytes(b"".join(found))
        return path

    def _clear(self, *, keep: bool) -> None:
        """Records that were judged go; where something was wrong, they are kept beside."""
        if keep:
            shutil.copytree(self.desk.logs, self.desk.logs.with_name(f"watch-{self.watches}"), dirs_exist_ok=True)
        for path in self.desk.logs.glob("*.jsonl"):
            path.unlink()
        os.truncate(self.listener.path, 0)
        for path in self.desk.logs.glob("*.out"):
            if path != self.listener.path and path.stat().st_size > 1 << 20:
                os.truncate(path, 0)
        if self.loss:  # it has heard versions of a memory that is no more
            self.listener.kill()
            os.truncate(self.listener.path, 0)
            self.listener.start()

    def held(self) -> Held:
        """Looked at from outside; what is away for the moment is 0."""
        root, daemon, server = self.desk.root, self.desk.daemon, self.server.process
        pid = daemon.running.pid if daemon and daemon.running else 0
        return Held({
            "daemon MB": resident(pid), "daemon files": descriptors(pid),
            "server MB": resident(server.pid if server else 0),
            "own MB": resident(os.getpid()), "own files": descriptors(os.getpid()),
            "state.db MB": sum(path.stat().st_size for path in root.glob(".reconciler/state.db*")) / 1e6,
            "journal": len(Base(root / ".reconciler").load().journal),
            "temporary files": sum(1 for path in root.rglob("*.tmp")),
        })  # fmt: skip


def owed(op: Op, witness: Witness) -> bool:
    """Whether a write must outlive a server that loses all: only what was in files, durable, or seen in the file."""
    if op.in_file or op.kind == "initial" or (op.durable and not op.clears):
        return True
    texts = [(op.agent, name, text) for name, text in op.sets.items() if text is not None]
    return bool(texts) and all(seen in witness.seen for seen in texts)


def tell(soak: Soak, begun: float) -> None:
    """A line a minute, and what is over its bound, until the soak is over."""
    while not soak.stopped.wait(60):
        with suppress(OSError, ReconcilerError):
            held = soak.held()
            soak.wrong += held.excess()
            minute, many = (time.monotonic() - begun) / 60, sum(soak.faults.values())
            say(f"minute {minute:.0f}: watch={soak.watches} faults={many} violations={len(soak.wrong)} {held}")
            sys.stdout.flush()


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=now() % 10**9, help="of the faults; a new one if left out")
    parser.add_argument("--watch", type=float, default=150.0, help="seconds between two judgements")
    given = parser.parse_args(args)
    say(f"python -m tests.faults.soak --hours {given.hours} --seed {given.seed} --watch {given.watch}")
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        server = stack.enter_context(trial_server())
        desk = stack.enter_context(Desk(folder / "work", server.url, RECONCILER_HISTORY=str(KEPT)))
        soak = Soak(desk, server, given.seed)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: soak.stopped.set())
        soak.begin()
        stack.callback(soak.keeper.close)
        threading.Thread(target=tell, args=(soak, begun), name="teller", daemon=True).start()
        while time.monotonic() < begun + given.hours * 3600 and not soak.stopped.is_set():
            soak.watch(given.watch)
        soak.stopped.set()
    say(f"slowest to be equal: {soak.slowest:.1f} s; faults: {dict(soak.faults)}")
    if soak.wrong:
        say(f"everything is kept in {folder}\n{check.shortened(soak.wrong)}")
    else:
        shutil.rmtree(folder)
    hours, operations = (time.monotonic() - begun) / 3600, soak.operations + soak.keeper.number
    say(
        f"faults: tier=F hours={hours:.2f} operations={operations} faults_injected={sum(soak.faults.values())} "
        f"seed={given.seed} seconds={hours * 3600:.0f} violations={len(soak.wrong)}"
    )
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
