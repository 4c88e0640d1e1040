"""What each side must learn: `diff`, the sorted plan, and the guards that may refuse it.

    replica            merged             change
    (no status)        status busy        create
    status idle        status busy        update
    status idle        status (gone)      delete
    status busy @5     status busy @7     none: the same value is never a difference
    last_seen differs, nothing else       quiet: carried, but still "in sync"

Pure: no file, no clock, no client.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal, NamedTuple

from .errors import Problem, Refused, UsageError
from .state import LAST_UPDATE, QUIET, SHARED, Agent, Field, State, same_value

Direction = Literal["redis", "file"]
Op = Literal["create", "update", "delete"]


Content = tuple[str, str, str, str | None, str | None, str]
"""Agent, field, direction, old, new, writer."""


class Change(NamedTuple):
    """One field that one side must learn. `old` and `new` are JSON texts, None where there is no value.

    `at` and `by` stamp the value that won; `beaten` is the field it replaces on that side, if it had one.
    """

    agent: str
    field: str
    direction: Direction
    old: str | None
    new: str | None
    at: int
    by: str
    beaten: Field | None = None

    @property
    def op(self) -> Op:
        if self.old is None:
            return "create"
        return "delete" if self.new is None else "update"

    @property
    def quiet(self) -> bool:
        """Only a time (`last_update`, `last_seen`): carried over, never counted as a difference."""
        return self.field in QUIET

    @property
    def content(self) -> Content:
        """What a reviewer approved: all but the moment, which for a raw write is when it was seen."""
        return (self.agent, self.field, self.direction, self.old, self.new, self.by)


class Withheld(NamedTuple):
    """A difference that is not acted upon, and why. Agent or field "" means all of them."""

    agent: str
    field: str
    direction: Direction
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one round would do, sorted at birth: the same input gives the same bytes."""

    changes: tuple[Change, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    redis_up: bool = True

    @property
    def in_sync(self) -> bool:
        """Nothing to do that counts. What is withheld is no agreement, so it counts."""
        return not self.withheld and all(change.quiet for change in self.changes)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def contents(self) -> tuple[Content, ...]:
        """What a reviewer approves of it: every change that counts."""
        return tuple(change.content for change in self.changes if not change.quiet)

    @property
    def id(self) -> str:
        """The plan's fingerprint: SHA-256 over what a reviewer sees of it."""
        digest = hashlib.sha256()
        for content in self.contents:
            digest.update(repr(content).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def towards(self, direction: Direction) -> dict[str, dict[str, Change]]:
        """The changes for one side: agent to field to change."""
        found: dict[str, dict[str, Change]] = {}
        for change in self.changes:
            if change.direction == direction:
                found.setdefault(change.agent, {})[change.field] = change
        return found

    def only(self, agents: Iterable[str]) -> Plan:
        """The part of the plan that concerns these agents."""
        chosen = set(agents)
        return Plan(
            tuple(change for change in self.changes if change.agent in chosen),
            tuple(held for held in self.withheld if held.agent in chosen),
            self.notes,
            tuple(problem for problem in self.problems if problem.agent is None or problem.agent in chosen),
            self.redis_up,
        )


def diff(replica: State, merged: State, direction: Direction) -> list[Change]:
    """The fields that `replica` must learn to hold what `merged` holds, sorted by agent and field.

    `diff(x, x)` is empty for every x. A tombstone for what the replica does not have is no change.
    """
    found: list[Change] = []
    for name in sorted(merged):
        here = replica.get(name, {})
        if here is merged[name]:
            continue
        found += _drop_lone_time(list(_diff_agent(name, here, merged[name], direction)))
    return found


def _diff_agent(name: str, here: Agent, merged: Agent, direction: Direction) -> Iterator[Change]:
    for field in sorted(merged):
        won, known = merged[field], here.get(field)
        if won is known:
            continue
        old = known.text if known else None
        if old != won.text and (old is None or not same_value(field, old, won.text)):
            yield Change(name, field, direction, old, won.text, won.at, won.by, known)


def _drop_lone_time(changes: list[Change]) -> list[Change]:
    """`last_update` follows other changes; alone it is only carried where somebody wrote it.

    This program derives it from the newest stamp, so a derived one is no news for a side that holds
    everything else, and to add it there would rewrite a file in which nothing changed.
    """
    if len(changes) != 1 or changes[0].field != LAST_UPDATE:
        return changes
    change = changes[0]
    if change.op == "delete":  # all that is left of an agent that was deleted; Redis forgets it by itself
        return changes if change.direction == "file" else []
    return changes if change.op == "update" and change.by in _WRITERS_OF_TIME[change.direction] else []


_WRITERS_OF_TIME: Mapping[Direction, frozenset[str]] = {
    "redis": frozenset({"context.json"}),
    "file": frozenset({"raw"}),
}


def make_plan(
    changes: Iterable[Change],
    *,
    withheld: Iterable[Withheld] = (),
    notes: Iterable[str] = (),
    problems: Iterable[Problem] = (),
    redis_up: bool = True,
) -> Plan:
    """Sort everything once, so that a plan can be compared, hashed and kept as a golden file."""
    return Plan(
        tuple(sorted(changes, key=itemgetter(0, 1, 2))),
        tuple(sorted(set(withheld))),
        tuple(notes),
        tuple(sorted(problems, key=lambda problem: (problem.severity, str(problem.place), problem.path))),
        redis_up,
    )


@dataclass(frozen=True, slots=True)
class Limit:
    """How many agents one round may delete: a share of the known ones, never fewer than `least`."""

    share: float = 0.3
    least: int = 3

    @classmethod
    def parse(cls, text: str | int) -> Limit:
        """`30%` of the agents (and at least 3), or a plain number."""
        found = str(text).strip()
        try:
            if found.endswith("%"):
                share = float(found[:-1]) / 100
                if 0 <= share <= 1:
                    return cls(share)
            elif int(found) >= 0:
                return cls(0.0, int(found))
        except ValueError:
            pass
        raise UsageError(f"max_deletes: {found!r} is neither a share nor a number", hint="say 30% or 5")

    def allows(self, deleted: int, known: int) -> bool:
        return deleted <= max(self.least, int(known * self.share))


def deleted_agents(before: State, after: State) -> list[str]:
    """The agents that had a value before and have none after."""
    return [name for name in sorted(before) if name != SHARED and _alive(before[name])
            and not _alive(after.get(name, {}))]  # fmt: skip


def _alive(agent: Agent) -> bool:
    return any(field.text is not None for field in agent.values())


def guard(before: State, after: State, pruned: Iterable[str], limit: Limit) -> None:
    """Refuse a round that deletes too much (DESIGN §7). `pruned`: agents deleted because a side lacks them."""
    known = [name for name in before if name != SHARED and _alive(before[name])]
    gone = deleted_agents(before, after)
    if known and len(set(pruned)) == len(known):
        raise Refused(
            f"one side is empty: pruning would delete all {len(known)} agents",
            hint="run it without --prune to refill that side, or with --force to delete them",
        )
    if not limit.allows(len(gone), len(known)):
        raise Refused(
            f"{len(gone)} of {len(known)} agents would be deleted ({_some(gone)}), more than the limit allows",
            hint=f"--max-deletes {len(gone)} allows it once, --force allows anything",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def what_moved(reviewed: Iterable[Content], now: Plan) -> list[str]:
    """How a plan differs from the one that somebody reviewed, as lines for a person; none if it does not."""
    was, is_now = set(reviewed), set(now.contents)
    gone = [f"no longer planned: {_name(item)}" for item in was - is_now]
    return sorted(gone) + sorted(f"new since: {_name(item)}" for item in is_now - was)


def _name(content: Content) -> str:
    agent, field, direction, old, new, _ = content
    return f"{agent}.{field} → {direction}: {old or 'nothing'} → {new or 'nothing'}"
