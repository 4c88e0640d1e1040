"""Redis, the daemon and the writers are killed with SIGKILL at random moments, again and again.

    RECONCILER_TRIAL_KILLS=200 RECONCILER_TRIAL_SEED=7 pytest tests/faults/real/test_killed_at_random.py -s

The seed is printed; with the same seed the same things are killed after the same pauses, but what they were doing
at that moment is the machine's affair.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import redis

from tests.faults import check
from tests.faults.real.rig import Desk, Process, Witness, env_number, repeat, say
from tests.faults.real.server import Server, trial_server
from tests.faults.record import Op, Records, now

KILLS = env_number("RECONCILER_TRIAL_KILLS", 8)
SEED = env_number("RECONCILER_TRIAL_SEED", int(time.time()))
PATIENCE = 20.0
"""Seconds until everything must be quiet after the last repair."""

CREW = {"hub1": "hub", "hub2": "hub", "raw": "raw", "edit": "edit", "man": "manifest"}


class Trial:
    """One server, one workspace, its daemon and five writers."""

    def __init__(self, desk: Desk, server: Server, loss: str) -> None:
        self.desk, self.server, self.loss = desk, server, loss
        self.random = random.Random(SEED)
        self.initial = desk.begin()
        self.writers: dict[str, Process] = {}
        self.generation = 0
        self.quitters: list[str] = []
        self.deaths: list[str] = []

    def enlist(self, name: str) -> None:
        """A writer, or the successor of a killed one, who has values of its own."""
        self.generation += 1
        kind = CREW[name]
        self.writers[name] = self.desk.writer(kind, name, self.generation, durable=bool(self.loss), reads=not self.loss)

    def run(self, kills: int) -> None:
        """Begin, kill, and let those who are left finish what they do."""
        self.desk.run()
        self.desk.settle(self.server)
        self.watch = self.desk.background("watch", *self.desk.words("watch", "--since", "0", "-o", "json"))
        for name in CREW:
            self.enlist(name)
        time.sleep(0.5)
        for _ in range(kills):
            self.kill_one()
        time.sleep(0.5)
        self.look_after()
        for process in self.writers.values():
            process.end()

    def kill_one(self) -> None:
        """Somebody, for a while; daemon and server more often than the writers. One in five is only frozen."""
        victim = self.random.choice(["redis", "redis", "run", "run", *CREW])
        time.sleep(self.random.uniform(0.02, 0.6))
        pause = self.random.choice([0, 0, self.random.uniform(0, 0.5)])
        self.look_after()
        self.deaths.append(f"{victim}@{now() % 3_600_000_000 / 1e6:.3f}")
        if self.random.random() < 0.2:
            self.freeze(victim)
        elif victim == "redis":
            self.kill_server(pause)
        elif victim == "run":
            assert self.desk.daemon
            self.desk.daemon.kill()
            time.sleep(pause)
            self.desk.daemon.start()
        else:
            self.writers[victim].kill()
            self.enlist(victim)

    def freeze(self, victim: str) -> None:
        """SIGSTOP instead: it goes on where it was, in a world that has moved."""
        everybody = {"redis": self.server, "run": self.desk.daemon, **self.writers}
        chosen = everybody[victim]
        assert chosen
        chosen.freeze()
        time.sleep(self.random.uniform(0.1, 1.3))
        chosen.thaw()

    def kill_server(self, pause: float) -> None:
        """For a while; it comes back with everything, with nothing, or as it was some deaths ago."""
        if self.loss == "empty" and self.random.random() < 0.3:
            with self.server.client() as client, suppress(redis.RedisError):
                client.flushall()
            return
        self.server.kill()
        backup = self.desk.logs / "backup"
        if self.loss == "empty":
            self.server.lose()
        elif self.loss == "older" and backup.exists() and self.random.random() < 0.6:
            self.server.lose(back_to=backup)
        elif self.loss == "older":
            self.server.copy(backup)
        time.sleep(pause)
        self.server.start(wait=False)

    def look_after(self) -> None:
        """Nobody may end without being killed; who did is started again, and told."""
        for process in [*self.writers.values(), self.desk.daemon, self.watch]:
            if process and (code := process.ended()) is not None:
                self.quitters.append(f"quit: {process.path.stem} ended with {code}: {process.said()[-300:]}")
                process.kill()
                process.start()

    def faults(self, witness: Witness) -> list[str]:
        """Everything that is wrong when all has gone quiet."""
        records = self.desk.records()
        records.initial(self.initial)
        root, told = self.desk.root, [op for op in records.ops.values() if op.outcome == "redis" and op.version]
        with self.server.client(socket_timeout=10) as client:
            wrong = self.quitters + repeat(lambda: check.quick(client, [root]), PATIENCE)
            wrong += repeat(lambda: check.replicas(client, root, self.server.url), 3)
            history = check.History.read(client)
            wrong += [*history.faults(client, gaps=self.loss == "older"), *witness.faults, *check.unfit(records)]
            if not self.loss:
                wrong += [line for op in told if not op.clears for line in history.lacks(op)]
                wrong += repeat(lambda: history.unheard(self.watch.path), 10)
            must = {op.id: owed(op, witness) for op in records.ops.values()} if self.loss else None
            wrong += check.lost(records, check.of_redis(client), must)
        done = self.desk("diff")
        wrong += [] if (done.code, done.out) == (0, "In sync.\n") else [f"diff: {done.code} {done.out}{done.err}"]
        if wrong:
            wrong += [report(records), f"killed: {' '.join(self.deaths)}"]
        return wrong


def owed(op: Op, witness: Witness) -> bool:
    """Whether a write must outlive the server that took it, with all that it had."""
    if op.outcome == "file" or op.kind in ("edit", "manifest", "initial") or (op.durable and not op.clears):
        return True
    texts = [(op.agent, name, text) for name, text in op.sets.items() if text is not None]
    return bool(texts) and all(seen in witness.seen for seen in texts)


def report(records: Records) -> str:
    """How many operations ended how, and the errors that were met."""
    outcomes = Counter(f"{op.kind} {op.outcome}" for op in records.ops.values())
    errors = Counter(op.error[:100] for op in records.ops.values() if op.error)
    return f"{dict(outcomes)}; {dict(errors)}"


def trial(folder: Path, loss: str) -> None:
    say(f"RECONCILER_TRIAL_SEED={SEED} RECONCILER_TRIAL_KILLS={KILLS}")
    with trial_server() as server, Desk(folder / "work", server.url, RECONCILER_INTERVAL="1") as desk:
        one = Trial(desk, server, loss)
        with Witness(desk.root) as witness:
            one.run(KILLS)
            wrong = one.faults(witness)
        assert desk.daemon
        said = desk.daemon.said()
        assert "Traceback" not in said, said[-3000:]
        assert not wrong, f"seed {SEED}: {len(wrong)} faults\n{check.shortened(wrong)}\nrun said:\n{said[-1500:]}"


def test_whoever_is_killed_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Redis keeps what it acknowledged (append-only, always); daemon and writers come back as they are."""
    trial(tmp_path, "")


def test_a_server_that_comes_back_empty_is_refilled(tmp_path: Path) -> None:
    """What a file, the journal or base had is owed; what only the dead server had is not.

    DESIGN §9: an update acknowledged by Redis is in Redis' hands until a daemon has mirrored it. So these must
    outlive a server that loses everything: edits of files; writes that went to files because Redis was away; updates
    asked for with `durable=True`; and any other value that stood in `context.json` at any moment. A raw write or a
    plain update that no daemon has seen dies with the server that took it.
    """
    trial(tmp_path, "empty")


def test_a_server_that_comes_back_older_is_refilled(tmp_path: Path) -> None:
    """A restored backup: what is owed is the same. The versions that only the lost time had are gaps, and stay so."""
    trial(tmp_path, "older")
