"""Somebody's script blocks the server (BUSY): a write is kept in the file, and reaches Redis when the script ends."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import redis

from tests.faults.scenarios.kit import hub, reaches_redis, six_on
from tests.servers import Server, running
from tests.waiting import wait_until


def block(server: Server) -> None:
    with server.client() as client, suppress(redis.RedisError):  # it is killed
        client.eval("while true do end", 0)


def busy(client: redis.Redis) -> bool:
    try:
        return not client.ping()
    except redis.RedisError as error:
        return "BUSY" in str(error)


def test_busy_with_a_script(tmp_path: Path) -> None:
    """SCRIPT KILL ends it, as an administrator would."""
    with running("--busy-reply-threshold", "20") as server, six_on(tmp_path, server.url) as desk, hub(desk) as memory:
        blocking = threading.Thread(target=block, args=(server,))
        blocking.start()
        wait_until(lambda: busy(desk.redis), what="a busy server")
        assert memory.update_agent_context("mary", {"n": 1}).store == "file"
        desk.redis.script_kill()
        blocking.join()
        reaches_redis(desk, "mary", n=1)
