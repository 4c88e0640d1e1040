"""Every version is said exactly once on both channels, in the same breath as the write."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import pytest

from reconciler.events import AGENT_DELETED, CHANNEL, PRIORITIES, Event, agent_channel, read_event
from reconciler.stamp import format_time
from reconciler.state import SHARED, decode
from tests.contract.kit import T, attempt, changes_of, event_schema, gone, listening, put, write
from tests.servers import Memory


def check(text: str) -> dict[str, Any]:
    """An event's text: valid by the schema, and the very bytes that `Event` makes of it."""
    plain: dict[str, Any] = decode(text)
    jsonschema.validate(plain, event_schema())
    assert read_event(text).text == text
    return plain


def test_an_event_says_what_changed(memory: Memory) -> None:
    """The first four keys are what existing subscribers read; the rest tells everything."""
    write(memory, put("status", "idle", T), put("context.task", "build", T))
    with listening(memory) as ears:
        puts = (put("status", "busy", T + 2, "gg"), put("context.task", {"n": 1}, T + 1, "é"), put("score", 7, T))
        write(memory, *puts)
        text = ears.texts()[0]
    changes: list[dict[str, Any]] = [
        {"field": "status", "op": "update", "old": "idle", "new": "busy", "at": format_time(T + 2), "by": "gg"},
        {"field": "context.task", "op": "update", "old": "build", "new": {"n": 1}, "at": format_time(T + 1), "by": "é"},
        {"field": "score", "op": "create", "old": None, "new": 7, "at": format_time(T), "by": "a"},
    ]
    said = Event(
        "mary",
        "context_update",
        format_time(T + 2),
        {"task": {"n": 1}},
        2,
        origin="tester@host",
        changes=tuple(changes),
    )
    assert text == said.text
    assert list(check(text))[:4] == ["agent", "event", "timestamp", "data"]


def test_create_update_and_delete_are_told_apart(memory: Memory) -> None:
    """With what was there before, and what is there now."""
    with listening(memory) as ears:
        for number, puts in enumerate([
            (put("status", "s"), put("a", "x"), put("context.b", [1])),
            (put("a", "y"), put("context.b", [2])),
            (gone("a"), gone("context.b")),
            (put("a", "z"), put("context.b", 3)),
        ]):  # fmt: skip
            write(memory, *puts)
            event = ears.event()
            assert event["version"] == number + 1
            expected = [
                {"status": ("create", None, "s"), "a": ("create", None, "x"), "context.b": ("create", None, [1])},
                {"a": ("update", "x", "y"), "context.b": ("update", [1], [2])},
                {"a": ("delete", "y", None), "context.b": ("delete", [2], None)},
                {"a": ("create", None, "z"), "context.b": ("create", None, 3)},
            ][number]
            assert changes_of(event) == expected


def test_only_what_won_is_said(memory: Memory) -> None:
    """Stale and equal fields of the same call are not in the event."""
    write(memory, put("status", "idle", T), put("context.k", 1, T), put("a", 1, T))
    with listening(memory) as ears:
        write(memory, put("status", "old", T - 1), put("context.k", 1, T + 1), put("a", 2, T + 1))
        assert changes_of(ears.event()) == {"a": ("update", 1, 2)}


def test_a_deletion_of_the_whole_agent_is_said_as_such(memory: Memory) -> None:
    """And names every field that went."""
    write(memory, put("status", "idle"), put("context.k", 1))
    with listening(memory) as ears:
        write(memory, everything=True)
        event = check(ears.texts()[0])
    assert event["event"] == AGENT_DELETED
    assert changes_of(event) == {"status": ("delete", "idle", None), "context.k": ("delete", 1, None)}


def test_the_callers_word_is_the_events_name(memory: Memory) -> None:
    """`conflict`, or whatever the caller says."""
    with listening(memory) as ears:
        write(memory, put("status", "x"), event='con"flict')
        assert ears.event()["event"] == 'con"flict'


def test_the_priority_is_said(memory: Memory) -> None:
    """High, normal or low, with every event; any other word is refused."""
    for word in PRIORITIES:
        with listening(memory) as ears:
            write(memory, put("status", word), priority=word)
            assert check(ears.texts()[0])["priority"] == word
            memory.store.publish(Event("mary", "note", format_time(T), {}, priority=word))
            assert check(ears.texts()[0])["priority"] == word
    assert [event.priority for event in memory.store.history("mary", 5)] == list(reversed(PRIORITIES))
    assert "priority" in attempt(memory, put("status", "x"), priority='",').refused


def test_shared_sections_have_events_too(memory: Memory) -> None:
    """Under the reserved name."""
    with listening(memory, SHARED) as ears:
        write(memory, put("current_work", {"a": 1}), agent=SHARED)
        event = check(ears.texts()[0])
    assert (event["agent"], event["id"]) == (SHARED, "@shared:1")


def test_history_holds_what_was_said(memory: Memory) -> None:
    """So that a subscriber fills its gap with the very same events."""
    with listening(memory) as ears:
        for number in range(5):
            write(memory, put("context.n", number), put("status", f"s{number}"))
        said = ears.texts()
    assert [event.text for event in reversed(memory.store.history("mary", 10))] == said


def test_exactly_one_event_for_each_version_of_a_long_life(memory: Memory) -> None:
    """Two hundred random writes; folded, the events give the state."""
    dice = random.Random(7)
    fields = ["status", "insight", "context.a", "context.b", "context.ü\n"]
    state: dict[str, Any] = {}
    last = 0
    with listening(memory) as ears:
        for step in range(200):
            chosen = dice.sample(fields, dice.randint(1, 3))
            at = T + step // 4 + dice.randint(-2, 2)
            puts = [
                gone(f, at, dice.choice("ab")) if dice.random() < 0.3 else put(f, dice.randint(0, 3), at)
                for f in chosen
            ]
            answer = write(memory, *puts)
            events = [check(text) for text in ears.texts()]
            assert [event["version"] for event in events] == ([last + 1] if answer.won else [])
            last = answer.version or last
            for event in events:
                for name, (op, old, new) in changes_of(event).items():
                    assert (op == "create", op == "delete") == (name not in state, new is None)
                    assert state.get(name) == old != new
                    state[name] = new
                    if op == "delete":
                        del state[name]
    assert last > 30
    live = memory.store.observe({}).agents["mary"].fields
    assert {k: decode(f.text) for k, f in live.items() if f.text is not None and k != "last_update"} == state


@pytest.mark.parametrize("agent", ["mary", SHARED])
def test_something_can_be_said_without_a_write(memory: Memory, agent: str) -> None:
    """On both channels; the answer is who heard it."""
    event = Event(agent, "note", format_time(T), {"a": 1})
    with listening(memory, agent) as ears:
        assert memory.store.publish(event) == 1
        assert ears.texts() == [event.text]
    assert memory.redis.publish(CHANNEL, "") == memory.redis.publish(agent_channel(agent), "") == 0
