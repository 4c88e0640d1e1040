"""Opening a workspace: its settings, its memory, and the store that its settings name.

Redis that cannot be reached is a store too (`AwayStore`); Redis that refuses for good is an error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from . import files, schema, settings
from .base import Base
from .errors import InputError, ReconcilerError, StoreAway, UsageError
from .events import Event
from .settings import Settings
from .sources.yaml_text import MAX_BYTES, locator, read_documents
from .state import State
from .store import AwayStore, Live, LiveStore, Write, Written

Warn = Callable[[str], None]


def wall_clock() -> int:
    """Now, in µs since 1970 UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace and what a round works with. `clock` tells a round when it is, in µs since 1970 UTC."""

    settings: Settings
    base: Base
    store: LiveStore
    clock: Callable[[], int] = wall_clock


def read_settings(
    root_flag: str | None, flags: Mapping[str, str | None], env: Mapping[str, str] | None = None
) -> Settings:
    """The settings of the workspace that is meant. Raises UsageError, InputError."""
    env = os.environ if env is None else env
    root = settings.find_root(root_flag, env)
    chosen = settings.build(root, _read_file(root / settings.FILE), env, flags)
    if chosen.password is None and chosen.password_file is not None:
        return replace(chosen, password=_read_password(chosen.password_file))
    return chosen


def _read_file(path: Path) -> dict[str, object]:
    found = files.read(path, MAX_BYTES + 1)
    documents = read_documents(found[0], settings.FILE) if found else []
    if not found or not documents or documents[0].value is None:
        return {}
    problems = schema.validate(
        "settings", documents[0].value, locator(found[0], settings.FILE, 0), source=settings.FILE
    )
    if problems:
        raise InputError(*problems)
    return dict(documents[0].value)


def _read_password(path: Path) -> str:
    """The first line of a file. Raises InputError, UsageError; neither quotes what is in it."""
    found = files.read(path, 1 << 16)
    lines = found[0].decode("utf-8", "replace").splitlines() if found else []
    password = lines[0].strip() if lines else ""
    if not password or "\ufffd" in password:
        what = "holds no password" if found else "does not exist"
        raise UsageError(f"redis_password_file {path} {what}", hint="put the password on its first line")
    return password


@contextmanager
def open_workspace(chosen: Settings, warn: Warn, *, reading: bool = False) -> Iterator[Workspace]:
    """A workspace ready for rounds; what was opened is closed at the end. Raises StoreError.

    `reading`: nothing will be written, so nothing is created either.
    """
    if chosen.folder.exists() and not chosen.folder.is_dir():
        raise ReconcilerError(f"{chosen.folder}: is not a folder", hint="move it away; a folder is needed there")
    base = Base(chosen.folder)
    with open_store(chosen, warn, reading=reading) as store:
        yield Workspace(chosen, base, store)


@contextmanager
def open_store(chosen: Settings, warn: Warn, *, reading: bool = False) -> Iterator[LiveStore]:
    """The store that the settings name. `embedded:` starts this workspace's own server, or joins it."""
    with ExitStack() as opened:
        store: LiveStore
        try:
            store = _open(chosen, warn, opened, reading)
        except StoreAway as reason:
            store = AwayStore(reason)
        yield store


def _open(chosen: Settings, warn: Warn, opened: ExitStack, reading: bool) -> LiveStore:
    from .store.redis_store import Limits, RedisStore, connect, public_name

    url = chosen.redis
    if url == settings.EMBEDDED:
        from .store.embedded import Embedded

        folder = chosen.folder / "valkey"
        if reading and not folder.exists():
            return EmptyStore(settings.EMBEDDED)
        files.private_folder(chosen.folder)
        url = f"unix://{opened.enter_context(Embedded(folder)).socket}"
    limits = Limits(
        max_skew=int(chosen.max_skew.total_seconds() * 1_000_000),
        history=chosen.history,
        tombstones=int(chosen.tombstones.total_seconds()),
    )
    name = settings.EMBEDDED if chosen.redis == settings.EMBEDDED else public_name(url)
    store = RedisStore(connect(url, chosen.password, warn), chosen.writer, limits, name)
    opened.callback(store.close)
    return store


class EmptyStore:
    """The embedded store before its first write, for those who only look: starting the server would create it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        return Live(now=wall_clock())

    def write(self, writes: Sequence[Write]) -> list[Written]:
        raise ReconcilerError("a store that was opened for reading is not written")

    def history(self, agent: str, count: int) -> list[Event]:
        return []

    def publish(self, event: Event) -> int:
        return 0

    def start_epoch(self, epoch: str) -> str:
        return ""

    def close(self) -> None:
        return None
