"""Hooks drop while Redis is away: the file shows them at once, and each becomes one version when Redis is back."""

from __future__ import annotations

from tests.faults.scenarios.kit import dropped, round_away, version
from tests.story.desk import Desk


def test_drops_while_redis_is_away(shared: Desk) -> None:
    """Whichever rounds ran in between."""
    before = version(shared, "mary")
    for number in range(5):
        dropped(shared, "mary", n=str(number))
        assert round_away(shared).exit_code == 5
    assert shared.record("mary")["context"] == {"n": "4"}
    shared.apply()
    assert version(shared, "mary") == before + 5
    assert shared.live("mary")["context"] == {"n": "4"}
    shared.assert_agree()
