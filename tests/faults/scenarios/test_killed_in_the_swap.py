"""The process is killed just before or after `context.json` changes places: it is old or new, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.faults.scenarios.kit import DIED, child
from tests.story.desk import Desk

DYING_SWAP = """
real = files._swap
def dying(temp, target, expected):
    if target.name == "context.json":
        if sys.argv[3] == "after":
            real(temp, target, expected)
        os._exit(137)
    return real(temp, target, expected)
files._swap = dying
desk.apply()
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_in_the_swap(shared: Desk, moment: str) -> None:
    """The next round finishes what was begun."""
    before = shared.file()
    shared.hset("mary", status="busy")
    shared.set("gc", status="edited")
    assert child(shared, DYING_SWAP, moment) == DIED
    expected = "busy" if moment == "after" else before["agents"]["mary"]["status"]
    assert shared.record("mary")["status"] == expected
    assert shared.apply().exit_code == 0
    assert [path.name for path in shared.path.parent.iterdir()] == ["context.json"]
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "busy"
    assert shared.record("gc")["status"] == shared.live("gc")["status"] == "edited"
    shared.assert_agree()
