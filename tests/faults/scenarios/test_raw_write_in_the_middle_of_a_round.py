"""Somebody HSETs a field between a round's looking and its writing: it is not overwritten, but adopted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reconciler.store import Now, Write, Written
from reconciler.store.redis_store import RedisStore
from reconciler.workspace import Workspace
from tests.story.desk import Desk


def test_raw_write_in_the_middle_of_a_round(shared: Desk) -> None:
    """The raw write is the newer one, and wins over the edit that the round was about to write."""

    class Overtaken(RedisStore):
        def write(self, writes: Sequence[Write | Now]) -> list[Written]:
            if any(write.agent == "mary" for write in writes) and shared.live("mary")["status"] == "active":
                shared.hset("mary", status="raw")
            return super().write(writes)

    def overtaken(workspace: Workspace) -> Workspace:
        store = workspace.store
        assert isinstance(store, RedisStore)
        return replace(workspace, store=Overtaken(store.client, store.origin, store.limits, store.name))

    shared.edit(lambda data: data["agents"]["mary"].update(status="edited"), age=5)
    shared.round(overtaken)
    shared.apply()
    assert shared.live("mary")["status"] == shared.record("mary")["status"] == "raw"
    shared.assert_agree()
