"""The hub while Redis is there: what it writes, what it reads, and what it refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import UnifiedMemoryHub, schema
from reconciler.base import Base
from reconciler.controller import reconcile
from reconciler.errors import NotFound, Place, StoreAway, UsageError
from reconciler.settings import Settings, build
from reconciler.store import LiveStore, Now, Put, Write, Written
from reconciler.workspace import open_workspace
from tests.servers import Memory, Server
from tests.waiting import wait_until


@pytest.fixture
def chosen(tmp_path: Path, valkey: Server, real: Memory) -> Settings:
    return replace(build(tmp_path, {}, {}, {}), redis=valkey.url, writer="me@here")


@pytest.fixture
def hub(chosen: Settings) -> Iterator[UnifiedMemoryHub]:
    with UnifiedMemoryHub(settings=chosen) as found:
        yield found


def test_a_partial_update_never_drops_other_keys_nor_touches_the_status(hub: UnifiedMemoryHub) -> None:
    """And the result says what won, the version and where; it is true, as old callers ask."""
    first: object = hub.update_agent_context("mary", {"a": 1, "b": [1, {"c": None}]}, status="busy")
    assert first
    done = hub.update_agent_context("mary", {"a": 2})
    assert (done.won, done.stale, done.version, done.store, done.error) == (("context.a",), (), 2, "redis", "")
    assert hub.get_agent("mary")["context"] == {"a": 2, "b": [1, {"c": None}]}
    assert hub.get_agent("mary")["status"] == "busy"


def test_replace_leaves_exactly_the_keys_that_are_given(hub: UnifiedMemoryHub) -> None:
    """In one version; the status and other fields stay, and the rest is in the history."""
    hub.update_agent_context("mary", {"a": 1, "b": 2}, status="busy", fields={"insight": "x"})
    done = hub.update_agent_context("mary", {"b": 2, "c": 3}, replace=True)
    assert set(done.won) == {"context.a", "context.c"} and done.version == 2
    mary = hub.get_agent("mary")
    assert (mary["context"], mary["status"], mary["insight"]) == ({"b": 2, "c": 3}, "busy", "x")
    assert hub.update_agent_context("mary", {}, replace=True).version == 3
    assert "a" not in str(hub.get_agent("mary").get("context", {}))


def test_replace_takes_what_somebody_added_while_it_was_made(hub: UnifiedMemoryHub, real: Memory) -> None:
    """A key that came between its reading and its writing is older than it, and goes."""
    hub.update_agent_context("mary", {"a": 1})
    store, wrote = hub.workspace.store, threading.Event()
    observe = store.observe

    def observe_and_write(*args: Any) -> Any:
        found = observe(*args)
        if not wrote.is_set():
            wrote.set()
            real.store.write([Write("mary", (Put("context.between", "1", None, "you"),))])
        return found

    store.observe = observe_and_write  # type: ignore[method-assign,assignment]
    hub.update_agent_context("mary", {"b": 2}, replace=True)
    assert hub.get_agent("mary")["context"] == {"b": 2}


def test_writers_that_replace_at_once_leave_one_of_their_contexts(hub: UnifiedMemoryHub) -> None:
    """Never a mixture of two."""

    def put(number: int) -> None:
        hub.update_agent_context("mary", {f"k{number}": number, "who": number}, replace=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(64)))
    context = hub.get_agent("mary")["context"]
    assert context == {f"k{context['who']}": context["who"], "who": context["who"]}


def test_a_durable_write_is_in_the_journal_with_the_stamp_it_has_in_redis(hub: UnifiedMemoryHub) -> None:
    """So that a round merges the same value, and nothing fights."""
    hub.update_agent_context("mary", {"a": 1})
    done = hub.update_agent_context("mary", {"a": 2}, status="busy", durable=True)
    assert done.store == "redis" and set(done.won) == {"context.a", "status"}
    waiting = {entry.field: entry.value for entry in hub.workspace.base.journal()}
    live = hub.workspace.store.observe({}, ["mary"]).agents["mary"].fields
    assert waiting == {name: live[name] for name in ("context.a", "status")}
    version = hub.workspace.store.versions(["mary"])["mary"]
    assert hub.sync_from_file().problems == ()
    assert hub.workspace.base.journal() == () and hub.workspace.store.versions(["mary"])["mary"] == version


class Mute:
    """A store whose answers to writes are lost."""

    def __init__(self, store: LiveStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        self._store.write(writes)
        raise StoreAway("the answer was lost")


def test_a_durable_write_whose_answer_is_lost_has_one_stamp_everywhere(hub: UnifiedMemoryHub) -> None:
    """It is in the journal already, so it is the same write that is brought to the files."""
    hub.update_agent_context("mary", {"a": 1})
    hub._writer.store = Mute(hub.workspace.store)
    done = hub.update_agent_context("mary", {"a": 2}, durable=True)
    live = hub.workspace.store.observe({}, ["mary"]).agents["mary"].fields["context.a"]
    assert (done.store, done.at, live.text) == ("file", live.at, "2")
    assert Base(hub.settings.folder).known("mary")["context.a"] == live


@pytest.mark.parametrize("durable", [False, True])
def test_a_write_tells_its_stamp(hub: UnifiedMemoryHub, real: Memory, durable: bool) -> None:
    """A durable one got it before it was put on disk, which takes a while; a late one is behind what it replaces."""
    store = hub.workspace.store

    def told() -> None:
        for number in range(3):
            done = hub.update_agent_context("mary", {"a": number}, durable=durable)
            live = store.observe({}, ["mary"]).agents["mary"].fields["context.a"]
            assert (done.store, done.at) == ("redis", live.at)

    told()
    ahead = Put("context.a", "0", store.observe({}, ()).now + 3_000_000, "a clock that is ahead")
    assert store.write([Write("mary", (ahead,))])[0].at == ahead.at
    told()
    assert hub.sync_from_file().problems == ()
    real.redis.flushall()
    told()


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_a_write_into_a_redis_that_lost_everything_is_newer_than_what_base_knows(
    hub: UnifiedMemoryHub, real: Memory, durable: bool, whole: bool
) -> None:
    """Also than what was dated by a clock that is some seconds ahead; what is replaced does not come back."""
    later = hub.workspace.store.observe({}, ()).now + 3_000_000
    there = tuple(Put(f"context.{key}", '"edited"', later, "edit") for key in "ab")
    hub.workspace.store.write([Write("mary", there, floor=0)])
    assert hub.sync_from_file().problems == ()
    real.redis.flushall()
    assert hub.update_agent_context("mary", {"a": "mine"}, durable=durable, replace=whole).store == "redis"
    assert hub.sync_from_file().problems == ()
    assert hub.get_agent("mary")["context"] == ({"a": "mine"} if whole else {"a": "mine", "b": "edited"})


def test_a_batch_is_written_in_order_and_answers_in_order(hub: UnifiedMemoryHub) -> None:
    """Plain keys, parts, and an agent several times when given as pairs."""
    done = hub.update_many(
        {"mary": {"task": 1}, "rnd": {"status": "busy", "context": {"task": 2}}, "cls": {} | {"x": 1}}
    )
    assert [(one.agent, one.won) for one in done] == [
        ("mary", ("context.task",)), ("rnd", ("context.task", "status")), ("cls", ("context.x",)),
    ]  # fmt: skip
    done = hub.update_many([("mary", {"n": n}) for n in range(1_200)])
    assert [one.version for one in done] == list(range(2, 1_202))
    assert hub.get_agent("mary")["context"] == {"task": 1, "n": 1_199}


def test_what_redis_refuses_in_a_batch_hurts_only_itself(hub: UnifiedMemoryHub, real: Memory) -> None:
    """Its result says why; raw writes in the way are adopted first."""
    real.redis.set("memory:agents:bad", "text")
    real.redis.hset("memory:agents:raw", "status", "by hand")
    real.redis.hset("memory:agents:torn", "context", '{"a":')
    batch = [("bad", {"a": 1}), ("raw", {"status": "ours"}), ("torn", {"a": 1}), ("good", {"a": 1})]
    bad, raw, torn, good = hub.update_many(batch)
    assert bad.error and not bad.won
    assert "not a JSON object" in torn.error and not torn.won
    assert raw.won == ("status",) and raw.version == 2 and good.won == ("context.a",)


def test_what_redis_took_of_a_batch_before_it_went_away_is_not_written_again(
    hub: UnifiedMemoryHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have a later time than what others wrote since. The rest goes to files."""
    assert hub.update_agent_context("mary", {"n": -1}).version == 1
    store, asked = hub.workspace.store, 0

    class Leaving:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def write(self, writes: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == 2:
                raise StoreAway("it is gone")
            return store.write(writes)

    monkeypatch.setattr(hub._writer, "store", Leaving())
    done = hub.update_many([("mary", {"n": n}) for n in range(700)])
    assert [one.store for one in done] == ["redis"] * 500 + ["file"] * 200
    assert [one.version for one in done[:500]] == list(range(2, 502))


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([("mary", {"a": 1}), ("no/name", {"a": 1}), ("rnd", {"a": float("nan")})], "item 2"),
        ({"mary": {"status": "busy", "task": 1}}, "part of the context or not"),
        ("text", "a batch must be"),
        ([("mary",)], "not a pair"),
        ({"mary": 7}, "must be a mapping, not int"),
    ],
)
def test_an_illegal_batch_writes_nothing(hub: UnifiedMemoryHub, batch: Any, said: str) -> None:
    """All that is wrong is said at once."""
    with pytest.raises(UsageError, match=said):
        hub.update_many(batch)
    assert hub.workspace.store.versions() == {}


