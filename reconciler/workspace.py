"""Opening a workspace: its settings, its memory, and the store that its settings name.

Redis that cannot be reached is a store too (`AwayStore`); Redis that refuses for good is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import files, schema, settings
from .base import Base
from .errors import InputError, StoreAway
from .settings import Settings
from .sources.yaml_text import MAX_BYTES, locator, read_documents
from .store import AwayStore, LiveStore

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Workspace:
    """One workspace and what a round works with."""

    settings: Settings
    base: Base
    store: LiveStore


def read_settings(
    root_flag: str | None, flags: Mapping[str, str | None], env: Mapping[str, str] | None = None
) -> Settings:
    """The settings of the workspace that is meant. Raises UsageError, InputError."""
    env = os.environ if env is None else env
    root = settings.find_root(root_flag, env)
    return settings.build(root, _read_file(root / settings.FILE), env, flags)


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


@contextmanager
def open_workspace(chosen: Settings, warn: Warn) -> Iterator[Workspace]:
    """A workspace ready for rounds; what was opened is closed at the end. Raises StoreError."""
    base = Base(chosen.folder)
    with open_store(chosen, warn) as store:
        yield Workspace(chosen, base, store)


@contextmanager
def open_store(chosen: Settings, warn: Warn) -> Iterator[LiveStore]:
    """The store that the settings name. `embedded:` starts this workspace's own server, or joins it."""
    try:
        if chosen.redis == settings.EMBEDDED:
            from .store.embedded import Embedded

            files.private_folder(chosen.folder)
            with Embedded(chosen.folder / "valkey") as server:
                yield from _connected(chosen, f"unix://{server.socket}", warn)
        else:
            yield from _connected(chosen, chosen.redis, warn)
    except _Away as away:
        yield AwayStore(away.reason)


class _Away(Exception):
    def __init__(self, reason: StoreAway) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _connected(chosen: Settings, url: str, warn: Warn) -> Iterator[LiveStore]:
    from .store.redis_store import Limits, RedisStore, connect, public_name

    limits = Limits(
        max_skew=int(chosen.max_skew.total_seconds() * 1_000_000),
        history=chosen.history,
        tombstones=int(chosen.tombstones.total_seconds()),
    )
    try:
        client = connect(url, chosen.password, warn)
    except StoreAway as reason:
        raise _Away(reason) from None
    store = RedisStore(client, chosen.writer, limits, public_name(url))
    try:
        yield store
    finally:
        store.close()
