"""An agent sends its context as JSON within JSON: it is read as the object that was meant, with a warning."""

from __future__ import annotations

import json

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk


def test_context_encoded_twice(shared: Desk) -> None:
    """It reaches the file as an object, and a later update of one key leaves the others."""
    shared.hset("mary", context=json.dumps(json.dumps({"role": "dispatcher", "n": 1})))
    done = shared.apply()
    assert done.exit_code == 0
    assert "mary" in named(done)
    assert shared.record("mary")["context"] == {"role": "dispatcher", "n": 1}
    shared.set("mary", context={"role": "dispatcher", "n": 2})
    shared.apply()
    assert shared.live("mary")["context"] == {"role": "dispatcher", "n": 2}
    shared.assert_agree()
