"""`Mary` appears beside `mary`: on many file systems they are one, so the known one stays and the newcomer is named."""

from __future__ import annotations

from tests.story.desk import Desk


def test_name_in_another_case(shared: Desk) -> None:
    """Neither takes over the other's fields; gone again, everything is as it was."""
    shared.hset("Mary", status="odd")
    shared.hset("gc", status="busy")
    done = shared.apply()
    assert done.exit_code == 3
    assert "Mary" in str(done.plan.errors)
    assert "Mary" not in shared.file()["agents"]
    assert (shared.record("mary")["status"], shared.record("gc")["status"]) == ("active", "busy")
    shared.redis.delete("memory:agents:Mary")
    assert shared.apply().exit_code == 0
    shared.assert_agree()
