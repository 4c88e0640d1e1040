"""Two workspaces share one server and each changes another agent of its own file: both files have both changes."""

from __future__ import annotations

from tests.faults.scenarios.kit import another
from tests.story.desk import Desk, six_agents


def test_two_agents_in_two_files(shared: Desk) -> None:
    """Neither file's older values win over the other file's edit."""
    other = another(shared)
    other.save(six_agents(), age=900)
    other.apply()
    shared.set("mary", status="busy")
    other.set("gc", status="done")
    for desk in (shared, other, shared):
        desk.apply()
    for desk in (shared, other):
        assert (desk.record("mary")["status"], desk.record("gc")["status"]) == ("busy", "done")
        desk.assert_agree()
