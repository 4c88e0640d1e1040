"""Two machines share sections but not `paths`: a wipe, a refill and an edit carry neither's paths to the other."""

from __future__ import annotations

from tests.faults.scenarios.kit import another
from tests.story.desk import Desk, six_agents


def test_sections_of_this_machine(shared: Desk) -> None:
    """What describes one machine never leaves its file; what is shared goes both ways."""
    other = another(shared)
    other.save({**six_agents(), "paths": {"sot": "/Users/y/02luka"}}, age=900)
    other.apply()
    other.edit(lambda data: data.update(token_usage={"total": 5, "saved": 1}))
    other.apply()
    shared.redis.flushall()
    for desk in (shared, other, shared):
        desk.apply()
    assert shared.file()["paths"]["sot"] == "/home/x/02luka"
    assert other.file()["paths"] == {"sot": "/Users/y/02luka"}
    assert shared.file()["token_usage"] == other.file()["token_usage"] == {"total": 5, "saved": 1}
    assert "paths" not in shared.redis.hgetall("memory:shared")
