"""`redis-cli HSET` without stamp, version or event: it is taken up as one version, told as one event, and mirrored."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub, version
from tests.story.desk import Desk


def test_raw_hset(shared: Desk) -> None:
    """Three fields at once are one change, by `raw`."""
    before = version(shared, "mary")
    shared.hset("mary", status="busy", insight="likes tea", context='{"task": "deploy"}')
    shared.apply()
    assert version(shared, "mary") == before + 1
    with hub(shared) as memory:
        event = memory.history("mary")[0]
    assert {change["field"]: change["new"] for change in event.changes if change["field"] != "last_update"} == {
        "status": "busy",
        "insight": "likes tea",
        "context.task": "deploy",
    }
    assert {change["by"] for change in event.changes} == {"raw"}
    assert shared.record("mary")["context"] == {"task": "deploy"}
    shared.assert_agree()
