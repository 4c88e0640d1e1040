"""Agents kept small between rounds: each as one text, unpacked when it is looked at. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from ..state import Agent, Field

Layout = tuple[tuple[str, int, str], ...]
"""For each field its name, which of the agent's times is its own, and its writer. Most agents have the same few."""
Row = tuple[Layout, int, str]
"""A layout, how many times there are, and a text with a line for each time, then for each value: minified JSON has no
line end, and a tombstone has nothing."""

_make = tuple.__new__  # a NamedTuple's own constructor takes three times as long


@lru_cache(maxsize=10_000)
def _shared(layout: Layout) -> Layout:
    """The one of these that are equal."""
    return layout


def pack(fields: Agent) -> Row:
    """Raises ValueError or TypeError for what is no agent: a time that is no whole number, text with a line end."""
    times = {at: place for place, at in enumerate(dict.fromkeys(field.at for field in fields.values()))}
    lines = [*(f"{at:d}" for at in times), *(field.text or "" for field in fields.values())]
    text = "\n".join(lines)
    if text.count("\n") >= len(lines) > 0:
        raise ValueError("a line end in a value")
    return _shared(tuple((name, times[field.at], field.by) for name, field in fields.items())), len(times), text


def unpack(row: Row) -> dict[str, Field]:
    layout, count, text = row
    lines = text.split("\n")
    times = [int(line) for line in lines[:count]]
    return {
        name: _make(Field, (value or None, times[place], by))
        for (name, place, by), value in zip(layout, lines[count:], strict=False)
    }


class Packed(Mapping[str, Agent]):
    """A state of which an agent is unpacked each time it is looked at; whoever needs them all takes `unpacked`."""

    def __init__(self, agents: Iterable[tuple[str, Agent]] = (), like: Packed | None = None) -> None:
        """`like`: a state that mostly says the same: what is equal is kept once."""
        self._rows: dict[str, Row] = {}
        for name, fields in agents:
            self.put(name, fields, like)

    def put(self, name: str, fields: Agent, like: Packed | None = None) -> None:
        row = pack(fields)
        known = like._rows.get(name) if like is not None else None
        self._rows[name] = known if known is not None and known == row else row

    def drop(self, name: str) -> None:
        self._rows.pop(name, None)

    def unpacked(self, like: Packed | None = None, there: Mapping[str, Agent] | None = None) -> dict[str, Agent]:
        """All agents; those that `like` says the same of as they are `there`."""
        rows, known = like._rows if like is not None else {}, there or {}
        return {name: known[name] if rows.get(name) == row else unpack(row) for name, row in self._rows.items()}

    def __getitem__(self, name: str) -> Agent:
        return unpack(self._rows[name])

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def living(self) -> Iterator[str]:
        """The agents that have any value."""
        return (name for name, (layout, _, text) in self._rows.items() if not text.endswith("\n" * len(layout)))
