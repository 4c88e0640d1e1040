"""One workspace, and everything that a Redis can do to it: away, silent, full, read-only, forgetful, mistrustful.

Each trial on the bundled Valkey and on the system's redis-server, where there is one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler import UnifiedMemoryHub
from tests.faults import check
from tests.faults.real.rig import Desk, Witness, repeat
from tests.faults.real.server import Server, binaries, trial_server
from tests.waiting import wait_until

BOTH = pytest.mark.parametrize("kind", binaries())
READY = "Watching for changes"


@contextmanager
def at_home(folder: Path, kind: str = "valkey", *options: str, start: bool = True) -> Iterator[tuple[Server, Desk]]:
    """A server and a workspace of six agents; no daemon yet."""
    with trial_server(*options, kind=kind, start=start) as server, Desk(folder / "work", server.url) as desk:
        desk.begin()
        yield server, desk


def record(desk: Desk, agent: str) -> dict[str, Any]:
    return dict(desk.context()["agents"].get(agent, {}))


def edit(desk: Desk, agent: str, **values: Any) -> None:
    """What an editor does: read, change, replace."""
    data = desk.context()
    data["agents"][agent].setdefault("context", {}).update(values)
    temp = desk.context_file.with_name("new")
    temp.write_text(json.dumps(data, indent=2))
    temp.rename(desk.context_file)


def in_redis(client: Any, agent: str) -> Any:
    return json.loads(client.hget(f"memory:agents:{agent}", "context") or "{}")


def reaches_both_ways(server: Server, desk: Desk, mark: str) -> None:
    """A raw write and an edit made now each reach the other side."""
    edit(desk, "a1", edited=mark)
    with server.client() as client:
        wait_until(lambda: in_redis(client, "a1").get("edited") == mark, 20, "the edit in Redis")
        client.hset("memory:agents:a2", "insight", mark)
        wait_until(lambda: record(desk, "a2").get("insight") == mark, 20, "the raw write in the file")
    assert "Traceback" not in (desk.daemon.said() if desk.daemon else "")


def test_the_second_of_two_daemons_leaves_and_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    """It ends with 6 and says who is there; when that one was killed, the next one works at once."""
    with at_home(tmp_path) as (server, desk):
        first = desk.run()
        desk.settle(server)
        second = desk.run()
        wait_until(lambda: second.ended() is not None, 20, "the second one to leave")
        assert second.ended() == 6
        assert f"(pid {first.pid})" in second.said()
        first.kill()
        second.kill()
        second.start()
        wait_until(lambda: READY in second.said(), 20, "the second one to work")
        reaches_both_ways(server, desk, "second")


def test_several_hubs_with_redis_away_share_the_journal_and_the_file(tmp_path: Path) -> None:
    """Four processes, some killed; every acknowledged write is in the file at once, and in Redis when it is there."""
    with at_home(tmp_path, start=False) as (server, desk), Witness(desk.root) as witness:
        initial = check.of_file(desk.root)
        writers = [desk.writer("hub", f"w{n}", n, count=30, agents=["a0", "a1"], pause=0.01) for n in range(4)]
        wait_until(lambda: sum(op.acknowledged for op in desk.records().ops.values()) > 12, 30, "some writes")
        writers[0].kill()
        writers[1].kill()
        for process in writers[2:]:
            assert process.running
            assert process.running.wait(60) == 0, process.said()
        records = desk.records()
        assert {op.outcome for op in records.ops.values()} <= {"file", "unknown"}
        server.start()
        desk.run()
        desk.settle(server)
        records.initial(initial)
        with server.client() as client:
            wrong = [*check.lost(records, check.of_redis(client)), *check.unfit(records), *witness.faults]
        assert not wrong, check.shortened(wrong)


def test_with_redis_away_every_write_is_in_the_file_when_it_returns(tmp_path: Path) -> None:
    """Nobody holds the workspace, so the caller's own round writes it."""
    with at_home(tmp_path, start=False) as (server, desk), UnifiedMemoryHub(str(desk.root), server.url) as hub:
        for number in range(5):
            assert hub.update_agent_context("a0", {f"n{number}": number}).store == "file"
            assert record(desk, "a0")["context"][f"n{number}"] == number


