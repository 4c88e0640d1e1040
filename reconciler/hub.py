"""`UnifiedMemoryHub`: the shared memory for Python callers and for the command line.

A write goes to Redis in one round trip; with Redis away it goes to disk and to `context.json`, and is merged when
Redis returns. A partial update never drops other keys and never touches `status`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self
from weakref import WeakSet

from . import files
from .base import Base
from .cache import Cache, by_agent
from .controller import Options, reconcile_or_away
from .errors import NotFound, ReconcilerError, StoreAway, StoreError, UsageError, WorkspaceHeld
from .events import Event
from .follow import Since
from .merge import merge_agent
from .offline import Offline, stamped
from .rewind import rewind
from .settings import Settings
from .sources import desired
from .sources.desired import Sources
from .spool import Spool
from .state import (
    AROUND,
    LAST_UPDATE,
    SHARED,
    Agent,
    Field,
    State,
    decode,
    encode,
    present,
    record_to_text,
    same_value,
)
from .store import AwayStore, LiveAgent, LiveStore, Now, Put, Write
from .store.layout import lost_text
from .subscribe import Subscription
from .updates import (
    WriteResult,
    check_keys,
    check_known,
    check_name,
    check_priority,
    make_event,
    make_update,
    make_updates,
    no_agent,
    unified,
)
from .view import look
from .workspace import Workspace, open_workspace, read_settings, wall_clock
from .writing import Writer, refuse_broken, result_of

Callback = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What one round did. `to_redis`, `to_file`: fields that each side learnt; `store`: "redis", or "file" while Redis
    is away; `problems`: what could not be read or written. `held_by`: the pid of the reconciler that holds the
    workspace and does such rounds all the time, so that none was done here; else None."""

    to_redis: int
    to_file: int
    store: str
    problems: tuple[str, ...] = ()
    held_by: int | None = None


