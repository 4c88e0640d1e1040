"""A branch without an agent's manifest is checked out: nothing of the agent is deleted, and the plan says so."""

from __future__ import annotations

from tests.story.desk import Desk


def test_manifest_removed(shared: Desk) -> None:
    """The whole folder may be missing."""
    path = shared.manifest("zoe", "spec: {status: active, context: {role: guest}}")
    shared.apply()
    path.unlink()
    path.parent.rmdir()
    done = shared.apply()
    assert any("zoe" in note and "--prune" in note for note in done.plan.notes)
    assert shared.record("zoe")["context"] == shared.live("zoe")["context"] == {"role": "guest"}
    shared.assert_agree()
