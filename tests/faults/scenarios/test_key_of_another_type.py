"""Somebody SETs a string where an agent's hash should be: that agent waits in the file, all others go on."""

from __future__ import annotations

from tests.story.desk import Desk


def test_key_of_another_type(shared: Desk) -> None:
    """Nothing is written over the string; when it is deleted, the agent is put back."""
    shared.redis.delete("memory:agents:mary")
    shared.redis.set("memory:agents:mary", "busy")
    shared.set("mary", status="waiting")
    shared.set("gc", status="on its way")
    done = shared.apply()
    assert done.exit_code == 3
    assert [problem.agent for problem in done.plan.errors] == ["mary"]
    assert shared.redis.get("memory:agents:mary") == "busy"
    assert shared.live("gc")["status"] == "on its way"
    shared.redis.delete("memory:agents:mary")
    assert shared.apply().exit_code == 0
    assert shared.live("mary")["status"] == "waiting"
    shared.assert_agree()
