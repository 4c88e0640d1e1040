"""An agent is written in every way there is, deleted, and written again: its history, folded, is what is live."""

from __future__ import annotations

import json

from tests.faults.scenarios.kit import dropped, hub, hub_away, version
from tests.story.desk import Desk


def test_history_of_everything(shared: Desk) -> None:
    """Versions without a gap, each change told once."""
    with hub(shared) as memory:
        memory.update_agent_context("mary", {"hub": 1, "gone": 1}, status="busy")
        memory.delete_agent("mary")
        memory.update_agent_context("mary", {"again": [1, {"two": None}]})
        shared.hset("mary", insight="raw", note="raw")
        shared.apply()
        dropped(shared, "mary", drop="1")
        shared.edit(lambda data: data["agents"]["mary"].pop("note"))
        shared.apply()
        with hub_away(shared) as cut_off:
            cut_off.update_agent_context("mary", {"away": True})
        shared.redis.delete("memory:agents:mary")
        shared.apply()
        events = memory.history("mary")[::-1]
    folded: dict[str, object] = {}
    for change in (change for event in events for change in event.changes):
        folded |= {change["field"]: change["new"]}
    alive = {name: value for name, value in folded.items() if value is not None and name != "last_update"}
    live = shared.live("mary")
    assert alive == {"insight": live["insight"], **{f"context.{key}": value for key, value in live["context"].items()}}
    assert json.dumps(live["context"]["again"]) == '[1, {"two": null}]'
    assert [event.version for event in events] == list(range(1, version(shared, "mary") + 1))
    shared.assert_agree()
