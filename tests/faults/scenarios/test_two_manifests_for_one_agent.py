"""Two manifests declare one agent: both places are named, the agent is not flapping between them, the others go on."""

from __future__ import annotations

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk


def test_two_manifests_for_one_agent(shared: Desk) -> None:
    """Round after round the same, until one of them goes."""
    shared.manifest("mary", "spec: {status: one}", name="a.yaml")
    second = shared.manifest("mary", "spec: {status: two}", name="b.yaml")
    shared.manifest("gc", "spec: {status: three}")
    done = shared.apply()
    assert done.exit_code == 3
    assert "a.yaml" in named(done) and "b.yaml" in named(done)
    status = shared.live("mary")["status"]
    shared.apply()
    assert shared.live("mary")["status"] == status
    assert shared.live("gc")["status"] == "three"
    second.unlink()
    assert shared.apply().exit_code == 0
