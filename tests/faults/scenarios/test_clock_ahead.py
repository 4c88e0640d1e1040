"""One machine's clock is a day ahead: its edits count as made now, so that they freeze no field for a day."""

from __future__ import annotations

from tests.story.desk import Desk


def test_clock_ahead(shared: Desk) -> None:
    """The next one to write wins, with an honest clock."""
    shared.later(86_400)
    shared.set("mary", status="tomorrow's")
    done = shared.apply()
    assert any("future" in note for note in done.plan.notes)
    assert shared.live("mary")["status"] == "tomorrow's"
    shared.ahead = 0
    shared.hset("mary", status="today's")
    shared.apply()
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "today's"
    shared.assert_agree()
