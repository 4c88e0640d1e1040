"""Live memory: what the round needs of it, whatever holds it. The client itself is in `redis_store`.

`LiveStore` is the whole contract; `AwayStore` keeps it while Redis cannot be reached, so that the round
cannot tell: only one replica is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..errors import Problem, StoreAway
from ..events import CONTEXT_UPDATE, Event
from ..state import Field, State


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
    """Some fields of one agent, written in one step. `floor`: the version known from before a wiped server.

    `everything`: delete the agent, whatever fields it has, now.
    """

    agent: str
    puts: tuple[Put, ...]
    event: str = CONTEXT_UPDATE
    floor: int = 0
    seen: Mapping[str, Seen] = field(default_factory=dict)
    everything: bool = False


class Written(NamedTuple):
    """What became of a write. `flags` has a letter for each put: w won, s the same value, o older than what
    was there; capital where its stamp was clamped. `at` is the server's time, `touched` the agent's
    `last_update` in µs. `refused`: why nothing was written, "" if it was; `foreign` if adopting first helps.
    """

    version: int = 0
    at: int = 0
    flags: str = ""
    touched: int = 0
    refused: str = ""
    foreign: bool = False

    @property
    def won(self) -> bool:
        return "w" in self.flags.lower()


class LiveStore(Protocol):
    """What a round, the hub and the command line ask of live memory. Times are µs since 1970 UTC.

    Everything here raises StoreAway when Redis cannot be reached now, StoreError when it refuses for good.
    """

    name: str

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        """Read all agents, or the named ones. `base` tells which values raw writes replaced."""

    def write(self, writes: Sequence[Write]) -> list[Written]:
        """Write pipelined; each agent atomically. One refused write hurts only itself."""

    def history(self, agent: str, count: int) -> list[Event]:
        """The last `count` versions, newest first."""

    def publish(self, event: Event) -> int:
        """Say something that is no write; the number of subscribers that heard it."""

    def start_epoch(self, epoch: str) -> str:
        """Mark a server that has no mark yet; the mark it has now."""

    def close(self) -> None: ...


class AwayStore:
    """Redis as it is while it cannot be reached: nothing to see, and nobody takes a write."""

    def __init__(self, reason: StoreAway) -> None:
        self.reason = reason
        self.name = "files only"

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        return Live(up=False)

    def write(self, writes: Sequence[Write]) -> list[Written]:
        if writes:
            raise self.reason
        return []

    def history(self, agent: str, count: int) -> list[Event]:
        raise self.reason

    def publish(self, event: Event) -> int:
        raise self.reason

    def start_epoch(self, epoch: str) -> str:
        raise self.reason

    def close(self) -> None:
        return None
