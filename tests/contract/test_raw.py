"""What people write with redis-cli is noticed, adopted as one change, and never overwritten unseen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.stamp import format_time
from reconciler.state import Field
from reconciler.store import Put, Write
from reconciler.store.layout import RAW
from tests.contract.kit import (
    MARY,
    T,
    adopt,
    attempt,
    changes_of,
    gone,
    listening,
    look,
    plain_hash,
    put,
    values,
    write,
)
from tests.servers import Memory


@pytest.fixture
def known(memory: Memory) -> Memory:
    """An agent that the program has written, and nobody else yet."""
    write(memory, put("status", "idle", T), put("score", 7, T), put("context.a", 1, T), put("context.b", [2], T))
    return memory


def hset(memory: Memory, **fields: str) -> None:
    """One after the other, as a script with redis-cli does it."""
    for name, text in fields.items():
        memory.redis.hset(MARY.hash, name, text)


def adopted(memory: Memory) -> dict[str, tuple[str, Any, Any]]:
    """Adopt, and what the one event of it says; a second look finds nothing any more."""
    before = look(memory).version
    with listening(memory) as ears:
        answer = adopt(memory, base=BASE)
        event = ears.event()
    assert answer.version == before + 1 == event["version"]
    assert {change["by"] for change in event["changes"]} == {RAW}
    assert not look(memory).raw and not look(memory).foreign
    return changes_of(event)


BASE = {
    "status": Field('"idle"', T, "a"),
    "score": Field("7", T, "a"),
    "context.a": Field("1", T, "a"),
    "context.b": Field("[2]", T, "a"),
}


def test_what_the_program_wrote_is_nobodys_raw_write(known: Memory) -> None:
    """Nothing to adopt, nothing foreign."""
    assert not look(known).raw and not look(known).foreign


def test_a_raw_field_is_adopted(known: Memory) -> None:
    """HSET status: later than what was there, by `raw`."""
    hset(known, status="busy")
    assert look(known).foreign
    assert adopted(known) == {"status": ("update", "idle", "busy")}
    field = look(known).fields["status"]
    assert (field.text, field.by) == ('"busy"', RAW) and field.at > T


def test_a_raw_field_keeps_its_kind_where_it_can(known: Memory) -> None:
    """A number stays a number; what is no JSON becomes text."""
    hset(known, score="8")
    assert adopted(known) == {"score": ("update", 7, 8)}
    hset(known, score=" [1, 2] ")
    adopt(known)
    assert values(known)["score"] == "[1,2]" == plain_hash(known)["score"]
    hset(known, score="none")
    adopt(known)
    assert values(known)["score"] == '"none"'


def test_a_raw_context_means_what_it_says(known: Memory) -> None:
    """Keys it lacks are deleted, and it is framed so that the script can go on."""
    hset(known, context='{ "b": [2],\n "c": {"x": 1.10} }')
    assert adopted(known) == {"context.a": ("delete", 1, None), "context.c": ("create", None, {"x": 1.1})}
    assert plain_hash(known)["context"] == '{\n"b":[2],\n"c":{"x":1.10}\n}'
    assert look(known).fields["context.b"] == Field("[2]", T, "a")
    assert write(known, put("context.d", 1)).flags == "w"


def test_a_raw_context_that_says_the_same_is_only_framed(known: Memory) -> None:
    """Another program's way of writing JSON is no change: no version, no event."""
    hset(known, context='{"b":[2],"a":1}')
    with listening(known) as ears:
        assert adopt(known, base=BASE).version == 1
        assert ears.texts() == []
    assert list(json.loads(plain_hash(known)["context"])) == ["b", "a"]
    assert not look(known).foreign


def test_a_raw_field_that_says_the_same_is_no_change(known: Memory) -> None:
    """White space around a number."""
    hset(known, score=" 7 ")
    with listening(known) as ears:
        adopt(known, base=BASE)
        assert ears.texts() == []
    assert plain_hash(known)["score"] == "7" and not look(known).foreign


def test_a_removed_field_is_deleted(known: Memory) -> None:
    """HDEL status."""
    known.redis.hdel(MARY.hash, "status")
    assert adopted(known) == {"status": ("delete", "idle", None)}
    assert write(known, put("status", "late", T + 1)).flags == "o"


