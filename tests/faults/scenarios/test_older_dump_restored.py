"""The server comes back with last hour's dump: what was written since is put back from base, and nothing is deleted."""

from __future__ import annotations

from tests.story.desk import Desk


def test_older_dump_restored(shared: Desk) -> None:
    """Values, an agent that the dump does not know, and a field deleted since."""
    shared.hset("gc", insight="to be deleted")
    shared.apply()
    dump = {key: shared.redis.execute_command("DUMP", key, NEVER_DECODE=True) for key in shared.redis.keys("*")}
    shared.hset("mary", status="since then")
    shared.hset("newcomer", status="since then")
    shared.redis.hdel("memory:agents:gc", "insight")
    shared.apply()
    shared.redis.flushall()
    for key, value in dump.items():
        shared.redis.restore(key, 0, value)
    shared.apply()
    assert shared.live("mary")["status"] == shared.live("newcomer")["status"] == "since then"
    assert "insight" not in shared.record("gc")
    assert "insight" not in shared.live("gc")
    shared.assert_agree()
