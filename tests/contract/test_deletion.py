"""A whole agent deleted: what stays of it, for how long, and how it returns."""

from __future__ import annotations

import pytest

from reconciler.stamp import format_time
from reconciler.store import Put
from tests.contract.kit import MARY, T, gone, listening, look, plain_hash, put, values, write
from tests.servers import Memory


def test_a_deleted_agent_leaves_no_hash_and_a_sidecar_that_expires(memory: Memory) -> None:
    """Whoever comes late with an old write is still refused, but not for ever."""
    memory = memory.with_limits(tombstones=1_000)
    write(memory, put("status", "busy"), put("context.k", 1))
    with listening(memory) as ears:
        answer = write(memory, everything=True)
        event = ears.event()
    assert (answer.version, sorted(answer.flags), event["event"]) == (2, ["w", "w"], "agent_deleted")
    assert not memory.redis.exists(MARY.hash)
    assert 0 < memory.redis.ttl(MARY.sidecar) <= 1_000 and 0 < memory.redis.ttl(MARY.history) <= 1_000
    assert all(field.text is None for field in look(memory).fields.values())
    assert write(memory, put("status", "late", T)).flags == "o"
    assert not memory.redis.exists(MARY.hash)


def test_deleting_the_last_field_deletes_the_agent(memory: Memory) -> None:
    """However it comes about; a field that nobody asked to delete prevents it."""
    write(memory, put("status", "busy", T), put("context.k", 1, T))
    write(memory, gone("status", T + 1))
    assert plain_hash(memory).keys() == {"context", "last_update"}
    write(memory, gone("context.k", T + 2))
    assert not memory.redis.exists(MARY.hash)


def test_an_agent_deleted_beside_an_empty_context_can_return(memory: Memory) -> None:
    """`{}` counts as nothing, and is gone with the hash."""
    write(memory, put("status", "busy"), put("context.k", 1))
    write(memory, gone("context.k"))
    write(memory, gone("status"))
    assert not memory.redis.exists(MARY.hash)
    assert write(memory, put("context.k", 2)).flags == "w"


@pytest.mark.parametrize("nothing", [gone("status", T), gone("other"), put("status", "late", T - 7)])
def test_a_write_that_changes_nothing_does_not_prolong_a_deleted_agent(memory: Memory, nothing: Put) -> None:
    """Its sidecar still expires."""
    write(memory, put("status", "busy", T - 9))
    write(memory, gone("status", T - 5))
    write(memory, nothing)
    assert memory.redis.ttl(MARY.sidecar) > 0 and not memory.redis.exists(MARY.hash)


def test_an_agent_that_returns_stays(memory: Memory) -> None:
    """Its sidecar and its history expire no more, and its versions go on."""
    write(memory, put("status", "busy", T))
    write(memory, everything=True)
    assert write(memory, put("status", "back")).version == 3
    assert memory.redis.ttl(MARY.sidecar) == memory.redis.ttl(MARY.history) == -1
    assert values(memory) == {"status": '"back"'}


def test_an_agent_that_returns_by_hand_stays_too(memory: Memory) -> None:
    """Also when `last_update` was among what was written by hand."""
    write(memory, put("status", "busy", T))
    write(memory, everything=True)
    declared = format_time(memory.store.observe({}).now)
    memory.redis.hset(MARY.hash, mapping={"status": "back", "last_update": declared})
    found = look(memory)
    write(memory, *found.raw, seen=found.seen)
    assert memory.redis.ttl(MARY.sidecar) == memory.redis.ttl(MARY.history) == -1


def test_deleting_an_agent_that_nobody_knows_does_nothing(memory: Memory) -> None:
    """No key is made, no version is counted."""
    assert write(memory, everything=True).version == 0
    assert memory.redis.keys("memory:*") == []
