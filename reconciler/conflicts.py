"""Values that lost to a write which had not seen them: found when a round decides, kept in base, told as events.

A write has seen what stood, at that moment, in the place where it was made. So a live write on top of a live value is
no conflict, and the history has both. These are: an edit in a file, and a newer live write that no round had brought
to the file yet; a write made on files while Redis was away, and a newer one in Redis; a value that a manifest pins
away. docs/decisions/conflicts.md tells more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from .base import Conflict
from .edits import Key
from .errors import ReconcilerError
from .events import Event, Foreign, read_event
from .merge import merge_agent
from .sources.desired import BY
from .stamp import format_time
from .state import QUIET, SHARED, Agent, Field, NotJson, State, decode, encode, same_text
from .store import Write, Written
from .view import View
from .workspace import Workspace

CONFLICT = "conflict"
"""The name of the event."""
_PAGE = 200
"""Versions that are read at a time."""


def find_conflicts(workspace: Workspace, view: View) -> list[Conflict]:
    """The values that lose in this round, each once. Raises StoreAway: of some, Redis' history must tell."""
    local = {(SHARED, name) for name in workspace.settings.local_sections}
    histories = _Histories(workspace)
    found: dict[tuple[Key, str | None], Conflict] = {}
    for key, lost in _written(workspace, view):
        won = _winner(view, key)
        if won is None or not _counts(lost, won) or key[1] in QUIET or key in local or (key, lost.text) in found:
            continue
        if not _is_live(view, key) or not histories.tell(key, lost):
            found[key, lost.text] = Conflict(*key, lost, won)
    return sorted(found.values(), key=lambda conflict: conflict[:2])


def find_late(workspace: Workspace, view: View, written: Iterable[tuple[Write, Written]]) -> Iterator[Conflict]:
    """What of drops lost within Redis to something that was there before them. Raises StoreAway."""
    histories = _Histories(workspace)
    for write, answer in written:
        for put, flag in zip(write.puts, answer.flags, strict=False):
            key, lost = (write.agent, put.field), Field(put.text, put.at or 0, put.by)
            won = _winner(view, key)
            if flag not in "oO" or won is None or won.order() < lost.order() or not _counts(lost, won):
                continue
            if not histories.tell(key, lost):  # as when a crash is why it is written again
                yield Conflict(*key, lost, won)


def _counts(lost: Field, won: Field) -> bool:
    """Whether it is a value that is lost, and somebody wrote it."""
    return lost.text is not None and lost.at > 0 and not same_text(lost.text, won.text)


def _winner(view: View, key: Key) -> Field | None:
    return view.merged.get(key[0], {}).get(key[1])


def _written(workspace: Workspace, view: View) -> Iterator[tuple[Key, Field]]:
    """Every value that somebody wrote without having seen what else is written there now; among them the winners."""
    memory, edits, declared = view.memory, view.desired.context.edits.state, view.desired.declared.edits
    for change in view.plan.changes:  # what Redis holds and base had not heard of
        if change.direction == "redis" and change.beaten is not None and not _is_dropped(workspace, change.beaten):
            key = (change.agent, change.field)
            heard = (memory.unlearnt.get(key), memory.merged.get(change.agent, {}).get(change.field))
            if not any(base and same_text(base.text, change.beaten.text) for base in heard):
                yield key, change.beaten
    waiting: dict[str, Agent] = {}
    for entry in memory.journal:  # one after the other, each knew of those before it
        waiting[entry.agent] = merge_agent(waiting.get(entry.agent, {}), {entry.field: entry.value})
    for state in (edits, declared, waiting):
        for key, said in _each(state):
            won = _winner(view, key)
            if won is None or not said.by == won.by == BY:  # of the file's versions each took the place of one
                yield key, said
    for drop in view.waiting.new:
        for key, said in _each({drop.agent: drop.fields}):
            if _is_late(workspace, view, key, (edits, declared, waiting, memory.merged), said):
                yield key, said
    for key in memory.unlearnt:
        value, won = memory.merged.get(key[0], {}).get(key[1]), _winner(view, key)
        saw = (edits, waiting) if value is None or won is None or value.by != won.by else (edits, waiting, declared)
        on_files = not _is_live(view, key) and won in [replica.get(key[0], {}).get(key[1]) for replica in saw]
        both_dropped = _is_dropped(workspace, value) and _is_dropped(workspace, won)
        if value is not None and not on_files and not both_dropped:
            yield key, value