_DEEP: list[Any] = []
for _ in range(100):
    _DEEP = [_DEEP]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"agent": None, "context": {"a": 1}}, "not a legal agent name"),
        ({"agent": "a b", "context": {"a": 1}}, "not a legal agent name"),
        ({"context": ["a"]}, "context must be a mapping, not list"),
        ({"context": "text"}, "context must be a mapping, not str"),
        ({"context": {1: "x"}}, "a key must be text, not int"),
        ({"context": {"a": [{"b": {1: "x", "1": "y"}}]}}, "context.a: 1: a key must be text, not int"),
        ({"context": {"a": float("nan")}}, "not JSON"),
        ({"context": {"a": b"bytes"}}, "not JSON"),
        ({"context": {"a": {1, 2}}}, "not JSON"),
        ({"context": {"a": _DEEP}}, "nested deeper"),
        ({"context": {"a": "x" * (17 << 20)}}, "characters are too many"),
        ({"context": {"\ud800": 1}}, "not JSON"),
        ({"status": 7}, "status must be text, not int"),
        ({"fields": {"context.a": 1}}, "give context keys as context"),
        ({"context": {}}, "nothing to write"),
        ({"status": "busy", "replace": True}, "empties it"),
        ({"context": {"a": 1}, "priority": "urgent"}, "not a priority"),
    ],
)
def test_a_wrong_type_is_refused_with_the_way_out(hub: UnifiedMemoryHub, given: dict[str, Any], said: str) -> None:
    """Before anything is sent."""
    with pytest.raises(UsageError, match=said) as caught:
        hub.update_agent_context(**({"agent": "mary"} | given))
    assert caught.value.hint and len(str(caught.value)) < 400
    assert hub.workspace.store.versions() == {}


