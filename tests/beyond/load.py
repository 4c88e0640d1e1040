"""Writers that go on until they are told to stop, and what a workspace's file and Redis hold in the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from reconciler import UnifiedMemoryHub
from reconciler.events import Event
from reconciler.state import present, record_to_text
from reconciler.store import LiveStore
from reconciler.store.connect import connect, public_name
from reconciler.store.redis_store import RedisStore
from tests.cli.shell import Shell, read_until


class Ack(NamedTuple):
    """One acknowledged write: what it wrote, and what the hub said."""

    n: int
    version: int
    store: str


class Writer:
    """A thread that counts up `context.n` of its agents through a hub of its own, one agent after the other."""

    def __init__(self, shell: Shell, agents: Sequence[str]) -> None:
        self.acks: dict[str, list[Ack]] = {agent: [] for agent in agents}
        self.failure: BaseException | None = None
        self._shell, self._end = shell, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with UnifiedMemoryHub(str(self._shell.root), self._shell.redis) as hub:
                n = 0
                while not self._end.wait(0.002):  # or they would leave nothing of a small machine to the servers
                    n += 1
                    for agent, acks in self.acks.items():
                        done = hub.update_agent_context(agent, {"n": n})
                        acks.append(Ack(n, done.version, done.store))
        except BaseException as failure:
            self.failure = failure

    @property
    def count(self) -> int:
        """How many writes were acknowledged; raises what the thread died of."""
        if self.failure:
            raise self.failure
        return sum(map(len, self.acks.values()))

    @property
    def in_redis(self) -> bool:
        """Whether the latest write went to Redis."""
        last = next(iter(self.acks.values()))
        return bool(last) and self.count > 0 and last[-1].store == "redis"

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join(30)
        assert not self._thread.is_alive() and not self.failure, self.failure


def workspace(folder: Path, url: str) -> Shell:
    """An empty workspace at this address."""
    folder.mkdir()
    (folder / "shared_memory").mkdir()
    (folder / "manifests").mkdir()
    shell = Shell(folder, url)
    shell.write_context({})
    return shell


@contextmanager
def running(*shells: Shell) -> Iterator[None]:
    """`reconciler run` in each of these workspaces; each is waited for until it says that it watches."""
    with ExitStack() as stack:
        for shell in shells:
            process = stack.enter_context(shell.start("run"))
            read_until(process, "Watching")
            # What it says of each round would fill the pipe, and hold it up.
            drain = threading.Thread(target=_read_all, args=(process.stdout,))
            drain.start()
            stack.callback(drain.join)
            stack.callback(process.kill)
        yield


def _read_all(pipe: IO[str]) -> None:
    for _ in pipe:
        pass


@contextmanager
def store_at(url: str) -> Iterator[LiveStore]:
    """A store of somebody else's, without a breaker."""
    store = RedisStore(connect(url, None, print), "looker@host", name=public_name(url))
    try:
        yield store
    finally:
        store.close()


def in_file(shell: Shell) -> dict[str, Any]:
    return {name: entry.get("context", {}) for name, entry in shell.context()["agents"].items()}


def in_redis(url: str) -> dict[str, Any]:
    with store_at(url) as store:
        state = store.observe({}).state
        return {name: json.loads(record_to_text(present(agent))).get("context", {}) for name, agent in state.items()}


def history(url: str, agents: Mapping[str, object]) -> dict[str, list[Event]]:
    """Every version of these agents, oldest first."""
    with store_at(url) as store:
        return {agent: store.since(agent, 0) for agent in agents}
