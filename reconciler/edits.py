"""Which differences in a file are somebody's edits, and when they were made (DESIGN §5).

A file is compared with the version it was made from, not with the last one: other programs rewrite the whole
file from a copy they read earlier. Only what differs from *that* version is an edit; everything else is put
right by the merge.

    version 7 (ours)   a=1 b=1          somebody reads this
    version 8 (ours)   a=1 b=2          a live update of b was mirrored meanwhile
    found              a=9 b=1          closest to version 7: a=9 is an edit, b=1 is a stale copy

Pure: times come in as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .stamp import SECOND, parse_time, refine
from .state import LAST_UPDATE, Field, State, decode, same_value

CARRY_OVER = 5 * SECOND
"""A file equal to an older version, saved this soon after our write, was carried over; later it is an undo."""

KEEP_VERSIONS = 64
KEEP_SPAN = 600 * SECOND

TIMES = (LAST_UPDATE, "last_seen")
FILE = "@file"
"""Holds the file's own `last_update` and `version` among its values: they help to recognise a stale copy."""

Values = Mapping[str, Mapping[str, str]]
"""What a file says: agent to field to JSON text."""

Key = tuple[str, str]


class Version(NamedTuple):
    """One version of the file, newest first in lists. `undo`: what the fields that changed in it were before."""

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

    `gone`: agents that base knew there and the file lacks. `stale`: agents whose record is an old copy.
    """

    state: dict[str, dict[str, Field]] = field(default_factory=dict)
    undated: frozenset[Key] = frozenset()
    gone: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


class Reference:
    """A file's known versions: the latest one, and how to walk back from it."""

    def __init__(self, latest: State, versions: Sequence[Version] = ()) -> None:
        self.latest, self.versions = latest, versions
        self._undone: dict[Key, Field | None] = {}

    def get(self, agent: str, name: str) -> Field | None:
        key = (agent, name)
        return self._undone[key] if key in self._undone else self.latest.get(agent, {}).get(name)

    def agents(self) -> set[str]:
        """The agents that had any value in the version the file was made from."""
        there = {name for name, agent in self.latest.items() if any(self.get(name, key) for key in agent)}
        return there | {agent for (agent, _), old in self._undone.items() if old is not None}

    def choose(self, found: Values, saved: int) -> set[Key]:
        """Take the version that `found` was made from; the keys that differ from it.

        The one with the fewest differing fields, the latest on a tie. One that equals an older version is a
        carry-over if saved within 5 s of our write, else somebody's undo: an edit of the latest.
        """
        self._undone = {}
        latest = set(self._differing(found))
        best, fewest = 0, len(latest)
        if fewest:
            for index, count in enumerate(self._walk(found, set(latest)), start=1):
                if count < fewest:
                    best, fewest = index, count
        if best and not fewest and saved > self._last_own(best) + CARRY_OVER:
            best = 0
        for version in self.versions[:best]:
            self._undone.update(version.undo)
        return latest if not best else set(self._differing(found))

    def _last_own(self, count: int) -> int:
        return max((version.written for version in self.versions[:count] if version.ours), default=-CARRY_OVER)

    def _walk(self, found: Values, differing: set[Key]) -> Iterator[int]:
        """How many keys differ from each older version, walking back."""
        for version in self.versions:
            for (agent, name), old in version.undo.items():
                if same_value(name, old.text if old else None, found.get(agent, {}).get(name)):
                    differing.discard((agent, name))
                else:
                    differing.add((agent, name))
            yield len(differing)

    def _differing(self, found: Values) -> Iterator[Key]:
        for agent, values in found.items():
            known = self.latest.get(agent, {})
            for name, text in values.items():
                old = self._undone[(agent, name)] if (agent, name) in self._undone else known.get(name)
                if old is None or not same_value(name, old.text, text):
                    yield agent, name
        for agent, fields in self.latest.items():
            values = found.get(agent, {})
            for name in fields:
                if name not in values and self.get(agent, name) is not None:
                    yield agent, name
        for (agent, name), old in self._undone.items():
            if old is not None and name not in self.latest.get(agent, {}) and name not in found.get(agent, {}):
                yield agent, name


def find_edits(found: Values, reference: Reference, seen: Seen, *, by: str, skip: Iterable[str] = ()) -> Edits:
    """The edits in a file, stamped. `by` is the writer's name they get, `skip` the agents it cannot be read for."""
    skipped = {*skip, FILE}
    touched: dict[str, list[str]] = {}
    for agent, name in reference.choose(found, seen.saved):
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
        if is_old:
            stale.append(agent)
            continue
        at = min(declared if declared is not None else seen.saved, seen.now)
        state[agent] = {
            name: stamp_edit(name, found[agent].get(name), reference.get(agent, name), at, by)
            for name in touched[agent]
        }
        if declared is None:
            undated.update((agent, name) for name in touched[agent])
    return Edits(state, frozenset(undated), tuple(gone), tuple(stale))


def stamp_edit(name: str, text: str | None, was: Field | None, at: int, by: str) -> Field:
    """One edit's field: never stamped before what it replaced (rule 0); `last_update` is its own time."""
    if name == LAST_UPDATE and text is not None:
        declared = parse_time(decode(text))
        return Field(text, min(declared.at, at) if declared else 0, by)
    return Field(text, max(at, was.at + 1) if was else at, by)


def _own_time(agent: str, found: Values, reference: Reference, seen: Seen) -> tuple[int | None, bool]:
    """The time a record declares for its edits, if one of its times moved forward; and whether it is an old
    copy: none moved forward and one went back, compared like with like (rules 1 and 2)."""
    forward: list[int] = []
    back = False
    for name in TIMES:
        text, was = found[agent].get(name), reference.get(agent, name)
        moment = parse_time(decode(text)) if text is not None else None
        before = parse_time(decode(was.text)) if was is not None and was.text is not None else None
        if moment is None:
            continue
        if before is None or moment.at > before.at:
            exact = refine(moment, seen.saved)
            forward.append(exact if exact != moment.at else refine(moment, seen.now))
        else:
            back = back or moment.at < before.at
    return (max(forward) if forward else None), back and not forward


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
