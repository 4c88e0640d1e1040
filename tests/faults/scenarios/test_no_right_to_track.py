"""The user may not use CLIENT TRACKING: writes and rounds work as ever, and a subscriber hears the events."""

from __future__ import annotations

from pathlib import Path

from tests.faults.scenarios.kit import hub, six_on
from tests.servers import running
from tests.story.desk import Desk
from tests.waiting import wait_until

RIGHTS = ("on", ">small-secret", "~memory:*", "&memory:*", "+@all", "-client|tracking", "-config", "-@admin")


def test_no_right_to_track(tmp_path: Path) -> None:
    """A cache that cannot be kept true by tracking is not trusted: a raw write is seen by the next reading."""
    with running() as server, six_on(tmp_path, server.url) as desk:
        desk.redis.execute_command("ACL", "SETUSER", "small", *RIGHTS)
        small = Desk(desk.root, server.url.replace("unix://", "unix://small:small-secret@"))
        heard: list[dict[str, object]] = []
        with hub(small) as memory:
            memory.subscribe_updates(["mary"], callback=heard.append)
            wait_until(lambda: desk.redis.pubsub_numsub("memory:updates:mary")[0][1], what="a subscriber")
            memory.update_agent_context("mary", {"n": 1})
            wait_until(lambda: heard, what="the event")
            assert memory.get_unified_context()["agents"]["gc"]["status"] == "active"
            desk.hset("gc", status="raw")
            assert memory.get_unified_context()["agents"]["gc"]["status"] == "raw"
        assert small.apply().exit_code == 0
        small.redis.close()
        desk.assert_agree()
