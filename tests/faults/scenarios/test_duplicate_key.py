"""One agent stands twice in `context.json`: neither of the two is believed, and the second one's place is named."""

from __future__ import annotations

from tests.faults.scenarios.kit import named, unchanged
from tests.story.desk import Desk


def test_duplicate_key(shared: Desk) -> None:
    """A parser would silently take the last one; the values of the first would be gone."""
    doubled = shared.text().replace('"cls": {', '"mary": {"status": "busy"},\n    "cls": {', 1).encode()
    shared.save(doubled)
    done = shared.apply()
    assert done.exit_code == 3
    assert "mary" in named(done)
    assert shared.live("mary")["status"] == "active"
    assert unchanged(shared.path, doubled)
    assert len(shared.redis.keys("memory:agents:*")) == 6
