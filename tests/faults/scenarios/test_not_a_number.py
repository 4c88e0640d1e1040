"""A script writes `NaN` and `Infinity`, which Python calls JSON: the place is named, and none of it reaches Redis."""

from __future__ import annotations

import json

import pytest

from tests.faults.scenarios.kit import named, unchanged
from tests.story.desk import Desk


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_not_a_number(shared: Desk, word: str) -> None:
    """Other readers of the shared memory, jq and JavaScript among them, would break on it."""
    spoilt = shared.text().replace('"total": 0', f'"total": {word}').encode()
    shared.save(spoilt)
    done = shared.apply()
    assert done.exit_code == 3
    assert "shared_memory/context.json:" in named(done)
    assert unchanged(shared.path, spoilt)
    assert json.loads(shared.redis.hget("memory:shared", "token_usage")) == {"total": 0, "saved": 0}
