"""A connection is cut in the middle of a read: the answer is what Redis holds, not what a file held before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import UnifiedMemoryHub
from tests.relay import Relay
from tests.story.desk import Desk
from tests.waiting import wait_until


def of_one(hub: UnifiedMemoryHub) -> Any:
    return hub.get_agent("mary")


def of_all(hub: UnifiedMemoryHub) -> Any:
    return hub.get_unified_context()["agents"]["mary"]


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("read", [of_one, of_all])
def test_connection_cut_while_reading(shared: Desk, read: Callable[[UnifiedMemoryHub], Any], *, again: bool) -> None:
    """No round has brought to the file yet what was written last. `again`: the next connection is cut too."""
    with (
        Relay(Path(shared.url.removeprefix("unix://"))) as relay,
        UnifiedMemoryHub(settings=replace(shared.settings, redis=relay.url)) as hub,
        ThreadPoolExecutor(1) as reader,
    ):
        hub.update_agent_context("mary", {"task": "live"})
        read(hub)
        relay.freeze()
        reading = reader.submit(read, hub)
        wait_until(lambda: relay.swallowed)
        relay.delay = 0.4 if again else 0.0
        relay.reset()
        if again:
            wait_until(lambda: relay.connected)
            relay.delay = 0.0
            relay.reset()
        assert reading.result(5)["context"]["task"] == "live"
        assert "task" not in shared.record("mary").get("context", {})