def test_rollback_is_a_new_write_that_nothing_undoes(hub: UnifiedMemoryHub) -> None:
    """Fields that did not exist then are deleted; every token is as it was; `by` is this writer."""
    hub.update_agent_context("mary", {"a": 1, "big": 12345678901234567890, "none": None}, status="one")
    hub.update_agent_context("mary", {"a": 2, "new": 1}, status="two")
    hub.update_agent_context("mary", {"big": 1.0, "none": 3}, fields={"insight": "x"})
    done = hub.rollback("mary", 1)
    assert done.version == 4 and done.store == "redis"
    mary = hub.get_agent("mary")
    assert mary["context"] == {"a": 1, "big": 12345678901234567890, "none": None} and mary["status"] == "one"
    assert "insight" not in mary
    assert {change["by"] for change in hub.history("mary", 1)[0].changes} == {"me@here"}
    hub.sync_from_file()
    hub.sync_from_file()
    assert hub.get_agent("mary")["context"] == mary["context"]
    assert hub.rollback("mary", 4).won == () and hub.rollback("mary", 3).version == 5


def test_what_only_files_say_does_not_bring_a_deleted_agent_back(hub: UnifiedMemoryHub, real: Memory) -> None:
    """An edit that was saved before the deletion, and that no round has taken to Redis yet, is deleted with it."""
    hub.update_agent_context("mary", {"task": "deploy"}, status="busy")
    assert reconcile(hub.workspace).exit_code == 0
    path = hub.settings.context_file
    data = json.loads(path.read_text())
    data["agents"]["mary"]["note"] = "saved before"
    path.write_text(json.dumps(data))
    hub.delete_agent("mary")
    assert reconcile(hub.workspace).exit_code == 0
    assert "mary" not in json.loads(path.read_text())["agents"]
    assert not real.redis.exists("memory:agents:mary")


