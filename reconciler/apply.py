"""Carrying a plan out: remember it, write Redis, write `context.json`, remember what came of it.

The order is what makes a crash harmless: base knows a write before it is made (docs/decisions/base-first.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from . import files
from .base import Conflict, Memory, part
from .edits import FILE, UNSEEN, Version, undo_of
from .errors import InputError
from .plan import Change
from .settings import Settings
from .sources import context_file, desired
from .sources.manifests import Known
from .sources.pieces import Draft
from .stamp import format_time
from .state import Field, State, encode
from .store import Live, LiveAgent, Put, Write, Written
from .store.layout import restoring
from .view import View
from .workspace import Workspace


class Rewrite(NamedTuple):
    """The version of `context.json` that a round puts in place."""

    draft: Draft
    data: bytes


def remember(workspace: Workspace, view: View) -> tuple[Memory, Rewrite | None]:
    """Commit what is about to be written, and `context.json` as it will be (None: it stays as it is).

    Before the writes, so that a crash between them is told from an edit: a file that still holds the older
    version is then a carry-over, put right by the next round.
    """
    before, source = view.memory, view.desired.context
    changes = view.plan.towards("file")
    if source.edits.latest and before.file_versions and before.file_versions[0].written == UNSEEN:
        workspace.base.placed(view.now)  # a crash kept this from being noted
    rewrite: Rewrite | None = None
    state, versions = source.state, list(source.versions)
    if "" in view.desired.unreadable:
        state = before.file
    elif changes or source.identity is None:
        rewrite = _rewrite(workspace, view, changes)
        context = rewrite.draft.context
        names = before.names
        values = context.values if names is None else part(context.values, {*names, FILE})
        state = desired.file_state(values, view.merged)
        state |= desired.standing_in(context, before)
        replaced = before.file if source.emptied else source.state
        versions.append(Version(UNSEEN, True, undo_of(replaced, state)))
    after = Memory(
        merged=_keep(view, workspace.settings),
        versions=_versions(before, view.live),
        file=state,
        clean=source.clean if rewrite is None else None,
        manifests=Known(view.desired.loaded.files, view.desired.declared.fields),
        epoch=view.live.epoch or before.epoch,
        empty=False,
        names=before.names,
    )
    if _differs(before, after) or versions:
        conflicts = _conflicts(view)
        files.private_folder(workspace.settings.folder)
        workspace.base.save(before, after, now=view.now, new_versions=versions, conflicts=conflicts)
    workspace.sources.settle()
    return after, rewrite


def _rewrite(workspace: Workspace, view: View, changes: Mapping[str, Mapping[str, Change]]) -> Rewrite:
    """The file with the changes in it: only the changed places where that tells, else written and read anew."""
    settings = workspace.settings
    draft = workspace.sources.draft(settings, view.desired.context)
    time = encode(format_time(view.now))
    before = draft.context
    context = draft.edited(changes, view.merged, time)
    if context is not None:
        return Rewrite(draft, context.text.encode())
    data = context_file.render(before, changes, view.merged, time).encode()
    return Rewrite(Draft(desired.parse(settings, data)), data)


def _keep(view: View, settings: Settings) -> State:
    """The merged state to remember: without tombstones older than the setting allows."""
    oldest = _oldest(view, settings)
    kept = {
        agent: {name: value for name, value in fields.items() if value.text is not None or value.at >= oldest}
        for agent, fields in view.merged.items()
    }
    return {agent: fields for agent, fields in kept.items() if fields}


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


def _differs(before: Memory, after: Memory) -> bool:
    return replace(before, file_versions=(), journal=()) != replace(after, file_versions=(), journal=()) or bool(
        before.journal
    )


def _conflicts(view: View) -> list[Conflict]:
    """Values that lose to a write which had not seen them, so that nothing is overwritten without a trace."""
    found = []
    for change in view.plan.changes:
        lost = change.beaten
        if lost is None or lost.text is None or lost.at == 0 or change.quiet:
            continue
        if view.memory.merged.get(change.agent, {}).get(change.field) != lost:
            found.append(Conflict(change.agent, change.field, lost, Field(change.new, change.at, change.by)))
    return found


def write_live(workspace: Workspace, view: View, memory: Memory) -> dict[str, Written]:
    """Adopt raw writes, then write what Redis must learn; what came of it, by agent."""
    if not view.live.up:
        return {}
    store, oldest = workspace.store, _oldest(view, workspace.settings)
    adoptions = [
        Write(agent, found.raw + expired, floor=memory.versions.get(agent, 0), seen=found.seen)
        for agent, found in sorted(view.live.agents.items())
        if (expired := _expired(found, oldest)) or found.raw or found.foreign
    ]
    answers = dict(zip((write.agent for write in adoptions), store.write(adoptions), strict=True))
    writes = [
        _write(agent, fields, view.live.agents.get(agent, LiveAgent()), memory.versions.get(agent, 0))
        for agent, fields in sorted(view.plan.towards("redis").items())
        if not answers.get(agent, Written()).refused
    ]
    return answers | dict(zip((write.agent for write in writes), store.write(writes), strict=True))


def _write(agent: str, changes: Mapping[str, Change], live: LiveAgent, floor: int) -> Write:
    puts = tuple(Put(change.field, change.new, change.at, change.by) for change in changes.values())
    seen = live.seen if live.gone else {}
    return Write(agent, restoring(live, puts), floor=floor, seen=seen)


def write_file(workspace: Workspace, view: View, memory: Memory, rewrite: Rewrite | None) -> bool:
    """Put the new `context.json` in place; whether the round must start again because the file moved."""
    if rewrite is None:
        return False
    path = workspace.settings.context_file
    path.parent.mkdir(exist_ok=True)
    try:
        done = files.replace(path, rewrite.data, view.desired.context.identity)
    except files.Moved:
        source = view.desired.context
        workspace.base.unwrite(memory, view.memory.file if source.emptied else source.state)
        return True
    workspace.base.placed(view.now)
    workspace.sources.wrote(rewrite.draft, done.identity, rewrite.data)
    if done.displaced is None:
        return False
    _take_displaced(workspace, done, memory)
    return True


def _take_displaced(workspace: Workspace, done: files.Replaced, memory: Memory) -> None:
    """Somebody saved the file in the moment before ours took its place: what is an edit in it is kept."""
    assert done.displaced is not None and done.displaced_mtime_ns is not None
    memory = workspace.base.load()
    try:
        context = desired.parse(workspace.settings, done.displaced)
    except InputError:
        folder = files.private_folder(workspace.settings.folder / "backups")
        files.write_private(folder / f"torn-{done.displaced_mtime_ns}.json", done.displaced)
        return
    identity = files.Identity(0, 0, len(done.displaced), done.displaced_mtime_ns)
    found = desired.read_version(context, identity, memory, workspace.clock())
    workspace.base.append_journal(found.edits.state)


def remember_written(workspace: Workspace, view: View, memory: Memory, written: Mapping[str, Written]) -> Memory:
    """Note the versions that Redis gave, so that a refilled server goes on counting."""
    versions = dict(memory.versions)
    for agent, answer in written.items():
        versions[agent] = max(versions.get(agent, 0), answer.version)
    epoch = view.live.epoch
    if view.live.up and not epoch:
        epoch = workspace.store.start_epoch(uuid.uuid4().hex)
    after = replace(memory, versions=versions, epoch=epoch or memory.epoch)
    if after != memory:
        workspace.base.save(memory, after, now=view.now)
    return after