class UnifiedMemoryHub:
    """One workspace's shared memory. A context manager; close it when done.

    `root` and `redis` default as on the command line: LUKA_SOT, REDIS_URL, reconciler.yaml. `warn` takes one-line
    warnings; with `reading` nothing is created, and nothing can be written. Raises UsageError for a wrong setting,
    StoreError when Redis refuses for good.

    Safe to share between threads, whose writes run side by side, and with a forked child, which gets connections of
    its own. No call waits longer than about a second for Redis; the first one that did makes the others answer at
    once, until it is back. Every method raises UsageError for an argument that is illegal, with the way out.

        >>> with UnifiedMemoryHub() as hub:
        ...     done = hub.update_agent_context("mary", {"last_task": "deploy"}, status="active")
        ...     done.won, done.version, done.store
        (('context.last_task', 'status'), 42, 'redis')
    """

    _lasting = True

    def __init__(
        self,
        root: str | None = None,
        redis: str | None = None,
        *,
        settings: Settings | None = None,
        warn: Callable[[str], None] = lambda text: None,
        reading: bool = False,
    ) -> None:
        self.settings = settings or read_settings(root, {"redis": redis})
        self._warn, self._reading = warn, reading
        self._open = ExitStack()
        opening = open_workspace(self.settings, warn, reading=reading, lasting=self._lasting)
        self.workspace: Workspace = self._open.enter_context(opening)
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self._inherited: list[object] = []
        self._begin()
        _hubs.add(self)
        if not reading and self.workspace.base.owes():
            self._offline.wake()

    def _begin(self) -> None:
        """What a forked child makes for itself."""
        self._offline = Offline(self.settings, self._online)
        self._writer = Writer(self.workspace, self._offline)
        self._cache = Cache(self.settings, self.workspace.base, self.workspace.store)

    def _after_fork(self) -> None:
        # Kept, not closed: the connections belong to the parent, and their locks to threads that are not here.
        self._inherited += [self._offline, self._writer, self._cache, list(self._subscriptions)]
        self._subscriptions = WeakSet()
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subscriptions, teach Redis what it missed if it is there, and let go of everything."""
        for subscription in list(self._subscriptions):
            subscription.close()
        self._offline.close()
        self._cache.close()
        self._open.close()

    # Writing

    def update_agent_context(  # noqa: PLR0913 - the contract's own
        self,
        agent: str,
        context: Mapping[str, Any] | None = None,
        *,
        status: str | None = None,
        fields: Mapping[str, Any] | None = None,
        replace: bool = False,
        durable: bool = False,
        priority: str = "normal",
    ) -> WriteResult:
        """Set some context keys, the status, and other hash fields of an agent; everything else stays.

        `replace`: the keys in `context` are all that it has afterwards. `durable`: the write is also on this machine's
        disk before Redis is asked, until a round has taken it over. `priority` (high, normal, low) goes into the event.

        With Redis away, or taking no writes, the result's `store` is "file". Raises UsageError, StoreError when Redis
        refuses for good.

            hub.update_agent_context("mary", {"task": {"id": 7}}, fields={"insight": "likes tea"}, priority="high")
        """
        check_priority(priority)
        update = make_update(agent, context, status, fields, whole=replace)
        self._check_writing()
        if durable:
            return self._writer.write_durable(update, priority)
        if replace:
            return self._writer.replace(update, priority)
        return self._writer.write(agent, update.values, priority)

    def update_many(self, batch: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> list[WriteResult]:
        """Many updates in one pipelined round trip for 500; a result for each, in order.

        `batch`: `{agent: {key: value}}` sets context keys; `{agent: {"context": {...}, "status": "...", "fields":
        {...}}}` says where each belongs. Given as pairs, it may name an agent several times. Something illegal in it
        raises UsageError before anything is written; what Redis refuses has an `error` and hurts only itself.

            hub.update_many({"mary": {"task": 1}, "rnd": {"status": "busy", "context": {"task": 2}}})
        """
        updates = make_updates(batch)
        self._check_writing()
        return self._writer.write_many(updates)

    def delete_agent(self, agent: str) -> WriteResult:
        """Delete an agent everywhere; it stays in the history. Raises NotFound when there is none."""
        self._check_writing()
        known = present(merge_agent(self._known(agent), self._said(agent)))

        def gone(fields: Agent, now: int) -> Agent:
            names = {name: None for name in {**known, **fields} if name != LAST_UPDATE}
            return stamped(names, self.settings.writer)(fields, now)

        try:
            live = self.workspace.store.observe({}, [agent]).agents.get(agent, LiveAgent())
            puts = self._unheard(agent, known, live)
            if puts:
                self._writer.write_live(Write(agent, puts, floor=None, seen=live.seen if live.gone else {}))
            answer = self._writer.write_live(Write(agent, (), floor=None, everything=True))
        except StoreAway:
            return self._writer.write_files(agent, gone)
        if answer.later:
            return self._writer.write_files(agent, gone)
        return WriteResult(agent, tuple(sorted(known)), (), answer.version, "redis", answer.at)

    def _unheard(self, agent: str, known: Iterable[str], live: LiveAgent) -> tuple[Put, ...]:
        """The deletion of what Redis does not hold: an older write to such a field may be on its way yet.

        Of a hash that somebody removed, Redis cannot tell what was deleted; base can, as far as it was there.
        """
        there = present(live.fields)
        was = self.workspace.base.known(agent) if live.gone else {}
        lost = {put.field: lost_text(put, was.get(put.field)) for put in live.gone}
        names = dict.fromkeys((*known, *live.fields, *lost)).keys() - {*there, LAST_UPDATE}
        return tuple(Put(name, None, None, self.settings.writer, lost.get(name, "")) for name in sorted(names))

    def _said(self, agent: str) -> Agent:
        """What files, journal and spool say of an agent: a round that took it to Redis after the agent was deleted
        would bring it back."""
        workspace = replace(self._files_only(), spool=Spool(self.settings.spool))
        return look(workspace, Options(dry=True)).merged.get(agent, {})

    def rollback(self, agent: str, version: int) -> WriteResult:
        """Make an agent what it was at a version: a new write with a new stamp, so that nothing undoes it.

        Fields that did not exist then are deleted. `won` is empty when nothing differs. Raises NotFound when there is
        no such version or the history does not reach back to it, StoreAway: the history is in Redis.
        """
        if type(version) is not int or version < 1:
            raise UsageError(f"{version!r} is not a version", hint="versions are 1, 2, 3, ...")
        self._check_writing()
        found = self._writer.adopted(agent)
        if version > found.version:
            if not found.version:
                raise NotFound(f"no history of {agent}", hint="reconciler get lists the agents")
            what = f"{agent} is at version {found.version}: there is no version {version}"
            raise NotFound(what, hint=f"reconciler history {agent} shows which there are")
        events = self.workspace.store.since(agent, 0)
        values = rewind(agent, found.fields, events, range(version + 1, found.version + 1))
        if not values:
            return WriteResult(agent, (), (), 0, "redis", wall_clock())
        answer = self._writer.write_live(write := Now(agent, values))
        if answer.later:
            raise StoreError(f"{agent} was not rolled back: {answer.refused}", hint="try again when it takes writes")
        return result_of(write, answer)

    # Reading

    def get_agent(self, agent: str) -> dict[str, Any]:
        """One agent's record: `{"status": ..., "context": {...}, ...}` as in `context.json`. Raises NotFound."""
        return dict(decode(self.agent_text(agent)))

    def get_unified_context(self) -> dict[str, Any]:
        """`context.json` as it is, with live values: `{"agents": {...}, <section>: ...}`, the caller's own.

        A second call reads only what was written since. With Redis away it comes from the files.
        """
        try:
            if isinstance(self.workspace.store, AwayStore):
                raise self.workspace.store.reason
            if self._offline.owing:  # what is on disk is newer than what Redis knows
                return self._cache.from_files(look(self._fresh(), Options(dry=True)).merged)
            return self._cache.read()
        except StoreAway:
            return self._cache.from_files(look(self._files_only(), Options(dry=True)).merged)

    def unified_text(self) -> str:
        """The shared memory as a round would leave it, as JSON text in which every token is kept as it was written."""
        return unified(reconcile_or_away(self._fresh(), Options(dry=True)).merged)

    def agent_text(self, agent: str) -> str:
        """`get_agent` as JSON text in which every token is kept as it was written."""
        return record_to_text(present(self._known(agent)))

    def history(self, agent: str, count: int = 100) -> list[Event]:
        """The last `count` versions of an agent, newest first. Raises NotFound, StoreAway."""
        if agent != SHARED:
            check_name(agent)
        if type(count) is not int or count < 1:
            raise UsageError(f"count={count!r}: a number from 1 on is needed")
        found = self.workspace.store.history(agent, count)
        if not found:
            raise NotFound(f"no history of {agent}", hint="reconciler get lists the agents")
        return found

    # Files

    def sync_from_file(self) -> SyncResult:
        """One round: what was edited in the files goes live, what is live into `context.json`.

        Raises Refused when a guard says no: it would delete too much.
        """
        self._check_writing()
        files.private_folder(self.settings.folder)
        path = self.settings.folder / "lock"
        try:
            with files.Lock(path, 1.0):
                done = reconcile_or_away(self._fresh())
        except WorkspaceHeld:
            store = "file" if isinstance(self.workspace.store, AwayStore) else "redis"
            return SyncResult(0, 0, store, held_by=files.Lock.holder(path))
        sides = [change.direction for change in done.plan.changes if not change.quiet]
        problems = tuple(map(str, done.plan.errors)) + done.refused
        store = "redis" if done.plan.redis_up else "file"
        return SyncResult(sides.count("redis"), sides.count("file"), store, problems)

    def sync_to_file(self, data: Mapping[str, Any] | None = None) -> SyncResult:
        """Mirror live memory into `context.json`.

        `data`, in the shape of `context.json`, is written first: exactly the values that differ from what is there.
        What it lacks stays. Its `version`, `last_update` and local sections are the file's own and are not taken.
        """
        self._check_writing()
        for agent, values in self._differing(data).items() if data is not None else ():
            self._writer.write(agent, values)
        return self.sync_from_file()

    def _differing(self, data: Any) -> dict[str, dict[str, str]]:
        if not isinstance(data, Mapping):
            hint = 'it has the shape of context.json: {"agents": {"mary": {"status": "busy", "context": {}}}}'
            raise UsageError(f"data must be a mapping, not {type(data).__name__}", hint=hint)
        try:
            text = encode({"agents": {}, **data}, AROUND)
            check_keys("data", dict(data))
            said = desired.parse(self.settings, text.encode())
        except ReconcilerError as error:
            raise UsageError(f"data is not in the shape of context.json: {error}") from None
        if wrong := [str(problem) for problem in said.problems if problem.severity == "error"]:
            raise UsageError("data is not in the shape of context.json: " + "; ".join(wrong))
        known = reconcile_or_away(self._fresh(), Options(dry=True)).merged
        found = {}
        for agent, values in said.values.items():
            there = present(known.get(agent, {}))
            new = {name: text for name, text in values.items()
                   if name != LAST_UPDATE and not same_value(name, text, there.get(name))}  # fmt: skip
            if new and (agent == SHARED or not agent.startswith("@")):
                found[agent] = new
        return found

    # Events

    def publish_update(self, update: Mapping[str, Any]) -> int:
        """Say an event that is no write: `{"agent": ..., "event": ..., "data": {...}}`; how many subscribers heard it.

        `priority` is high, normal or low; `timestamp` is now if it is left out; any other key goes along. Nothing is
        kept: with Redis away nobody hears it, which is 0.
        """
        event = make_event(update, wall_clock())
        try:
            return self.workspace.store.publish(event)
        except StoreAway:
            return 0

    def subscribe_updates(
        self,
        agents: Iterable[str] | Callback | None = None,
        events: Iterable[str] | None = None,
        since: Since = None,
        callback: Callback | None = None,
    ) -> Subscription:
        """An endless iterator of events (`Subscription`): only of these `agents`, only these kinds of `events`.

        `since`: also what happened after a version (int) or a time, where the history has it. Lost connections are
        made up for. With `callback`, which may also stand first, a thread of its own calls it with each event as plain
        data, until the subscription or the hub is closed; that thread is a daemon if the caller's is.

            for event in hub.subscribe_updates(agents=["mary"]):
                print(event.agent, event.version, event.data)
        """
        if callable(agents):
            agents, callback = None, agents
        if callback is not None and not callable(callback):
            raise UsageError(f"callback must be a function, not {type(callback).__name__}")
        found = Subscription(self.workspace.store, agents or (), events or (), since, warn=self._warn)
        self._subscriptions.add(found)
        if callback is not None:
            threading.Thread(target=self._call_back, args=(found, callback), name="events").start()
        return found

    def _call_back(self, subscription: Subscription, callback: Callback) -> None:
        for event in subscription:
            try:
                callback(event.to_plain())
            except Exception as error:  # the next event may be one that it can take
                self._warn(f"a callback failed at {event.id}: {type(error).__name__}: {error}")

    # How a write goes

    @property
    def _away(self) -> bool:
        return isinstance(self.workspace.store, AwayStore)

    def _check_writing(self) -> None:
        if self._reading:
            raise UsageError("this hub was opened for reading", hint="open it without reading=True")

    # How a reading goes

    def _known(self, agent: str) -> Agent:
        """An agent's fields as they are now, wherever they are. Raises NotFound."""
        if agent != SHARED:
            check_name(agent)
        fields: Agent = {}
        try:
            live = self.workspace.store.observe({}, [agent])
            up = live.up
            fields = live.agents.get(agent, LiveAgent()).fields
            refuse_broken(live)
        except StoreAway:
            fields, up = {}, False
        if up and self._offline.owing:  # what is on disk is newer than what Redis knows
            fields = merge_agent(fields, self.workspace.base.known(agent))
        if up and present(fields):
            return merge_agent(fields, by_agent(self.workspace.base.journal()).get(agent, {}))
        merged = look(self._files_only(), Options(dry=True)).merged
        fields = merge_agent(fields, merged.get(agent, {}))
        if not present(fields):
            raise no_agent([agent], merged)
        return fields

    def _files_only(self) -> Workspace:
        return self._fresh(AwayStore(StoreAway("not asked")))

    def _fresh(self, store: LiveStore | None = None) -> Workspace:
        """The workspace for one round of this thread's own."""
        base = Base(self.settings.folder)
        return Workspace(self.settings, base, store or self.workspace.store, sources=Sources())

    def _online(self) -> Workspace | None:
        """The workspace for a round with Redis; None while it is away."""
        up = not isinstance(self.workspace.store, AwayStore) and getattr(self.workspace.store, "up", True)
        return self._fresh() if up else None


class OneShotHub(UnifiedMemoryHub):
    """For one call, as the command line makes: Redis is there or away once and for all."""

    _lasting = False


_hubs: WeakSet[UnifiedMemoryHub] = WeakSet()


def _after_fork() -> None:
    for hub in list(_hubs):
        hub._after_fork()


os.register_at_fork(after_in_child=_after_fork)


__all__ = [
    "Field", "OneShotHub", "ReconcilerError", "State", "SyncResult", "UnifiedMemoryHub", "WriteResult", "check_known",
    "check_name", "unified",
]  # fmt: skip
