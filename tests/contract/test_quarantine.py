"""One bad item hurts one item: it is named with its key and a way out, and every other agent goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.errors import Problem
from reconciler.store import Live, Put, Write
from reconciler.store.layout import digest, keys_of, read_agent
from tests.contract.kit import T, adopt, look, plain_hash, put, values, write
from tests.servers import Memory

BAD = keys_of("bad")


@pytest.fixture
def two(memory: Memory) -> Memory:
    """Two agents, `good` and `bad`."""
    for agent in ("good", "bad"):
        write(memory, put("status", "idle", T), put("context.k", 1, T), agent=agent)
    return memory


def observe(memory: Memory) -> tuple[Live, Problem]:
    """Everything, with one problem; and `good` is well and can be written."""
    live = memory.store.observe({})
    assert live.agents["good"].fields["status"].text == '"idle"'
    answers = memory.store.write([Write(name, (put("context.n", 1),)) for name in ("bad", "good")])
    assert answers[1].won
    problems = live.problems
    assert len(problems) == 1, problems
    assert problems[0].message and problems[0].hint
    return live, problems[0]


@pytest.mark.parametrize("key", [BAD.hash, BAD.sidecar])
@pytest.mark.parametrize("make", [lambda r, k: r.set(k, "x"), lambda r, k: r.rpush(k, "x")])
def test_a_key_of_the_wrong_type_is_quarantined(two: Memory, key: str, make: Callable[[object, str], object]) -> None:
    """It is neither read nor written."""
    two.redis.delete(key)
    make(two.redis, key)
    live, problem = observe(two)
    assert "bad" not in live.agents
    assert (problem.place.source, problem.agent) == (key, "bad") and "not a hash" in problem.message
    refused = two.store.write([Write("bad", (put("status", "x"),), everything=False)])[0].refused
    assert key in refused


def test_a_history_of_the_wrong_type_refuses_the_write_as_a_whole(two: Memory) -> None:
    """Nothing half-written, nothing said; reading goes on."""
    two.redis.delete(BAD.history)
    two.redis.set(BAD.history, "x")
    before = plain_hash(two, "bad"), two.redis.hgetall(BAD.sidecar)
    answers = two.store.write([Write(name, (put("status", "busy"),)) for name in ("bad", "good")])
    assert BAD.history in answers[0].refused and answers[1].won
    assert (plain_hash(two, "bad"), two.redis.hgetall(BAD.sidecar)) == before
    assert values(two, "bad")["status"] == '"idle"'


def test_a_history_that_somebody_wrote_ahead_of_refuses_the_write(two: Memory) -> None:
    """XADD * into it: its numbers are no versions any more; the message says what to do."""
    two.redis.xadd(BAD.history, {"note": "x"})
    before = plain_hash(two, "bad"), two.redis.hgetall(BAD.sidecar)
    answers = two.store.write([Write(name, (put("status", "busy"),)) for name in ("bad", "good")])
    assert BAD.history in answers[0].refused and "DEL" in answers[0].refused and answers[1].won
    assert (plain_hash(two, "bad"), two.redis.hgetall(BAD.sidecar)) == before


@pytest.mark.parametrize("field", ["status", "context", "last_update", "new"])
def test_bytes_that_are_no_text_are_quarantined(two: Memory, field: str) -> None:
    """The one field is left out; the agent's others are there, and nothing is taken as deleted."""
    two.redis.hset(BAD.hash, field, b"\xff\xfe")
    live, problem = observe(two)
    bad = live.agents["bad"]
    assert (problem.place.source, problem.agent) == (f"{BAD.hash} {field}", "bad")
    assert bad.broken == {field} and not bad.raw and field not in bad.fields
    assert {"status", "context.k"} - bad.fields.keys() == {"status": {"status"}, "context": {"context.k"}}.get(
        field, set()
    )


def test_a_name_that_is_no_text_is_quarantined(two: Memory) -> None:
    """The field's name is shown in a way that can be printed."""
    two.redis.hset(BAD.hash, b"\xff", "x")
    live, problem = observe(two)
    assert problem.place.source == f"{BAD.hash} \\xff"
    assert live.agents["bad"].fields["status"].text == '"idle"'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "{",
        "[1]",
        "1",
        "null",
        '{"a":1,"a":2}',
        '{"a":NaN}',
        '{"a":1}x',
        '"[1]"',
        '"x"',
        r'{"\ud800":1}',
        "[" * 5000,
    ],
)
def test_a_context_that_is_no_object_is_quarantined(two: Memory, text: str) -> None:
    """Its keys are neither read nor taken as deleted, and the hash stays as it is."""
    two.redis.hset(BAD.hash, "context", text)
    live, problem = observe(two)
    bad = live.agents["bad"]
    assert problem.severity == "error" and problem.place.source == f"{BAD.hash} context"
    assert not bad.raw and "context.k" not in bad.fields and bad.fields["status"].text == '"idle"'
    assert plain_hash(two, "bad")["context"] == text
    assert write(two, put("status", "busy"), agent="bad").won


