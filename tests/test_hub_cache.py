"""`get_unified_context`: everything, true at the moment it was asked, without reading everything each time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.cache import over
from reconciler.settings import Settings, build
from reconciler.state import SHARED, Field
from reconciler.store import LiveStore
from tests.servers import Memory, Server, running


@pytest.fixture
def chosen(tmp_path: Path, valkey: Server, real: Memory) -> Settings:
    return replace(build(tmp_path, {}, {}, {}), redis=valkey.url, writer="me@here")


@pytest.fixture
def hub(chosen: Settings) -> Iterator[UnifiedMemoryHub]:
    with UnifiedMemoryHub(settings=chosen) as found:
        yield found


def count_reads(hub: UnifiedMemoryHub) -> list[Any]:
    """Every reading of live memory from now on: the agents that were read, None for all. The shared sections are read
    by themselves, whenever all of it is."""
    store: LiveStore = hub.workspace.store
    plain, observe, read = store.plain, store.observe, []

    def counting(base: Any, agents: Any = None) -> Any:
        some = None if agents is None else sorted({*agents} - {SHARED})
        read.extend([] if some == [] else [some])
        return observe(base, agents)

    def counting_all() -> Any:
        read.append(None)
        return plain()

    store.plain, store.observe = counting_all, counting  # type: ignore[method-assign]
    return read


def test_a_second_read_reads_only_what_was_written_since(hub: UnifiedMemoryHub, real: Memory) -> None:
    """By whomever: a hub, a person's HSET, a DEL, a FLUSHALL."""
    hub.update_many({f"a{number}": {"n": number} for number in range(250)})
    read = count_reads(hub)
    first = hub.get_unified_context()
    assert hub.get_unified_context() == first and read == [None]
    hub.update_agent_context("a7", {"n": 70})
    real.redis.hset("memory:agents:a8", "status", "by hand")
    second = hub.get_unified_context()
    assert second["agents"]["a7"]["context"] == {"n": 70} and second["agents"]["a8"]["status"] == "by hand"
    assert read == [None, ["a7", "a8"]]
    real.redis.delete("memory:agents:a9", "memory:meta:{memory:agents:a9}")
    hub.update_agent_context("new", {"n": 1})
    third = hub.get_unified_context()
    assert "a9" not in third["agents"] and third["agents"]["new"]["context"] == {"n": 1}
    real.redis.flushall()
    assert hub.get_unified_context() == {"agents": {}}


def test_a_reader_may_do_with_it_what_it_likes(hub: UnifiedMemoryHub) -> None:
    """The next ones get other copies, of whichever kind: no container at any depth is in two of them."""
    for name in ("mary", "rnd"):
        hub.update_agent_context(name, {"list": [1, {"a": [2, []]}, "x"], "empty": {}, "deep": {"a": {"b": {}}}})
    hub.update_many({f"a{number}": {"n": number} for number in range(150)})
    found = [hub.get_unified_context() for _ in range(4)]
    assert found.count(found[0]) == 4
    seen = [id(part) for whole in found for part in containers(whole)]
    assert len(seen) == len(set(seen))
    for whole in found:
        whole["agents"]["mary"]["context"]["list"][1]["a"].append("spoilt")
        whole["agents"]["other"] = {}
        after = hub.get_unified_context()["agents"]
        assert after["mary"]["context"]["list"] == [1, {"a": [2, []]}, "x"] and "other" not in after


def containers(value: Any) -> Iterator[Any]:
    """Every dict and list of a document; it holds nothing else that can be changed, and nothing that is like them."""
    if isinstance(value, dict | list):
        assert type(value) is dict or type(value) is list
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from containers(part)


def test_nothing_kept_is_believed_after_a_lost_connection(hub: UnifiedMemoryHub, real: Memory) -> None:
    """What was written while nobody listened is seen."""
    hub.update_agent_context("mary", {"n": 1})
    hub.get_unified_context()
    read = count_reads(hub)
    for number in range(3):
        real.redis.client_kill_filter(_type="normal", skipme=True)
        real.redis.hset("memory:agents:mary", "status", f"by hand {number}")
        assert hub.get_unified_context()["agents"]["mary"]["status"] == f"by hand {number}"
    assert read.count(None) >= 3


def test_without_tracking_everything_is_read_each_time(tmp_path: Path) -> None:
    """A user that may neither track nor see notifications gets the truth all the same."""
    with running() as server, server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-client|tracking", "-config"
        )
        url = server.url.replace("unix://", "unix://weak:pw@")
        settings = replace(build(tmp_path, {}, {}, {}), redis=url)
        with UnifiedMemoryHub(settings=settings) as hub:
            hub.update_agent_context("mary", {"n": 0})
            read = count_reads(hub)
            for number in range(3):
                client.hset("memory:agents:mary", "status", f"step {number}")
                assert hub.get_unified_context()["agents"]["mary"]["status"] == f"step {number}"
            assert read == [None] * 3


