"""The line to Redis carries 1,000 bytes a second: what is long is read from files and written to files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reconciler import UnifiedMemoryHub
from tests.relay import Relay
from tests.story.desk import Desk
from tests.waiting import wait_until


def test_line_that_trickles(shared: Desk) -> None:
    """What was there would take a minute to arrive, and no second of it is without a byte."""
    with (
        Relay(Path(shared.url.removeprefix("unix://"))) as relay,
        UnifiedMemoryHub(settings=replace(shared.settings, redis=relay.url)) as hub,
    ):
        hub.update_agent_context("mary", {f"key{number}": "x" * 600 for number in range(100)})
        shared.apply()
        shared.hset("mary", insight="not in any file yet")
        relay.rate = 1_000
        assert "insight" not in hub.get_agent("mary")
        assert hub.update_agent_context("mary", {"task": "new"}, replace=True).store == "file"
        assert shared.record("mary")["context"] == {"task": "new"}
        relay.rate = 0
        wait_until(lambda: shared.live("mary")["context"] == {"task": "new"})