@BOTH
def test_a_torn_burst_of_raw_writes_is_one_event(tmp_path: Path, kind: str) -> None:
    """Eleven HSETs 20 ms apart, as shell scripts write them: adopted when they have rested for 100 ms."""
    with at_home(tmp_path, kind) as (server, desk), server.client() as client, server.client() as listener:
        desk.run()
        desk.settle(server)
        heard = listener.pubsub()
        heard.subscribe("memory:updates")
        assert heard.get_message(timeout=5)
        for number in range(11):
            client.hset("memory:agents:a3", f"field{number}", str(number))
            time.sleep(0.02)
        wait_until(lambda: record(desk, "a3").get("field10") == "10", 20, "the burst in the file")
        found = heard.get_message(timeout=5)
        events = [json.loads(found["data"])] if found else []
        while found := heard.get_message(timeout=0.5):
            events.append(json.loads(found["data"]))
        heard.close()
        assert [len(event["changes"]) for event in events if event["agent"] == "a3"] == [11]


def test_sigterm_in_the_middle_of_a_burst_leaves_nothing_behind(tmp_path: Path) -> None:
    """Whatever was acknowledged before the signal is in the file when the daemon has ended."""
    with at_home(tmp_path) as (server, desk), UnifiedMemoryHub(str(desk.root), server.url) as hub:
        daemon = desk.run()
        desk.settle(server)
        with server.client() as client:
            for number in range(200):
                hub.update_agent_context(f"a{number % 5}", {f"n{number}": number})
            client.hset("memory:agents:raw", "insight", "at the last moment")
        assert daemon.end() == 0, daemon.said()
        for number in range(200):
            assert record(desk, f"a{number % 5}")["context"][f"n{number}"] == number
        assert record(desk, "raw")["insight"] == "at the last moment"
        assert desk("diff").code == 0


def everything_arrives(server: Server, desk: Desk, hub: UnifiedMemoryHub, mark: str) -> None:
    """A raw write, an edit, an update and a new manifest made now each reach the other side."""
    reaches_both_ways(server, desk, mark)
    wait_until(lambda: hub.update_agent_context("a3", {"hub": mark}).store == "redis", 20, "an update in Redis")
    wait_until(lambda: record(desk, "a3")["context"].get("hub") == mark, 20, "the update in the file")
    desk.write_manifest(f"new-{mark}", "busy", role=mark)
    wait_until(lambda: f"new-{mark}" in desk.context()["agents"], 20, "the manifest in the file")


@BOTH
def test_nothing_waits_for_the_clock(tmp_path: Path, kind: str) -> None:
    """With an hour between full rounds every change arrives all the same, also after Redis was away for a moment."""
    with at_home(tmp_path, kind) as (server, desk), UnifiedMemoryHub(str(desk.root), server.url) as hub:
        elsewhere = tmp_path / "elsewhere"
        desk.context_file.parent.rename(elsewhere)
        desk.context_file.parent.symlink_to(elsewhere)
        desk.env["RECONCILER_INTERVAL"] = "3600"
        desk.run()
        desk.settle(server)
        everything_arrives(server, desk, hub, "first")
        server.kill()
        server.start()
        everything_arrives(server, desk, hub, "again")
        desk.settle(server)


@BOTH
def test_redis_may_come_after_the_daemon(tmp_path: Path, kind: str) -> None:
    """Until then files serve; then Redis learns everything."""
    with at_home(tmp_path, kind, start=False) as (server, desk):
        daemon = desk.run()
        wait_until(lambda: READY in daemon.said(), 20, "the daemon to work without Redis")
        edit(desk, "a4", before="redis")
        server.start()
        desk.settle(server)
        with server.client() as client:
            assert in_redis(client, "a4") == {"role": "first", "k0": "first", "before": "redis"}
        reaches_both_ways(server, desk, "after")