def test_the_file_gives_its_shape_and_live_values_lie_over_it(hub: UnifiedMemoryHub, chosen: Settings) -> None:
    """Keys that nobody knows and local sections are there; a deletion takes away; an edit of the file is noticed."""
    chosen.context_file.parent.mkdir()
    plain = {"version": "1.0", "agents": {"mary": {"status": "old", "context": {"a": 1, "b": 2}}},
             "paths": {"home": "/here"}, "current_work": {"x": 1}}  # fmt: skip
    chosen.context_file.write_text(json.dumps(plain))
    hub.sync_from_file()
    assert hub.get_unified_context()["paths"] == {"home": "/here"}
    hub.update_agent_context("mary", {"b": 3}, status="new", replace=True)
    found = hub.get_unified_context()
    assert found["agents"]["mary"]["status"] == "new" and found["agents"]["mary"]["context"] == {"b": 3}
    assert found["version"] == "1.0" and found["current_work"] == {"x": 1}
    plain["paths"] = {"home": "/there"}
    chosen.context_file.write_text(json.dumps(plain))
    assert hub.get_unified_context()["paths"] == {"home": "/there"}
    hub.delete_agent("mary")
    assert hub.get_unified_context()["agents"] == {}


def test_one_odd_item_of_the_file_hides_nothing(hub: UnifiedMemoryHub, chosen: Settings) -> None:
    """A name that is no text, a number that is too large for Python, brackets without end: with Redis and without."""
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    odd = {"agents": {"\ud800": {"status": "odd"}, "mary": {"context": {"far": "FAR"}}}, "deep": deep}
    chosen.context_file.parent.mkdir()
    chosen.context_file.write_text(json.dumps(odd).replace('"FAR"', "1e400"))
    hub.update_agent_context("mary", {"a": 1})
    with UnifiedMemoryHub(settings=replace(chosen, redis=f"unix://{chosen.root}/nobody")) as away:
        for found in (hub.get_unified_context(), away.get_unified_context()):
            assert found["agents"]["\ud800"] == {"status": "odd"}
            assert found["agents"]["mary"]["context"]["far"] == float("inf")
            assert found["deep"] == deep
    assert hub.get_unified_context()["agents"]["mary"]["context"]["a"] == 1


def test_a_record_with_live_values_over_it() -> None:
    """Tombstones take away, unknown keys stay, the journal wins where it is newer."""
    record = {"status": "old", "note": 1, "context": {"a": 1, "b": 2}}
    live = {"context.a": Field(None, 5, "x"), "status": Field('"new"', 5, "x")}
    assert over(record, live, {}) == {"status": "new", "note": 1, "context": {"b": 2}}
    waiting = {"status": Field('"newest"', 6, "x"), "context.a": Field("7", 4, "x")}
    assert over(record, live, waiting) == {"status": "newest", "note": 1, "context": {"b": 2}}
    assert over(None, {"status": Field(None, 5, "x")}, {}) is None


@pytest.mark.parametrize(("field", "text"), [
    ("status", "busy"), ("status", "5"), ("status", "true"), ("status", '{"a": 1}'), ("status", ""),
    ("note", "[1, 2]"), ("note", "4 of 5"), ("note", "null"), ("note", "\N{SNOWMAN}"),
    ("context", '{"a": 1}'), ("context", '{\n"a":1\n}'), ("context", '{\n"a":1,\n"a":2\n}'), ("context", "{}"),
    ("context", '"{\\"a\\": 1}"'), ("context", "[]"), ("context", '{\n"n":NaN\n}'), ("context.a", "1"),
    ("last_update", "2020-01-01T00:00:00.000000Z"), ("last_update", "2999-01-01T00:00:00.000000Z"),
    ("last_update", "yesterday"),
])  # fmt: skip
def test_what_a_hash_alone_tells_is_what_reading_all_of_it_tells(
    hub: UnifiedMemoryHub, real: Memory, field: str, text: str
) -> None:
    """Over a written agent and over one of somebody else, with a record in the file and without."""
    hub.update_agent_context("mary", {"a": 1, "b": [1]}, status="5", fields={"note": 4, "gone": "x"})
    hub.sync_to_file()
    hub.update_agent_context("rnd", {"a": 1}, fields={"note": "plain"})
    hub.update_agent_context("mary", fields={"gone": None})
    for name in ("mary", "rnd", "new"):
        real.redis.hset(f"memory:agents:{name}", field, text)
    store = hub.workspace.store
    found = hub.get_unified_context()
    store.plain = lambda: dict.fromkeys(("mary", "rnd", "new"))  # type: ignore[method-assign]
    hub._cache.close()
    assert hub.get_unified_context() == found
