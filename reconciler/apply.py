"""Carrying a plan out: remember it, write Redis, write `context.json`, remember what came of it.

The order is what makes a crash harmless: base knows a write before it is made (docs/decisions/base-first.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from . import files
from .base import Conflict, Memory, newest_written, part
from .conflicts import find_conflicts, find_late
from .edits import FILE, UNSEEN, Key, Version, undo_of
from .errors import InputError, StoreAway, StoreError
from .plan import Change
from .settings import Settings
from .sources import context_file, desired
from .sources.manifests import Known
from .sources.pieces import Draft
from .spool import Drop, Spool
from .stamp import format_time
from .state import QUIET, Field, State, encode
from .store import Live, LiveAgent, Put, Write, Written
from .store.layout import restoring
from .view import View
from .workspace import Workspace


def adopt(workspace: Workspace, view: View) -> dict[str, Written]:
    """Adopt raw writes before base knows of them, where nobody but Redis says anything; what came of it, by agent.

    Redis holds the values already. A crash right after leaves them stamped, newer than base: live writes like any
    other. What a file, a drop or a pin has to do with waits for base. Raises StoreAway.
    """
    if not view.is_only_live:
        return {}
    try:
        return _adopt(workspace, view, view.memory)
    except (StoreAway, StoreError):
        remember(workspace, view, {})  # what was read is kept, and the round on files puts it into `context.json`
        raise


def remember(workspace: Workspace, view: View, adopted: Mapping[str, Written]) -> tuple[Memory, Draft | None]:
    """Commit what is about to be written or `adopted`, and `context.json` as it will be (None: it stays as it is).

    Before the writes, so that a crash between them is told from an edit: a file that still holds the older
    version is then a carry-over, put right by the next round.
    """
    before, source = view.memory, view.desired.context
    changes = view.plan.towards("file")
    if source.edits.latest and newest_written(before.file_versions) == UNSEEN:
        workspace.base.placed(view.now)  # a crash kept this from being noted
    rewrite: Draft | None = None
    state, versions = source.state, list(source.versions)
    if "" in view.desired.unreadable:
        state = before.file
    elif changes or source.identity is None:
        rewrite = _rewrite(workspace, view, changes)
        names = before.names
        values = rewrite.values if names is None else part(rewrite.values, {*names, FILE})
        state = desired.file_state(values, view.merged)
        state |= desired.standing_in(rewrite.broken, before)
        replaced = before.file if source.emptied else source.state
        versions.append(Version(UNSEEN, True, undo_of(replaced, state)))
    after = Memory(
        merged=_keep(view, workspace.settings),
        versions=_numbered(_versions(before, view.live), adopted),
        file=state,
        clean=source.clean if rewrite is None else None,
        manifests=Known(view.desired.loaded.files, view.desired.declared.fields),
        epoch=view.live.epoch or before.epoch,
        empty=False,
        names=before.names,
        unlearnt=_unlearnt(view),
    )
    conflicts = find_conflicts(workspace, view)
    after = replace(after, untold=before.untold or bool(conflicts))
    if _differs(before, after) or versions:
        workspace.base.save(before, after, now=view.now, new_versions=versions, conflicts=conflicts)
    workspace.sources.settle()
    return after, rewrite


def _rewrite(workspace: Workspace, view: View, changes: Mapping[str, Mapping[str, Change]]) -> Draft:
    """The file with the changes in it: only the changed places where that tells, else written and read anew."""
    settings = workspace.settings
    draft = workspace.sources.draft(settings, view.desired.context)
    time = encode(format_time(view.now))
    if draft.edited(changes, view.merged, time):
        return draft
    return Draft(desired.parse(settings, context_file.render(draft.context, changes, view.merged, time).encode()))


def _keep(view: View, settings: Settings) -> State:
    """The merged state to remember: without tombstones older than the setting allows."""
    oldest = _oldest(view, settings)
    kept = {
        agent: {name: value for name, value in fields.items() if value.text is not None or value.at >= oldest}
        for agent, fields in view.merged.items()
    }
    return {agent: fields for agent, fields in kept.items() if fields}


def _unlearnt(view: View) -> dict[Key, Field | None]:
    """The fields that Redis does not know as base does now, written while it is away, withheld from it, or about to be
    written, and what it knew."""
    before = view.memory
    if view.live.up:
        withheld = {(held.agent, held.field) for held in view.plan.withheld}
        return {key: was for key, was in before.unlearnt.items() if key in withheld} | _missed(view)
    written = dict(before.unlearnt)
    for agent, fields in view.merged.items():
        known = before.merged.get(agent, {})
        for name, value in fields.items():
            if name not in QUIET and known.get(name) != value:
                written.setdefault((agent, name), known.get(name))
    return written


def _oldest(view: View, settings: Settings) -> float:
    return view.now - settings.tombstones.total_seconds() * 1_000_000


def _expired(live: LiveAgent, oldest: float) -> tuple[Put, ...]:
    """The tombstones in Redis whose time is over."""
    return tuple(
        Put(name, None, value.at, value.by, forget=True)
        for name, value in live.fields.items()
        if value.text is None and value.at < oldest
    )


def _versions(memory: Memory, live: Live) -> dict[str, int]:
    return {**memory.versions, **{agent: max(found.version, memory.versions.get(agent, 0))
                                  for agent, found in live.agents.items()}}  # fmt: skip


def _numbered(versions: dict[str, int], written: Mapping[str, Written]) -> dict[str, int]:
    """The versions, with those that Redis gave."""
    return versions | {agent: max(versions.get(agent, 0), answer.version) for agent, answer in written.items()}


def _differs(before: Memory, after: Memory) -> bool:
    return replace(before, file_versions=(), journal=()) != replace(after, file_versions=(), journal=()) or bool(
        before.journal
    )


def write_live(
    workspace: Workspace, view: View, memory: Memory, adopted: dict[str, Written]
) -> tuple[dict[str, Written], list[Conflict]]:
    """Adopt raw writes, but for those that are `adopted`, then write what Redis must learn; what came of it, by agent,
    and the drops that came too late.

    Raises StoreAway.
    """
    if not view.live.up:
        return {}, []
    answers = adopted or _adopt(workspace, view, memory)
    late = _write_drops(workspace, view, memory, answers)
    writes = [
        _write(agent, fields, view.live.agents.get(agent, LiveAgent()), memory.versions.get(agent, 0))
        for agent, fields in sorted(view.plan.towards("redis").items())
        if not answers.get(agent, Written()).refused
    ]
    return answers | dict(zip((write.agent for write in writes), workspace.store.write(writes), strict=True)), late


def _adopt(workspace: Workspace, view: View, memory: Memory) -> dict[str, Written]:
    oldest = _oldest(view, workspace.settings)
    adoptions = [
        Write(agent, found.raw + expired, floor=memory.versions.get(agent, 0), seen=found.seen)
        for agent, found in sorted(view.live.agents.items())
        if (expired := _expired(found, oldest)) or found.raw or found.foreign
    ]
    return dict(zip((write.agent for write in adoptions), workspace.store.write(adoptions), strict=True))


def _write_drops(workspace: Workspace, view: View, memory: Memory, answers: dict[str, Written]) -> list[Conflict]:
    """Write each drop by itself, in order: each is a version, an event, an entry of the history. What came of it goes
    into `answers`; what Redis took, the spool hears. What lost to something newer is given back."""
    spool, live, late = workspace.spool, view.live, list[Conflict]()
    if spool is None:
        return late
    waiting = view.waiting.state
    agents = waiting.keys() & view.merged.keys()
    agents -= {held.agent for held in view.plan.withheld
               if held.direction == "redis" and held.field in waiting.get(held.agent, {})}  # fmt: skip
    agents -= {agent for agent, answer in answers.items() if answer.refused}
    latest = live.now + int(workspace.settings.max_skew.total_seconds() * 1_000_000)
    spool.redate(agents, latest, live.now)
    workspace.store.write(list(_refills(spool, view, memory, agents)))
    alive = {(agent, name) for agent in agents & live.agents.keys()
             for name, value in live.agents[agent].fields.items() if value.text is not None}  # fmt: skip
    for some in spool.parts(agents):
        drops = [drop for drop in some if not answers.get(drop.agent, Written()).refused]
        floors = memory.versions
        writes = [Write(drop.agent, _drop_puts(drop, alive), floor=floors.get(drop.agent, 0)) for drop in drops]
        given = workspace.store.write(writes)
        late += find_late(workspace, view, zip(writes, given, strict=True))
        for drop, answer in zip(drops, given, strict=True):
            if not answers.get(drop.agent, Written()).refused:
                answers[drop.agent] = answer._replace(flags="")  # what lost is in the ledger, not moving
        spool.took(drop for drop in drops if not answers[drop.agent].refused)
    return late


def _refills(spool: Spool, view: View, memory: Memory, agents: Iterable[str]) -> Iterator[Write]:
    """What these agents were before their drops, where somebody removed their hash."""
    changes = view.plan.towards("redis")
    for agent in agents:
        found = view.live.agents.get(agent, LiveAgent())
        if found.gone:
            before = {name: change for name, change in changes.get(agent, {}).items() if not spool.holds(change)}
            yield _write(agent, before, found, memory.versions.get(agent, 0))


def _drop_puts(drop: Drop, alive: set[Key]) -> tuple[Put, ...]:
    """What a drop writes; it deletes only what is there (`alive`, which it adds to)."""
    puts = tuple(
        Put(name, value.text, value.at, value.by)
        for name, value in drop.fields.items()
        if value.text is not None or (drop.agent, name) in alive
    )
    alive.update((drop.agent, put.field) for put in puts)
    return puts


def _write(agent: str, changes: Mapping[str, Change], live: LiveAgent, floor: int) -> Write:
    puts = tuple(Put(change.field, change.new, change.at, change.by, _old(change, live)) for change in changes.values())
    seen = live.seen if live.gone else {}
    return Write(agent, restoring(live, puts), floor=floor, seen=seen)


def _old(change: Change, live: LiveAgent) -> str:
    """What a deletion deletes where nothing is left that could tell it."""
    return change.old or "" if live.gone and change.new is None else ""


def _missed(view: View, written: Mapping[str, Written] | None = None) -> dict[Key, Field | None]:
    """What Redis did not take: refused, or somebody wrote something newer since it was looked at; without `written`,
    everything. And what it held."""
    missed: dict[Key, Field | None] = {}
    for agent, changes in view.plan.towards("redis").items():
        answer = Written(refused="away") if written is None else written.get(agent, Written())
        if answer.refused or "o" in answer.flags.lower():
            flags = "o" * len(changes) if answer.refused else answer.flags.lower()
            missed |= {(agent, change.field): change.beaten
                       for change, flag in zip(changes.values(), flags, strict=False) if flag == "o"}  # fmt: skip
    return missed


def write_file(workspace: Workspace, view: View, memory: Memory, rewrite: Draft | None) -> bool:
    """Put the new `context.json` in place; whether the round must start again because the file moved."""
    if rewrite is None:
        return False
    path = workspace.settings.context_file
    path.parent.mkdir(exist_ok=True)
    data, source = rewrite.context.text.encode(), view.desired.context
    said = source.context.text.encode() if source.context is not None and source.clean is None else None
    try:
        done = files.replace(path, data, source.identity,
                             keep=lambda *displaced: _keep_displaced(workspace, *displaced), said=said)  # fmt: skip
    except files.Moved:
        workspace.base.unwrite(memory, view.memory.file if source.emptied else source.state)
        return True
    workspace.base.placed(view.now)
    workspace.sources.wrote(rewrite, done)
    return done.displaced is not None


def _keep_displaced(workspace: Workspace, data: bytes, mtime_ns: int) -> None:
    """Somebody saved the file in the moment before ours took its place: what is an edit in it is kept."""
    try:
        _keep_edits(workspace, data, mtime_ns)
    except InputError:
        folder = files.private_folder(workspace.settings.folder / "backups")
        files.write_private(folder / f"torn-{mtime_ns}.json", data)


def _keep_edits(workspace: Workspace, data: bytes, mtime_ns: int) -> None:
    """Into the journal. Raises InputError."""
    context = desired.parse(workspace.settings, data)
    identity = files.Identity(0, 0, len(data), mtime_ns)
    found = desired.read_version(context, identity, workspace.base.load(), workspace.clock())
    workspace.base.append_journal(found.edits.state)


def take_left(workspace: Workspace, view: View) -> bool:
    """Take in what a process that was killed while it put `context.json` in place left beside it.

    It is its own new version, perhaps half of it, or what the swap displaced, which may hold an edit that nobody has
    read. What is older than the version before was left by somebody else, long ago. Whether there was anything, and
    the round must look again.
    """
    versions, path = view.memory.file_versions, workspace.settings.context_file
    if newest_written(versions) != UNSEEN or not path.parent.exists() or not (left := files.left_beside(path)):
        return False
    before = versions[1].written if len(versions) > 1 else 0
    for one in left:
        with suppress(InputError):  # half written: nobody was told that it was saved
            found = files.read(one, context_file.MAX_BYTES)
            if found and found[1].mtime_ns >= before * 1000:
                _keep_edits(workspace, found[0], found[1].mtime_ns)
        files.discard(one)
    return True


def collect(workspace: Workspace) -> None:
    """Bring what lies in the inbox into the spool, where the round finds it."""
    inbox, spool = workspace.inbox, workspace.spool
    if inbox is not None and spool is not None:
        now = workspace.clock()
        post = inbox.look(lambda: workspace.base.load().merged.keys(), now)
        spool.tell((*post.problems, *inbox.deliver(post, now)), more=post.more)


def settle(workspace: Workspace, view: View) -> None:
    """The drops that Redis took are removed: base has them since before, and the file by now."""
    if workspace.spool is not None:
        clashing = view.waiting.agents - view.merged.keys()
        workspace.spool.reject(clashing, "the agent differs from a known one only in its letters' case")
        workspace.spool.settle(view.waiting)


def remember_written(
    workspace: Workspace, view: View, memory: Memory, written: Mapping[str, Written], late: Sequence[Conflict]
) -> Memory:
    """Note the versions that Redis gave, so that a refilled server goes on counting, and what it did not take."""
    epoch = view.live.epoch
    if view.live.up and not epoch:
        epoch = workspace.store.start_epoch(uuid.uuid4().hex)
    asked = _missed(view)
    unlearnt = {key: was for key, was in memory.unlearnt.items() if key not in asked} | _missed(view, written)
    versions = _numbered(dict(memory.versions), written)
    after = replace(memory, versions=versions, epoch=epoch or memory.epoch, unlearnt=unlearnt)
    after = replace(after, untold=memory.untold or bool(late))
    if after != memory or late:
        workspace.base.save(memory, after, now=view.now, conflicts=late)
    return after