def test_a_deletion_after_a_removed_hash_says_all_that_went(hub: UnifiedMemoryHub, real: Memory) -> None:
    """Also the field that `context.json` does not have any more, in one event."""
    hub.update_agent_context("mary", {"a": 1, "b": 2})
    assert reconcile(hub.workspace).exit_code == 0
    path = hub.settings.context_file
    data = json.loads(path.read_text())
    del data["agents"]["mary"]["context"]["a"]
    path.write_text(json.dumps(data))
    real.redis.delete("memory:agents:mary")
    hub.delete_agent("mary")
    deleted = hub.history("mary")[0]
    assert {(change["field"], change["old"]) for change in deleted.changes} == {("context.a", 1), ("context.b", 2)}


def test_rollback_brings_a_deleted_agent_back_and_undoes_raw_writes(hub: UnifiedMemoryHub, real: Memory) -> None:
    """What was written by hand is adopted first, so it is in the history too."""
    hub.update_agent_context("mary", {"a": 1}, status="busy")
    hub.delete_agent("mary")
    hub.rollback("mary", 1)
    assert hub.get_agent("mary")["context"] == {"a": 1}
    real.redis.hset("memory:agents:mary", "status", "by hand")
    hub.rollback("mary", 3)
    assert hub.get_agent("mary")["status"] == "busy"
    assert [event.version for event in hub.history("mary")] == [5, 4, 3, 2, 1]


def test_rollback_says_how_far_the_history_goes(hub: UnifiedMemoryHub, chosen: Settings) -> None:
    """Nothing is written where a version is lost."""
    with UnifiedMemoryHub(settings=replace(chosen, history=5)) as short:
        for number in range(20):
            short.update_agent_context("mary", {"n": number})
    with pytest.raises(NotFound, match="goes back to version 15"):
        hub.rollback("mary", 3)
    with pytest.raises(NotFound, match="is at version 20"):
        hub.rollback("mary", 21)
    with pytest.raises(UsageError):
        hub.rollback("mary", 0)
    assert hub.rollback("mary", 15).version == 21
    assert hub.get_agent("mary")["context"] == {"n": 14}


def test_a_wiped_server_goes_on_counting_without_a_round(hub: UnifiedMemoryHub, real: Memory) -> None:
    """The version is looked up in base only when the server has none."""
    for number in range(3):
        hub.update_agent_context("mary", {"n": number})
    hub.sync_from_file()
    real.redis.flushall()
    assert hub.update_agent_context("mary", {"n": 9}).version == 4
    assert [one.version for one in hub.update_many([("mary", {"n": 10}), ("new", {"n": 1})])] == [5, 1]


def test_sync_to_file_writes_exactly_what_differs(hub: UnifiedMemoryHub, chosen: Settings) -> None:
    """Keys that the data lacks stay; without data live is mirrored."""
    hub.update_agent_context("mary", {"a": 1, "b": 2}, status="busy")
    assert hub.sync_to_file().to_file > 0
    assert json.loads(chosen.context_file.read_text())["agents"]["mary"]["context"] == {"a": 1, "b": 2}
    data = {"agents": {"mary": {"context": {"a": 5}}, "rnd": {"status": "new"}}, "current_work": {"x": 1}}
    hub.sync_to_file(data)
    assert [change["field"] for change in hub.history("mary", 1)[0].changes] == ["context.a"]
    found = json.loads(chosen.context_file.read_text())
    assert found["agents"]["mary"]["context"] == {"a": 5, "b": 2} and found["current_work"] == {"x": 1}
    version = hub.workspace.store.versions(["mary"])["mary"]
    hub.sync_to_file(hub.get_unified_context())
    assert hub.workspace.store.versions(["mary"])["mary"] == version
    illegal: list[Any] = [[], {"agents": []}, {"agents": {"mary": 7}}, {"x": float("nan")}, {"x": {1: "a", "1": "b"}}]
    for wrong in illegal:
        with pytest.raises(UsageError):
            hub.sync_to_file(wrong)


def test_sync_from_file_takes_edits_live(hub: UnifiedMemoryHub, chosen: Settings) -> None:
    """And says who holds the workspace when somebody else does the rounds."""
    hub.update_agent_context("mary", {"a": 1})
    hub.sync_to_file()
    plain = json.loads(chosen.context_file.read_text())
    plain["agents"]["mary"]["context"]["a"] = 7
    chosen.context_file.write_text(json.dumps(plain, indent=2))
    done = hub.sync_from_file()
    assert done.to_redis == 1 and done.store == "redis" and done.held_by is None
    assert hub.get_agent("mary")["context"] == {"a": 7}


