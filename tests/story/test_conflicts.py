"""What loses to a write that had not seen it is kept, told once, and can be written back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler import UnifiedMemoryHub, schema
from reconciler.base import Base, Conflict
from reconciler.cli.tables import change_lines
from reconciler.conflicts import event_of
from reconciler.errors import Place, StoreAway
from reconciler.spool import Part, drop
from reconciler.state import Field
from reconciler.store import AwayStore, LiveStore, Now, Put, Write, Written
from reconciler.store.redis_store import RedisStore
from reconciler.workspace import Workspace, open_workspace
from tests.story.desk import Desk
from tests.waiting import wait_until


def ledger(desk: Desk) -> list[tuple[str, str, str | None, str, str | None, str]]:
    """Agent, field, what lost and by whom, what won and by whom; oldest first."""
    found = Base(desk.settings.folder).conflicts()
    return [(c.agent, c.field, c.lost.text, c.lost.by, c.won.text, c.won.by) for c in reversed(found)]


def away(workspace: Workspace) -> Workspace:
    return replace(workspace, store=AwayStore(StoreAway("away")))


def by_hub(desk: Desk, **values: Any) -> None:
    with UnifiedMemoryHub(settings=desk.settings) as hub:
        hub.update_agent_context("mary", values)


class Heard:
    """The messages on `memory:updates` since it was made, those of conflicts."""

    def __init__(self, desk: Desk) -> None:
        self.pubsub = desk.redis.pubsub()
        self.pubsub.subscribe("memory:updates")
        wait_until(self.pubsub.get_message, what="the answer to SUBSCRIBE")

    def conflicts(self, desk: Desk) -> list[dict[str, Any]]:
        """All up to now: a message of our own comes last."""
        desk.redis.publish("memory:updates", "end")
        found: list[dict[str, Any]] = []
        while True:
            message = self.pubsub.get_message(timeout=10)
            assert message
            if message["data"] == "end":
                return [event for event in found if event["event"] == "conflict"]
            found.append(json.loads(message["data"]))


@pytest.fixture
def mary(shared: Desk) -> Desk:
    """The six agents in agreement, and mary has a context key."""
    by_hub(shared, task="first")
    shared.apply()
    return shared


def test_an_edit_in_the_file_that_loses_to_a_newer_live_write_is_kept(mary: Desk) -> None:
    """With both values and stamps; each was made where the other could not be seen."""
    mary.edit(lambda data: data["agents"]["mary"]["context"].update(task="edited"), age=5)
    by_hub(mary, task="live")
    mary.apply()
    [found] = Base(mary.settings.folder).conflicts()
    assert (found.agent, found.field) == ("mary", "context.task")
    assert (found.lost.text, found.lost.by) == ('"edited"', "context.json")
    assert (found.won.text, found.won.by) == ('"live"', mary.settings.writer)
    assert found.lost.at < found.won.at <= found.seen
    mary.assert_agree()


def test_a_live_write_that_loses_to_a_newer_edit_is_kept(mary: Desk) -> None:
    """The other way round."""
    mary.hset("mary", status="busy")
    mary.apply()
    by_hub(mary, task="live")
    mary.later(30)
    mary.edit(lambda data: data["agents"]["mary"]["context"].update(task="edited"))
    mary.apply()
    assert ledger(mary) == [("mary", "context.task", '"live"', mary.settings.writer, '"edited"', "context.json")]


def test_histories_are_read_as_far_back_as_what_lost(mary: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they are: whether Redis had a value stands among the versions since it was written."""
    mary.settings = replace(mary.settings, max_skew=timedelta(0))
    with UnifiedMemoryHub(settings=mary.settings) as hub:
        hub.update_many([("mary", {"other": number}) for number in range(900)])
    mary.apply()
    mary.edit(lambda data: data["agents"]["mary"]["context"].update(task="edited"))
    by_hub(mary, task="live")
    pages: list[int] = []
    read = RedisStore.messages

    def counting(self: RedisStore, agent: str, count: int, before: int = 0) -> list[tuple[int, bytes]]:
        pages.append(before)
        return read(self, agent, count, before)

    monkeypatch.setattr(RedisStore, "messages", counting)
    mary.apply()
    assert [found[2] for found in ledger(mary)] == ['"edited"']
    assert pages == [0]


def test_ordinary_updates_are_no_conflicts(mary: Desk) -> None:
    """A write on top of what stood in its place has seen it: live on live, file on file, each mirrored in between."""
    for turn in range(4):
        by_hub(mary, task=f"live {turn}")
        mary.hset("mary", insight=f"raw {turn}")
        mary.hset("mary", insight=f"again {turn}")
        mary.apply()
        mary.later(1)
        mary.set("mary", context={"task": f"file {turn}"})
        mary.apply()
    mary.apply()
    assert ledger(mary) == []


