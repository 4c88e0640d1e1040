"""Live memory: what the round needs of it, whatever holds it. The client itself is in `redis_store`.

`LiveStore` is the whole contract; `AwayStore` keeps it while Redis cannot be reached, so that the round
cannot tell: only one replica is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..errors import Problem, StoreAway
from ..events import CONTEXT_UPDATE, Event
from ..state import Field, State

AGAIN = 0.5
"""Seconds: a server that kept its caller waiting for longer is not asked a second time in the same call."""


class Seen(NamedTuple):
    """A text in a hash that the script did not write: its digest, and for `context` the same content framed."""

    digest: str
    framed: str = ""


class Put(NamedTuple):
    """One field to write. `text` None deletes; `at` None means now, by the server's clock.

    `old` is the JSON text it replaces where the hash cannot tell any more (adoption); "" asks the hash.
    `forget` drops the stamp of a field that is not there, instead of writing.
    """

    field: str
    text: str | None
    at: int | None
    by: str
    old: str = ""
    forget: bool = False


@dataclass(frozen=True, slots=True)
class LiveAgent:
    """One agent as Redis holds it.

    `fields`: values and tombstones with their stamps, raw writes already stamped. `raw`: the puts that adopt
    what was written without a stamp. `seen`: the texts such an adoption may overwrite. `gone`: the sidecar
    knows an agent whose hash somebody removed; that is no deletion. `broken`: hash fields that cannot be read.
    """

    fields: Mapping[str, Field] = field(default_factory=dict)
    version: int = 0
    raw: tuple[Put, ...] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)
    gone: tuple[Put, ...] = ()
    broken: frozenset[str] = frozenset()

    @property
    def foreign(self) -> bool:
        """Whether somebody wrote here without the script, so that it must be adopted first."""
        return bool(self.seen) and not self.gone


@dataclass(frozen=True, slots=True)
class Live:
    """What Redis held at one moment. `now` is the server's clock in µs; `epoch` changes when it was wiped."""

    up: bool = True
    now: int = 0
    epoch: str = ""
    agents: Mapping[str, LiveAgent] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def state(self) -> State:
        return {name: agent.fields for name, agent in self.agents.items()}


@dataclass(frozen=True, slots=True)
class Write:
    """Some fields of one agent, written in one step.

    `floor`: the version known from before, so that a wiped server goes on counting; None if it was not looked up,
    and is asked for only if the server has none (`Written.unknown_floor`).
    `everything`: delete the agent, whatever fields it has, now; without `puts`. `priority` is what the event says:
    high, normal or low.
    """

    agent: str
    puts: tuple[Put, ...]
    event: str = CONTEXT_UPDATE
    floor: int | None = 0
    seen: Mapping[str, Seen] = field(default_factory=dict)
    everything: bool = False
    priority: str = "normal"

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(put.field for put in self.puts)


class Now(NamedTuple):
    """The usual write, live and under the store's own name: field to JSON text, None deletes. It is cheap to make."""

    agent: str
    values: Mapping[str, str | None]
    priority: str = "normal"

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.values)

    def in_full(self, by: str, floor: int | None = None) -> Write:
        puts = tuple(Put(name, text, None, by) for name, text in self.values.items())
        return Write(self.agent, puts, floor=floor, priority=self.priority)


class Written(NamedTuple):
    """What became of a write. `flags` has a letter for each field: w won, s the same value, o older than what
    was there; capital where its stamp was clamped. `at` is the newest stamp it wrote, the server's time if it wrote
    none, `touched` the agent's `last_update`, both in µs. `refused`: why nothing was written, "" if it was; `foreign`
    if adopting first helps, `later` if the server takes no writes at the moment (out of memory, a replica, a failing
    disk), `unknown_floor` if it has no version of the agent: give the last one that is known.
    """

    version: int = 0
    at: int = 0
    flags: str = ""
    touched: int = 0
    refused: str = ""
    foreign: bool = False
    later: bool = False
    unknown_floor: bool = False

    @property
    def won(self) -> bool:
        return "w" in self.flags.lower()