def test_a_removed_context_loses_its_keys(known: Memory) -> None:
    """HDEL context."""
    known.redis.hdel(MARY.hash, "context")
    assert adopted(known) == {"context.a": ("delete", 1, None), "context.b": ("delete", [2], None)}
    assert "context" not in plain_hash(known)
    assert write(known, put("context.new", 1)).flags == "w"


def test_an_emptied_context_loses_its_keys(known: Memory) -> None:
    """HSET context {}."""
    hset(known, context="{}")
    assert adopted(known).keys() == {"context.a", "context.b"}


def test_a_new_hash_is_adopted(memory: Memory) -> None:
    """Somebody's agent that the program has never seen."""
    hset(memory, status="new", context='{"k": 1, "n": null}', score="7")
    expected = {"status": "new", "context.k": 1, "context.n": None, "score": "7"}
    assert adopted(memory) == {name: ("create", None, value) for name, value in expected.items()}
    assert values(memory) == {"status": '"new"', "context.k": "1", "context.n": "null", "score": '"7"'}
    assert plain_hash(memory).keys() == {"status", "context", "score", "last_update"}


def test_eleven_writes_in_a_row_are_one_change(known: Memory) -> None:
    """As `save_luka` scripts do it, with `last_update` last."""
    hset(known, **{f"f{n}": str(n) for n in range(9)}, status="busy", last_update=format_time(T + 5_000_000))
    assert len(adopted(known)) == 10


def test_a_declared_time_that_moved_forward_is_the_stamp(known: Memory) -> None:
    """It happened while nobody was looking."""
    hset(known, status="busy", last_update="2024-01-02T03:04:05.000006Z")
    adopt(known)
    assert look(known).fields["status"].at == 1_704_164_645_000_006
    assert plain_hash(known)["last_update"] == "2024-01-02T03:04:05.000006Z"


def test_a_declared_time_alone_is_taken_without_a_version(known: Memory) -> None:
    """In whatever spelling."""
    hset(known, last_update="2024-01-02T10:04:05.000006+07:00")
    found = look(known)
    assert write(known, *found.raw, seen=found.seen).version == 1
    assert plain_hash(known)["last_update"] == "2024-01-02T03:04:05.000006Z"
    assert not look(known).raw


@pytest.mark.parametrize("declared", ["2001-01-01T00:00:00Z", "yesterday", "", "2199-01-01T00:00:00Z"])
def test_a_declared_time_that_is_no_newer_time_is_put_right(known: Memory, declared: str) -> None:
    """Backward, garbage or in the future: the write is stamped when it was seen, and the time is written anew."""
    hset(known, status="busy", last_update=declared)
    assert adopted(known) == {"status": ("update", "idle", "busy")}
    field = look(known).fields["status"]
    assert plain_hash(known)["last_update"] == format_time(field.at)
    hset(known, last_update=declared)
    assert look(known).fields["last_update"].text == json.dumps(format_time(field.at))
    adopt(known)
    assert plain_hash(known)["last_update"] == format_time(field.at)


def test_nothing_unrecognised_is_overwritten(known: Memory) -> None:
    """The script refuses, names the field, and changes nothing; the caller adopts and tries again."""
    for field, text in (("status", "by hand"), ("context", '{"a":5}')):
        hset(known, **{field: text})
        before = [known.redis.dump(key) for key in MARY]
        name = "status" if field == "status" else "context.a"
        answer = attempt(known, put("score", 9), put(name, "x"))
        assert answer.foreign and field in answer.refused
        assert [known.redis.dump(key) for key in MARY] == before
        adopt(known)
        assert write(known, put("score", 9), put(name, "x")).won


def test_a_field_removed_by_hand_is_not_overwritten_unseen(known: Memory) -> None:
    """Its deletion is a write too."""
    known.redis.hdel(MARY.hash, "status")
    assert attempt(known, put("status", "x")).foreign


def test_other_fields_can_be_written_meanwhile(known: Memory) -> None:
    """A raw `status` does not stand in the way of a context key."""
    hset(known, status="by hand")
    assert write(known, put("context.a", 2)).flags == "w"
    assert plain_hash(known)["status"] == "by hand" and look(known).foreign


