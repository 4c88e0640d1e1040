"""Of file, server and `state.db` two are lost at once: the third one alone brings the agents back on all sides."""

from __future__ import annotations

import pytest

from tests.story.desk import Desk


@pytest.mark.parametrize("left", ["state.db", "file", "server"])
def test_two_of_three_are_lost(shared: Desk, left: str) -> None:
    """Nobody takes two empty sides for a decision."""
    shared.hset("mary", status="busy", context='{"task": "deploy"}')
    shared.apply()
    if left != "file":
        shared.path.unlink()
    if left != "server":
        shared.redis.flushall()
    if left != "state.db":
        for path in shared.settings.folder.glob("state.db*"):
            path.unlink()
    assert shared.apply().exit_code == 0
    assert len(shared.file()["agents"]) == len(shared.redis.keys("memory:agents:*")) == 6
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "busy"
    assert shared.record("mary")["context"] == {"task": "deploy"}
    shared.assert_agree()
