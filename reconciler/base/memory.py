"""What is remembered between rounds, as values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from ..edits import FILE, Key, Version
from ..files import Identity
from ..sources.manifests import Known
from ..state import SHARED, Field, State, present
from .packed import Packed

T = TypeVar("T")


class Entry(NamedTuple):
    """One write waiting in the journal."""

    id: int
    agent: str
    field: str
    value: Field


class Clean(NamedTuple):
    """A file that need not be read again: its identity, and the sections that stayed out of what it says."""

    identity: Identity
    local_sections: tuple[str, ...]


class Conflict(NamedTuple):
    """A value that lost to a write which had not seen it.

    In the ledger it has a `number`; `seen` is when a round found it, `restored` when somebody wrote the value back,
    both in µs, 0 for never.
    """

    agent: str
    field: str
    lost: Field
    won: Field
    number: int = 0
    seen: int = 0
    restored: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Everything remembered, as one value. `empty` before the first round.

    `names`: the agents that this is about, None for all of them.
    `clean`: the `context.json` that says exactly `file`, without problems.
    `file`: what `context.json` said last, each field with the stamp it had then.
    `versions`: agent to the last version known in Redis, so that a refilled server goes on counting.
    `unlearnt`: the fields that were written on files while Redis could not hear of it, and what it held before.
    `untold`: there are conflicts whose event was not published yet.
    """

    merged: State = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    file: State = field(default_factory=dict)
    file_versions: Sequence[Version] = ()
    manifests: Known = field(default_factory=lambda: Known({}, {}))
    journal: tuple[Entry, ...] = ()
    epoch: str = ""
    clean: Clean | None = None
    empty: bool = True
    names: frozenset[str] | None = None
    unlearnt: Mapping[Key, Field | None] = field(default_factory=dict)
    untold: bool = False

    def only(self, names: frozenset[str], paths: Iterable[str]) -> Memory:
        """What is remembered of these agents and of these manifest files; of anything else, nothing is told."""
        known = Known(part(self.manifests.files, paths), part(self.manifests.fields, names))
        return replace(
            self, merged=part(self.merged, names), versions=part(self.versions, names),
            file=part(self.file, {*names, FILE}), manifests=known, names=names,
            unlearnt={key: was for key, was in self.unlearnt.items() if key[0] in names},
        )  # fmt: skip

    def agents(self) -> int:
        """How many agents there are; one that was deleted is none."""
        merged = self.merged
        living = merged.living() if isinstance(merged, Packed) else (name for name in merged if present(merged[name]))
        return sum(name != SHARED for name in living)

    def unpacked(self) -> Memory:
        """The same, for those who look at all agents: each is unpacked once."""
        if not (isinstance(self.merged, Packed) and isinstance(self.file, Packed)):
            return self
        merged = self.merged.unpacked()
        return replace(self, merged=merged, file=self.file.unpacked(self.merged, merged))


def part(whole: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    """The entries that there are of these names."""
    return {name: whole[name] for name in names if name in whole}
