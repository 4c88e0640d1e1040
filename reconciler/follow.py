"""Which events are new: each version of an agent once, in order, and what was missed from the history.

A follower knows the last version it saw of every agent. The versions are noted first, then somebody listens,
then they are compared; after every reconnect again, so that a lost connection, a slow reader, a cut by the
server and its restart are one case: versions that are missing.

A server that came back empty or older counts some versions a second time. That is noticed by their times, and
what was written since is given; only an event that is both dated back and counted a second time is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from .errors import StoreError, UsageError
from .events import Event, Foreign, read_event
from .stamp import format_time, parse_time
from .state import SHARED, is_agent_name
from .store import LiveStore

_FIRST_TIME = 1_000_000_000
_RECENT = 32

Since = int | float | str | datetime | None


@dataclass(slots=True)
class _Seen:
    """How far an agent was followed: its version, the time of the event with that version ("" if it was not
    seen here), and the latest time of any."""

    version: int = 0
    time: str = ""
    newest: str = ""


class Follower:
    """Gives every new event to `give`, and to `warn` a line for each gap that nothing can fill.

    Every method that asks the store may raise StoreAway and StoreError, and may then be called again.
    """

    def __init__(
        self, agents: Iterable[str], since: Since, give: Callable[[Event], None], warn: Callable[[str], None]
    ) -> None:
        self.agents = tuple(agents)
        self.foreign = self.lost = 0
        self._only = frozenset(self.agents)
        self._since, self._from = _start(since)
        self._give, self._warn = give, warn
        self._seen: dict[str, _Seen] = {}
        self._mark = ""
        self._replays: set[str] = set()
        self._behind: dict[str, int] = {}
        self._gone: dict[str, int] = {}

    def begin(self, store: LiveStore) -> None:
        """Note where to start, before anything is heard: the versions and the server's time. The first time only."""
        if self._mark:
            return
        for agent, version in store.versions(self.agents or None).items():
            self._seen[agent] = _Seen(version if self._since is None else min(version, self._since))
            if self._from and version:
                self._replays.add(agent)
        self._mark = format_time(store.observe({}, ()).now)

    def compare(self, store: LiveStore) -> None:
        """Note who is behind, once somebody listens; and whose last event must be looked for, because the
        server may be an older one."""
        live = store.versions(self.agents or None)
        for agent in live.keys() | self._seen.keys():
            seen, version = self._of(agent), live.get(agent, 0)
            if version != seen.version or agent in self._replays or seen.time:
                self._behind[agent] = version

    def catch_up(self, store: LiveStore) -> bool:
        """Read what one agent missed; False when there is nothing left to read."""
        if not self._behind:
            return False
        agent, version = next(iter(self._behind.items()))
        self._fill(store, agent, version, known=True)
        return True

    def take(self, message: bytes, store: LiveStore) -> None:
        """One message from a channel, whatever it is."""
        try:
            event = read_event(message)
            self._check(event)
        except Foreign:
            self.foreign += 1
            return
        agent = event.agent
        if agent in self._behind:
            self._fill(store, agent, self._behind[agent], known=True)
        if event.version == 0:
            self._give(event)
            return
        seen = self._of(agent)
        if event.version > seen.version + 1:
            if store.versions([agent]).get(agent, 0) < event.version:
                self.foreign += 1  # nobody wrote that
                return
            self._fill(store, agent, event.version - 1, known=seen.version > 0)
        if event.version == seen.version + 1 or self._counts_again(store, event, seen):
            self._accept(event)

    def _check(self, event: Event) -> None:
        agent = event.agent
        known = agent in self._only if self._only else agent == SHARED or is_agent_name(agent)
        if not known or event.version < 0:
            raise Foreign("not an event of an agent that is meant")

    def _of(self, agent: str) -> _Seen:
        return self._seen.setdefault(agent, _Seen())

    def _accept(self, event: Event) -> None:
        seen = self._of(event.agent)
        seen.version, seen.time = event.version, event.timestamp
        seen.newest = max(seen.newest, event.timestamp)
        self._give(event)

    def _counts_again(self, store: LiveStore, event: Event, seen: _Seen) -> bool:
        """Whether a version that is not new is one of a server that lost what it had; then go on from there."""
        if event.version > seen.version or event.timestamp <= (seen.newest or self._mark):
            return False
        held = _history(store, event.agent, event.version - 1)
        if held:
            again = (held[0].version, held[0].timestamp) == (event.version, event.timestamp)
        else:
            again = store.versions([event.agent]).get(event.agent, 0) < seen.version
        if again:
            seen.version = event.version - 1
        return again

    def _fill(self, store: LiveStore, agent: str, upto: int, known: bool) -> None:
        """Give what was missed up to a version. `known`: versions that are in no history are counted as lost;
        of an agent that is new they are those that a wiped server never had."""
        seen = self._of(agent)
        if agent in self._replays:
            self._replay(store, agent, seen)
        held = _history(store, agent, seen.version - 1 if seen.time else seen.version)
        there = bool(seen.time and held and held[0].version == seen.version)
        same = there and held[0].timestamp == seen.time
        before = seen.version
        if not same and (there or upto < before):
            held = [event for event in _history(store, agent, 0) if event.timestamp > (seen.newest or self._mark)]
            self._go_on(held, seen, upto)
        elif upto > before:
            missing = upto - before - self._go_on(held[same:], seen, upto)
            if missing and known:
                self.lost += missing
                self._gone[agent] = self._gone.get(agent, 0) + missing
        self._behind.pop(agent, None)
        self._tell()

    def _go_on(self, held: Iterable[Event], seen: _Seen, upto: int) -> int:
        """Give what the history holds up to a version, and go on from there; how many these were."""
        found = [event for event in held if event.version <= upto]
        for event in found:
            self._accept(replace(event, replayed=True))
        if seen.version != upto:
            seen.version, seen.time = upto, ""
        return len(found)

    def _replay(self, store: LiveStore, agent: str, seen: _Seen) -> None:
        """Give what happened from a time on, up to the version at the start. Versions are not in order of time."""
        for event in _history(store, agent, 0) if self._is_recent(store, agent) else ():
            if event.version <= seen.version and event.timestamp >= self._from:
                self._give(replace(event, replayed=True))
                seen.newest = max(seen.newest, event.timestamp)
        self._replays.discard(agent)

    def _is_recent(self, store: LiveStore, agent: str) -> bool:
        """Whether any of an agent's last events is of the time that is asked for; else nothing older is read."""
        with suppress(StoreError):
            return any(event.timestamp >= self._from for event in store.history(agent, _RECENT))
        return False

    def _tell(self) -> None:
        """One warning for a gap, when all of it is filled that can be."""
        if not self._gone or self._behind:
            return
        names, count = sorted(self._gone), sum(self._gone.values())
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        self._gone = {}
        self._warn(
            f"missed {count} version{'s' * (count != 1)} of {', '.join(names[:3])}{more}: no longer in the history; "
            f"the setting `history` makes it longer"
        )


def _history(store: LiveStore, agent: str, version: int) -> list[Event]:
    try:
        return store.since(agent, max(version, 0))
    except StoreError:  # one agent's history that cannot be read ends nothing
        return []


def _start(since: Since) -> tuple[int | None, str]:
    """A version, or a time as events write it. Raises UsageError."""
    if since is None:
        return None, ""
    if isinstance(since, int) and 0 <= since < _FIRST_TIME and not isinstance(since, bool):
        return since, ""
    moment = parse_time(since.isoformat() if isinstance(since, datetime) else since)
    if moment is None:
        hint = "a version such as 41, or a time such as 2025-11-12T08:00:00Z"
        raise UsageError(f"since={since!r} is neither a version nor a time", hint=hint)
    return None, format_time(moment.at)
