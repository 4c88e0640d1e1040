"""`redis-cli DEL` of an agent's hash: it is put back with its values and stamps, and its versions go on."""

from __future__ import annotations

from tests.faults.scenarios.kit import version
from tests.registers import registers
from tests.story.desk import Desk


def test_hash_deleted(shared: Desk) -> None:
    """Deleting an agent is said with `reconciler delete`; a lost hash says nothing."""
    shared.hset("mary", status="busy", context='{"task": "deploy"}')
    shared.apply()
    stamp, before = registers(shared.redis, "mary")["status"], version(shared, "mary")
    shared.redis.delete("memory:agents:mary")
    done = shared.apply()
    assert any("gone from Redis: mary" in note for note in done.plan.notes)
    assert shared.live("mary")["context"] == {"task": "deploy"}
    assert registers(shared.redis, "mary")["status"].at == stamp.at
    assert version(shared, "mary") == before + 1
    shared.assert_agree()
