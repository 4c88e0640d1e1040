"""The process is killed when Redis has the changes and the file has not: an edit of the old file undoes none."""

from __future__ import annotations

import pytest

from tests.faults.scenarios.kit import DIED, child
from tests.story.desk import Desk

DYING = """
from reconciler import controller
setattr(controller, sys.argv[3], lambda *args: os._exit(137))
desk.apply()
"""


@pytest.mark.parametrize("before", ["write_live", "write_file", "remember_written"])
def test_killed_between_redis_and_file(shared: Desk, before: str) -> None:
    """Nobody can have seen the version that was not put in place; killed before Redis or after the file, the same."""
    shared.hset("gc", insight="live")
    shared.set("mary", status="edited")
    assert child(shared, DYING, before) == DIED
    shared.later(60)
    shared.set("cls", status="edited later")
    shared.apply()
    assert shared.record("gc")["insight"] == shared.live("gc")["insight"] == "live"
    assert shared.live("mary")["status"] == "edited"
    assert shared.live("cls")["status"] == "edited later"
    shared.assert_agree()