def test_a_manifest_that_loses_is_kept(mary: Desk) -> None:
    """It said something new, but said itself that this was long ago."""
    mary.manifest("mary", "spec: {context: {task: declared}}", metadata="updated: 2025-11-12T08:00:00Z")
    mary.apply()
    assert ledger(mary) == [
        ("mary", "context.task", '"declared"', "manifests/mary.yaml", '"first"', mary.settings.writer)
    ]


def test_what_a_pin_overrides_is_kept(mary: Desk) -> None:
    """A manifest's policy beats newer writes, and had not seen them either."""
    mary.manifest("mary", "spec: {context: {role: driver}}\npolicy: {context.role: pin}", age=60)
    mary.apply()
    by_hub(mary, role="pilot")
    mary.apply()
    assert ledger(mary) == [
        ("mary", "context.role", '"pilot"', mary.settings.writer, '"driver"', "manifests/mary.yaml")
    ]


def test_a_write_made_while_redis_was_away_may_lose_to_one_that_was_made_there(mary: Desk) -> None:
    """It is in the file and in base by then, so only base knows that Redis had never heard of it."""
    mary.edit(lambda data: data["agents"]["mary"].update(status="offline"), age=5)
    mary.round(away)
    mary.hset("mary", status="busy")
    mary.apply()
    assert ledger(mary) == [("mary", "status", '"offline"', "context.json", '"busy"', "raw")]
    mary.assert_agree()


def test_a_write_that_redis_had_learnt_is_no_conflict_any_more(mary: Desk) -> None:
    """Made while it was away, brought there, and overwritten there by one who could see it."""
    mary.edit(lambda data: data["agents"]["mary"].update(status="offline"), age=5)
    mary.round(away)
    mary.apply()
    mary.hset("mary", status="busy")
    mary.apply()
    assert ledger(mary) == []


def test_a_durable_write_is_in_the_journal_and_in_redis(mary: Desk) -> None:
    """Overwritten there before a round took it out of the journal, it has still been seen."""
    with UnifiedMemoryHub(settings=mary.settings) as hub:
        hub.update_agent_context("mary", {"task": "durable"}, durable=True)
        hub.update_agent_context("mary", {"task": "next"})
    mary.apply()
    assert ledger(mary) == []
    assert mary.live("mary")["context"]["task"] == "next"


def test_a_journal_that_loses_is_kept(mary: Desk) -> None:
    """Nobody but the journal ever had that value."""
    old = mary.now() - 60_000_000
    by_hub(mary, job="live")
    Base(mary.settings.folder).append_journal({"mary": {"context.job": Field('"waited"', old, "ann@laptop")}})
    mary.apply()
    assert ledger(mary) == [("mary", "context.job", '"waited"', "ann@laptop", '"live"', mary.settings.writer)]


def test_what_loses_in_a_first_run_is_kept(desk: Desk) -> None:
    """Nobody knows who wrote what; of two values one stands, and the other can be brought back."""
    desk.save({"agents": {"mary": {"status": "from the file", "context": {"task": "dated"}}}})
    desk.hset("mary", status="live")
    desk.apply()
    assert ledger(desk) == [("mary", "status", '"from the file"', "context.json", '"live"', "raw")]


class Crowded:
    """A store in which somebody writes just before this round does."""

    def __init__(self, store: LiveStore, desk: Desk) -> None:
        self._store, self._desk = store, desk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        if writes and self._desk is not None:
            by_hub(self._desk, task="faster")
            self._desk = None  # type: ignore[assignment]
        return self._store.write(writes)


def test_a_write_that_loses_within_redis_is_kept(mary: Desk) -> None:
    """The round had planned it; the script found something newer, and the round that follows knows what was lost."""
    mary.edit(lambda data: data["agents"]["mary"]["context"].update(task="edited"), age=5)
    mary.round(lambda workspace: replace(workspace, store=Crowded(workspace.store, mary)))
    assert ledger(mary) == [("mary", "context.task", '"edited"', "context.json", '"faster"', mary.settings.writer)]
    mary.assert_agree()


def test_what_was_edited_again_in_the_file_is_no_conflict(mary: Desk) -> None:
    """The first edit came out when this program put its own version in place, and waits in the journal."""
    Base(mary.settings.folder).append_journal({"mary": {"status": Field('"first"', mary.now(), "context.json")}})
    mary.later(1)
    mary.set("mary", status="second")
    mary.apply()
    assert ledger(mary) == []
    assert mary.live("mary")["status"] == "second"