def test_publish_update_says_it_to_subscribers(hub: UnifiedMemoryHub) -> None:
    """Its time is filled in, its other keys go along, and it is as the schema wants it."""
    with hub.subscribe_updates() as subscription:
        heard = hub.publish_update(
            {"agent": "mary", "event": "note", "data": {"x": 1}, "priority": "high", "ticket": 7}
        )
        event = subscription.next_event(5)
    assert heard == 1 and event is not None
    assert (event.agent, event.event, event.data, event.priority, event.more) == (
        "mary", "note", {"x": 1}, "high", {"ticket": 7},
    )  # fmt: skip
    assert schema.validate("event", event.to_plain(), lambda path: (Place(""), ""), source="") == []


@pytest.mark.parametrize(
    "update",
    [None, [], {}, {"agent": "mary"}, {"agent": "a b", "event": "x"}, {"agent": "mary", "event": 7},
     {"agent": "mary", "event": "x", "data": []}, {"agent": "mary", "event": "x", "version": 3},
     {"agent": "mary", "event": "x", "priority": "urgent"}, {"agent": "mary", "event": "x", "timestamp": "soon"},
     {"agent": "mary", "event": "x", "data": {"a": b""}}],
)  # fmt: skip
def test_an_update_that_is_no_event_is_refused(hub: UnifiedMemoryHub, update: Any) -> None:
    """With the way out."""
    with pytest.raises(UsageError) as caught:
        hub.publish_update(update)
    assert caught.value.hint


def test_old_code_subscribes_with_a_callback(hub: UnifiedMemoryHub) -> None:
    """Plain data in a thread of its own, until it is closed; a callback that fails gets the next one all the same."""
    heard: list[dict[str, Any]] = []

    def callback(event: dict[str, Any]) -> None:
        heard.append(event)
        raise ValueError("no")

    subscription = hub.subscribe_updates(callback)
    hub.update_agent_context("mary", {"a": 1})
    hub.update_agent_context("mary", {"a": 2})
    wait_until(lambda: len(heard) == 2)
    assert heard[1]["data"] == {"a": 2} and heard[1]["agent"] == "mary"
    subscription.close()
    wait_until(lambda: not any(thread.name == "events" for thread in threading.enumerate()))


def test_closing_the_hub_ends_its_subscriptions(chosen: Settings) -> None:
    """Whoever iterates is told that there is no more."""
    hub = UnifiedMemoryHub(settings=chosen)
    heard: list[int] = []
    hub.subscribe_updates(agents=["mary"], callback=lambda event: heard.append(event["version"]))
    hub.update_agent_context("mary", {"a": 1})
    wait_until(lambda: heard)
    hub.close()
    wait_until(lambda: not any(thread.name == "events" for thread in threading.enumerate()))


def test_a_hub_opened_for_reading_writes_nothing(chosen: Settings) -> None:
    """And creates nothing."""
    with UnifiedMemoryHub(settings=chosen, reading=True) as hub:
        assert hub.get_unified_context() == {"agents": {}}
        for write in (
            lambda: hub.update_agent_context("mary", {"a": 1}), lambda: hub.update_many({"mary": {"a": 1}}),
            lambda: hub.sync_from_file(), lambda: hub.delete_agent("mary"), lambda: hub.rollback("mary", 1),
        ):  # fmt: skip
            with pytest.raises(UsageError, match="opened for reading"):
                write()
    assert not chosen.folder.exists()


def test_threads_share_a_hub(hub: UnifiedMemoryHub) -> None:
    """Every write of 16 threads is a version of its own."""

    def work(number: int) -> list[int]:
        return [hub.update_agent_context("mary", {f"k{number}": turn}).version for turn in range(25)]

    with ThreadPoolExecutor(16) as pool:
        versions = [version for part in pool.map(work, range(16)) for version in part]
    assert sorted(versions) == list(range(1, 401))
    assert hub.get_agent("mary")["context"] == {f"k{number}": 24 for number in range(16)}


def test_the_priority_is_in_the_event(hub: UnifiedMemoryHub) -> None:
    """As it was given."""
    hub.update_agent_context("mary", {"a": 1}, priority="high")
    assert hub.history("mary", 1)[0].priority == "high"


def test_the_file_learns_what_the_hub_wrote(hub: UnifiedMemoryHub, chosen: Settings) -> None:
    """With the next round of anybody."""
    hub.update_agent_context("mary", {"a": 1})
    with open_workspace(chosen, print) as workspace:
        reconcile(workspace)
    assert json.loads(chosen.context_file.read_text())["agents"]["mary"]["context"] == {"a": 1}
