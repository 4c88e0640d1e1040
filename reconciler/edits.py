"""Which differences in a file are somebody's edits, and when they were made (DESIGN §5).

A file is compared with the version it was made from, not with the last one: other programs rewrite the whole
file from a copy they read earlier. Only what differs from *that* version is an edit; everything else is put
right by the merge.

    version 7 (ours)   a=1 b=1          somebody reads this
    version 8 (ours)   a=1 b=2          a live update of b was mirrored meanwhile
    found              a=9 b=1          closest to version 7: a=9 is an edit, b=1 is a stale copy

Closest by our marks first, then by count; docs/decisions/stale-copies.md tells why, and how it can fail.
Pure: times come in as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .stamp import SECOND, Moment, parse_time, refine
from .state import LAST_UPDATE, SHARED, Field, State, decode, same_value

CARRY_OVER = 5 * SECOND
"""A file equal to an older version, saved this soon after our write, was carried over; later it is an undo."""

KEEP_VERSIONS = 64
KEEP_SPAN = 600 * SECOND
KEEP_MOST = 2_000
"""Whatever their age: one who rewrites the file 20 times a second must not make every round slower."""

TIMES = (LAST_UPDATE, "last_seen")
UNSEEN = 1 << 62
"""When a version was written that nobody can have seen: it is not in place yet, or a crash kept it from there."""

FILE = "@file"
"""Holds the file's own `last_update` and `version` among its values: they help to recognise a stale copy."""

Values = Mapping[str, Mapping[str, str]]
"""What a file says: agent to field to JSON text."""

Key = tuple[str, str]

MARK: Key = (FILE, LAST_UPDATE)
"""Each of our writes sets it to its own microsecond, and an agent's to that of its newest field. Whoever does not
set these times keeps them, and they tell for certain which of our versions theirs was made from."""


class Version(NamedTuple):
    """One version of the file, newest first in lists. `undo`: what the fields that changed in it were before.

    `written` in µs since 1970 UTC, UNSEEN until one of ours is known to be in place.
    """

    written: int
    ours: bool
    undo: Mapping[Key, Field | None]


class Seen(NamedTuple):
    """When the file was saved, and when it was looked at, both µs since 1970 UTC."""

    saved: int
    now: int


@dataclass(frozen=True, slots=True)
class Edits:
    """What a file really says. `undated`: edits without a declared time, which on a first run lose to live.

    `gone`: agents that base knew there and the file lacks. `stale`: agents whose record is an old copy. `latest`:
    the file was made from the latest version, so that one was in place.
    """

    state: dict[str, dict[str, Field]] = field(default_factory=dict)
    undated: frozenset[Key] = frozenset()
    gone: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    latest: bool = False


