"""How a write goes: to Redis in one round trip, after adopting what somebody wrote there by hand; else to disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from . import files
from .errors import StoreAway, StoreError
from .merge import merge_agent
from .offline import Offline, stamped
from .state import CONTEXT, SHARED, Agent, present
from .store import Live, LiveAgent, LiveStore, Now, Put, Write, Written
from .updates import Update, WriteResult, check_name
from .workspace import Workspace, wall_clock

TRIES = 8
"""How often a write is repeated because somebody wrote the same hash by hand in between."""
SOME = 500
"""Writes that are sent together."""
_AWAY = Written(refused="Redis is away", later=True)


class Writer:
    """Writes for one workspace, under one name. Every method raises StoreError when Redis refuses for good."""

    def __init__(self, workspace: Workspace, offline: Offline) -> None:
        self.by, self.base, self.offline = workspace.settings.writer, workspace.base, offline
        self.store: LiveStore = workspace.store

    def write(self, agent: str, values: Mapping[str, str | None], priority: str = "normal") -> WriteResult:
        write = Now(agent, values, priority)
        try:
            answer = self.write_live(write)
        except StoreAway:
            return self.write_files(agent, stamped(values, self.by))
        if answer.later:
            return self.write_files(agent, stamped(values, self.by))
        return result_of(write, answer)

    def write_many(self, updates: Sequence[Update]) -> list[WriteResult]:
        """Some at a time; a result for each, in order. One that is refused hurts only itself, and what Redis took
        before it went away is not written again."""
        writes: list[Write | Now] = [Now(update.agent, update.values) for update in updates]
        answers: list[Written] = []
        try:
            for start in range(0, len(writes), SOME):
                answers += self.store.write(writes[start : start + SOME])
            if any(answer.refused for answer in answers):
                self._again(writes, answers)
        except StoreAway:
            for index in (*_unsettled(answers), *range(len(answers), len(writes))):
                answers[index : index + 1] = [_AWAY]
        return [
            self.write_files(update.agent, stamped(update.values, self.by)) if answer.later
            else result_of(write, answer)
            for update, write, answer in zip(updates, writes, answers, strict=True)
        ]  # fmt: skip

    def write_live(self, write: Write | Now) -> Written:
        """Write, adopting first what somebody wrote there by hand. Raises StoreError when refused for good."""
        answer = self.write_all([write])[0]
        if answer.refused and not answer.later:
            hint = "try again" if answer.foreign else ""
            raise StoreError(f"{write.agent} was not written: {answer.refused}", hint=hint)
        return answer

    def write_all(self, writes: Sequence[Write | Now]) -> list[Written]:
        """Write all of them in one go; those that need something first (an adoption, a version) once more."""
        answers = self.store.write(writes)
        for answer in answers:
            if answer.refused:
                return self._again(list(writes), answers)
        return answers

    def _again(self, writes: list[Write | Now], answers: list[Written]) -> list[Written]:
        for _ in range(TRIES):
            again = _unsettled(answers)
            if not again:
                break
            for agent in {writes[index].agent for index in again if answers[index].foreign}:
                try:
                    self._adopt(agent)
                except StoreError as error:  # it cannot be read, which hurts nobody else
                    for index in again:
                        if writes[index].agent == agent:
                            answers[index] = Written(refused=str(error))
            again = _unsettled(answers)
            for index in again:
                if answers[index].unknown_floor:
                    writes[index] = self._with_floor(writes[index])
            for index, answer in zip(again, self.store.write([writes[index] for index in again]), strict=True):
                answers[index] = answer
        return answers

    def _with_floor(self, write: Write | Now) -> Write:
        """With what base remembers of an agent that Redis knows nothing of: its version, and what is newer than now."""
        floor = self.base.version(write.agent)
        if not isinstance(write, Now):
            return replace(write, floor=floor)
        full = write.in_full(self.by, floor)
        known = {name: value.at for name, value in self.base.known(write.agent).items() if name in write.values}
        if not known:
            return full
        now = self.store.observe({}, ()).now
        puts = tuple(put._replace(at=at + 1) if (at := known.get(put.field, -1)) >= now else put for put in full.puts)
        return replace(full, puts=puts)

    def _adopt(self, agent: str) -> None:
        base = self.base
        live = self.store.observe({agent: base.known(agent)}, [agent])
        refuse_broken(live)
        found = live.agents.get(agent)
        if found is not None:
            write = Write(agent, found.raw + found.gone, floor=base.version(agent), seen=found.seen)
            self.store.write([write])

    def _known(self, agent: str, live: Agent) -> Agent:
        """What is in Redis, and what it has lost or not learnt yet."""
        return merge_agent(self.base.known(agent), live)

    def adopted(self, agent: str) -> LiveAgent:
        """An agent as Redis holds it, once everything in it has a stamp and a version. Raises StoreAway."""
        if agent != SHARED:
            check_name(agent)
        for _ in range(TRIES):
            live = self.store.observe({}, [agent])
            if not live.up:
                raise StoreAway("Redis is away", hint="is the server running?")
            refuse_broken(live)
            found = live.agents.get(agent, LiveAgent())
            if not (found.raw or found.foreign):
                return found
            self._adopt(agent)
        raise StoreError(f"{agent} is written by somebody else all the time", hint="try again")

    def replace(self, update: Update, priority: str) -> WriteResult:
        """Write these keys and delete all others; also those that somebody added between reading and writing."""
        agent = update.agent
        try:
            before = self.adopted(agent)
            others = _others(self._known(agent, before.fields), update)
            write = Now(agent, {**update.values, **others}, priority)
            if not write.values:
                return WriteResult(agent, (), (), 0, "redis", wall_clock())
            answer = self.write_live(write)
            if answer.later:
                return self.write_files(agent, _whole(update, self.by))
            if answer.won and answer.version > before.version + 1:
                self._clear(update, answer)
        except StoreAway:
            return self.write_files(agent, _whole(update, self.by))
        return result_of(write, answer)

    def _clear(self, update: Update, answer: Written) -> None:
        """Somebody wrote in between: keys of theirs that are older than the replacement are no part of it."""
        fields = self.adopted(update.agent).fields
        names = [name for name in _others(fields, update) if fields[name].at < answer.touched]
        puts = tuple(Put(name, None, answer.touched, self.by) for name in names)
        if puts:
            self.write_live(Write(update.agent, puts, floor=None))

    def write_durable(self, update: Update, priority: str) -> WriteResult:
        """To the journal, on disk, with the stamp that it then has in Redis: by the server's clock where it answers."""
        agent, by = update.agent, self.by
        files.private_folder(self.base.path.parent)
        for _ in range(TRIES):
            make = _whole(update, by)
            try:
                found = self.adopted(agent)
                now = self.store.observe({}, ()).now
            except StoreAway:
                break
            fields = make(self._known(agent, found.fields), now)
            if not fields:
                return WriteResult(agent, (), (), 0, "redis", now)
            self.base.append_journal({agent: fields})
            make = _as_it_is(fields)  # Redis may have it though its answer is lost: the same stamp makes it one write
            self.offline.note_durable()
            puts = tuple(Put(name, value.text, value.at, value.by) for name, value in fields.items())
            write = Write(agent, puts, floor=None, priority=priority)
            try:
                answer = self.write_live(write)
            except StoreAway:
                break
            except StoreError as error:
                raise StoreError(error.message, hint="it waits in the journal, and each round tries again") from None
            if answer.later:
                break
            if "o" not in answer.flags.lower():  # else somebody was faster: once more, behind that
                return result_of(write, answer)._replace(at=max(value.at for value in fields.values()))
        return self.write_files(agent, make)

    def write_files(self, agent: str, make: Callable[[Agent, int], Agent]) -> WriteResult:
        """Redis is away, or takes no writes: on disk, and in `context.json`."""
        written = self.offline.write(agent, make)
        at = max((field.at for field in written.values()), default=wall_clock())
        return WriteResult(agent, tuple(written), (), 0, "file", at)


