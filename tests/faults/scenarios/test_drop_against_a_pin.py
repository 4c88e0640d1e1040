"""A hook drops another value than a manifest pins and Redis holds: one round leaves the pinned one everywhere."""

from __future__ import annotations

from tests.faults.scenarios.kit import dropped, version
from tests.story.desk import Desk


def test_drop_against_a_pin(shared: Desk) -> None:
    """The drop is a version of its own in the history, and the pinned value the next one."""
    shared.manifest("mary", "spec: {context: {task: kept}}\npolicy: {context.task: pin}")
    shared.apply()
    before = version(shared, "mary")
    dropped(shared, "mary", task="other")
    shared.apply()
    assert shared.live("mary")["context"]["task"] == shared.record("mary")["context"]["task"] == "kept"
    assert version(shared, "mary") == before + 2
    shared.assert_agree()
