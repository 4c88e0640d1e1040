"""A manifest says `contxt`: the key is named with what was meant, and no half of the manifest is taken over."""

from __future__ import annotations

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk


def test_misspelt_manifest(shared: Desk) -> None:
    """The status beside it waits too: a person who mends one line gets the whole."""
    shared.manifest("mary", "spec: {status: busy, contxt: {role: dispatcher}}")
    done = shared.apply()
    assert done.exit_code == 3
    assert "did you mean 'context'?" in named(done)
    assert shared.live("mary")["status"] == "active"
    shared.manifest("mary", "spec: {status: busy, context: {role: dispatcher}}")
    assert shared.apply().exit_code == 0
    assert shared.live("mary")["status"] == "busy"
