"""Other programs publish garbage on the channel: a subscriber passes over it and hears the next event all the same."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk
from tests.waiting import wait_until

GARBAGE = (b"", b"\xff\xfe", b"[1, 2]", b"null", b'{"agent": 5}', b'{"event": "new_data", "ts": 17}', b"{" * 9_000)


def test_garbage_on_the_channel(shared: Desk) -> None:
    """None of it ends the subscription or is handed on as an event of an agent."""
    heard: list[dict[str, object]] = []
    with hub(shared) as memory:
        memory.subscribe_updates(["mary"], callback=heard.append)
        wait_until(lambda: shared.redis.pubsub_numsub("memory:updates:mary")[0][1], what="a subscriber")
        for garbage in GARBAGE:
            shared.redis.publish("memory:updates:mary", garbage)
        memory.update_agent_context("mary", {"n": 1})
        wait_until(lambda: heard and heard[-1].get("data") == {"n": 1}, what="the event")
    assert [event["agent"] for event in heard] == ["mary"]
