"""A subscriber's connection is cut while an agent reports: it hears every version once, in order, without a hole."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk
from tests.waiting import wait_until


def test_subscriber_cut_off(shared: Desk) -> None:
    """What was published meanwhile is read from the history, and marked as replayed."""
    heard: list[int] = []
    with hub(shared) as memory:
        memory.subscribe_updates(["mary"], callback=lambda event: heard.append(event["version"]))
        wait_until(lambda: shared.redis.pubsub_numsub("memory:updates:mary")[0][1], what="a subscriber")
        first = memory.update_agent_context("mary", {"n": 0}).version
        for number in range(1, 30):
            if number % 10 == 0:
                shared.redis.client_kill_filter(_type="pubsub")
            memory.update_agent_context("mary", {"n": number})
        wait_until(lambda: heard and heard[-1] == first + 29, what="the last event")
    assert heard == list(range(first, first + 30))
