"""A minified `context.json` holds a thousand illegal names: what is told of them stays small, and the good go on."""

from __future__ import annotations

import json

from tests.story.desk import Desk


def test_a_thousand_bad_names_on_one_line(shared: Desk) -> None:
    """Found by fuzzing: each message held the whole line."""
    data = shared.file()
    data["agents"] |= {f"!{number}": {"status": "odd"} for number in range(1_000)}
    data["agents"]["mary"]["status"] = "busy"
    shared.save(json.dumps(data, separators=(",", ":")))
    done = shared.apply()
    assert done.exit_code == 3
    assert max(len(str(problem)) for problem in done.plan.errors) < 300
    assert shared.live("mary")["status"] == "busy"
    assert len(shared.redis.keys("memory:agents:*")) == 6