class Reference:
    """A file's known versions: the latest one, and how to walk back from it. `changed`: the agents that are known to
    be all that differs from the latest, None when nothing is known."""

    def __init__(self, latest: State, versions: Sequence[Version] = (), changed: frozenset[str] | None = None) -> None:
        self.latest, self.versions, self.changed = latest, versions, changed
        self._undone: dict[Key, Field | None] = {}
        self._marks: dict[str, bool] = {}

    def get(self, agent: str, name: str) -> Field | None:
        key = (agent, name)
        return self._undone[key] if key in self._undone else self.latest.get(agent, {}).get(name)

    @property
    def is_latest(self) -> bool:
        """Whether the version that was chosen is the latest one."""
        return not self._undone

    def agents(self) -> set[str]:
        """The agents that had any value in the version the file was made from."""
        there = {name for name, agent in self.latest.items() if any(self.get(name, key) for key in agent)}
        return there | {agent for (agent, _), old in self._undone.items() if old is not None}

    def choose(self, found: Values, seen: Seen) -> set[Key]:
        """Take the version that `found` was made from; the keys that differ from it.

        One that equals an older version, but for the file's own header, is a carry-over if saved within 5 s of our
        write, else somebody's undo: an edit of the latest.
        """
        self._undone = {}
        latest = set(self._differing(found))
        if not latest:
            return latest
        best, differing = self._closest(found, latest)
        edited = {key for key in differing if key[0] != FILE}
        if not best or (not edited and seen.saved > self._last_own(best) + CARRY_OVER):
            return latest
        self._undone = self._unseen(best, found, edited, seen)
        return set(self._differing(found))

    def _closest(self, found: Values, latest: set[Key]) -> tuple[int, set[Key]]:
        """How many versions back `found` was made, and the keys that differ from that version.

        Of the versions that carry the same marks the one with the fewest differing fields, the latest on a tie.
        The write that made the file's mark is the oldest that can carry it.
        """
        marks = {key for key in latest if self._is_mark(key, found)}
        best, edited = 0, latest
        least = (len(marks), len(latest))
        for index, differing in enumerate(self._walk(found, latest)):
            distance = (sum(self._is_mark(key, found) for key in differing), len(differing))
            if distance < least:
                best, least, edited = index, distance, set(differing)
            if not edited or (MARK not in differing and self._made_mark(index, found)):
                break
        return best, edited

    def _is_mark(self, key: Key, found: Values) -> bool:
        text = found.get(key[0], {}).get(LAST_UPDATE) if key[1] == LAST_UPDATE else None
        if text is not None and text not in self._marks:
            moment = parse_time(decode(text))
            self._marks[text] = moment is not None and not moment.whole_second
        return text is not None and self._marks[text]

    def _made_mark(self, index: int, found: Values) -> bool:
        return index < len(self.versions) and self.versions[index].ours and self._is_mark(MARK, found)

    def _unseen(self, count: int, found: Values, edited: set[Key], seen: Seen) -> dict[Key, Field | None]:
        """What the last `count` versions changed and the writer of `found` had not seen, as it was before them."""
        touched = {agent for agent, _ in edited if agent in found and agent != SHARED}
        said = {agent: _own_time(agent, found, self, seen) for agent in touched}
        unseen: dict[Key, Field | None] = {}
        newest: dict[Key, Version] = {}
        for version in self.versions[:count]:
            for key, old in version.undo.items():
                last = newest.setdefault(key, version)
                if not _set_back(key, last, said) if edited else last.ours:
                    unseen[key] = old
        return unseen

    def _last_own(self, count: int) -> int:
        return max((version.written for version in self.versions[:count] if version.ours), default=-CARRY_OVER)

    def _walk(self, found: Values, latest: set[Key]) -> Iterator[set[Key]]:
        """The keys that differ from the latest version, then from each older one; one set, changed in place."""
        differing = set(latest)
        yield differing
        for version in self.versions:
            for (agent, name), old in version.undo.items():
                if same_value(name, old.text if old else None, found.get(agent, {}).get(name)):
                    differing.discard((agent, name))
                else:
                    differing.add((agent, name))
            yield differing

    def _compared(self, agents: Iterable[str]) -> Iterable[str]:
        """Of these agents those that can differ."""
        if self.changed is None:
            return agents
        return sorted(self.changed | {agent for agent, _ in self._undone})

    def _differing(self, found: Values) -> Iterator[Key]:
        for agent in self._compared(found):
            values = found.get(agent, {})
            known = self.latest.get(agent, {})
            for name, text in values.items():
                old = self._undone[(agent, name)] if (agent, name) in self._undone else known.get(name)
                if old is None or not same_value(name, old.text, text):
                    yield agent, name
        for agent in self._compared(self.latest):
            values = found.get(agent, {})
            for name in self.latest.get(agent, {}):
                if name not in values and self.get(agent, name) is not None:
                    yield agent, name
        for (agent, name), old in self._undone.items():
            if old is not None and name not in self.latest.get(agent, {}) and name not in found.get(agent, {}):
                yield agent, name