def _unsettled(answers: Sequence[Written]) -> list[int]:
    """Which writes need something first, an adoption or a version, and are then made once more."""
    return [index for index, answer in enumerate(answers) if answer.foreign or answer.unknown_floor]


def result_of(write: Write | Now, answer: Written) -> WriteResult:
    if answer.refused:
        return WriteResult(write.agent, (), (), 0, "redis", answer.at, answer.refused)
    names, flags = write.fields, answer.flags
    if not flags.strip("wW"):
        return WriteResult(write.agent, names, (), answer.version, "redis", answer.at)
    won = tuple([name for name, flag in zip(names, flags, strict=True) if flag in "wW"])
    stale = tuple([name for name, flag in zip(names, flags, strict=True) if flag in "oO"])
    return WriteResult(write.agent, won, stale, answer.version if won else 0, "redis", answer.at)


def _others(fields: Agent, update: Update) -> dict[str, None]:
    """The context keys that are there and that the update does not name."""
    if not update.whole:
        return {}
    return {name: None for name in present(fields) if name.startswith(CONTEXT) and name not in update.values}


def _whole(update: Update, by: str) -> Callable[[Agent, int], Agent]:
    """The update on top of what is known, at one time."""

    def make(known: Agent, now: int) -> Agent:
        return stamped({**update.values, **_others(known, update)}, by)(known, now)

    return make


def _as_it_is(fields: Agent) -> Callable[[Agent, int], Agent]:
    return lambda known, now: fields


def refuse_broken(live: Live) -> None:
    """Raise StoreError for what cannot be read in Redis; a warning was put right in passing."""
    errors = [str(problem) for problem in live.problems if problem.severity == "error"]
    if errors:
        raise StoreError("; ".join(errors))
