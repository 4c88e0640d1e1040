"""The breaker: a dead server costs a caller one second at most, once; a living one is found without being asked for."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import settings
from reconciler.errors import StoreAway, StoreError
from reconciler.events import Event
from reconciler.settings import Settings
from reconciler.store import AWAY_NAME, LiveStore, Write
from reconciler.store.breaker import Breaker
from reconciler.workspace import open_store
from tests.contract.kit import put
from tests.relay import Relay
from tests.servers import Server, running
from tests.waiting import wait_until

Launch = Callable[..., Server]


def chosen(root: Path, url: str, password: str | None = None) -> Settings:
    found = settings.build(root, {}, {}, {})
    return replace(found, redis=url, password=password)


@contextmanager
def lasting(root: Path, url: str, password: str | None = None) -> Iterator[tuple[Breaker, threading.Event]]:
    """A store as the daemon opens it, and what is set whenever the server is back."""
    back = threading.Event()
    with open_store(chosen(root, url, password), print, lasting=True, on_return=back.set) as store:
        assert isinstance(store, Breaker)
        yield store, back


def write(store: LiveStore, agent: str = "mary", value: object = "x") -> int:
    answer = store.write([Write(agent, (put("status", value),))])[0]
    assert not answer.refused
    return answer.version


def every_call(store: LiveStore) -> list[Callable[[], object]]:
    return [
        lambda: store.observe({}),
        lambda: write(store),
        lambda: store.history("mary", 5),
        lambda: store.since("mary", 0),
        lambda: store.versions(),
        lambda: store.listen(),
        lambda: store.track(),
        lambda: store.publish(Event("mary", "note", "2025-11-12T08:00:00Z", {})),
        lambda: store.start_epoch("x"),
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long it took to be told that Redis is away."""
    started = time.monotonic()
    with pytest.raises(StoreAway):
        work()
    return time.monotonic() - started


def test_a_server_that_hangs_costs_one_second_once(tmp_path: Path, launch: Launch) -> None:
    """SIGSTOP: the first call is told within 1.5 s, all others at once; SIGCONT: it works again by itself."""
    server = launch()
    with lasting(tmp_path, server.url) as (store, back):
        write(store)
        server.process.send_signal(signal.SIGSTOP)
        try:
            assert seconds(every_call(store)[1]) < 1.5
            assert (store.up, store.name) == (False, AWAY_NAME)
            assert sum(seconds(call) for call in 50 * every_call(store)) < 1.0
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert back.wait(30)
        assert (store.up, store.name) == (True, server.url)
        assert write(store, value="y") == 2


def test_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    """It opens open, and closes when the server starts."""
    with running() as server:
        path = Path(server.url.removeprefix("unix://"))
        hidden = path.with_name("hidden")
        path.rename(hidden)
        with lasting(tmp_path, server.url) as (store, back):
            for call in every_call(store):
                assert seconds(call) < 0.5
            hidden.rename(path)
            assert back.wait(30)
            assert write(store) == 1


def test_a_server_that_only_hangs_for_others_is_not_asked_more_and_more(tmp_path: Path, launch: Launch) -> None:
    """It greets but does not write: as long as no call succeeds, the pause between two attempts goes on growing."""
    server = launch()
    with lasting(tmp_path, server.url) as (store, back), server.client() as admin:
        admin.client_pause(60_000, all=False)
        for _ in range(3):
            back.clear()
            wait_until(lambda: store.up, what="a server that greets")
            assert seconds(lambda: write(store)) < 1.5
            assert back.wait(30)
        assert store._delay >= 0.8
        admin.client_unpause()
        write(store)
        assert store._delay < 0.8


def test_a_wrong_password_at_the_start(tmp_path: Path, launch: Launch) -> None:
    """Refused for good where nobody waits for the server; a daemon goes on trying until it is the right one."""
    server = launch("--requirepass", "other")
    workspace = chosen(tmp_path, server.url, "right")
    with pytest.raises(StoreError, match="password"):
        open_store(workspace, print, lasting=True).__enter__()
    with lasting(tmp_path, server.url, "right") as (store, back), server.client(password="other") as admin:
        for call in every_call(store):
            with pytest.raises(StoreError, match="password"):
                call()
        admin.config_set("requirepass", "right")
        assert back.wait(30)
        assert write(store) == 1


