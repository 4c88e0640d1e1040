"""A machine's clock is set back by an hour: an edit made after that still beats what it was made from."""

from __future__ import annotations

from tests.story.desk import Desk


def test_clock_set_back(shared: Desk) -> None:
    """No write is stamped before what it replaced, in the file and in Redis."""
    shared.hset("mary", status="before")
    shared.apply()
    shared.later(-3600)
    shared.set("mary", status="after")
    shared.apply()
    assert shared.live("mary")["status"] == "after"
    shared.hset("mary", status="raw, after that")
    shared.apply()
    assert shared.record("mary")["status"] == "raw, after that"
    shared.assert_agree()
