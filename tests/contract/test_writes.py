"""Who wins, what is counted, and what stays: the write script's contract on every kind of server."""

from __future__ import annotations

import time

import pytest

from reconciler.stamp import format_time, parse_time
from reconciler.state import SHARED, Field, encode
from reconciler.store import Put, Write
from tests.contract.kit import MARY, T, attempt, gone, listening, look, plain_hash, put, values, write
from tests.servers import Memory

MINUTE = 60_000_000


def server_now(memory: Memory) -> int:
    seconds, micros = memory.redis.time()
    return int(seconds) * 1_000_000 + int(micros)


def test_a_write_is_stamped_by_the_servers_clock(memory: Memory) -> None:
    """A live write has the time of the server, whatever the writer's clock says."""
    before = server_now(memory)
    answer = write(memory, put("status", "busy", by="gg"))
    field = look(memory).fields["status"]
    assert before <= field.at <= server_now(memory)
    assert field == Field('"busy"', answer.at, "gg")
    assert (answer.flags, answer.version, answer.touched) == ("w", 1, answer.at)


def test_the_hash_is_what_people_know(memory: Memory) -> None:
    """Plain text, one JSON object as `context`, and `last_update` in ISO 8601 with a Z."""
    answer = write(memory, put("status", "busy"), put("context.n", [1]), put("insight", None), put("score", 7))
    assert plain_hash(memory) == {
        "status": "busy",
        "context": '{\n"n":[1]\n}',
        "insight": "null",
        "score": "7",
        "last_update": format_time(answer.at),
    }


def test_a_later_live_write_wins_although_the_stored_stamp_is_in_the_future(memory: Memory) -> None:
    """`max(TIME, stored + 1 µs)`: a clock that ran ahead, or goes backwards, blocks nobody."""
    ahead = server_now(memory) + MINUTE // 2
    write(memory, put("status", "early", ahead), put("context.k", 1, ahead - 5))
    answer = write(memory, put("status", "later"), put("context.k", 2))
    assert answer.flags == "ww"
    assert {field.at for field in look(memory).fields.values()} == {ahead + 1}


def test_a_dated_write_keeps_its_stamp(memory: Memory) -> None:
    """What a file or the journal says happened then."""
    write(memory, put("status", "busy", T, "file"))
    assert look(memory).fields["status"] == Field('"busy"', T, "file")
    assert plain_hash(memory)["last_update"] == format_time(T)


@pytest.mark.parametrize(("at", "flag", "left"), [(T + 1, "w", '"new"'), (T - 1, "o", '"old"')])
def test_the_newer_stamp_wins(memory: Memory, at: int, flag: str, left: str) -> None:
    """One microsecond decides, and a stale write changes nothing."""
    write(memory, put("status", "old", T), put("context.k", "old", T))
    assert write(memory, put("status", "new", at), put("context.k", "new", at)).flags == flag * 2
    assert values(memory) == {"status": left, "context.k": left}


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [
        (("x", "a"), ("y", "b"), True),
        (("x", "b"), ("y", "a"), False),
        (("x", "a"), ("y", "a"), True),
        (("y", "a"), ("x", "a"), False),
        (("x", "a"), ("x", "ab"), True),
        (("x", "B"), ("x", "a"), True),
        (("x", "zz"), ("x", "é"), True),
        (("x", "é"), ("x", "😀"), True),
        (("9", "a"), (10, "a"), True),
        ((None, "a"), ("x", "a"), True),
        (("x", "a"), (None, "a"), False),
        ((None, "a"), (None, "b"), True),
    ],
)
@pytest.mark.parametrize("field", ["status", "context.k"])
def test_a_tie_is_decided_by_the_writer_then_by_the_text(
    memory: Memory, field: str, first: tuple[object, str], second: tuple[object, str], wins: bool
) -> None:
    """The total order of DESIGN §2, by bytes and by no locale; None stands for a tombstone here."""
    write(memory, put("insight", "stays", T))
    for value, by in (first, second):
        answer = write(memory, gone(field, T, by) if value is None else put(field, value, T, by))
    assert (answer.flags != "o") == wins
    value, by = second if wins else first
    assert look(memory).fields[field] == Field(None if value is None else encode(value), T, by)


def test_the_same_value_with_a_newer_stamp_moves_the_stamp_and_nothing_else(memory: Memory) -> None:
    """No version and no event, because nobody would see a difference."""
    write(memory, put("status", "busy", T), put("context.k", 1, T), put("score", 2, T))
    with listening(memory) as ears:
        answer = write(memory, put("status", "busy", T + 9), put("context.k", 1, T + 9), put("score", 2, T + 9))
        assert ears.texts() == []
    assert (answer.flags, answer.version) == ("sss", 1)
    assert {field.at for field in look(memory).fields.values()} == {T + 9}


