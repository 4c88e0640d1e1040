"""A manifest says `no`, `on`, `1e3` and `2025-11-12`: they arrive as the text or number that they look like in JSON."""

from __future__ import annotations

from tests.story.desk import Desk


def test_yaml_words_that_change_type(shared: Desk) -> None:
    """Norway stays Norway, and a date does not become an object."""
    shared.manifest("mary", "spec: {context: {country: no, light: on, day: 2025-11-12, count: 1e3, yes: true}}")
    assert shared.apply().exit_code == 0
    expected = {"country": "no", "light": "on", "day": "2025-11-12", "count": 1e3, "yes": True}
    assert shared.live("mary")["context"] == shared.record("mary")["context"] == expected