def _set_back(key: Key, last: Version, said: Mapping[str, tuple[int | None, bool]]) -> bool:
    """Whether a value that equals an older one was set back on purpose, in a record that has other edits.

    If a program of theirs wrote what it replaces: a script at work says `busy`, `idle`, `busy`. If we did: only
    when the record says itself that it was made more than 5 s later. A record that goes back in time sets nothing.
    """
    at, is_old = said.get(key[0], (None, True))
    if is_old or key[1] in TIMES:
        return False
    return not last.ours or (at is not None and at > last.written + CARRY_OVER)


def find_edits(found: Values, reference: Reference, seen: Seen, *, by: str, skip: Iterable[str] = ()) -> Edits:
    """The edits in a file, stamped. `by` is the writer's name they get, `skip` the agents it cannot be read for."""
    skipped = {*skip, FILE}
    touched: dict[str, list[str]] = {}
    for agent, name in reference.choose(found, seen):
        if agent not in skipped:
            touched.setdefault(agent, []).append(name)
    state: dict[str, dict[str, Field]] = {}
    undated: set[Key] = set()
    gone, stale = [], []
    before = reference.agents() if any(agent not in found for agent in touched) else set()
    for agent in sorted(touched):
        if agent not in found:
            gone += [agent] if agent in before else []
            continue
        declared, is_old = _own_time(agent, found, reference, seen)
        names = touched[agent]
        if is_old:  # only what nobody ever heard of is taken from it
            stale.append(agent)
            names = [name for name in names if reference.get(agent, name) is None]
        at = min(declared if declared is not None else seen.saved, seen.now)
        state[agent] = {
            name: stamp_edit(name, found[agent].get(name), reference.get(agent, name), at, by) for name in names
        }
        if declared is None:
            undated.update((agent, name) for name in names)
    return Edits(state, frozenset(undated), tuple(gone), tuple(stale), reference.is_latest)


def stamp_edit(name: str, text: str | None, was: Field | None, at: int, by: str) -> Field:
    """One edit's field: never stamped before what it replaced (rule 0); `last_update` is its own time."""
    if name == LAST_UPDATE and text is not None:
        declared = parse_time(decode(text))
        return Field(text, min(declared.at, at) if declared else 0, by)
    return Field(text, max(at, was.at + 1) if was else at, by)


def _own_time(agent: str, found: Values, reference: Reference, seen: Seen) -> tuple[int | None, bool]:
    """The time a record declares for its edits, if one of its times moved forward; and whether it is an old
    copy: none moved forward and one went back, compared like with like (rules 1 and 2)."""
    forward, back = [], []
    for name in TIMES:
        text, was = found[agent].get(name), reference.get(agent, name)
        moment = parse_time(decode(text)) if text is not None else None
        before = parse_time(decode(was.text)) if was is not None and was.text is not None else None
        if moment is None or (before is not None and _is_same(moment, before)):
            continue
        # a time that was still to come says only that a clock was wrong: to be behind it means nothing
        if before is None or moment.at > before.at or before.at > seen.now:
            exact = refine(moment, seen.saved)
            forward.append(exact if exact != moment.at else refine(moment, seen.now))
        else:
            back.append(moment.at)
    return max(forward or back, default=None), bool(back) and not forward


def _is_same(moment: Moment, before: Moment) -> bool:
    """Whether a time did not move, as far as it can tell: one of whole seconds may be any part of its second."""
    return moment.at <= before.at < moment.at + (SECOND if moment.whole_second else 1)


def undo_of(before: State, after: State) -> dict[Key, Field | None]:
    """What turns version `after` back into version `before`."""
    undo: dict[Key, Field | None] = {}
    for agent in {*before, *after}:
        old, new = before.get(agent, {}), after.get(agent, {})
        if old is new:
            continue
        for name in {*old, *new}:
            was, now = old.get(name), new.get(name)
            if (was.text if was else None) != (now.text if now else None):
                undo[(agent, name)] = was
    return undo