def test_deleting_everything_waits_for_what_nobody_has_seen(known: Memory) -> None:
    """Also for a field, a context or a whole hash that no sidecar knows."""
    hset(known, surprise="x")
    assert attempt(known, everything=True).foreign
    adopt(known)
    assert write(known, everything=True).flags == "wwwww"
    for name, text in (("status", "x"), ("context", '{"a":1}')):
        known.redis.hset("memory:agents:new", name, text)
        assert attempt(known, agent="new", everything=True).foreign
        adopt(known, "new")
    assert write(known, agent="new", everything=True).won
    assert known.redis.exists("memory:agents:new", MARY.hash) == 0


@pytest.mark.parametrize("field", ["status", "context"])
def test_adoption_is_refused_when_somebody_wrote_in_between(known: Memory, field: str) -> None:
    """Between observing and adopting: the newer text stays, and the next look adopts it."""
    hset(known, **{field: '{"a":5}'})
    found = look(known)
    hset(known, **{field: '{"a":6}'})
    answer = known.store.write([Write("mary", found.raw, seen=found.seen)])[0]
    assert answer.foreign and plain_hash(known)[field] == '{"a":6}'
    adopt(known)
    assert json.loads(plain_hash(known)[field]) == {"a": 6}


@pytest.mark.parametrize(("field", "text"), [("status", "busy"), ("context", '{"a":5,"b":[2],"c":0}'), ("status", "")])
def test_two_who_adopt_the_same_write_say_it_once(known: Memory, field: str, text: str) -> None:
    """A daemon and a command may see it at the same moment; the second finds it done."""
    if text:
        hset(known, **{field: text})
    else:
        known.redis.hdel(MARY.hash, field)
    one, two = look(known, base=BASE), look(known, base=BASE)
    with listening(known) as ears:
        write(known, *one.raw, seen=one.seen)
        assert write(known, *two.raw, seen=two.seen).version == 2
        ears.event()


def test_a_late_adoption_does_not_undo_what_was_written_since(known: Memory) -> None:
    """Somebody else adopted, then wrote."""
    hset(known, status="busy")
    late = look(known)
    adopt(known)
    write(known, put("status", "done"))
    write(known, *late.raw, seen=late.seen)
    assert values(known)["status"] == '"done"'


def test_a_raw_write_is_later_than_what_it_replaced(known: Memory) -> None:
    """Also when that was stamped ahead of the server's clock, or the clock went back."""
    known = known.with_limits(max_skew=10**12)
    ahead = known.store.observe({}).now + 10**11
    write(known, put("status", "ahead", ahead), put("context.a", "ahead", ahead))
    known = known.with_limits(max_skew=0)
    hset(known, status="by hand", context='{"a":"by hand"}')
    adopt(known)
    assert values(known)["status"] == values(known)["context.a"] == '"by hand"'
    assert look(known).fields["status"].at == ahead + 1
    assert not look(known).foreign


def test_what_nobody_remembers_is_adopted_without_its_old_value(known: Memory) -> None:
    """The hash cannot tell what was there, and nothing is invented."""
    hset(known, status="busy")
    with listening(known) as ears:
        adopt(known, base={})
        assert changes_of(ears.event()) == {"status": ("update", None, "busy")}


def test_a_hash_deleted_and_written_anew_says_what_is_there(known: Memory) -> None:
    """DEL, then HSET: the whole record was replaced."""
    known.redis.delete(MARY.hash)
    hset(known, status="fresh")
    assert adopted(known)["status"] == ("update", "idle", "fresh")
    assert values(known) == {"status": '"fresh"'}


def test_a_raw_return_of_a_deleted_field_is_a_creation(known: Memory) -> None:
    """After a tombstone."""
    write(known, gone("status"), gone("context.a"))
    hset(known, status="back", context='{"b":[2],"a":3}')
    found = look(known, base=BASE)
    with listening(known) as ears:
        write(known, *found.raw, seen=found.seen)
        assert changes_of(ears.event()) == {"status": ("create", None, "back"), "context.a": ("create", None, 3)}


def test_adoption_does_not_depend_on_the_fields_it_adopts(known: Memory) -> None:
    """A put of another field in the same call is judged as ever."""
    hset(known, status="busy")
    found = look(known)
    answer = write(known, *found.raw, Put("score", "1", T - 1, "z"), seen=found.seen)
    assert answer.flags == "wo"
