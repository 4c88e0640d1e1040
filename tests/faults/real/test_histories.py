"""Tier C: histories of real processes. A server behind a relay, a daemon, six writers, some faults and their repairs.

    RECONCILER_HISTORIES=200 RECONCILER_HISTORIES_SEED=7 pytest tests/faults/real/test_histories.py -s

Each is a short soak (`tests/faults/soak.py`) in a workspace of its own, with more that may go wrong. The seed decides
what happens to whom after which pause; what they were doing at that moment is the machine's affair.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.faults.real.rig import Desk, env_number, say
from tests.faults.real.server import Server, trial_server
from tests.faults.soak import Soak
from tests.relay import Relay
from tests.waiting import wait_until

HISTORIES = env_number("RECONCILER_HISTORIES", 1)
SEED = env_number("RECONCILER_HISTORIES_SEED", int(time.time()))
SECONDS = 4.0
"""How long writers and faults are at work."""
PASSWORD = "planted-7f3a"
USER = ("--user", "planted", "on", f">{PASSWORD}", "~*", "&*", "+@all")
SLOWEST = 3.0
"""Seconds that no write may take. The contract says 1, on a machine where nobody else is at work."""


class History(Soak):
    """A soak of some seconds, whose daemon and writers reach the server through a relay, as a user with a password."""

    between, longest = (0.1, 0.8), 1.2

    def __init__(self, desk: Desk, server: Server, relay: Relay, seed: int) -> None:
        super().__init__(desk, server, seed)
        self.seed, self.relay = seed, relay

    def draw(self) -> None:
        self.loss, self.kills = self.random.random() < 0.2, self.random.random() < 0.5

    def harm(self) -> list[Callable[[], object]]:
        return [*super().harm(), self.refuse, self.reset, self.half_open, self.slow, self.trickle, self.lock_out,
                self.keep_busy, self.overrun]  # fmt: skip

    def refuse(self) -> None:
        """Nobody new gets in, and all who were are thrown out."""
        self.relay.refuses = True
        self.relay.reset()
        self.away()
        self.relay.refuses = False

    def reset(self) -> None:
        self.relay.reset()

    def half_open(self) -> None:
        self.relay.freeze()

    def slow(self) -> None:
        self.relay.delay = 0.3
        self.away()
        self.relay.delay = 0.0

    def trickle(self) -> None:
        self.relay.rate = 1_000
        self.away()
        self.relay.rate = 0

    def lock_out(self) -> None:
        """WRONGPASS. Not while somebody starts, who would end there and say why: a writer, or `watch`."""
        writing = sum(path.stat().st_size > 0 for path in self.desk.logs.glob("*.jsonl"))
        if writing < self.generation or b"{" not in self.listener.path.read_bytes():
            return
        self._for_a_while(("ACL", "SETUSER", "planted", "resetpass", ">other"),
                          ("ACL", "SETUSER", "planted", "resetpass", f">{PASSWORD}"))  # fmt: skip

    def keep_busy(self) -> None:
        """Somebody's script runs for 0.3 s."""
        self._ask("EVAL", "local t = redis.call('TIME') local e = t[1] * 1000000 + t[2] + 300000 "
                  "repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > e", "0")  # fmt: skip

    def overrun(self) -> None:
        """Subscribers that are a little behind lose their connection."""
        self._for_a_while(("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1kb 1kb 1"),
                          ("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"))  # fmt: skip

    def play(self) -> None:
        """The history, and what a person would look at then."""
        self.begin()
        try:
            self.watch(SECONDS)
            self.slowness()
            self.colours()
        finally:
            self.keeper.close()
        self.secrets()

    def slowness(self) -> None:
        """Rule 11."""
        for op in self.judged.ops.values():
            if op.kind == "hub" and op.took > SLOWEST * 1e6:
                self.wrong.append(f"rule 11: {op.id} took {op.took / 1e6:.1f} s ({op.outcome})")

    def colours(self) -> None:
        """Rule 14: `status` is red while the server is away, and green when it is back."""
        self.server.kill()
        wait_until(lambda: self.desk("status").code == 1, 6, "a red status")
        self.server.start()
        wait_until(lambda: self.desk("status").code == 0, 6, "a green status")

    def secrets(self) -> None:
        """Rule 15: whatever was said and kept, the password is not in it."""
        kept = [path for path in (*self.desk.root.rglob("*"), *self.desk.logs.glob("*.out")) if path.is_file()]
        assert len(kept) > 5
        for path in kept:
            with suppress(FileNotFoundError):  # the daemon still works: one of its temporary files
                self.wrong += [f"rule 15: the password is in {path}"] if PASSWORD.encode() in path.read_bytes() else []


@contextmanager
def at_home(folder: Path, seed: int) -> Iterator[History]:
    with trial_server(*USER) as server, Relay(server.socket) as relay:
        url = relay.url.replace("redis://", f"redis://planted:{PASSWORD}@")
        with Desk(folder / f"work{seed}", url) as desk:
            yield History(desk, server, relay, seed)


def played(folder: Path, seed: int) -> History:
    with at_home(folder, seed) as history:
        try:
            history.play()
        except (AssertionError, TimeoutError) as error:
            history.wrong.append(str(error))
        if history.wrong:
            say(f"RECONCILER_HISTORIES=1 RECONCILER_HISTORIES_SEED={seed}: {dict(history.faults)}")
        return history


def test_nothing_is_lost_whatever_happens_to_real_processes(tmp_path: Path) -> None:
    """As many at once as there are processors; each that goes wrong is told with its seed, and kept."""
    begun, operations, faults, wrong = time.monotonic(), 0, 0, list[str]()
    with ThreadPoolExecutor(os.cpu_count()) as stages:
        for history in stages.map(partial(played, tmp_path), range(SEED, SEED + HISTORIES)):
            operations += history.operations
            faults += sum(history.faults.values())
            wrong += [f"seed {history.seed}: {line}" for line in history.wrong]
    say(f"faults: tier=C histories={HISTORIES} operations={operations} faults_injected={faults} seed={SEED} "
        f"seconds={time.monotonic() - begun:.0f} violations={len(wrong)}")  # fmt: skip
    if wrong:
        pytest.fail("\n".join(wrong[:40]))