def _each(state: State) -> Iterator[tuple[Key, Field]]:
    for agent, fields in state.items():
        for name, value in fields.items():
            yield (agent, name), value


def _is_late(workspace: Workspace, view: View, key: Key, replicas: tuple[State, ...], said: Field) -> bool:
    """Whether something newer stood in the place already when a drop came."""
    agent, name = key
    live = view.live.agents.get(agent)
    there = [live.fields if live else {}, *(replica.get(agent, {}) for replica in replicas)]
    newer = [fields[name] for fields in there if name in fields and fields[name].order() > said.order()]
    return any(not _is_dropped(workspace, value) for value in newer)


def _is_dropped(workspace: Workspace, value: Field | None) -> bool:
    """Whether a drop says it that is still in the spool: the drops before it were there, and have their versions."""
    return value is not None and workspace.spool is not None and workspace.spool.holds(value)


def _is_live(view: View, key: Key) -> bool:
    """Whether the write that won was made in Redis, and saw what stood there."""
    live = view.live.agents.get(key[0])
    return live is not None and key[1] in live.fields and live.fields[key[1]] == _winner(view, key)


@dataclass(slots=True)
class _Read:
    """As much of an agent's history as was read, newest first: back to a version, 0 for none yet, and to its time."""

    messages: list[bytes] = field(default_factory=list)
    version: int = 0
    time: str = ""
    whole: bool = False


class _Histories:
    """What Redis had, by whatever way, as its histories tell; each is read from the newest version as far as needed."""

    def __init__(self, workspace: Workspace) -> None:
        self._store = workspace.store
        self._skew = int(workspace.settings.max_skew.total_seconds() * 1_000_000)
        self._read: dict[str, _Read] = {}

    def tell(self, key: Key, value: Field) -> bool:
        """Whether Redis had a value: no version was made before what it says, but for `max_skew`."""
        agent, name = key
        read = self._read.setdefault(agent, _Read())
        stamp, first = {"field": name, "at": format_time(value.at), "by": value.by}, format_time(value.at - self._skew)
        looked = 0
        while True:
            if any(_holds(message, stamp) for message in read.messages[looked:]):
                return True
            looked = len(read.messages)
            if read.whole or (read.version and read.time < first):
                return False
            self._read_on(agent, read)

    def _read_on(self, agent: str, read: _Read) -> None:
        entries = self._store.messages(agent, _PAGE, read.version)
        read.whole = len(entries) < _PAGE
        read.messages += [message for _, message in entries]
        if entries:
            read.version = entries[-1][0]
            with suppress(Foreign):
                read.time = read_event(entries[-1][1]).timestamp


def _holds(message: bytes, stamp: dict[str, str]) -> bool:
    """Whether a version has a change of this stamp; hardly any has the time, and only that one is decoded."""
    if stamp["at"].encode() not in message:
        return False
    with suppress(Foreign):
        return any(stamp.items() <= change.items() for change in read_event(message).changes)
    return False


def tell_conflicts(workspace: Workspace) -> None:
    """Publish the events of conflicts that are in the ledger; those that cannot be told now, a later round tells."""
    told = []
    try:
        for conflict in reversed(workspace.base.conflicts(untold=True)):
            workspace.store.publish(event_of(conflict))
            told.append(conflict.number)
    except ReconcilerError:  # Redis is away, or does not let us
        if not told:
            return
    workspace.base.told(told)


def event_of(conflict: Conflict) -> Event:
    """What subscribers hear: no version, because nothing was written; `data` stays empty for those who merge it."""
    said = {
        "number": conflict.number,
        "field": conflict.field,
        "lost": side(conflict.lost),
        "won": side(conflict.won),
    }
    return Event(conflict.agent, CONFLICT, format_time(conflict.seen), {}, more={CONFLICT: said})


def side(value: Field) -> dict[str, object]:
    """One of the two values as plain data; null and `deleted` where a deletion won."""
    told = {"value": _plain(value.text or "null"), "at": format_time(value.at), "by": value.by}
    return told | ({"deleted": True} if value.text is None else {})


def _plain(text: str) -> object:
    """A value that an event can hold; a number that Python cannot hold stands there as text."""
    try:
        value: object = decode(text)
        encode(value)
    except NotJson:
        return text
    return value
