"""What the contract's tests are written with: puts, reading back, adopting as a round does, and listening."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from reconciler.events import CHANNEL, agent_channel
from reconciler.schema import schema_text
from reconciler.state import Agent, encode
from reconciler.store import LiveAgent, Put, Write, Written
from reconciler.store.layout import keys_of, restoring
from tests.servers import Memory

T = 1_700_000_000_000_000
"""A moment in November 2023, in µs."""
MARY = keys_of("mary")


def put(field: str, value: object, at: int | None = None, by: str = "a") -> Put:
    """A write of plain data."""
    return Put(field, encode(value), at, by)


def gone(field: str, at: int | None = None, by: str = "a") -> Put:
    return Put(field, None, at, by)


def write(memory: Memory, *puts: Put, agent: str = "mary", **more: Any) -> Written:
    """Write, and insist that it was not refused."""
    answer = attempt(memory, *puts, agent=agent, **more)
    assert not answer.refused, answer.refused
    return answer


def attempt(memory: Memory, *puts: Put, agent: str = "mary", **more: Any) -> Written:
    return memory.store.write([Write(agent, puts, **more)])[0]


def look(memory: Memory, agent: str = "mary", base: Agent | None = None) -> LiveAgent:
    """One agent as the store sees it, and no problem with it."""
    live = memory.store.observe({agent: base or {}}, [agent])
    assert not live.problems, live.problems
    return live.agents.get(agent, LiveAgent())


def adopt(memory: Memory, agent: str = "mary", base: Agent | None = None) -> Written:
    """Observe and adopt, as a round does."""
    found = look(memory, agent, base)
    return write(memory, *found.raw, agent=agent, seen=found.seen)


def restore(memory: Memory, *puts: Put, agent: str = "mary") -> Written:
    """Observe an agent whose hash is gone and refill it, as a round does."""
    found = look(memory, agent)
    return write(memory, *restoring(found, puts), agent=agent, seen=found.seen)


def values(memory: Memory, agent: str = "mary") -> dict[str, str]:
    """The fields that are there, as JSON texts, without `last_update`."""
    fields = look(memory, agent).fields
    return {name: field.text for name, field in fields.items() if field.text is not None and name != "last_update"}


def plain_hash(memory: Memory, agent: str = "mary") -> dict[str, str]:
    """The hash as somebody with redis-cli sees it."""
    found = memory.redis.hgetall(keys_of(agent).hash)
    return {name.decode(): text.decode() for name, text in found.items()}


class Ears:
    """Subscribed to the channel of all and to one agent's own."""

    def __init__(self, memory: Memory, pubsub: Any, agent: str) -> None:
        self.memory, self.pubsub, self.own = memory, pubsub, agent_channel(agent)

    def texts(self) -> list[str]:
        """What was said since the last call; the same on both channels, or this fails."""
        said: Mapping[str, list[str]] = {CHANNEL: [], self.own: []}
        for channel in said:
            self.memory.redis.publish(channel, "that is all")
        ended = 0
        while ended < len(said):
            message = self.pubsub.get_message(timeout=10)
            assert message, "the server fell silent"
            if message["type"] != "message":
                continue
            if message["data"] == b"that is all":
                ended += 1
            else:
                said[message["channel"].decode()].append(message["data"].decode())
        assert said[CHANNEL] == said[self.own]
        return said[CHANNEL]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts()]

    def event(self) -> dict[str, Any]:
        """The one event that was said."""
        found = self.events()
        assert len(found) == 1, found
        return found[0]


@contextmanager
def listening(memory: Memory, agent: str = "mary") -> Iterator[Ears]:
    with memory.redis.pubsub() as pubsub:
        pubsub.subscribe(CHANNEL, agent_channel(agent))
        for _ in range(2):
            assert pubsub.get_message(timeout=10)["type"] == "subscribe"
        yield Ears(memory, pubsub, agent)


def changes_of(event: Mapping[str, Any]) -> dict[str, tuple[str, Any, Any]]:
    """An event's changes: field to (op, old, new)."""
    return {change["field"]: (change["op"], change["old"], change["new"]) for change in event["changes"]}


def event_schema() -> Any:
    return json.loads(schema_text("event"))