def test_the_same_write_again_does_nothing(memory: Memory) -> None:
    """A journal may be merged twice."""
    puts = (put("status", "busy", T), put("context.k", 1, T), gone("context.old", T))
    write(memory, *puts)
    before = {key: memory.redis.dump(key) for key in MARY}
    assert write(memory, *puts).flags == "sss"
    assert {key: memory.redis.dump(key) for key in MARY} == before


def test_a_stamp_too_far_in_the_future_becomes_now(memory: Memory) -> None:
    """One bad clock cannot freeze a field; the flag's capital letter reports it."""
    memory = memory.with_limits(max_skew=1_000_000)
    answer = write(memory, put("status", "busy", server_now(memory) + MINUTE), put("insight", "x", T))
    assert (answer.flags, look(memory).fields["status"].at) == ("Ww", answer.at)


def test_a_clamped_write_may_be_stale(memory: Memory) -> None:
    """Clamped to now, it is older than what an honest clock a little ahead has written."""
    write(memory, put("status", "honest", server_now(memory) + MINUTE // 2))
    assert write(memory, put("status", "mad", server_now(memory) + 99 * MINUTE)).flags == "O"
    assert values(memory) == {"status": '"honest"'}


def test_a_stamp_within_the_skew_is_kept(memory: Memory) -> None:
    """Clocks differ a little."""
    at = server_now(memory) + MINUTE // 2
    assert write(memory, put("status", "busy", at)).flags == "w"
    assert look(memory).fields["status"].at == at


def test_a_stamp_of_zero_is_the_oldest(memory: Memory) -> None:
    """A value without any time (a first run) exists, and every other write beats it."""
    assert write(memory, put("status", "undated", 0), put("context.k", 0, 0)).flags == "ww"
    assert look(memory).fields["context.k"] == Field("0", 0, "a")
    assert plain_hash(memory)["last_update"] == format_time(0)
    assert write(memory, put("status", "dated", 1)).flags == "w"


def test_a_stamp_before_1970_is_taken_as_1970(memory: Memory) -> None:
    """A file's mtime may be anything; it must not break the agent for good."""
    write(memory, put("status", "old", -5))
    assert look(memory).fields["status"] == Field('"old"', 0, "a")
    assert write(memory, put("status", "new")).flags == "w"


def test_a_tombstone_deletes_and_is_remembered(memory: Memory) -> None:
    """The field is gone from the hash; an older write does not bring it back."""
    write(memory, put("status", "busy", T), put("insight", "x", T), put("context.k", 1, T), put("context.l", 2, T))
    assert write(memory, gone("insight", T + 2), gone("context.k", T + 2)).flags == "ww"
    assert plain_hash(memory) == {"status": "busy", "context": '{\n"l":2\n}', "last_update": format_time(T + 2)}
    assert look(memory).fields["insight"] == Field(None, T + 2, "a")
    assert write(memory, put("insight", "y", T + 1), put("context.k", 9, T + 1)).flags == "oo"


def test_a_newer_write_resurrects(memory: Memory) -> None:
    """A tombstone is a write like any other."""
    write(memory, put("status", "busy", T), gone("insight", T), gone("context.k", T))
    assert write(memory, put("insight", "y", T + 1), put("context.k", 9, T + 1)).flags == "ww"
    assert values(memory) == {"status": '"busy"', "insight": '"y"', "context.k": "9"}


def test_deleting_what_was_never_there_is_remembered_and_not_announced(memory: Memory) -> None:
    """A tombstone from a file may arrive before the value it deletes."""
    write(memory, put("status", "busy", T))
    assert write(memory, gone("insight", T + 5), gone("context.k", T + 5)).flags == "ss"
    assert write(memory, put("insight", "late", T + 1), put("context.k", 1, T + 1)).flags == "oo"


def test_an_empty_context_is_an_empty_object(memory: Memory) -> None:
    """When the last key goes and other fields stay, `context` is still a JSON object."""
    write(memory, put("status", "busy"), put("context.k", 1))
    write(memory, gone("context.k"))
    assert plain_hash(memory)["context"] == "{}"
    write(memory, put("context.l", 2))
    assert plain_hash(memory)["context"] == '{\n"l":2\n}'


def test_null_is_a_value(memory: Memory) -> None:
    """`{"k": null}` is not `{}`: it has a version and an event, and so has its end."""
    write(memory, put("status", "busy"))
    with listening(memory) as ears:
        assert write(memory, put("context.k", None), put("insight", None)).flags == "ww"
        assert [change["op"] for change in ears.event()["changes"]] == ["create", "create"]
        assert write(memory, gone("context.k"), gone("insight")).flags == "ww"
        assert [change["op"] for change in ears.event()["changes"]] == ["delete", "delete"]


def test_a_field_given_twice_counts_as_two_writes(memory: Memory) -> None:
    """The second is compared with the first, in whatever way they differ."""
    write(memory, put("insight", "x", T))
    puts = (put("status", "b", T), put("status", "a", T), gone("insight", T + 1), put("insight", "y", T + 2))
    assert write(memory, *puts).flags == "woww"
    assert plain_hash(memory) == {"status": "b", "insight": "y", "last_update": format_time(T + 2)}
    assert write(memory, put("status", "c", T + 3), gone("status", T + 4), put("insight", "z", T + 4)).flags == "www"
    assert values(memory) == {"insight": '"z"'}


def test_last_update_is_the_newest_stamp(memory: Memory) -> None:
    """An older write that wins in its own field does not turn it back."""
    write(memory, put("status", "busy", T))
    assert write(memory, put("insight", "older", T - 9)).touched == T
    assert plain_hash(memory)["last_update"] == format_time(T)
    assert look(memory).fields["last_update"] == Field(f'"{format_time(T)}"', T, "a")


def test_last_update_moves_forward_only(memory: Memory) -> None:
    """It is a register like others, without a version of its own."""
    write(memory, put("status", "busy", T))
    assert write(memory, put("last_update", format_time(T + 5), T + 5)).version == 1
    assert plain_hash(memory)["last_update"] == format_time(T + 5)
    write(memory, put("last_update", format_time(T + 1), T + 1))
    assert plain_hash(memory)["last_update"] == format_time(T + 5)


@pytest.mark.parametrize(
    "at", [0, 951_782_399_999_999, 951_782_400_000_000, 1_709_251_199_000_001, 4_107_542_400_000_000]
)
def test_the_script_writes_times_as_the_program_does(memory: Memory, at: int) -> None:
    """Leap days and ends of centuries included."""
    memory = memory.with_limits(max_skew=2**52)
    write(memory, put("status", "busy", at))
    assert plain_hash(memory)["last_update"] == format_time(at)


def test_shared_sections_are_a_document_of_their_own(memory: Memory) -> None:
    """They live in `memory:shared`; objects and lists stay JSON there, text stays text."""
    write(memory, put("current_work", {"a": [1]}), put("note", "plain"), agent=SHARED)
    assert memory.redis.hget("memory:shared", "current_work") == b'{"a":[1]}'
    assert values(memory, SHARED) == {"current_work": '{"a":[1]}', "note": '"plain"'}
    memory.redis.hset("memory:shared", mapping={"current_work": '{ "a": [2] }', "note": "[x", "list": "[3]"})
    found = look(memory, SHARED)
    write(memory, *found.raw, agent=SHARED, seen=found.seen)
    assert values(memory, SHARED) == {"current_work": '{"a":[2]}', "note": '"[x"', "list": "[3]"}


def test_one_refused_write_hurts_only_itself(memory: Memory) -> None:
    """In a batch every agent has its own answer."""
    memory.redis.hset("memory:agents:foreign", "status", "by hand")
    names = ("one", "foreign", "two")
    answers = memory.store.write([Write(name, (put("status", "x"),)) for name in names])
    assert [(answer.version, answer.foreign) for answer in answers] == [(1, False), (0, True), (1, False)]


@pytest.mark.parametrize("field", ["context", "context.half \ud800", "half \ud800"])
def test_a_field_that_cannot_be_written_is_refused(memory: Memory, field: str) -> None:
    """`context` is the name of the whole object, and half a surrogate pair is no text; both are said."""
    assert attempt(memory, Put(field, "1", T, "a")).refused
    assert memory.redis.keys("memory:*") == []


def test_a_server_is_marked_once(memory: Memory) -> None:
    """The epoch changes only when the server was wiped."""
    assert memory.store.observe({}).epoch == ""
    assert memory.store.start_epoch("one") == "one"
    assert memory.store.start_epoch("two") == "one"
    assert memory.store.observe({}).epoch == "one"


def test_now_is_the_servers_time(memory: Memory) -> None:
    """Rounds judge stamps by the server's clock."""
    live = memory.store.observe({})
    assert live.up and abs(live.now - time.time_ns() // 1000) < MINUTE


def test_forgetting_drops_an_expired_tombstone(memory: Memory) -> None:
    """Nothing is left of it; a living field and a tombstone written since stay."""
    write(memory, put("status", "busy", T), gone("insight", T), gone("context.k", T), gone("moved", T + 1))
    names = ("status", "insight", "context.k", "moved")
    answer = write(memory, *(Put(name, None, T, "a", forget=True) for name in names))
    assert answer.version == 1
    assert look(memory).fields.keys() == {"status", "moved", "last_update"}
    assert parse_time(plain_hash(memory)["last_update"]) is not None
