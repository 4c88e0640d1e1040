"""A raw HSET puts half a JSON object into one agent's context: it is not copied anywhere, and the others go on.

The file keeps the last good context, the agent's other fields still go across, and mending it mends everything.
"""

from __future__ import annotations

from tests.story.desk import Desk


def test_raw_torn_context(shared: Desk) -> None:
    """Half an object is neither an empty one nor a deletion of keys."""
    shared.set("mary", context={"role": "dispatcher"})
    shared.apply()
    shared.hset("mary", context='{"role": "disp', status="busy")
    shared.hset("gc", status="busy too")
    done = shared.apply()
    assert done.exit_code == 3
    assert [problem.agent for problem in done.plan.errors] == ["mary"]
    assert shared.record("mary")["context"] == {"role": "dispatcher"}
    assert (shared.record("mary")["status"], shared.record("gc")["status"]) == ("busy", "busy too")
    shared.hset("mary", context='{"role": "mended"}')
    assert shared.apply().exit_code == 0
    assert shared.record("mary")["context"] == {"role": "mended"}
    shared.assert_agree()
