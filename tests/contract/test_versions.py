"""Versions without gaps, whatever was lost, and a history of exactly the length that was asked for."""

from __future__ import annotations

import pytest

from reconciler.store import Write
from reconciler.store.layout import keys_of
from tests.contract.kit import MARY, T, attempt, listening, look, put, values, write
from tests.servers import Memory


def test_versions_have_no_gaps(memory: Memory) -> None:
    """Every write that won is one version, however many fields it had; the others are none."""
    versions = []
    for number in range(5):
        versions.append(write(memory, put("context.n", number), put("status", str(number))).version)
        versions.append(write(memory, put("context.n", -1, T)).version)
    assert versions == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_history_is_bounded_exactly(memory: Memory) -> None:
    """The newest versions stay, newest first, and not one more than was asked."""
    memory = memory.with_limits(history=7)
    for number in range(20):
        write(memory, put("context.n", number))
    assert memory.redis.xlen(MARY.history) == 7
    assert [event.version for event in memory.store.history("mary", 100)] == list(range(20, 13, -1))
    assert [event.version for event in memory.store.history("mary", 2)] == [20, 19]


def test_a_bound_that_was_lowered_shortens_every_history(memory: Memory) -> None:
    """Also of agents that nobody writes any more; once is enough, and what is no history stays."""
    for agent in ("mary", "rnd"):
        for number in range(5):
            write(memory, put("context.n", number), agent=agent)
    write(memory, put("context.n", 1), agent="odd")
    memory.redis.delete(keys_of("odd").history)
    memory.redis.set(keys_of("odd").history, "somebody else's")
    memory = memory.with_limits(history=2)
    assert (memory.store.trim(), memory.store.trim()) == (6, 0)
    assert [event.version for event in memory.store.history("rnd", 100)] == [5, 4]
    assert memory.redis.get(keys_of("odd").history) == b"somebody else's"
    assert write(memory, put("context.n", 9)).version == 6


def test_no_history_is_kept_when_none_is_wanted(memory: Memory) -> None:
    """A bound of 0 makes no stream; versions and events go on."""
    memory = memory.with_limits(history=0)
    with listening(memory) as ears:
        assert [write(memory, put("context.n", n)).version for n in (1, 2)] == [1, 2]
        assert [event["version"] for event in ears.events()] == [1, 2]
    assert not memory.redis.exists(MARY.history)


def test_a_foreign_entry_in_history_is_passed_over(memory: Memory) -> None:
    """Somebody's XADD does not hide the versions around it."""
    write(memory, put("status", "a"))
    memory.redis.xadd(MARY.history, {"event": "{"}, id="1-1")
    memory.redis.xadd(MARY.history, {"note": "x"}, id="1-2")
    write(memory, put("status", "b"))
    assert [event.version for event in memory.store.history("mary", 10)] == [2, 1]


def test_versions_go_on_from_the_floor_after_a_flush(memory: Memory) -> None:
    """A refilled server does not count from one again, and a lower floor changes nothing."""
    for number in range(3):
        write(memory, put("context.n", number))
    for key in MARY:
        memory.redis.delete(key)
    assert write(memory, put("context.n", 7), floor=3).version == 4
    assert write(memory, put("context.n", 8), floor=3).version == 5


def test_a_floor_that_was_not_looked_up_is_asked_for(memory: Memory) -> None:
    """Only where the server has no version; nothing is written before it is known, and history is no help then."""
    assert write(memory, put("status", "a"), floor=0).version == 1
    assert write(memory, put("status", "b"), floor=None).version == 2
    for key in MARY:
        memory.redis.delete(key)
    with listening(memory) as ears:
        answer = attempt(memory, put("status", "c"), floor=None)
        assert answer.unknown_floor and answer.refused and not answer.later and not answer.foreign
        assert not any(memory.redis.exists(key) for key in MARY)
        assert write(memory, put("status", "c"), floor=2).version == 3
        assert ears.event()["version"] == 3


def test_what_came_after_a_version_is_read_in_order(memory: Memory) -> None:
    """As far back as the history goes, also over many pages, and past somebody else's entries."""
    memory = memory.with_limits(history=1_200)
    memory.store.write([Write("mary", (put("context.n", number),)) for number in range(1_300)])
    memory.redis.xadd(MARY.history, {"note": "x"}, id="1300-7")
    write(memory, put("context.n", -1))
    assert [event.version for event in memory.store.since("mary", 1_298)] == [1_299, 1_300, 1_301]
    assert [event.version for event in memory.store.since("mary", 0)] == list(range(103, 1_302))
    assert memory.store.since("mary", 1_301) == memory.store.since("nobody", 0) == []


def test_versions_are_told_without_reading_the_fields(memory: Memory) -> None:
    """Of all agents or of the named ones; 0 for one that is not there, or whose sidecar is something else."""
    agents = [f"a{number}" for number in range(1_100)]
    memory.store.write([Write(agent, (put("status", "x"),)) for agent in agents])
    write(memory, put("status", "y"), agent="a7")
    memory.redis.hset(keys_of("raw").hash, "status", "x")
    memory.redis.set(keys_of("odd").sidecar, "x")
    found = memory.store.versions()
    assert found == {**dict.fromkeys(agents, 1), "a7": 2, "raw": 0, "odd": 0}
    assert memory.store.versions(["a7", "nobody", "odd"]) == {"a7": 2, "nobody": 0, "odd": 0}
    assert memory.store.versions([]) == {}


def test_versions_go_on_from_history_when_the_sidecar_is_lost(memory: Memory) -> None:
    """Nobody reuses the number of a version that subscribers have seen."""
    for number in range(3):
        write(memory, put("context.n", number))
    memory.redis.delete(MARY.sidecar)
    found = look(memory)
    assert write(memory, *found.raw, seen=found.seen).version == 4
    assert values(memory) == {"context.n": "2"}


@pytest.mark.parametrize("damage", ["", "5 q -", "5 q - b"])
def test_a_damaged_sidecar_is_taken_as_unknown(memory: Memory, damage: str) -> None:
    """What cannot be read there is adopted anew, and the agent can be written again."""
    write(memory, put("status", "busy", T), put("context.k", 1, T))
    memory.redis.hset(MARY.sidecar, mapping={".status": "garbage", ":k": damage, "version": "many"})
    found = look(memory)
    assert write(memory, *found.raw, seen=found.seen).version == 2
    assert write(memory, put("status", "idle"), put("context.k", 2)).flags == "ww"
    assert values(memory) == {"status": '"idle"', "context.k": "2"}
