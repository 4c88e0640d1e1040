"""A hash that was removed is no deletion: it is refilled, with what is known, and nothing is said twice."""

from __future__ import annotations

import pytest

from reconciler.stamp import format_time
from reconciler.state import Field
from reconciler.store import Put
from reconciler.store.layout import restoring
from tests.contract.kit import (
    MARY,
    T,
    attempt,
    changes_of,
    gone,
    listening,
    look,
    plain_hash,
    put,
    restore,
    values,
    write,
)
from tests.servers import Memory


@pytest.fixture
def lost(memory: Memory) -> Memory:
    """An agent with a tombstone, whose hash somebody removed."""
    write(memory, put("status", "idle", T), put("context.a", 1, T), put("insight", "x", T), gone("old", T))
    memory.redis.delete(MARY.hash)
    return memory


def test_a_removed_hash_is_seen_as_gone(lost: Memory) -> None:
    """Its tombstones are still known, its values are not, and nothing is to be adopted."""
    found = look(lost)
    assert {put.field for put in found.gone} == {"status", "context.a", "insight"}
    assert found.fields.keys() == {"old"} and not found.raw and not found.foreign
    assert found.version == 1


def test_nobody_writes_there_unseen(lost: Memory) -> None:
    """A live write is told that something happened."""
    assert attempt(lost, put("status", "x")).foreign
    assert not lost.redis.exists(MARY.hash)


def test_an_empty_context_that_went_with_it_is_no_obstacle(memory: Memory) -> None:
    """Each of its keys was deleted before: no field stands for it any more."""
    write(memory, put("status", "idle", T), put("context.a", 1, T))
    write(memory, gone("context.a", T + 1))
    memory.redis.delete(MARY.hash)
    assert restore(memory, put("status", "idle", T), put("context.b", 2, T)).flags == "ww"
    assert values(memory) == {"status": '"idle"', "context.b": "2"}


def test_a_new_field_is_not_written_there_either(lost: Memory) -> None:
    """It would be all that is left of the agent."""
    assert attempt(lost, put("note", "x")).foreign
    assert not lost.redis.exists(MARY.hash)


def test_it_is_refilled_with_the_same_stamps(lost: Memory) -> None:
    """One version, and an event that says what is there again."""
    with listening(lost) as ears:
        answer = restore(lost, put("status", "idle", T), put("context.a", 1, T), put("insight", "x", T))
        event = ears.event()
    assert (answer.flags, answer.version) == ("www", 2)
    assert changes_of(event)["status"] == ("create", None, "idle")
    assert look(lost).fields["context.a"] == Field("1", T, "a")
    assert plain_hash(lost)["last_update"] == format_time(T)


def test_an_older_value_is_better_than_none(lost: Memory) -> None:
    """What files know may be older than what was lost; it keeps its stamp, for what is newer may still come."""
    answer = restore(lost, put("status", "older", T - 9), put("context.a", 0, T - 9), put("insight", "x", T))
    assert answer.flags == "www"
    assert look(lost).fields["status"] == Field('"older"', T - 9, "a")
    assert values(lost)["context.a"] == "0"


def test_what_nobody_can_restore_is_forgotten(lost: Memory) -> None:
    """Else it would look as if somebody had deleted it."""
    restore(lost, put("status", "idle", T))
    found = look(lost)
    assert found.fields.keys() == {"status", "old", "last_update"} and not found.raw and not found.foreign
    assert write(lost, put("context.a", "from elsewhere", T - 5)).flags == "w"


def test_forgetting_alone_makes_no_hash(lost: Memory) -> None:
    """Nothing is known of it anywhere any more."""
    found = look(lost)
    assert write(lost, *found.gone, seen=found.seen).version == 1
    assert not lost.redis.exists(MARY.hash)
    assert write(lost, put("status", "anew")).version == 2


def test_somebody_who_wrote_meanwhile_is_not_overwritten(lost: Memory) -> None:
    """Between seeing it gone and refilling it: refused, and adopted next time."""
    found = look(lost)
    lost.redis.hset(MARY.hash, "status", "by hand")
    puts = restoring(found, (put("status", "idle", T),))
    assert attempt(lost, *puts, seen=found.seen).foreign
    assert plain_hash(lost) == {"status": "by hand"}


def test_what_a_deletion_left_out_is_deleted_later(lost: Memory) -> None:
    """Two of three fields were deleted, and the hash with them: the third is no value that somebody adopted."""
    found = look(lost)
    some = [Put(put.field, None, T + 1, "b", '"x"') for put in found.gone if put.field != "context.a"]
    assert write(lost, *some, seen=found.seen).flags == "ww"
    left = look(lost)
    assert [put.field for put in left.gone] == ["context.a"]
    assert write(lost, Put("context.a", None, T + 1, "b", "1"), seen=left.seen).flags == "w"
    at_rest = look(lost)
    assert not at_rest.gone and not at_rest.raw
    assert at_rest.fields["context.a"] == Field(None, T + 1, "b")


def test_two_who_refill_say_it_once(lost: Memory) -> None:
    """The second finds the same values and stamps."""
    found = look(lost)
    puts = restoring(found, (put("status", "idle", T),))
    assert write(lost, *puts, seen=found.seen).version == 2
    again = attempt(lost, *puts, seen=found.seen)
    assert again.version == 2 or again.foreign
    assert look(lost).version == 2


def test_after_a_flush_everything_is_as_if_new(memory: Memory) -> None:
    """A wiped server knows no agent and no epoch; the floor is what keeps versions going."""
    write(memory, put("status", "idle", T))
    memory.store.start_epoch("one")
    for key in list(memory.redis.scan_iter("memory:*")):
        memory.redis.delete(key)
    live = memory.store.observe({})
    assert (live.agents, live.epoch) == ({}, "")
    with listening(memory) as ears:
        write(memory, put("status", "idle", T), floor=41)
        event = ears.event()
    assert (event["version"], changes_of(event)) == (42, {"status": ("create", None, "idle")})
