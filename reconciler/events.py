"""What is said on `memory:updates`: one event for each version of an agent, built from changes that won.

The write script builds an event in the same breath as the write (DESIGN §4); `store/write.lua` and
`Event.text` give the same bytes, and the contract suite holds them together. Here an event is read, and
built where no script can be: for `publish_update` and from history. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import ReconcilerError
from .state import AROUND, NotJson, decode, encode, minify

CHANNEL = "memory:updates"
CONTEXT_UPDATE = "context_update"
AGENT_DELETED = "agent_deleted"
PRIORITIES = ("high", "normal", "low")


class Foreign(ReconcilerError):
    """A message on the channel that is none of ours; tolerated and counted, never fatal."""


def agent_channel(agent: str) -> str:
    return f"{CHANNEL}:{agent}"


@dataclass(frozen=True, slots=True)
class Event:
    """One message. `version` is 0 and `changes` empty for what `publish_update` says without a write.

    `priority` is one of PRIORITIES: what a subscriber that fell behind should look at first.
    """

    agent: str
    event: str
    timestamp: str
    data: dict[str, Any]
    version: int = 0
    origin: str = ""
    changes: tuple[dict[str, Any], ...] = ()
    replayed: bool = False
    priority: str = "normal"
    more: dict[str, Any] = field(default_factory=dict)
    source: str = field(default="", compare=False, repr=False)
    """The message it was read from."""

    @property
    def id(self) -> str:
        return f"{self.agent}:{self.version}"

    def to_plain(self) -> dict[str, Any]:
        """The event as plain data; the first four keys are what existing subscribers read."""
        plain: dict[str, Any] = {
            "agent": self.agent,
            "event": self.event,
            "timestamp": self.timestamp,
            "data": self.data,
        }
        if self.version:
            plain |= {
                "v": 1,
                "id": self.id,
                "version": self.version,
                "origin": self.origin,
                "priority": self.priority,
                "changes": list(self.changes),
            }
        else:
            plain["priority"] = self.priority
        if self.replayed:
            plain["replayed"] = True
        return plain | {key: value for key, value in self.more.items() if key not in plain}

    @property
    def text(self) -> str:
        return encode(self.to_plain(), AROUND)

    @property
    def line(self) -> str:
        """JSON on one line: the message it was read from, every token as it was written, and whether replayed."""
        if not self.source:
            return self.text
        line = minify(self.source).strip()
        said = decode(line).get("replayed") if self.replayed else True
        if said is True:
            return line
        return self.text if said is not None else line[:-1] + ',"replayed":true}'


_KNOWN = frozenset(
    {"agent", "event", "timestamp", "data", "v", "id", "version", "origin", "changes", "replayed", "priority"}
)


def read_event(message: bytes | str) -> Event:
    """An event from a message. Raises Foreign for anything that is not one, however it is broken."""
    try:
        text = message if isinstance(message, str) else message.decode()
        plain = decode(text)
    except (NotJson, UnicodeDecodeError) as error:
        raise Foreign(f"not an event: {error}") from None
    if not isinstance(plain, dict):
        raise Foreign("not an event: not a JSON object")
    if not all(isinstance(plain.get(key), str) for key in ("agent", "event", "timestamp")):
        raise Foreign("not an event: agent, event or timestamp is missing")
    data, version, changes = plain.get("data", {}), plain.get("version", 0), plain.get("changes", [])
    if not isinstance(data, dict) or type(version) is not int or not _are_changes(changes):
        raise Foreign("not an event: data, version or changes is of the wrong type")
    priority = plain.get("priority")
    return Event(
        plain["agent"], plain["event"], plain["timestamp"], data, version, str(plain.get("origin", "")),
        tuple(changes), bool(plain.get("replayed", False)), priority if priority in PRIORITIES else "normal",
        {key: value for key, value in plain.items() if key not in _KNOWN}, text,
    )  # fmt: skip


def _are_changes(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(change, dict) for change in value)