class Channel(Protocol):
    """A subscription on a connection of its own. Messages are bytes: whatever anybody published."""

    def receive(self, timeout: float) -> list[bytes]:
        """Every message at hand, waiting at most `timeout` seconds for the first; none is no error.

        Raises StoreAway when the connection is lost, also when it only fell silent: an unanswered PING counts.
        """

    def close(self) -> None: ...


class Tracking(Protocol):
    """Hears of every write to an agent's hash, by whomever, on a connection of its own."""

    def receive(self, timeout: float) -> frozenset[str] | None:
        """The agents written since the last call, waiting at most `timeout` seconds for the first; with 0, all
        that the server had sent when it was asked. None: any of them may have been (FLUSHALL).

        Raises StoreAway when the connection is lost or fell silent: whatever was believed must be read again.
        """

    def close(self) -> None: ...


class LiveStore(Protocol):
    """What a round, the hub and the command line ask of live memory. Times are µs since 1970 UTC.

    Everything here raises StoreAway when Redis cannot be reached now, StoreError when it refuses for good.
    """

    @property
    def name(self) -> str:
        """How it is shown: its address without secrets."""

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        """Read all agents, or the named ones. `base` tells which values raw writes replaced."""

    def plain(self) -> dict[str, dict[str, Any] | None]:
        """Read the values of all agents, in the shape of `context.json`; None for one that must be observed to know
        them. What was deleted is not told."""

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        """Write pipelined; each agent atomically. One refused write hurts only itself."""

    def history(self, agent: str, count: int) -> list[Event]:
        """The last `count` versions, newest first."""

    def messages(self, agent: str, count: int, before: int = 0) -> list[tuple[int, bytes]]:
        """The same as they were told, each with its version; of those before the version `before`, if it is given."""

    def since(self, agent: str, version: int) -> list[Event]:
        """The versions after `version`, oldest first, as far back as the history goes."""

    def versions(self, agents: Iterable[str] | None = None) -> dict[str, int]:
        """The version of every agent, or of the named ones, without reading their fields; 0 for none."""

    def trim(self) -> int:
        """Shorten every history to as many versions as the settings keep; how many went."""

    def listen(self, agents: Sequence[str] = ()) -> Channel:
        """Subscribe to these agents' channels, or to all events; when this returns, nothing more is missed."""

    def track(self) -> Tracking:
        """Hear of writes from now on. Raises StoreError where the server or its rights do not allow it."""

    def publish(self, event: Event) -> int:
        """Say something that is no write; the number of subscribers that heard it."""

    def start_epoch(self, epoch: str) -> str:
        """Mark a server that has no mark yet; the mark it has now."""

    def mark(self) -> str:
        """Another text whenever anything is another one that `observe` reads; "" where that cannot be told cheaply."""

    def close(self) -> None: ...


AWAY_NAME = "files only"


class AwayStore:
    """Redis as it is while it cannot be reached: nothing to see, and nobody takes a write."""

    def __init__(self, reason: StoreAway) -> None:
        self.reason = reason
        self.name = AWAY_NAME

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        return Live(up=False)

    def plain(self) -> dict[str, dict[str, Any] | None]:
        raise self.reason.with_traceback(None)

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        if writes:
            raise self.reason.with_traceback(None)
        return []

    def history(self, agent: str, count: int) -> list[Event]:
        raise self.reason.with_traceback(None)

    def messages(self, agent: str, count: int, before: int = 0) -> list[tuple[int, bytes]]:
        raise self.reason.with_traceback(None)

    def since(self, agent: str, version: int) -> list[Event]:
        raise self.reason.with_traceback(None)

    def versions(self, agents: Iterable[str] | None = None) -> dict[str, int]:
        raise self.reason.with_traceback(None)

    def trim(self) -> int:
        raise self.reason.with_traceback(None)

    def listen(self, agents: Sequence[str] = ()) -> Channel:
        raise self.reason.with_traceback(None)

    def track(self) -> Tracking:
        raise self.reason.with_traceback(None)

    def publish(self, event: Event) -> int:
        raise self.reason.with_traceback(None)

    def start_epoch(self, epoch: str) -> str:
        raise self.reason.with_traceback(None)

    def mark(self) -> str:
        return ""

    def close(self) -> None:
        return None
