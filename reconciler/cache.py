"""`get_unified_context` without reading everything each time.

`context.json` as it is, live values over it, and over both what waits in the journal. What is kept of Redis is
believed only while Redis says which agents were written since (`Tracking`): before each answer it is asked for
what it had sent until then. A lost connection, or a server that cannot say it, and everything is read anew.
"""

from __future__ import annotations

import json
import marshal
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from sys import intern
from typing import Any

from . import files
from .base import Base, Entry
from .bulk import making_many
from .errors import InputError, StoreAway, StoreError
from .settings import Settings
from .sources.context_file import MAX_BYTES
from .state import CONTEXT, LAST_UPDATE, SHARED, Agent, Field, State, decode, is_agent_name
from .store import AGAIN, LiveAgent, LiveStore, Tracking
from .store.plain import tells_all

_AGAIN = 30.0
"""Seconds until a server is asked again that could not tell of writes."""
_CHUNK = 100
"""Agents that are packed together: they share the texts of their keys."""
_RACY = 50_000_000
"""Nanoseconds within which a file may change twice without its time showing it."""


class _Watched:
    """A file's identity, to tell whether it must be read again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: files.Identity | None = None
        self._fresh = False

    def forget(self) -> None:
        self._fresh = False

    def moved(self) -> bool:
        """Whether it may be another one than at the last call."""
        now, found = time.time_ns(), files.identify(self.path)
        same, self._seen = self._fresh and found == self._seen, found
        self._fresh = found is None or now - found.mtime_ns > _RACY
        return not same


class Cache:
    """One process's view of live memory and `context.json`. Safe to share between threads."""

    def __init__(self, settings: Settings, base: Base, store: LiveStore) -> None:
        self._settings, self._base, self._store = settings, base, store
        self._lock = threading.Lock()
        self._tracking: Tracking | None = None
        self._not_before = 0.0
        self._live: dict[str, LiveAgent] | None = None
        self._hashes: dict[str, dict[str, Any]] = {}
        self._file, self._db = _Watched(settings.context_file), _Watched(base.path)
        self._top: dict[str, Any] = {}
        self._records: dict[str, Any] = {}
        self._journal: dict[str, dict[str, Field]] = {}
        self._plain: dict[str, dict[str, Any]] = {}
        self._places: dict[str, int] = {}
        self._packed: list[bytes] = []
        self._shared = b""

    def read(self) -> dict[str, Any]:
        """Everything, in the shape of `context.json`; the caller's own. Raises StoreAway, StoreError.

        A `context.json` that cannot be read is left out: what it said last is in Redis.
        """
        with self._lock, making_many():
            try:
                touched = self._refresh_live()
                touched = _both(touched, self._refresh_file())
                touched = _both(touched, self._refresh_journal())
                self._pack(touched)
            except BaseException:  # what was taken in is not packed: nothing is believed any more
                self._forget()
                self._file.forget()
                self._db.forget()
                raise
            packed, shared = list(self._packed), self._shared
        return unpack(packed, shared)

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        tracking, self._tracking, self._live = self._tracking, None, None
        if tracking is not None:
            tracking.close()

    def _refresh_live(self) -> frozenset[str] | None:
        """Bring what is known of Redis up to date; the agents that may be other ones, None for all."""
        touched = self._ask()
        if touched is None or self._live is None:
            self._live = None
            found = self._store.plain()
            self._hashes = {name: record for name, record in found.items() if record is not None}
            self._live = {}
            self._observe(found.keys() - self._hashes.keys() | {SHARED})
            return None
        self._observe(touched)
        return touched

    def _observe(self, names: Iterable[str]) -> None:
        """Read some agents in full."""
        wanted = list(names)
        if not wanted or self._live is None:
            return
        for name in wanted:
            self._hashes.pop(name, None)
            self._live.pop(name, None)
        self._live |= self._store.observe({}, wanted).agents

    def _tells(self, name: str) -> bool:
        """Whether the agent's hash alone tells what it is now."""
        plain = self._hashes.get(name)
        return plain is not None and name not in self._journal and tells_all(plain, self._records.get(name))

    def _ask(self) -> frozenset[str] | None:
        """The agents that were written since the last time, None for any; from now on Redis tells, if it can."""
        if self._tracking is not None:
            begun = time.monotonic()
            try:
                return self._tracking.receive(0)
            except (StoreAway, StoreError):  # nothing that is kept is believed any more
                if time.monotonic() - begun > AGAIN:
                    raise
                self._forget()
        if time.monotonic() >= self._not_before:
            try:
                self._tracking = self._store.track()
            except StoreError:
                self._not_before = time.monotonic() + _AGAIN
        return None

    def _refresh_file(self) -> frozenset[str] | None:
        if not self._file.moved():
            return frozenset()
        try:
            found = files.read(self._settings.context_file, MAX_BYTES)
            plain = json.loads(found[0].decode("utf-8-sig")) if found else {}
        except (InputError, ValueError, RecursionError):
            plain = {}
        plain = plain if isinstance(plain, dict) else {}
        records = plain.pop("agents", {})
        records = records if isinstance(records, dict) else {}
        before, self._records, self._top = self._records, records, plain
        return frozenset(name for name in before.keys() | records.keys() if before.get(name) != records.get(name))

    def _refresh_journal(self) -> frozenset[str]:
        if not self._db.moved():
            return frozenset()
        before, self._journal = self._journal, by_agent(self._base.journal())
        return frozenset(before.keys() | self._journal.keys())

    def _pack(self, touched: Iterable[str] | None) -> None:
        """Put the records that may be other ones together anew."""
        assert self._live is not None
        if touched is None:
            self._plain, self._places = {}, {}
            others = (self._live.keys() | self._hashes.keys()) - self._records.keys()
            touched = [*self._records, *sorted(others), *self._journal]
        touched = [name for name in touched if name != SHARED]
        self._observe([name for name in touched
                       if is_agent_name(name) and name not in self._live and not self._tells(name)])  # fmt: skip
        nothing, chunks, moved = LiveAgent(), set(), False
        for name in touched:
            if name in self._hashes:
                record = over_plain(self._records.get(name), self._hashes[name])
            else:
                fields = self._live.get(name, nothing).fields
                record = over(self._records.get(name), fields, self._journal.get(name, {}))
            moved = moved or (record is None) == (name in self._places)
            if record is None:
                self._plain.pop(name, None)
            else:
                self._plain[name] = record
                chunks.add(self._places.get(name, 0))
        names = list(self._plain)
        if moved or not self._places:
            self._places = {name: index // _CHUNK for index, name in enumerate(names)}
            self._packed = [b""] * -(-len(names) // _CHUNK)
            chunks = set(range(len(self._packed)))
        for chunk in chunks:
            part = {name: self._plain[name] for name in names[chunk * _CHUNK : (chunk + 1) * _CHUNK]}
            self._packed[chunk] = marshal.dumps(part)
        shared = _merged(self._live.get(SHARED, nothing).fields, self._journal.get(SHARED, {}))
        self._shared = marshal.dumps(sections(self._top, shared, self._settings.local_sections))

    def from_files(self, merged: State) -> dict[str, Any]:
        """The same while Redis is away: `merged` is what the files, base and the journal say."""
        with self._lock:
            self._forget()
            self._file.forget()
            self._refresh_file()
            records, top = self._records, sections(self._top, merged.get(SHARED, {}), self._settings.local_sections)
        names = [*records, *sorted(merged.keys() - records.keys() - {SHARED})]
        found = {name: over(records.get(name), merged.get(name, {}), {}) for name in names}
        top["agents"] = {name: record for name, record in found.items() if record is not None}
        return dict(marshal.loads(marshal.dumps(top)))


def unpack(packed: Iterable[bytes], shared: bytes) -> dict[str, Any]:
    """A copy that is the caller's own."""
    with making_many():
        top: dict[str, Any] = marshal.loads(shared)
        agents: dict[str, Any] = {}
        for part in packed:
            agents |= marshal.loads(part)
    return top | {"agents": agents}


def sections(top: Mapping[str, Any], shared: Agent, local: Iterable[str]) -> dict[str, Any]:
    """Everything in `context.json` but the agents, with live values over it; `local` ones stay as they are."""
    found: dict[str, Any] = {"agents": None, **top}
    for name, field in shared.items():
        if name in local or name == LAST_UPDATE:
            continue
        if field.text is None:
            found.pop(name, None)
        else:
            found[name] = decode(field.text)
    return found


def over(record: Any, live: Agent, waiting: Agent) -> dict[str, Any] | None:
    """A record of `context.json` with live values over it, deletions included; None when nothing is left."""
    fields = _merged(live, waiting)
    found: dict[str, Any] = dict(record) if isinstance(record, dict) else {}
    if isinstance(record, str):
        found["status"] = record
    context = found.get("context")
    context = dict(context) if isinstance(context, dict) else {}
    had = "context" in found
    for name, field in fields.items():
        place = context if name.startswith(CONTEXT) else found
        key = intern(name.removeprefix(CONTEXT))  # one text for all records: it is packed once
        if field.text is None:
            place.pop(key, None)
        else:
            place[key] = decode(field.text)
    if context or had:
        found["context"] = context
    return found if found and (not fields or context or found.keys() - {"context"}) else None


def over_plain(record: Any, plain: dict[str, Any]) -> dict[str, Any] | None:
    """The same where a hash tells it all: nothing that the record has is missing there."""
    if record is None:
        return plain or None
    found = {**record, **plain}
    if "context" in plain and "context" in record:  # in the order of the file
        found["context"] = {**record["context"], **plain["context"]}
    return found


def _merged(live: Agent, waiting: Agent) -> Agent:
    return {**live, **{name: field for name, field in waiting.items()
                       if name not in live or live[name].order() < field.order()}} if waiting else live  # fmt: skip


def by_agent(journal: Iterable[Entry]) -> dict[str, dict[str, Field]]:
    """The entries of a journal, merged, by agent."""
    found: dict[str, dict[str, Field]] = {}
    for entry in journal:
        fields = found.setdefault(entry.agent, {})
        known = fields.get(entry.field)
        if known is None or known.order() < entry.value.order():
            fields[entry.field] = entry.value
    return found


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    return None if one is None or other is None else one | other


__all__ = ["Cache", "by_agent", "over", "sections", "unpack"]