def test_a_password_that_is_wrong_for_a_while(tmp_path: Path, launch: Launch) -> None:
    """Every call says why, at once, and no trial is the last."""
    server = launch("--requirepass", "right")
    with lasting(tmp_path, server.url, "right") as (store, back), server.client(password="right") as admin:
        write(store)
        admin.config_set("requirepass", "other")
        admin.client_kill_filter(skipme=True)
        for call in 3 * every_call(store):
            with pytest.raises(StoreError, match="password"):
                call()
        admin.config_set("requirepass", "right")
        assert back.wait(30)
        assert write(store, value="y") == 2


def test_a_password_that_was_changed_in_its_file(tmp_path: Path, launch: Launch) -> None:
    """It is read again when the old one is refused."""
    server, secret = launch("--requirepass", "right"), tmp_path / "secret"
    secret.write_text("right\n")
    workspace = replace(chosen(tmp_path, server.url, "right"), password_file=secret)
    with open_store(workspace, print, lasting=True) as store, server.client(password="right") as admin:
        write(store)
        admin.config_set("requirepass", "new")
        secret.write_text("new\n")
        admin.client_kill_filter(skipme=True)
        with pytest.raises(StoreError, match="password"):
            write(store)
        wait_until(lambda: isinstance(store, Breaker) and store.up, what="the new password")
        assert write(store, value="y") == 2


def test_where_no_thread_can_be_started_the_next_call_tries_again(
    tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may be at its limit for a moment; who writes then is told that Redis is away, and nothing else."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Relay(Path(launch().url.removeprefix("unix://"))) as relay, lasting(tmp_path, relay.url) as (store, back):
        assert write(store) == 1
        relay.refuses = True
        relay.reset()
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", refuse)
            for _ in range(2):
                with pytest.raises(StoreAway):
                    write(store)
        relay.refuses = False
        with pytest.raises(StoreAway):
            write(store)
        assert back.wait(20)
        assert write(store, value="y") == 2


def test_a_call_that_is_not_allowed_does_not_open_it(tmp_path: Path, launch: Launch) -> None:
    """It is one call that is refused, not the server that is away."""
    server = launch()
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "agent", "reset", "on", "nopass", "+@all", "-xrevrange", "~*", "&*")
        with lasting(tmp_path, f"unix://agent:x@{server.url.removeprefix('unix://')}") as (store, _):
            with pytest.raises(StoreError):
                store.history("mary", 5)
            assert store.up


