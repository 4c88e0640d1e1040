"""Small stand-ins that keep a contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reconciler.errors import StoreError
from reconciler.events import Event
from reconciler.merge import merge_agent
from reconciler.state import LAST_UPDATE, Agent, Field, State, canonical, same_text
from reconciler.store import Channel, Live, LiveAgent, Now, Put, Seen, Tracking, Write, Written


class MemoryStore:
    """Live memory in a dictionary: a LiveStore whose writes are `merge_agent`, with `hset` for raw writes.

    `clock` is the server's, in µs. The history keeps nothing, and nobody can listen.
    """

    name = "memory"

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.epoch = ""
        self.agents: dict[str, dict[str, Field]] = {}
        self.counts: dict[str, int] = {}
        self.raw: dict[str, dict[str, str | None]] = {}

    def hset(self, agent: str, field: str, text: str | None) -> None:
        """Write without a stamp, as `redis-cli` does; None is an HDEL."""
        raw = self.raw.setdefault(agent, {})
        raw.pop(field, None)
        if not same_text(self._text(agent, field), text):
            raw[field] = text

    def flush(self) -> None:
        self.epoch, self.agents, self.counts, self.raw = "", {}, {}, {}

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        names = {*self.agents, *self.raw} if agents is None else set(agents)
        return Live(True, self.clock(), self.epoch, {name: self._observe(name) for name in names if self._has(name)})

    def plain(self) -> dict[str, dict[str, Any] | None]:
        return dict.fromkeys([*self.agents, *self.raw])

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        return [self._write(write.in_full("memory", 0) if isinstance(write, Now) else write) for write in writes]

    def history(self, agent: str, count: int) -> list[Event]:
        return []

    def messages(self, agent: str, count: int, before: int = 0) -> list[tuple[int, bytes]]:
        return []

    def since(self, agent: str, version: int) -> list[Event]:
        return []

    def versions(self, agents: Iterable[str] | None = None) -> dict[str, int]:
        return {name: self.counts.get(name, 0) for name in (self.agents if agents is None else agents)}

    def trim(self) -> int:
        return 0

    def listen(self, agents: Sequence[str] = ()) -> Channel:
        raise StoreError("nobody can listen to a dictionary")

    def track(self) -> Tracking:
        raise StoreError("nobody can listen to a dictionary")

    def publish(self, event: Event) -> int:
        return 0

    def start_epoch(self, epoch: str) -> str:
        self.epoch = self.epoch or epoch
        return self.epoch

    def mark(self) -> str:
        return ""

    def close(self) -> None:
        return None

    def _has(self, name: str) -> bool:
        return name in self.agents or name in self.raw

    def _text(self, agent: str, field: str) -> str | None:
        known = self.agents.get(agent, {}).get(field)
        return known.text if known else None

    def _observe(self, name: str) -> LiveAgent:
        fields = dict(self.agents.get(name, {}))
        raw = []
        for field, text in self.raw.get(name, {}).items():
            known = fields.get(field)
            fields[field] = Field(text, max(self.clock(), known.at + 1) if known else self.clock(), "raw")
            raw.append(Put(field, text, fields[field].at, "raw"))
        seen = {field: Seen("raw") for field in self.raw.get(name, {})}
        return LiveAgent(fields, self.counts.get(name, 0), tuple(raw), seen)

    def _write(self, write: Write) -> Written:
        foreign = self.raw.get(write.agent, {}).keys()
        touched = {put.field for put in write.puts}
        if foreign & touched - write.seen.keys():
            return Written(refused="written by somebody else", foreign=True)
        for field in write.seen:
            self.raw.get(write.agent, {}).pop(field, None)
        here = self.agents.setdefault(write.agent, {})
        if write.agent not in self.counts and write.floor is None:
            return Written(refused="no version", unknown_floor=True)
        flags = "".join(self._put(here, put) for put in write.puts)
        if "w" in flags:
            self.counts[write.agent] = max(self.counts.get(write.agent, 0), write.floor or 0) + 1
        return Written(self.counts.get(write.agent, 0), self.clock(), flags)

    def _put(self, here: dict[str, Field], put: Put) -> str:
        known = here.get(put.field)
        if put.forget:
            here.pop(put.field, None)
            return "s"
        at = put.at if put.at is not None else max(self.clock(), known.at + 1 if known else 0)
        new = Field(put.text, at, put.by)
        won = merge_agent(here, {put.field: new})[put.field]
        here[put.field] = won
        if won != new:
            return "o"
        return "s" if known and same_text(known.text, new.text) else "w"


def present(agent: Agent) -> dict[str, str]:
    """An agent's values in one spelling, times left out."""
    found = {name: field.text for name, field in agent.items() if field.text is not None and name != LAST_UPDATE}
    return {name: canonical(text) for name, text in found.items()}
