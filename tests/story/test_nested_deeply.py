"""A value has 64 levels at most, whichever way it comes in; what stands around it counts nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.errors import UsageError
from reconciler.settings import Settings
from reconciler.sources.desired import Sources
from tests.story.desk import Desk


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


def by_the_hub(desk: Desk, value: Any) -> None:
    with UnifiedMemoryHub(settings=desk.settings) as hub:
        hub.update_agent_context("mary", {"deep": value})


def by_hand_in_redis(desk: Desk, value: Any) -> None:
    desk.redis.hset("memory:agents:mary", "context", json.dumps({"deep": value}))


def in_the_file(desk: Desk, value: Any) -> None:
    desk.set("mary", context={"deep": value})


def without_redis(desk: Desk) -> Settings:
    return Desk(desk.root, f"unix://{desk.root}/nobody").settings


@pytest.mark.parametrize("write", [by_the_hub, by_hand_in_redis, in_the_file])
def test_a_value_as_deep_as_can_be_is_read_everywhere(desk: Desk, write: Callable[[Desk, Any], None]) -> None:
    """In hash, record, event, history, and what the hub gives."""
    deep = nested(64)
    desk.save({"agents": {"mary": {"status": "idle"}}, "deep": deep})
    assert desk.apply().exit_code == 0
    write(desk, deep)
    for _ in range(2):
        assert desk.apply().exit_code == 0
    assert not desk.changes()
    assert desk.file()["agents"]["mary"]["context"] == {"deep": deep}
    with UnifiedMemoryHub(settings=desk.settings) as hub:
        assert hub.get_unified_context()["agents"]["mary"]["context"] == hub.get_agent("mary")["context"]
        assert [event.data for event in hub.history("mary", 1)] == [{"deep": deep}]
        hub.rollback("mary", 1)
        assert "context" not in hub.get_agent("mary")
        hub.rollback("mary", 2)
    assert desk.apply().exit_code == 0
    with UnifiedMemoryHub(settings=without_redis(desk)) as hub:
        found = hub.get_unified_context()
        assert (found["deep"], found["agents"]["mary"]["context"]["deep"]) == (deep, deep)


@pytest.mark.parametrize("write", [by_hand_in_redis, in_the_file])
def test_a_value_that_is_too_deep_is_quarantined(desk: Desk, write: Callable[[Desk, Any], None]) -> None:
    """What was there stays on the other side, and everything else goes on."""
    desk.save({"agents": {"mary": {"status": "idle", "context": {"deep": 1}}, "rnd": {"status": "idle"}}})
    assert desk.apply().exit_code == 0
    write(desk, nested(65))
    desk.redis.hset("memory:agents:rnd", "status", "busy")
    for _ in range(2):
        done = desk.apply()
        assert done.exit_code == 3
        assert "nested deeper than 6" in str(done.plan.errors)
    assert desk.file()["agents"]["rnd"]["status"] == "busy"
    desk.set("mary", context={"deep": 2})
    desk.redis.hset("memory:agents:mary", "context", '{"deep": 2}')
    assert desk.apply().exit_code == 0


@pytest.mark.parametrize("keeps", [False, True], ids=["each round anew", "as `run` does"])
def test_a_section_that_is_too_deep_is_quarantined(desk: Desk, keeps: bool) -> None:
    """With the others, whose last words stand; it is not deleted because it cannot be read."""
    sources = Sources()

    def apply() -> int:
        return desk.round((lambda one: replace(one, sources=sources)) if keeps else (lambda one: one)).exit_code

    desk.save({"agents": {"mary": {"status": "idle"}}, "deep": 1, "other": 1})
    assert apply() == 0
    desk.edit(lambda data: data.update(deep=nested(64)))
    assert apply() == 0
    assert json.loads(desk.redis.hget("memory:shared", "deep")) == nested(64)
    desk.edit(lambda data: data.update(deep=nested(65), other=2))
    desk.redis.hset("memory:agents:mary", "status", "busy")
    for _ in range(2):
        assert apply() == 3
    assert json.loads(desk.redis.hget("memory:shared", "deep")) == nested(64)
    assert desk.file()["agents"]["mary"]["status"] == "busy"
    desk.edit(lambda data: data.update(deep=2))
    assert apply() == 0
    assert (desk.redis.hget("memory:shared", "deep"), desk.redis.hget("memory:shared", "other")) == ("2", "2")


def test_nobody_writes_a_value_that_is_too_deep(desk: Desk) -> None:
    """It is said before anything is sent."""
    with pytest.raises(UsageError, match="nested deeper than 64"):
        by_the_hub(desk, nested(65))
    with UnifiedMemoryHub(settings=desk.settings) as hub, pytest.raises(UsageError, match="nested deeper than 64"):
        hub.sync_to_file({"agents": {"mary": {"context": {"deep": nested(65)}}}})