def test_a_daemon_whose_password_is_wrong_goes_on_when_it_is_right(tmp_path: Path) -> None:
    """The server changes its password and changes it back; nobody restarts the daemon."""
    with at_home(tmp_path, "valkey", "--requirepass", "right") as (server, desk):
        desk.env["REDIS_PASSWORD"] = "right"
        daemon = desk.run()
        with server.client(password="right") as client:
            wait_until(lambda: client.exists("memory:agents:a0") and READY in daemon.said(), 20, "the first round")
            client.config_set("requirepass", "other")
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
            edit(desk, "a1", meanwhile="edited")
            wait_until(lambda: "password" in daemon.said(), 20, "a word about the password")
            assert daemon.ended() is None, daemon.said()
            client.config_set("requirepass", "right")
            wait_until(lambda: in_redis(client, "a1").get("meanwhile") == "edited", 30, "the edit in Redis")
        assert "right" not in daemon.said()
        assert "Traceback" not in daemon.said()


REFUSALS = {
    "full": (("CONFIG", "SET", "maxmemory", "1mb"), ("CONFIG", "SET", "maxmemory", "0")),
    "a replica": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "alone": (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
}
"""How a server comes to take no writes (OOM, READONLY, NOREPLICAS), and what ends it."""


@BOTH
@pytest.mark.parametrize("how", REFUSALS)
def test_a_server_that_takes_no_writes_gets_them_when_it_does(tmp_path: Path, kind: str, how: str) -> None:
    """Files go on, a hub's write goes into them, the daemon stays; then Redis learns everything."""
    with at_home(tmp_path, kind) as (server, desk), server.client() as client:
        daemon = desk.run()
        desk.settle(server)
        client.execute_command(*REFUSALS[how][0])
        edit(desk, "a1", meanwhile="edited")
        with UnifiedMemoryHub(str(desk.root), server.url) as hub:
            assert hub.update_agent_context("a2", {"meanwhile": "written"}).store == "file"
        wait_until(lambda: record(desk, "a2")["context"].get("meanwhile") == "written", 20, "the write in the file")
        assert daemon.ended() is None, daemon.said()
        client.execute_command(*REFUSALS[how][1])
        wait_until(lambda: in_redis(client, "a1").get("meanwhile") == "edited", 30, "the edit in Redis")
        wait_until(lambda: in_redis(client, "a2").get("meanwhile") == "written", 30, "the write in Redis")
        reaches_both_ways(server, desk, "later")


def test_a_server_that_is_still_loading_is_away(tmp_path: Path) -> None:
    """LOADING: files serve for so long, and nobody takes an empty answer for an empty memory."""
    with at_home(tmp_path) as (server, desk):
        daemon = desk.run()
        desk.settle(server)
        with server.client(socket_timeout=10) as client, client.pipeline(transaction=False) as others:
            for number in range(8_000):
                others.set(f"other:{number}", "x")
            others.execute()
        server.kill()
        server.options += ("--key-load-delay", "100")  # µs for each command in its log
        server.start(wait=False)
        wait_until(lambda: server.says().startswith(b"-LOADING"), 20, "a server that is loading")
        with UnifiedMemoryHub(str(desk.root), server.url) as hub:
            assert hub.update_agent_context("a2", {"meanwhile": "written"}).store == "file"
            assert hub.get_agent("a2")["context"]["meanwhile"] == "written"
        edit(desk, "a1", meanwhile="edited")
        wait_until(server.answers, 60, "the end of loading")
        with server.client() as client:
            wait_until(lambda: in_redis(client, "a1").get("meanwhile") == "edited", 30, "the edit in Redis")
            wait_until(lambda: in_redis(client, "a2").get("meanwhile") == "written", 30, "the write in Redis")
        desk.settle(server)
        assert daemon.ended() is None, daemon.said()


def test_a_server_with_too_many_clients_is_away_for_those_who_come_too_late(tmp_path: Path) -> None:
    """`maxclients`: the connection is refused with an answer; what is written then is not lost."""
    with at_home(tmp_path) as (server, desk), server.client() as client:
        desk.run()
        desk.settle(server)
        client.config_set("maxclients", "1")
        with UnifiedMemoryHub(str(desk.root), server.url) as hub:
            assert hub.update_agent_context("a2", {"meanwhile": "written"}).store == "file"
            client.config_set("maxclients", "1000")
            wait_until(lambda: in_redis(client, "a2").get("meanwhile") == "written", 30, "the write in Redis")
            wait_until(lambda: hub.update_agent_context("a2", {"later": 1}).store == "redis", 30, "a write to Redis")
        reaches_both_ways(server, desk, "later")


@BOTH
def test_a_server_that_forgets_the_script_is_told_it_again(tmp_path: Path, kind: str) -> None:
    """SCRIPT FLUSH between any two writes, of the daemon and of a hub."""
    with at_home(tmp_path, kind) as (server, desk), server.client() as client:
        desk.run()
        desk.settle(server)
        with UnifiedMemoryHub(str(desk.root), server.url) as hub:
            for number in range(3):
                client.script_flush()
                done = hub.update_agent_context("a0", {f"n{number}": number})
                assert (done.store, done.won) == ("redis", (f"context.n{number}",))
        client.script_flush()
        reaches_both_ways(server, desk, "flushed")


@BOTH
def test_a_user_without_tracking_and_config_is_served_more_slowly(tmp_path: Path, kind: str) -> None:
    """An ACL that allows what DESIGN §4 needs and nothing else: raw writes are found by the clock."""
    with at_home(tmp_path, kind) as (server, desk), server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "small", "on", ">secret", "~memory:*", "&memory:*", "+@all",
            "-config", "-client|tracking", "-monitor", "-@admin", "-@dangerous",
        )  # fmt: skip
        desk.env |= {"RECONCILER_INTERVAL": "1"}
        desk.redis = server.url.replace("unix://", "unix://small:secret@")
        daemon = desk.run()
        desk.settle(server)
        reaches_both_ways(server, desk, "small")
        assert daemon.ended() is None, daemon.said()
        assert "secret" not in daemon.said()


