"""The hub while Redis is gone, hangs, or takes no writes; and when it is back."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.errors import ReconcilerError, StoreAway, UsageError
from reconciler.files import Lock
from reconciler.hub import OneShotHub
from reconciler.settings import Settings, build
from reconciler.state import Field
from tests.servers import Memory, Server, running
from tests.waiting import wait_until

Launch = Callable[..., Server]
MANY = int(os.environ.get("RECONCILER_OFFLINE_WRITES", "400"))


def chosen(root: Path, url: str) -> Settings:
    return replace(build(root, {}, {}, {}), redis=url, writer="me@here")


def gone(root: Path) -> Settings:
    """A workspace whose server is not there."""
    return chosen(root, f"unix://{root}/nobody")


def in_file(settings: Settings, agent: str) -> Any:
    return json.loads(settings.context_file.read_text())["agents"][agent]


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_while_redis_is_away_a_name_in_other_letters_displaces_nobody(tmp_path: Path) -> None:
    """Also after the first round, when only what changed is looked at."""
    settings = gone(tmp_path)
    with UnifiedMemoryHub(settings=settings) as hub:
        for name in ("mary", "rnd"):
            hub.update_agent_context(name, {"a": 1})
        with pytest.raises(UsageError, match="letters' case"):
            hub.update_agent_context("Mary", {"b": 1})
        hub.update_agent_context("mary", {"c": 1})
    assert in_file(settings, "mary")["context"] == {"a": 1, "c": 1}
    assert sorted(hub.workspace.base.load().unpacked().merged) == ["mary", "rnd"]


def test_a_write_that_was_interrupted_is_not_made_later(tmp_path: Path) -> None:
    """It would have the time of then, and beat what was written since."""
    settings = gone(tmp_path)
    with UnifiedMemoryHub(settings=settings) as hub:
        offline, here = hub._offline, threading.get_ident()

        def interrupt() -> None:
            wait_until(lambda: offline._queue, 20, "a write that waits")
            signal.pthread_kill(here, signal.SIGINT)

        other = threading.Thread(target=interrupt)
        with offline._turn:  # as one that teaches Redis holds it
            other.start()
            with pytest.raises(KeyboardInterrupt):
                hub.update_agent_context("mary", {"a": 1})
        other.join()
        hub.update_agent_context("rnd", {"a": 1})
    assert list(json.loads(settings.context_file.read_text())["agents"]) == ["rnd"]


def test_a_write_needs_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started it is on disk all the same, and the hub can be closed."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    settings = gone(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with UnifiedMemoryHub(settings=settings) as hub:
        assert hub.update_agent_context("mary", {"a": 1}).store == "file"
    assert in_file(settings, "mary")["context"] == {"a": 1}


def test_what_waits_in_the_journal_is_owed_whoever_taught_redis_meanwhile(tmp_path: Path, valkey: Server) -> None:
    """Somebody else who is done with his own notes that nothing is owed; the writer's process is killed."""
    settings = chosen(tmp_path, valkey.url)
    with UnifiedMemoryHub(settings=gone(tmp_path)) as hub:
        hub.update_agent_context("mary", {"a": 1})
        base = hub.workspace.base
        base.append_journal({"mary": {"context.b": Field("2", time.time_ns() // 1000, "me@here")}})
        base.owe(False)
    with UnifiedMemoryHub(settings=settings) as later:
        wait_until(lambda: not base.owes(), 20)
        assert later.get_agent("mary")["context"] == {"a": 1, "b": 2}
    assert valkey.client().hget("memory:agents:mary", "context")


def test_who_wrote_durably_takes_it_out_of_the_journal_where_nobody_else_does(tmp_path: Path, valkey: Server) -> None:
    """When it ends, unless a reconciler holds the workspace; a process that was killed leaves it to a later one."""
    settings = chosen(tmp_path, valkey.url)
    with UnifiedMemoryHub(settings=settings) as hub:
        hub.update_agent_context("durably", {"a": 1}, durable=True)
        assert hub.workspace.base.owes() and hub.workspace.base.journal()
    assert hub.workspace.base.journal() == () and not hub.workspace.base.owes()
    assert in_file(settings, "durably")["context"] == {"a": 1}


def test_a_write_without_redis_is_in_the_file_at_once(tmp_path: Path) -> None:
    """With its stamp; reading gives it back, and so does another process."""
    settings = gone(tmp_path)
    with UnifiedMemoryHub(settings=settings) as hub:
        done = hub.update_agent_context("mary", {"a": 1}, status="busy")
        assert (done.store, done.won, done.version) == ("file", ("context.a", "status"), 0)
        assert in_file(settings, "mary")["context"] == {"a": 1}
        assert hub.get_agent("mary")["status"] == "busy"
        assert hub.get_unified_context()["agents"]["mary"]["context"] == {"a": 1}
        assert hub.publish_update({"agent": "mary", "event": "note"}) == 0
        with pytest.raises(StoreAway):
            hub.history("mary")
        assert hub.update_agent_context("mary", {"b": 2}, replace=True).won == ("context.b", "context.a")
        assert hub.update_agent_context("mary", {"c": 2}, durable=True).store == "file"
        assert [one.store for one in hub.update_many({"mary": {"d": 1}, "rnd": {"d": 1}})] == ["file", "file"]
        assert in_file(settings, "mary")["context"] == {"b": 2, "c": 2, "d": 1}
        hub.delete_agent("rnd")
        assert "rnd" not in hub.get_unified_context()["agents"]
    with OneShotHub(settings=settings) as hub:
        assert hub.get_agent("mary")["context"] == {"b": 2, "c": 2, "d": 1}


def test_a_write_that_no_disk_takes_is_not_acknowledged(tmp_path: Path) -> None:
    """Redis away, and the database held by somebody else: an error, and nothing that was said to be kept is missing."""
    settings = gone(tmp_path)
    with UnifiedMemoryHub(settings=settings) as hub:
        hub.update_agent_context("mary", {"a": 1})
        with closing(sqlite3.connect(settings.folder / "state.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(ReconcilerError, match="locked"):
                hub.update_agent_context("mary", {"b": 2})
            holder.execute("ROLLBACK")
        assert hub.update_agent_context("mary", {"c": 3}).store == "file"
        assert in_file(settings, "mary")["context"] == {"a": 1, "c": 3}


def test_hundreds_of_writes_without_redis_are_all_there_when_it_is_back(tmp_path: Path) -> None:
    """Values and stamps, in Redis and in the file; the last write costs no more than the first ones."""
    with running() as server:
        settings = chosen(tmp_path, server.url)
        with UnifiedMemoryHub(settings=settings) as hub:
            hub.update_agent_context("mary", {"before": 1}, status="idle")
            client = server.client()
            stamps, costs = {}, []
            with stopped(server):
                for number in range(MANY):
                    begun = time.monotonic()
                    done = hub.update_agent_context(f"a{number % 10}", {f"k{number // 10}": number})
                    costs.append(time.monotonic() - begun)
                    assert done.store == "file"
                    stamps[f"a{number % 10}", f"context.k{number // 10}"] = done.at
            assert max(costs) < 1.5 and sorted(costs[-100:])[50] < 0.25
            wait_until(lambda: len(client.keys("memory:agents:a*")) == 10, 20)
            wait_until(lambda: not hub.workspace.base.owes(), 20)
            live = hub.workspace.store.observe({}).agents
            known = json.loads(settings.context_file.read_text())["agents"]
            for (agent, field), at in stamps.items():
                assert (live[agent].fields[field].at, live[agent].fields[field].by) == (at, "me@here")
                assert str(known[agent]["context"][field.removeprefix("context.")]) == live[agent].fields[field].text
            client.close()


def _write_offline(settings: Settings, number: int) -> None:
    with UnifiedMemoryHub(settings=settings) as hub:
        for turn in range(25):
            assert hub.update_agent_context("mary", {f"p{number}t{turn}": turn}).store == "file"


def test_four_processes_share_the_journal_and_the_file(tmp_path: Path) -> None:
    """None of their writes is lost, in the file or in the journal."""
    settings = gone(tmp_path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_offline, args=(settings, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    everything = {f"p{number}t{turn}": turn for number in range(4) for turn in range(25)}
    assert in_file(settings, "mary")["context"] == everything
    with OneShotHub(settings=settings) as hub:
        assert hub.workspace.base.journal() == ()
        assert hub.get_agent("mary")["context"] == everything


def test_threads_write_files_side_by_side(tmp_path: Path) -> None:
    """Several of their writes go into one round; none is lost."""
    settings = gone(tmp_path)
    with UnifiedMemoryHub(settings=settings) as hub, ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda number: hub.update_agent_context("mary", {f"k{number}": number}), range(100)))
        assert {one.store for one in done} == {"file"}
    assert in_file(settings, "mary")["context"] == {f"k{number}": number for number in range(100)}


def test_the_journal_alone_is_enough_while_somebody_holds_the_workspace(tmp_path: Path) -> None:
    """It is read back from there, and its holder takes it in."""
    settings = gone(tmp_path)
    with UnifiedMemoryHub(settings=settings) as hub:
        hub.update_agent_context("mary", {"a": 1})
        with Lock(settings.folder / "lock"):
            assert hub.update_agent_context("mary", {"a": 2}).store == "file"
            assert hub.update_agent_context("mary", {"b": 3}, replace=True).store == "file"
            assert [entry.value.text for entry in hub.workspace.base.journal()] == ["2", "3", None]
            assert hub.get_agent("mary")["context"] == {"b": 3}
        hub.update_agent_context("rnd", {"a": 1})
        assert in_file(settings, "mary")["context"] == {"b": 3} and hub.workspace.base.journal() == ()


def test_a_hanging_server_costs_one_call_a_second_and_the_next_ones_nothing(tmp_path: Path) -> None:
    """Every method answers within 1.5 s, then at once; and the hub comes back by itself."""
    with running() as server, UnifiedMemoryHub(settings=chosen(tmp_path, server.url)) as hub:
        hub.update_agent_context("mary", {"a": 1})
        hub.get_unified_context()
        hub.sync_from_file()
        calls: list[Callable[[], object]] = [
            hub.get_unified_context,
            lambda: hub.get_agent("mary"),
            lambda: hub.update_agent_context("mary", {"a": 2}),
            lambda: hub.update_many({"mary": {"a": 3}}),
            lambda: hub.update_agent_context("mary", {"a": 4}, durable=True),
            lambda: hub.publish_update({"agent": "mary", "event": "note"}),
        ]
        with stopped(server):
            for index, call in enumerate([*calls, *calls]):
                begun = time.monotonic()
                call()
                assert time.monotonic() - begun < (1.5 if index < len(calls) else 0.7), index
        wait_until(lambda: hub.update_agent_context("mary", {"b": 1}).store == "redis", 20)
        wait_until(lambda: hub.get_agent("mary")["context"] == {"a": 4, "b": 1}, 20)


def test_a_killed_server_comes_back_empty_and_learns_everything(tmp_path: Path) -> None:
    """From the hub alone, no reconciler runs: what was written before, meanwhile, and after."""
    folder = tmp_path / "w"
    folder.mkdir()
    with running() as first:
        path = first.url.removeprefix("unix://")
        settings = chosen(folder, first.url)
        hub = UnifiedMemoryHub(settings=settings)
        hub.update_agent_context("mary", {"before": 1})
        hub.sync_from_file()
        first.process.kill()
        first.process.wait()
        assert hub.update_agent_context("mary", {"meanwhile": 1}).store == "file"
        Path(path).unlink(missing_ok=True)
        with running() as second:
            Path(path).symlink_to(second.url.removeprefix("unix://"))
            wait_until(
                lambda: second.client().hget("memory:agents:mary", "status") or second.client().keys("*mary"), 20
            )
            done = hub.update_agent_context("mary", {"after": 1})
            assert done.store == "redis" and done.version >= 2
            wanted = {"before": 1, "meanwhile": 1, "after": 1}
            wait_until(lambda: hub.get_agent("mary")["context"] == wanted, 10)
            hub.close()


def test_a_later_process_teaches_redis_what_an_earlier_one_left(tmp_path: Path) -> None:
    """The first one ended before Redis was back."""
    with running() as server:
        settings = chosen(tmp_path, server.url)
        with stopped(server), OneShotHub(settings=settings) as first:
            first.update_agent_context("mary", {"a": 1})
        with UnifiedMemoryHub(settings=settings) as hub:
            wait_until(lambda: server.client().exists("memory:agents:mary"), 10)
            assert hub.get_agent("mary")["context"] == {"a": 1}
        assert not hub.workspace.base.owes()


def test_a_server_out_of_memory_takes_the_write_later(tmp_path: Path) -> None:
    """It is on files meanwhile, and in Redis as soon as there is room."""
    with running() as server, server.client() as client:
        settings = chosen(tmp_path, server.url)
        with UnifiedMemoryHub(settings=settings) as hub:
            hub.update_agent_context("mary", {"a": 1})
            client.config_set("maxmemory", 1)
            assert hub.update_agent_context("mary", {"a": 2}).store == "file"
            assert hub.get_unified_context()["agents"]["mary"]["context"] == {"a": 2}
            assert in_file(settings, "mary")["context"] == {"a": 2}
            client.config_set("maxmemory", 0)
            wait_until(lambda: b'"a":2' in (client.hget("memory:agents:mary", "context") or b""), 20)


def test_a_forked_child_has_a_hub_of_its_own(tmp_path: Path, valkey: Server, real: Memory) -> None:
    """The parent used it before, with a cache and a subscription; both go on, and neither hears the other's answers."""
    settings = chosen(tmp_path, valkey.url)
    with UnifiedMemoryHub(settings=settings) as hub, hub.subscribe_updates() as subscription:
        hub.update_agent_context("mary", {"parent": 0})
        hub.get_unified_context()
        children = []
        for number in range(4):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    for turn in range(50):
                        hub.update_agent_context("mary", {f"c{number}": turn})
                    code = 0 if hub.get_unified_context()["agents"]["mary"]["context"][f"c{number}"] == 49 else 2
                    hub.close()
                finally:
                    os._exit(code)
            children.append(pid)
        for turn in range(1, 51):
            hub.update_agent_context("mary", {"parent": turn})
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
        wanted = {"parent": 50, **{f"c{number}": 49 for number in range(4)}}
        assert hub.get_unified_context()["agents"]["mary"]["context"] == wanted
        assert [subscription.next_event(5).version for _ in range(251)] == list(range(1, 252))  # type: ignore[union-attr]


def test_children_forked_while_redis_is_away_write_files(tmp_path: Path) -> None:
    """The parent wrote some before: its database is not theirs."""
    settings = gone(tmp_path)
    with UnifiedMemoryHub(settings=settings) as hub:
        hub.update_agent_context("mary", {"parent": 1})
        pids = []
        for number in range(2):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = 0 if hub.update_agent_context("mary", {f"c{number}": 1}).store == "file" else 2
                finally:
                    os._exit(code)
            pids.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
        hub.update_agent_context("mary", {"parent": 2})
        assert hub.get_agent("mary")["context"] == {"parent": 2, "c0": 1, "c1": 1}
