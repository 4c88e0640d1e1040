"""A daemon with nothing to do does nothing: no file is written, no key, and no processor time is used to speak of.

RECONCILER_TRIAL_IDLE=60 looks for a minute.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.cli.shell import listing
from tests.faults.real.rig import Desk, env_number, repeat, say
from tests.faults.real.server import Server, trial_server

SECONDS = env_number("RECONCILER_TRIAL_IDLE", 6)
SHARE = 1.0 if SECONDS >= 60 else 10.0
"""Percent of one core that is allowed; in a short look one full round weighs more."""


def processor_seconds(pid: int) -> float:
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def listened_to(server: Server) -> Iterator[list[list[str]]]:
    """Every command that anybody sends, while it lasts."""
    commands: list[list[str]] = []
    with server.client(socket_timeout=None) as client, client.monitor() as monitor:

        def listen() -> None:
            try:
                for found in monitor.listen():
                    commands.append(str(found["command"]).split())
            except (redis.RedisError, OSError, ValueError):
                pass  # closed at the end

        threading.Thread(target=listen, daemon=True).start()
        yield commands
        monitor.connection.disconnect()


def writing(client: Any, commands: list[list[str]]) -> dict[str, int]:
    """The commands among these that may write, by the server's own list of flags, and those that publish."""
    found = Counter(words[0].lower() for words in commands)
    table = {name: info["flags"] for name, info in client.command().items()}
    return {name: count for name, count in found.items() if "write" in table[name] or name.endswith("publish")}


def test_a_daemon_with_a_thousand_agents_and_nothing_to_do_writes_nothing(tmp_path: Path) -> None:
    """No file of the workspace changes, MONITOR shows reads only, and the processor is left to others."""
    with trial_server() as server, Desk(tmp_path / "work", server.url) as desk, server.client() as client:
        agents = {f"a{n:04}": {"status": "idle", "context": {"n": n, "text": "x" * 100}} for n in range(1000)}
        desk.write_context(agents)
        daemon = desk.run()
        desk.settle(server)
        settled = listing(desk.root)

        def still() -> list[str]:
            nonlocal settled
            before, settled = settled, listing(desk.root)
            time.sleep(0.5)
            return [] if before == settled else ["moving"]

        assert not repeat(still, 20)
        with listened_to(server) as commands:
            used, began = processor_seconds(daemon.pid), time.monotonic()
            time.sleep(SECONDS)
            share = 100 * (processor_seconds(daemon.pid) - used) / (time.monotonic() - began)
            now = listing(desk.root)
        changed = [one[0] for one, other in zip(settled, now, strict=False) if one != other]
        assert now == settled, changed
        assert writing(client, list(commands)) == {}
        rounds = sum(words == ["TIME"] for words in commands)
        assert rounds <= 1 + SECONDS / 30, "rounds that nothing has asked for"
        say(f"{share:.2f} % of one core, {len(commands)} commands in {SECONDS} s")
        assert share < SHARE