def test_sixteen_threads_share_one(tmp_path: Path, launch: Launch) -> None:
    """The server is killed under them and comes back empty: nobody waits long, and in the end all work again."""
    server = launch()
    slowest: list[float] = []
    ended = threading.Event()

    def work(agent: str) -> None:
        longest = 0.0
        while not ended.is_set():
            started = time.monotonic()
            try:
                done = store.write([Write(agent, (put("status", time.monotonic()),))])[0]
                assert done.later or not done.refused  # later: it reached a server that had hung for too long
            except StoreAway:
                ended.wait(0.001)
            longest = max(longest, time.monotonic() - started)
        slowest.append(longest)

    with lasting(tmp_path, server.url) as (store, back):
        threads = [threading.Thread(target=work, args=(f"a{number}",)) for number in range(16)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                server.process.send_signal(signal.SIGSTOP)
                wait_until(lambda: not store.up, what="the breaker to open")
                server.process.send_signal(signal.SIGCONT)
                assert back.wait(30)
                back.clear()
            before = store.versions()
            wait_until(
                lambda: all(store.versions()[name] > before.get(name, 0) for name in before), what="writes of all"
            )
        finally:
            server.process.send_signal(signal.SIGCONT)
            ended.set()
            for thread in threads:
                thread.join()
        assert len(slowest) == 16 and max(slowest) < 3.0
        assert sum(thread.name == "reconnect" for thread in threading.enumerate()) == 0


def in_a_child(work: Callable[[], object]) -> int:
    """Fork, do it, and give the exit code: 0 if nothing was raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_has_connections_of_its_own(tmp_path: Path, launch: Launch) -> None:
    """It works at once, also where threads of the parent were writing; and the parent goes on with its own."""
    server = launch()
    ended = threading.Event()

    def busy() -> None:
        while not ended.is_set():
            write(store, "busy", time.monotonic())

    with lasting(tmp_path, server.url) as (store, _), server.client() as admin:
        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in range(10):
                assert in_a_child(lambda: write(store, f"child{number}")) == 0  # noqa: B023
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        for number in range(10):
            assert store.versions([f"child{number}"]) == {f"child{number}": 1}
        assert int(admin.info("stats")["total_connections_received"]) >= 10


def test_a_fork_of_a_fork_drops_nobody_elses_connections(tmp_path: Path, valkey: Server) -> None:
    """A client that is dropped takes locks which nobody releases there."""
    with lasting(tmp_path, valkey.url) as (store, _):
        first = weakref.ref(store._store)

        def grandchild() -> None:
            write(store, "grandchild")
            gc.collect()
            assert first() is not None

        def child() -> None:
            write(store, "child")
            assert in_a_child(grandchild) == 0

        assert in_a_child(child) == 0


def test_a_child_of_a_parent_without_a_server_finds_its_own_way(tmp_path: Path) -> None:
    """Its own thread tries, though the parent's does not exist there."""
    with running() as server:
        path = Path(server.url.removeprefix("unix://"))
        hidden = path.with_name("hidden")
        path.rename(hidden)
        with lasting(tmp_path, server.url) as (store, _):

            def child() -> None:
                assert seconds(lambda: write(store)) < 1.5
                hidden.rename(path)
                wait_until(lambda: store.up, what="the server")
                write(store)

            assert in_a_child(child) == 0


_shared: list[Breaker] = []


def _in_a_pool(number: int) -> int:
    return write(_shared[0], "pool", number)


def test_workers_of_multiprocessing_share_it(tmp_path: Path, launch: Launch) -> None:
    """As pre-forking servers do."""
    server = launch()
    with lasting(tmp_path, server.url) as (store, _):
        write(store)
        _shared[:] = [store]
        with multiprocessing.get_context("fork").Pool(4) as pool:
            versions = pool.map(_in_a_pool, range(20), chunksize=1)
        assert sorted(versions) == list(range(1, 21))


def test_closed_is_closed(tmp_path: Path, launch: Launch) -> None:
    """Also while it tries to connect: its thread ends, and every call is refused."""
    server = launch()
    with lasting(tmp_path, server.url) as (store, _):
        server.process.kill()
        assert seconds(every_call(store)[1]) < 1.5
        prober = store._prober
        assert prober is not None
    assert not prober.is_alive()
    for call in every_call(store):
        assert seconds(call) < 0.5


def test_the_embedded_server_is_started_again(tmp_path: Path) -> None:
    """Somebody killed it with -9: it comes back with what was written, while its user goes on."""
    with lasting(tmp_path, settings.EMBEDDED) as (store, back):
        write(store)
        pid = int((tmp_path / ".reconciler/valkey/valkey.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _works(store) or back.is_set(), what="somebody to notice")
        assert back.wait(30)
        assert store.name == settings.EMBEDDED
        assert write(store, value="y") == 2


def _works(store: LiveStore) -> bool:
    try:
        store.history("mary", 1)
    except StoreAway:
        return False
    return True


def test_what_is_raised_again_does_not_grow(tmp_path: Path) -> None:
    """An error that is kept and raised a thousand times must not collect a thousand traces."""
    with lasting(tmp_path, f"unix://{tmp_path}/none") as (store, _):
        lengths = set()
        for _ in range(100):
            with pytest.raises(StoreAway) as caught:
                store.history("mary", 1)
            lengths.add(len(caught.traceback))
        assert len(lengths) == 1
