"""How a sidecar is written: short for who wrote first, in full for all others; and read, whoever wrote it."""

from __future__ import annotations

import pytest

from reconciler.state import Field
from reconciler.store.layout import digest, keys_of
from tests.contract.kit import MARY, T, adopt, attempt, gone, look, put, values, write
from tests.registers import registers
from tests.servers import Memory

BUSY, FRAME = digest(b"busy").encode(), '{\n"k":1,\n"l":2\n}'
FORMER = {
    "version": "7", "=context": digest(FRAME.encode()), ".last_update": f"{T + 5} s - a",
    ".status": f"{T} s {digest(b'busy')} a", ".context.k": f"{T + 5} c - b", ".context.l": f"{T} c - a",
    ".context.gone": f"{T + 3} x - a", ".insight": f"{T + 4} x - b",
}  # fmt: skip
"""As a former version wrote it, which had every register in full, and longer names."""
HASH = {"status": "busy", "context": FRAME, "last_update": "2023-11-14T22:13:20.000005Z"}


def test_the_usual_writers_registers_are_numbers(memory: Memory) -> None:
    """µs since the first write: a number alone takes a server 10 bytes at most, the whole agent half as much more."""
    me = memory.store.origin
    write(memory, put("context.k", 1, by=me), put("status", "busy", by=me), put("context.l", 2, by="b"))
    there = memory.redis.hgetall(MARY.sidecar)
    at, _, by = there[b"by"].decode().partition(" ")
    assert by == me and there[b"@"] == at.encode()
    assert there[b":k"] == b"0" and there[b".status"] == b"0 s " + BUSY
    assert there[b":l"] == f"{at} c - b".encode()
    assert len(there) == 7, there
    write(memory, gone("context.k", by=me))
    since = memory.redis.hget(MARY.sidecar, ":k").decode()
    assert since.endswith(" x -") and int(since.split()[0]) == registers(memory.redis, "mary")["last_update"].at - int(
        at
    )


def test_a_stamp_before_the_first_write_is_written_in_full(memory: Memory) -> None:
    """A dated write may have been made long before it comes; it is read back with its stamp."""
    me = memory.store.origin
    write(memory, put("context.k", 1, T, me), put("status", "busy", T + 1, me))
    assert memory.redis.hmget(MARY.sidecar, ":k", ".status") == [
        f"{T} c - {me}".encode(),
        b"%d s %b %b" % (T + 1, BUSY, me.encode()),
    ]
    assert look(memory).fields["context.k"] == Field("1", T, me)
    assert write(memory, put("context.k", 2, T - 1, me)).flags == "o"


def test_a_former_versions_sidecar_is_read_as_it_is(memory: Memory) -> None:
    """Nothing was written by hand, and every stamp counts."""
    memory.redis.hset(MARY.hash, mapping=HASH)
    memory.redis.hset(MARY.sidecar, mapping=FORMER)
    live = look(memory)
    assert not live.raw and live.version == 7
    assert {name: (field.at - T, field.by) for name, field in live.fields.items()} == {
        "status": (0, "a"), "context.k": (5, "b"), "context.l": (0, "a"), "last_update": (5, "a"),
        "context.gone": (3, "a"), "insight": (4, "b"),
    }  # fmt: skip
    assert memory.redis.hgetall(MARY.sidecar) == {name.encode(): text.encode() for name, text in FORMER.items()}


def test_a_former_versions_sidecar_is_carried_over_by_the_first_write(memory: Memory) -> None:
    """What is older than what was there loses, also to a tombstone; names and numbers are the new ones from then on."""
    memory.redis.hset(MARY.hash, mapping=HASH)
    memory.redis.hset(MARY.sidecar, mapping=FORMER)
    older = [put(name, "old", T - 1) for name in ("context.k", "context.gone", "insight", "status")]
    assert write(memory, *older, put("context.l", 3)).flags == "oooow"
    assert values(memory) == {"status": '"busy"', "context.k": "1", "context.l": "3"}
    assert {name.decode() for name in memory.redis.hkeys(MARY.sidecar)} == {
        "version", "by", "=", "@", ":k", ":l", ":gone", ".status", ".insight"
    }  # fmt: skip
    assert look(memory).version == 8 and not look(memory).raw


@pytest.mark.parametrize("damage", [None, "", "x", "9" * 19 + " a", "-5 a"])
def test_without_the_first_write_what_counts_from_it_is_unknown(memory: Memory, damage: str | None) -> None:
    """It is adopted as if somebody had written it by hand, and no stamp comes from the future."""
    me = memory.store.origin
    write(memory, put("status", "busy", by=me), put("context.k", 1, by=me), put("context.l", 2, T, by="b"))
    if damage is None:
        memory.redis.hdel(MARY.sidecar, "by")
    else:
        memory.redis.hset(MARY.sidecar, "by", damage)
    memory.redis.hset(MARY.sidecar, ":k", "5000000000000000")
    live = look(memory)
    assert {put.field for put in live.raw} == {"status", "context.k", "last_update"}
    assert live.fields["context.l"] == Field("2", T, "b")
    assert "status" in attempt(memory, put("status", "idle")).refused
    adopt(memory)
    assert write(memory, put("status", "idle"), put("context.k", 2)).flags == "ww"
    now = registers(memory.redis, "mary")["last_update"].at
    assert all(entry.at <= now for entry in registers(memory.redis, "mary").values())
    assert values(memory) == {"status": '"idle"', "context.k": "2", "context.l": "2"}


def test_a_former_name_beside_the_first_write_means_nothing(memory: Memory) -> None:
    """It was written over long ago, or by a process that is older than the server's memory."""
    write(memory, put("context.k", 1), put("status", "busy"))
    memory.redis.hset(MARY.sidecar, mapping={".context.k": f"{T} x - b", ".last_update": f"{T} x - b"})
    live = look(memory)
    assert not live.raw and live.fields["context.k"].text == "1"
    write(memory, put("status", "busy"), agent="rnd")
    memory.redis.hset(keys_of("rnd").sidecar, "=context", digest(b"{}"))
    assert not look(memory, "rnd").foreign