@BOTH
def test_what_was_written_while_rights_were_missing_is_found_when_they_are_back(tmp_path: Path, kind: str) -> None:
    """The daemon goes on hearing who is written, and may not look; nobody is written again when it may."""
    with at_home(tmp_path, kind) as (server, desk), server.client() as client:
        client.execute_command("ACL", "SETUSER", "small", "on", ">secret", "~memory:*", "&memory:*", "+@all")
        desk.env |= {"RECONCILER_INTERVAL": "1"}
        desk.redis = server.url.replace("unix://", "unix://small:secret@")
        daemon = desk.run()
        desk.settle(server)
        client.execute_command("ACL", "SETUSER", "small", "resetkeys")
        client.hset("memory:agents:a2", "insight", "meanwhile")
        wait_until(lambda: "going on with files" in daemon.said(), 20, "a round on files")
        client.execute_command("ACL", "SETUSER", "small", "~memory:*")
        wait_until(lambda: record(desk, "a2").get("insight") == "meanwhile", 20, "the raw write in the file")


def test_with_a_hanging_server_no_call_takes_more_than_a_second_and_a_half(tmp_path: Path) -> None:
    """SIGSTOP: the first calls wait for their command's second, the later ones answer at once.

    What timed out does not happen after all when the server goes on, over what was written since.
    """
    with at_home(tmp_path) as (server, desk):
        initial = check.of_file(desk.root)
        desk.run()
        desk.settle(server)
        writer = desk.writer("hub", "w", 1, pause=0.05, agents=["a0", "a1"])
        wait_until(lambda: len(desk.records().ops) > 5, 20, "some writes")
        server.freeze()
        done = len(desk.records().ops)
        wait_until(lambda: len(desk.records().ops) > done + 30, 40, "writes while it hangs")
        server.thaw()
        writer.end()
        records = desk.records()
        took = sorted(op.took / 1e6 for op in records.ops.values())
        assert took[-1] < 3.0, took[-5:]
        assert took[-5] < 1.0, took[-8:]
        records.initial(initial)
        with server.client() as client:
            wrong = repeat(lambda: list(check.lost(records, check.of_redis(client))), 15) + check.unfit(records)
        assert not wrong, check.shortened(wrong)
        desk.settle(server)
