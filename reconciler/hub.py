"""`UnifiedMemoryHub`: the shared memory for Python callers and for the command line.

A write goes to Redis in one round trip; with Redis away it goes to the journal and to `context.json`, and is
merged when Redis returns. A partial update never drops other keys and never touches `status`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self

from . import files
from .controller import Options, reconcile, reconcile_or_away
from .errors import NotFound, ReconcilerError, StoreAway, StoreError, UsageError, WorkspaceHeld
from .events import Event
from .merge import merge_agent
from .settings import Settings
from .state import (
    CONTEXT,
    LAST_UPDATE,
    SHARED,
    Agent,
    Field,
    NotJson,
    State,
    context_field,
    decode,
    encode,
    is_agent_name,
    present,
    record_to_text,
)
from .store import AwayStore, Live, LiveAgent, Put, Write, Written
from .view import look
from .workspace import Workspace, open_workspace, read_settings

TRIES = 8
"""How often a write is repeated because somebody wrote the same hash by hand in between."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a write. `won`: the fields that changed; `stale`: those where a newer value stands.

    `version`: the agent's version in Redis, 0 when nothing changed there; `store`: "redis", or "file" while
    Redis is away; `at`: µs since 1970 UTC.
    """

    agent: str
    won: tuple[str, ...]
    stale: tuple[str, ...]
    version: int
    store: str
    at: int


class UnifiedMemoryHub:
    """One workspace's shared memory. A context manager; close it when done.

    `root` and `redis` default as on the command line: LUKA_SOT, REDIS_URL, reconciler.yaml. `warn` takes
    one-line warnings; with `reading` nothing is created, and nothing can be written. Raises UsageError for a
    wrong setting, StoreError when Redis refuses for good.
    """

    def __init__(
        self,
        root: str | None = None,
        redis: str | None = None,
        *,
        settings: Settings | None = None,
        warn: Callable[[str], None] = lambda text: None,
        reading: bool = False,
    ) -> None:
        self.settings = settings or read_settings(root, {"redis": redis})
        self._open = ExitStack()
        self.workspace: Workspace = self._open.enter_context(open_workspace(self.settings, warn, reading=reading))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()

    def update_agent_context(
        self,
        agent: str,
        context: Mapping[str, Any] | None = None,
        *,
        status: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> WriteResult:
        """Set some context keys, the status, and other hash fields of an agent; everything else stays.

        Raises UsageError for an illegal name or a value that is not JSON.
        """
        check_name(agent)
        values: dict[str, Any] = {context_field(key): value for key, value in (context or {}).items()}
        if status is not None:
            if not isinstance(status, str):
                raise UsageError(f"status must be text, not {type(status).__name__}")
            values["status"] = status
        for name, value in (fields or {}).items():
            if name in ("status", "context", LAST_UPDATE) or name.startswith(CONTEXT):
                raise UsageError(f"{name!r} is not a field of its own", hint="give context keys as context")
            values[name] = value
        return self._write(agent, {name: _text(name, value) for name, value in values.items()})

    def delete_agent(self, agent: str) -> WriteResult:
        """Delete an agent everywhere; it stays in the history. Raises NotFound when there is none."""
        known = self._known(agent)
        if self._away:
            return self._write_files(agent, dict.fromkeys(known, None))
        try:
            answer = self._write_live(Write(agent, (), floor=self._floor(agent), everything=True))
        except StoreAway:
            return self._write_files(agent, dict.fromkeys(known, None))
        return WriteResult(agent, tuple(sorted(known)), (), answer.version, "redis", answer.at)

    def get_agent(self, agent: str) -> dict[str, Any]:
        """One agent's record in the shape of `context.json`. Raises NotFound."""
        return dict(decode(self.agent_text(agent)))

    def get_unified_context(self) -> dict[str, Any]:
        """The shape of `context.json`, with live values: `{"agents": {...}, <section>: ...}`."""
        return dict(decode(self.unified_text()))

    def unified_text(self) -> str:
        """`get_unified_context` as JSON text in which every token is kept as it was written."""
        return unified(reconcile_or_away(self.workspace, Options(dry=True)).merged)

    def agent_text(self, agent: str) -> str:
        """`get_agent` as JSON text in which every token is kept as it was written."""
        return record_to_text(present(self._known(agent)))

    def history(self, agent: str, count: int = 100) -> list[Event]:
        """The last `count` versions of an agent, newest first. Raises NotFound, StoreAway."""
        if agent != SHARED:
            check_name(agent)
        found = self.workspace.store.history(agent, count)
        if not found:
            raise NotFound(f"no history of {agent}", hint="reconciler get lists the agents")
        return found

    @property
    def _away(self) -> bool:
        return isinstance(self.workspace.store, AwayStore)

    def _known(self, agent: str) -> Agent:
        """An agent's fields as they are now, wherever they are. Raises NotFound."""
        if agent != SHARED:
            check_name(agent)
        memory = self.workspace.base.load()
        fields: Agent = {}
        if not self._away:
            try:
                live = self.workspace.store.observe(memory.merged, [agent])
                fields = live.agents.get(agent, LiveAgent()).fields
                _refuse_broken(live)
            except StoreAway:
                fields = {}
        if self._away or not present(fields):
            merged = look(self._files_only(), Options(dry=True)).merged.get(agent, {})
            fields = merge_agent(fields, merged)
        if not present(fields):
            raise _no_agent([agent], memory.merged)
        return fields

    def _files_only(self) -> Workspace:
        away = AwayStore(StoreAway("not asked"))
        return Workspace(self.settings, self.workspace.base, away)

    def _write(self, agent: str, values: Mapping[str, str | None]) -> WriteResult:
        if not values:
            raise UsageError("nothing to write", hint="give at least one key, a status or a field")
        if self._away:
            return self._write_files(agent, values)
        puts = tuple(Put(name, text, None, self.settings.writer) for name, text in values.items())
        try:
            answer = self._write_live(Write(agent, puts, floor=self._floor(agent)))
        except StoreAway:
            return self._write_files(agent, values)
        won = tuple(name for name, flag in zip(values, answer.flags, strict=True) if flag in "wW")
        stale = tuple(name for name, flag in zip(values, answer.flags, strict=True) if flag in "oO")
        return WriteResult(agent, won, stale, answer.version if won else 0, "redis", answer.at)

    def _write_live(self, write: Write) -> Written:
        """Write, adopting first what somebody wrote there by hand. Raises StoreError when refused."""
        store = self.workspace.store
        for _ in range(TRIES):
            answer = store.write([write])[0]
            if not answer.refused:
                return answer
            if not answer.foreign:
                raise StoreError(f"{write.agent} was not written: {answer.refused}")
            self._adopt(write.agent)
        raise StoreError(f"{write.agent} was not written: {answer.refused}", hint="try again")

    def _adopt(self, agent: str) -> None:
        memory = self.workspace.base.load()
        live = self.workspace.store.observe(memory.merged, [agent])
        _refuse_broken(live)
        found = live.agents.get(agent)
        if found is not None:
            write = Write(agent, found.raw + found.gone, floor=memory.versions.get(agent, 0), seen=found.seen)
            self.workspace.store.write([write])

    def _floor(self, agent: str) -> int:
        """The version known from before, so that a wiped server goes on counting."""
        return self.workspace.base.version(agent)

    def _write_files(self, agent: str, values: Mapping[str, str | None]) -> WriteResult:
        """Redis is away: the journal first, on disk before this returns, then the file, if nobody holds it."""
        files.private_folder(self.settings.folder)
        known = self.workspace.base.load().merged.get(agent, {})
        now = time.time_ns() // 1000
        fields = {
            name: Field(text, max(now, known[name].at + 1) if name in known else now, self.settings.writer)
            for name, text in values.items()
        }
        self.workspace.base.append_journal({agent: fields})
        try:
            with files.Lock(self.settings.folder / "lock"):
                reconcile(self._files_only())
        except WorkspaceHeld:
            pass  # its holder takes the journal in
        return WriteResult(agent, tuple(values), (), 0, "file", now)