def test_a_context_encoded_twice_is_put_right_with_a_warning(two: Memory) -> None:
    """`json.dumps(json.dumps(...))` is a common slip."""
    two.redis.hset(BAD.hash, "context", r'"{\"k\": 1, \"l\": \"é\"}"')
    live = two.store.observe({})
    assert [problem.severity for problem in live.problems] == ["warning"]
    found = live.agents["bad"]
    write(two, *found.raw, agent="bad", seen=found.seen)
    assert values(two, "bad") == {"status": '"idle"', "context.k": "1", "context.l": '"é"'}
    assert not two.store.observe({}).problems


@pytest.mark.parametrize("name", ["context.k", "context."])
def test_a_hash_field_with_a_reserved_name_is_quarantined(two: Memory, name: str) -> None:
    """It would look like a key of the context."""
    two.redis.hset(BAD.hash, name, "x")
    live, problem = observe(two)
    assert name in problem.place.source
    assert live.agents["bad"].fields["context.k"].text == "1"


@pytest.mark.parametrize("name", [b"", b"a b", b"-x", "é".encode(), b"\xff", b"x" * 65, b"a:b", b"@shared", b"a\nb"])
def test_an_illegal_name_is_quarantined(two: Memory, name: bytes) -> None:
    """Reported once, and left alone."""
    key = b"memory:agents:" + name
    two.redis.hset(key, "status", "x")
    live, problem = observe(two)
    assert live.agents.keys() == {"good", "bad"}
    assert problem.place.source.startswith("memory:agents:") and "not a legal agent name" in problem.message
    assert two.redis.hgetall(key) == {b"status": b"x"}


def test_keys_of_others_under_the_prefix_are_left_alone(two: Memory) -> None:
    """`memory:` is shared with other programs."""
    two.redis.set("memory:queue", "x")
    two.redis.set("memory:meta:other", "x")
    assert not two.store.observe({}).problems


def test_every_problem_is_told_at_once(two: Memory) -> None:
    """Several bad fields of several agents."""
    two.redis.hset(BAD.hash, mapping={b"status": b"\xff", b"context": b"[]", b"context.x": b"1"})
    two.redis.set("memory:agents:worse", "x")
    assert len(two.store.observe({}).problems) == 4


def test_a_value_nested_beyond_reason_is_quarantined(two: Memory) -> None:
    """Nobody could walk it safely; the agent's other fields go on."""
    two.redis.hset(BAD.hash, "context", '{"k":' + "[" * 100 + "]" * 100 + "}")
    _, problem = observe(two)
    assert "nested" in problem.message


def test_a_mended_context_is_adopted(two: Memory) -> None:
    """The way out that the message names works."""
    two.redis.hset(BAD.hash, "context", "{")
    two.redis.hset(BAD.hash, "context", '{"k":2}')
    adopt(two, "bad")
    assert values(two, "bad")["context.k"] == "2"


def test_a_refused_write_leaves_its_neighbours_in_the_pipeline(two: Memory) -> None:
    """Before it and behind it, and also what cannot even be sent."""
    two.redis.delete(BAD.hash)
    two.redis.set(BAD.hash, "x")
    unfit = Write("unfit", (Put("context.\udc80", "1", T, "a"),))
    answers = two.store.write(
        [Write("one", (put("a", 1),)), unfit, Write("bad", (put("a", 1),)), Write("two", (put("a", 1),))]
    )
    assert [bool(answer.refused) for answer in answers] == [False, True, True, False]


@pytest.mark.parametrize("name", ["version", ".status", ":k"])
def test_a_sidecar_with_huge_digits_is_as_if_it_were_not_there(real: Memory, name: str) -> None:
    """Reading goes on, and the next write puts it right."""
    for agent in ("good", "bad"):
        write(real, put("status", "idle", T), put("context.k", 1, T), agent=agent)
    real.redis.hset(BAD.sidecar, name, "9" * 5000 + ("" if name == "version" else " s - a"))
    live = real.store.observe({})
    assert live.agents["good"].version == 1 and values(real, "bad")["status"] == '"idle"'
    if look(real, "bad").raw:
        adopt(real, "bad")
    write(real, put("status", "busy"), put("context.k", 2), agent="bad")
    assert values(real, "bad")["status"] == '"busy"'
    assert len(real.redis.hget(BAD.sidecar, name) or "") < 100
    assert look(real, "bad").version >= 2


@pytest.mark.parametrize("text", [b"000", b'{\n""25-0Z', b'{\n"":1\n n', b'{\n"a":junk\n}', b'{\n"a":1,\n2\n}'])
def test_a_forged_frame_is_quarantined(text: bytes) -> None:
    """A digest that fits makes no frame."""
    live, problems = read_agent("bad", {b"context": text}, {b"=context": digest(text).encode()}, {}, T)
    assert live.broken == {"context"} and len(problems) == 1


def test_a_huge_name_is_not_quoted_whole() -> None:
    """A message stays readable."""
    _, problems = read_agent("bad", {b"9" * 60_000 + b"\xcc": b""}, {}, {}, T)
    assert len(problems[0].place.source + problems[0].hint) < 1000
