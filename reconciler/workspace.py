"""Opening a workspace: its settings, its memory, and the store that its settings name.

Redis that cannot be reached is a store too (`AwayStore`); Redis that refuses for good is an error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import files, password, schema, settings
from .base import Base
from .errors import InputError, Place, Problem, ReconcilerError, StoreAway, StoreError, UsageError
from .events import Event
from .inbox import Inbox
from .settings import Settings
from .sources.desired import Sources
from .sources.text import MAX_BYTES
from .spool import Spool
from .state import State
from .store import AwayStore, Channel, Live, LiveStore, Now, Tracking, Write, Written

Warn = Callable[[str], None]


def wall_clock() -> int:
    """Now, in µs since 1970 UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace and what a round works with. `clock` tells a round when it is, in µs since 1970 UTC.

    `sources`, `spool` and, in a `WarmBase`, `base` keep between two rounds what did not change. Without a spool a
    round leaves what was dropped to others."""

    settings: Settings
    base: Base
    store: LiveStore
    clock: Callable[[], int] = wall_clock
    sources: Sources = field(default_factory=Sources)
    spool: Spool | None = None
    inbox: Inbox | None = None


def read_settings(
    root_flag: str | None,
    flags: Mapping[str, str | None],
    env: Mapping[str, str] | None = None,
    wrong: list[Problem] | None = None,
) -> Settings:
    """The settings of the workspace that is meant. Raises UsageError, InputError.

    `wrong`: takes what is wrong with reconciler.yaml, which then says nothing."""
    env = os.environ if env is None else env
    root = settings.find_root(root_flag, env)
    try:
        chosen = settings.build(root, _file(root), env, flags)
    except (InputError, UsageError) as error:
        if wrong is None:
            raise
        chosen = settings.build(root, {}, env, flags)
        wrong += problems_of(error)
    return chosen if chosen.password is not None else replace(chosen, password=password.stored(chosen))


def settings_of_file(root: Path) -> Settings:
    """What reconciler.yaml and the defaults alone give, without a password. Raises InputError, UsageError."""
    return settings.build(root, _file(root), {}, {})


def _file(root: Path) -> dict[str, object]:
    found = files.read(root / settings.FILE, MAX_BYTES + 1)
    return read_file(found[0], settings.FILE) if found else {}


def read_file(data: bytes, source: str) -> dict[str, object]:
    """What a reconciler.yaml says; `source` is its name for messages. Raises InputError."""
    from .sources.yaml_text import locator, read_documents  # not for `get` where there are no settings

    documents = read_documents(data, source)
    if not documents or documents[0].value is None:  # nothing but comments, as `init` makes it
        return {}
    problems = schema.validate("settings", documents[0].value, locator(data, source, 0), source=source)
    if problems:
        raise InputError(*problems)
    return dict(documents[0].value)


def problems_of(error: InputError | UsageError, source: str = settings.FILE) -> tuple[Problem, ...]:
    """What is wrong with a reconciler.yaml, from what reading and building with it raised."""
    if isinstance(error, InputError):
        return error.problems
    return (Problem(Place(source), error.message.removeprefix(f"{settings.FILE}: "), error.hint),)


@contextmanager
def open_workspace(
    chosen: Settings,
    warn: Warn,
    *,
    reading: bool = False,
    lasting: bool = False,
    on_return: Callable[[], None] | None = None,
) -> Iterator[Workspace]:
    """A workspace ready for rounds; what was opened is closed at the end. Raises StoreError.

    `reading`: nothing will be written, so nothing is created either. `lasting`: see `open_store`.
    """
    if chosen.folder.exists() and not chosen.folder.is_dir():
        raise ReconcilerError(f"{chosen.folder}: is not a folder", hint="move it away; a folder is needed there")
    base = Base(chosen.folder)
    with open_store(chosen, warn, reading=reading, lasting=lasting, on_return=on_return) as store:
        inbox = Inbox(chosen) if chosen.inbox else None
        yield Workspace(chosen, base, store, spool=Spool(chosen.spool), inbox=inbox)


@contextmanager
def open_store(
    chosen: Settings,
    warn: Warn,
    *,
    reading: bool = False,
    lasting: bool = False,
    on_return: Callable[[], None] | None = None,
) -> Iterator[LiveStore]:
    """The store that the settings name. `embedded:` starts this workspace's own server, or joins it.

    Without `lasting` it is there or away once and for all. With it, it is a `Breaker`: it comes and goes with the
    server, and calls `on_return` when it is back. Raises StoreError for a server that refuses.
    """
    if reading and chosen.redis == settings.EMBEDDED and not _valkey_folder(chosen).exists():
        yield EmptyStore(settings.EMBEDDED)
        return
    with ExitStack() as opened:
        connect = _connecting(chosen, warn, opened)
        store: LiveStore
        if lasting:
            from .store.breaker import Breaker

            store = Breaker(connect, on_return)
        else:
            try:
                store = connect()
            except StoreAway as reason:
                store = AwayStore(reason)
        opened.callback(store.close)
        yield store


def _connecting(chosen: Settings, warn: Warn, opened: ExitStack) -> Callable[[], LiveStore]:
    """What connects to the store, as often as it is called; each warning is said once."""
    from .store.connect import connect, public_name
    from .store.redis_store import Limits, RedisStore

    url, name, start = chosen.redis, public_name(chosen.redis), _nothing_to_start
    if url == settings.EMBEDDED:
        from .store.embedded import Embedded

        files.private_folder(chosen.folder)
        embedded = Embedded(_valkey_folder(chosen))
        opened.callback(embedded.close)
        url, name, start = f"unix://{embedded.socket}", settings.EMBEDDED, embedded.start
    limits = Limits(
        max_skew=int(chosen.max_skew.total_seconds() * 1_000_000),
        history=chosen.history,
        tombstones=int(chosen.tombstones.total_seconds()),
    )
    said: set[str] = set()

    def warn_once(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    def connecting() -> LiveStore:
        start()
        try:
            client = connect(url, chosen.password, warn_once)
        except StoreError:
            by_now = _password_by_now(chosen)
            if by_now == chosen.password:
                raise
            client = connect(url, by_now, warn_once)
        return RedisStore(client, chosen.writer, limits, name)

    return connecting


def _nothing_to_start() -> None:
    return None


def _valkey_folder(chosen: Settings) -> Path:
    return chosen.folder / "valkey"


def _password_by_now(chosen: Settings) -> str | None:
    """The password that is stored, which may have been changed since the settings were read."""
    try:
        return password.stored(chosen) or chosen.password
    except ReconcilerError:
        return chosen.password


class EmptyStore:
    """The embedded store before its first write, for those who only look: starting the server would create it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        return Live(now=wall_clock())

    def plain(self) -> dict[str, dict[str, Any] | None]:
        return {}

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        raise ReconcilerError("a store that was opened for reading is not written")

    def history(self, agent: str, count: int) -> list[Event]:
        return []

    def messages(self, agent: str, count: int, before: int = 0) -> list[tuple[int, bytes]]:
        return []

    def since(self, agent: str, version: int) -> list[Event]:
        return []

    def versions(self, agents: Iterable[str] | None = None) -> dict[str, int]:
        return dict.fromkeys(agents or (), 0)

    def trim(self) -> int:
        return 0

    def listen(self, agents: Sequence[str] = ()) -> Channel:
        raise StoreAway("nothing is there yet to listen to")

    def track(self) -> Tracking:
        raise StoreAway("nothing is there yet to listen to")

    def publish(self, event: Event) -> int:
        return 0

    def start_epoch(self, epoch: str) -> str:
        return ""

    def mark(self) -> str:
        return ""

    def close(self) -> None:
        return None
