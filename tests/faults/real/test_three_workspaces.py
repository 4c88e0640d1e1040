"""Three workspaces on one Redis, written from all sides, with Redis away a third of the time: all equal in the end.

    RECONCILER_TRIAL_SECONDS=120 RECONCILER_TRIAL_SEED=7 pytest tests/faults/real/test_three_workspaces.py -s

An agent's `last_update` may be later in a file than in Redis by what a round carries along; that is no difference.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.faults import check
from tests.faults.real.rig import Desk, Process, env_number, repeat, say
from tests.faults.real.server import Server, trial_server
from tests.faults.record import Records

SECONDS = env_number("RECONCILER_TRIAL_SECONDS", 7)
SEED = env_number("RECONCILER_TRIAL_SEED", int(time.time()))
QUIET = 2.0
"""Seconds of quiet within which all must be equal: since the last write, with Redis there."""


def come_and_go(server: Server, seconds: float, chance: random.Random) -> None:
    """Redis is there for two thirds of the time; then it is killed, or hangs, for less than a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        away = chance.uniform(0.05, 0.9)
        time.sleep(2 * away)
        if chance.random() < 0.5:
            server.kill()
            time.sleep(away)
            server.start()
        else:
            server.freeze()
            time.sleep(away)
            server.thaw()
    time.sleep(chance.uniform(0, 1))


def at_work(desk: Desk, first: int) -> list[Process]:
    """Everybody who writes in one workspace, on all sides of it."""
    kinds = {"hub": 0.04, "raw": 0.06, "edit": 0.05, "manifest": 0.2}
    return [desk.writer(kind, f"{kind}-{desk.root.name}", first, pause=pause) for kind, pause in kinds.items()]


def everything(client: Any, desks: list[Desk], url: str) -> list[str]:
    wrong = [line for desk in desks for line in check.replicas(client, desk.root, url)]
    for desk in desks:
        done = desk("diff")
        wrong += [] if (done.code, done.out) == (0, "In sync.\n") else [f"diff: {done.code} {done.out}{done.err}"]
        assert desk.daemon
        wrong += [f"quit: run ended with {desk.daemon.ended()}"] if desk.daemon.ended() is not None else []
        wrong += [f"traceback: {desk.daemon.said()[-2000:]}"] if "Traceback" in desk.daemon.said() else []
    return wrong


def test_three_workspaces_are_equal_within_two_seconds_of_quiet(tmp_path: Path) -> None:
    """Hub, raw writes, `context.json`, manifests and deletions in each; nothing acknowledged is lost."""
    say(f"RECONCILER_TRIAL_SEED={SEED} RECONCILER_TRIAL_SECONDS={SECONDS}")
    with trial_server() as server, ExitStack() as stack:
        desks = [stack.enter_context(Desk(tmp_path / name, server.url)) for name in ("one", "two", "three")]
        initial = desks[0].begin()
        for desk in desks[1:]:
            desk.write_context({})
        for desk in desks:
            desk.run()
        for desk in desks:
            desk.settle(server)
        writers = [process for index, desk in enumerate(desks) for process in at_work(desk, 10 * index + SEED)]
        come_and_go(server, SECONDS, random.Random(SEED))
        for process in writers:
            assert process.running
            process.running.terminate()
        for process in writers:
            process.end()
        with server.client(socket_timeout=10) as client:
            began = time.monotonic()
            wrong = repeat(lambda: check.quick(client, [desk.root for desk in desks]), QUIET)
            if wrong:
                later = repeat(lambda: check.quick(client, [desk.root for desk in desks]), 20)
                wrong = [
                    f"not equal within {QUIET} s, {len(later)} left {time.monotonic() - began:.1f} s later",
                    *wrong,
                ]
            wrong += everything(client, desks, server.url)
            records = Records()
            for desk in desks:
                records.read(desk.logs.glob("*.jsonl"))
            records.initial(initial)
            wrong += check.unfit(records)
            wrong += check.lost(records, check.of_redis(client), elsewhere=True)
            wrong += check.History.read(client).faults(client)
            say("\n".join(line for desk in desks for line in check.times(client, desk.root)) or "times are equal too")
        assert not wrong, f"seed {SEED}: {len(wrong)} faults\n{check.shortened(wrong)}"