def test_what_a_crash_kept_from_being_marked_as_learnt_is_no_conflict(mary: Desk) -> None:
    """Redis has the first edit, from a round that died behind it; then the file was edited again."""
    mary.set("mary", status="first")
    mary.round(away)
    first = Base(mary.settings.folder).load().merged["mary"]["status"]
    with open_workspace(mary.settings, lambda text: None) as workspace:
        workspace.store.write([Write("mary", (Put("status", first.text, first.at, first.by),))])
    mary.later(1)
    mary.set("mary", status="second")
    mary.apply()
    assert ledger(mary) == []
    assert mary.live("mary")["status"] == "second"


def test_each_conflict_is_one_event_that_the_schema_allows(mary: Desk) -> None:
    """Published when it is in the ledger; the rounds that follow say nothing more."""
    heard = Heard(mary)
    mary.edit(lambda data: data["agents"]["mary"].update(status="edited", insight="edited"), age=5)
    mary.hset("mary", status="raw", insight="raw")
    for _ in range(3):
        mary.apply()
    events = heard.conflicts(mary)
    assert [event["conflict"]["field"] for event in events] == ["insight", "status"]
    assert [event["conflict"]["number"] for event in events] == [1, 2]
    assert {event["conflict"]["lost"]["value"] for event in events} == {"edited"}
    for event in events:
        assert schema.validate("event", event, lambda steps: (Place("event"), ""), source="event") == []
        assert (event["agent"], event["data"]) == ("mary", {})


def test_a_conflict_found_while_redis_is_away_is_told_when_it_is_back(mary: Desk) -> None:
    """Once; with the time at which it was found."""
    heard = Heard(mary)
    old = mary.now() - 60_000_000
    Base(mary.settings.folder).append_journal({"mary": {"status": Field('"waited"', old, "ann@laptop")}})
    mary.edit(lambda data: data["agents"]["mary"].update(status="edited"), age=5)
    mary.round(away)
    assert [row[2] for row in ledger(mary)] == ['"waited"']
    assert heard.conflicts(mary) == []
    mary.apply()
    mary.apply()
    assert [event["conflict"]["lost"]["value"] for event in heard.conflicts(mary)] == ["waited"]


def test_numbers_that_python_cannot_hold_do_not_keep_an_event_back(mary: Desk) -> None:
    """The event has them as text, the ledger as they were."""
    heard = Heard(mary)
    mary.save(mary.text().replace('"first"', "1E400"), age=5)
    by_hub(mary, task="live")
    mary.apply()
    assert [row[2] for row in ledger(mary)] == ["1E400"]
    assert [event["conflict"]["lost"]["value"] for event in heard.conflicts(mary)] == ["1E400"]


def test_the_ledger_keeps_the_newest_and_not_too_much(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, and by size, because one value may be large."""
    monkeypatch.setattr("reconciler.base.rows.KEEP_CONFLICTS_SIZE", 2_000)
    base = Base(desk.settings.folder)
    desk.apply()
    memory = base.load()
    for n in range(10):
        lost = Conflict("mary", "status", Field(f'"{n}{"x" * 500}"', n + 1, "x"), Field('"y"', n + 2, "y"))
        base.save(memory, memory, now=n, conflicts=[lost, lost])
    assert [conflict.number for conflict in base.conflicts()] == [10, 9, 8]


def test_drops_that_lose_are_kept(mary: Desk) -> None:
    """Each of them: one that something newer was in the way of has no version either."""
    for result in ("first result", "second result"):
        drop(mary.settings, "mary", [Part("task", "text", result.encode()), Part("result", "text", result.encode())])
    by_hub(mary, task="live")
    mary.apply()
    assert [(row[1], row[2], row[4]) for row in ledger(mary)] == [
        ("context.task", '"first result"', '"live"'), ("context.task", '"second result"', '"live"'),
    ]  # fmt: skip
    assert mary.live("mary")["context"] == {"task": "live", "result": "second result"}
    mary.apply()
    assert len(ledger(mary)) == 2


def test_a_drop_that_went_on_in_a_file_is_no_conflict(mary: Desk) -> None:
    """Taken in while Redis was away, and edited where it stood."""
    drop(mary.settings, "mary", [Part("task", "text", b"dropped")])
    mary.round(away)
    mary.later(1)
    mary.set("mary", context={"task": "edited"})
    mary.round(away)
    mary.apply()
    assert ledger(mary) == []
    assert mary.live("mary")["context"] == {"task": "edited"}


def test_a_person_who_watches_reads_it_in_one_line() -> None:
    """Which value, to which, and who wrote the two."""
    lost, won = Field('"idle"', 1, "context.json"), Field('"busy"', 2, "raw")
    [(_, line)] = change_lines(event_of(Conflict("mary", "status", lost, won, number=3)))
    assert line == '! status  "idle" by context.json lost to "busy" by raw'