def _refuse_broken(live: Live) -> None:
    """Raise StoreError for what cannot be read in Redis; a warning was put right in passing."""
    errors = [str(problem) for problem in live.problems if problem.severity == "error"]
    if errors:
        raise StoreError("; ".join(errors))


def _no_agent(names: Sequence[str], known: Iterable[str]) -> NotFound:
    """The error for agents that there are not; a name that is near to the first of them is told."""
    near = get_close_matches(names[0], list(known), 1)
    hint = f"did you mean {near[0]}?" if near else "reconciler get lists them"
    return NotFound(f"no agent {', '.join(names)}", hint=hint)


def check_known(asked: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError for a name that cannot be an agent's, NotFound for one that there is not."""
    missing = sorted(set(asked) - set(known))
    for name in missing:
        check_name(name)
    if missing:
        raise _no_agent(missing, known)


def unified(merged: State) -> str:
    """A merged state as JSON text in the shape of `context.json`."""
    agents = [
        f"{encode(name)}:{record_to_text(values)}"
        for name, fields in sorted(merged.items())
        if name != SHARED and (values := present(fields))
    ]
    sections = [
        f"{encode(name)}:{text}" for name, text in present(merged.get(SHARED, {})).items() if name != LAST_UPDATE
    ]
    return "{" + ",".join(['"agents":{' + ",".join(agents) + "}", *sections]) + "}"


def check_name(agent: str) -> None:
    """Raises UsageError for a name that cannot be an agent's."""
    if not isinstance(agent, str) or not is_agent_name(agent):  # type: ignore[redundant-expr]
        shown = repr(agent)[:70]
        hint = "1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise UsageError(f"{shown} is not a legal agent name", hint=hint)


def _text(name: str, value: Any) -> str:
    try:
        name.encode()
        return encode(value)
    except (NotJson, UnicodeEncodeError, AttributeError) as error:
        raise UsageError(f"{name}: not JSON: {error}") from None


__all__ = ["ReconcilerError", "UnifiedMemoryHub", "WriteResult", "check_known", "check_name", "unified"]
