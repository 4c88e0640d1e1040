"""An agent HSETs bytes that are no UTF-8: that one field stays where it is, named; its other fields go across."""

from __future__ import annotations

from tests.story.desk import Desk


def test_bytes_that_are_no_text(shared: Desk) -> None:
    """And nobody takes the field for deleted."""
    shared.set("mary", insight="likes tea")
    shared.apply()
    shared.redis.hset("memory:agents:mary", mapping={"insight": b"\xff\xfe\x00", "status": "busy"})
    done = shared.apply()
    assert done.exit_code == 3
    assert [problem.agent for problem in done.plan.errors] == ["mary"]
    assert (shared.record("mary")["insight"], shared.record("mary")["status"]) == ("likes tea", "busy")
    shared.hset("mary", insight="likes coffee")
    assert shared.apply().exit_code == 0
    assert shared.record("mary")["insight"] == "likes coffee"
