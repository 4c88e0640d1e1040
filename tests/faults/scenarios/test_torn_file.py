"""`context.json` is cut off in the middle: its place is named, Redis keeps everything, and live updates wait for it.

Mended, it gets what came meanwhile.
"""

from __future__ import annotations

import pytest

from tests.faults.scenarios.kit import named, unchanged
from tests.story.desk import Desk


@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_torn_file(shared: Desk, part: float) -> None:
    """Nobody writes over it, wherever it was cut."""
    whole = shared.path.read_bytes()
    torn = whole[: int(len(whole) * part)]
    shared.save(torn)
    shared.hset("gc", status="busy")
    done = shared.apply()
    assert done.exit_code == 3
    assert "shared_memory/context.json:" in named(done)
    assert unchanged(shared.path, torn)
    assert shared.live("mary")["status"] == "active"
    shared.save(whole)
    assert shared.apply().exit_code == 0
    assert shared.record("gc")["status"] == "busy"
    shared.assert_agree()
