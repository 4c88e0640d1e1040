"""The product: one round that makes files and live memory agree. Read `reconcile` first.

    merged  = merge(files, base, live)
    to_live = diff(live, merged)
    to_file = diff(context, merged)

`diff` is its first half, `apply` is it once, `run` is it on triggers; Redis away is the same round with one
replica missing. Nothing here reads YAML, speaks to Redis or opens a file: the parts above do.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import files, schema
from .base import Conflict, Memory
from .edits import Version, undo_of
from .errors import InputError, Place, Problem, Refused, StoreAway
from .merge import merge, pin, seeds_only, with_times
from .plan import Change, Content, Limit, Plan, Withheld, diff, guard, make_plan, what_moved
from .settings import Settings
from .sources import context_file, desired
from .sources.context_file import Context
from .sources.desired import Desired
from .sources.manifests import Known
from .stamp import format_time
from .state import CONTEXT, SHARED, Agent, Field, State, decode, encode, record_to_text
from .store import AwayStore, Live, LiveAgent, LiveStore, Put, Write, Written
from .store.layout import restoring
from .workspace import Workspace

ATTEMPTS = 5
"""How often a round starts again because a file or a hash changed under it; what is left, the next one does."""


@dataclass(frozen=True, slots=True)
class Options:
    """How one round is run. `prune`: an agent gone from one side is deleted; `force`: no guard;
    `reviewed`: contents of the plan that alone may be applied (`Plan.contents`)."""

    dry: bool = False
    prune: bool = False
    force: bool = False
    max_deletes: str | None = None
    first_run: str | None = None
    reviewed: tuple[Content, ...] | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One look at every replica, merged and compared."""

    memory: Memory
    desired: Desired
    live: Live
    merged: State
    pruned: frozenset[str]
    clashes: tuple[Problem, ...]
    now: int
    late: tuple[str, ...] = ()
    plan: Plan = field(default_factory=Plan)


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did: the plan it carried out, the state that came of it, and what was refused."""

    plan: Plan
    merged: State
    refused: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """3 when a part was quarantined or refused, 5 when Redis is away, else 0."""
        if self.plan.errors or self.refused:
            return 3
        return 0 if self.plan.redis_up else 5


def reconcile(workspace: Workspace, options: Options = Options()) -> Round:
    """One round: observe, validate, merge, plan, guard, apply, remember.

    Starts again when a file or a hash changed between being read and being written. The plan returned is the
    first one, which is what a person sees; later attempts only add what happened meanwhile.
    """
    first: Plan | None = None
    for _ in range(ATTEMPTS):
        view = look(workspace, options)
        first = first or view.plan
        if options.dry:
            return Round(first, view.merged)
        check_guards(workspace.settings, view, options)
        memory, text = remember(workspace, view)
        written = write_live(workspace.store, view, memory, _oldest(view, workspace.settings))
        moved = write_file(workspace, view, memory, text)
        memory = remember_written(workspace, view, memory, written)
        options = replace(options, reviewed=None)
        if not moved and not any(answer.foreign or "o" in answer.flags.lower() for answer in written.values()):
            break
    refused = tuple(f"{agent}: {answer.refused}" for agent, answer in sorted(written.items()) if answer.refused)
    return Round(_with_problems(first, view.plan), memory.merged, refused)


def reconcile_or_away(workspace: Workspace, options: Options = Options()) -> Round:
    """One round; when Redis goes away in the middle of it, the rest of it on files."""
    try:
        return reconcile(workspace, options)
    except StoreAway as reason:
        return reconcile(replace(workspace, store=AwayStore(reason)), options)


def look(workspace: Workspace, options: Options) -> View:
    """Observe every replica, merge them, and plan what each side must learn."""
    settings = workspace.settings
    now = workspace.clock()
    memory = workspace.base.load()
    wanted = desired.read(settings, memory, now)
    live = workspace.store.observe(memory.merged)
    skew = int(settings.max_skew.total_seconds() * 1_000_000)
    merged, late = join(memory, wanted, live, options.first_run or settings.first_run, skew)
    clashes = _drop_clashes(merged, memory)
    pruned = _pruned(memory, wanted, live) if options.prune else frozenset()
    for agent in pruned:
        merged[agent] = {name: Field(None, max(now, old.at + 1), "prune") for name, old in merged[agent].items()}
    view = View(memory, wanted, live, merged, pruned, tuple(clashes), now, tuple(late))
    return replace(view, plan=compare(settings, view))


def join(
    memory: Memory, wanted: Desired, live: Live, first_run: str, max_skew: int
) -> tuple[dict[str, dict[str, Field]], list[str]]:
    """Every replica merged, policies on top; and the agents whose stamps were in the future.

    On a first run nothing is deleted, and undated values are weak (DESIGN §5.4).
    """
    file_edits: State = wanted.context.edits.state
    declared: State = wanted.declared.edits
    live_state = live.state
    if memory.empty:
        undated = wanted.context.edits.undated | wanted.declared.undated
        file_edits = desired.first_run_edits(file_edits, undated, live_state, first_run)
        declared = desired.first_run_edits(declared, undated, live_state, first_run)
    journal: dict[str, dict[str, Field]] = {}
    for entry in memory.journal:
        journal = merge(journal, {entry.agent: {entry.field: entry.value}})
    ours = merge(memory.merged, journal, file_edits, declared)
    late = _clamp(ours, live, max_skew)
    merged = merge(ours, live_state)
    merged = merge(merged, seeds_only(wanted.declared.seeds, [merged]))
    return with_times(pin(merged, wanted.declared.pins)), late


def _clamp(ours: dict[str, dict[str, Field]], live: Live, max_skew: int) -> list[str]:
    """Stamps further in the server's future than `max_skew` µs become its now, as in the write script: a clock
    that runs ahead cannot freeze a field (DESIGN §4). The agents that had one."""
    if not live.up:
        return []
    latest = live.now + max_skew
    late = [agent for agent, fields in ours.items() if any(value.at > latest for value in fields.values())]
    for agent in late:
        ours[agent] = {
            name: value._replace(at=live.now) if value.at > latest else value for name, value in ours[agent].items()
        }
    return sorted(late)


def _drop_clashes(merged: dict[str, dict[str, Field]], memory: Memory) -> list[Problem]:
    """Agents whose names differ only in case: the known one stays, the others are quarantined."""
    by_lower: dict[str, list[str]] = {}
    for agent in merged:
        by_lower.setdefault(agent.lower(), []).append(agent)
    problems = []
    for names in by_lower.values():
        kept, *others = sorted(names, key=lambda name: (name not in memory.merged, name))
        for name in others:
            del merged[name]
            message = f"agent {name} differs from agent {kept} only in its letters' case"
            problems.append(Problem(Place(name), message, "rename one of them", agent=name))
    return problems


def _pruned(memory: Memory, wanted: Desired, live: Live) -> frozenset[str]:
    """The agents that some side had and has no more; a side that cannot be read has lost nothing."""
    gone: set[str] = set(wanted.context.edits.gone)
    if wanted.context.emptied:
        gone |= {agent for agent in memory.file if not agent.startswith("@")}
    gone |= set(_gone_from_manifests(memory, wanted))
    gone |= set(_gone_from_redis(memory, live))
    return frozenset(agent for agent in gone if agent != SHARED and _alive(memory.merged.get(agent, {})))


def _gone_from_manifests(memory: Memory, wanted: Desired) -> list[str]:
    """The agents that had a manifest and have none now, and are still there."""
    if wanted.loaded.broken:
        return []
    gone = memory.manifests.fields.keys() - wanted.loaded.manifests.keys()
    return sorted(agent for agent in gone if agent != SHARED and _alive(memory.merged.get(agent, {})))


def _gone_from_redis(memory: Memory, live: Live) -> list[str]:
    """The agents that Redis had once and lacks now."""
    if not live.up:
        return []
    quarantined = {problem.agent for problem in live.problems}
    return sorted(
        agent
        for agent, fields in memory.merged.items()
        if memory.versions.get(agent) and _alive(fields) and agent not in quarantined
        and (agent not in live.agents or live.agents[agent].gone)
    )  # fmt: skip


def _alive(agent: Agent) -> bool:
    return any(value.text is not None for value in agent.values())


def compare(settings: Settings, view: View) -> Plan:
    """The plan: one diff for each side, less what must not be written now."""
    live, wanted = view.live, view.desired
    problems = [*wanted.problems, *live.problems, *view.clashes]
    to_live = diff(live.state, view.merged, "redis") if live.up else []
    to_file = diff(wanted.context.state, view.merged, "file")
    broken = _check_contexts(settings, wanted, view.merged, problems)
    held: list[Withheld] = []
    changes = [change for change in to_live if _allowed(change, _live_block(change, live, broken), held)]
    changes += [change for change in to_file if _allowed(change, _file_block(change, wanted, broken), held)]
    return make_plan(changes, withheld=held, notes=_notes(view), problems=problems, redis_up=live.up)


def _allowed(change: Change, reason: str, held: list[Withheld]) -> bool:
    if reason:
        held.append(Withheld(change.agent, change.field, change.direction, reason))
    return not reason


def _live_block(change: Change, live: Live, broken: Mapping[str, str]) -> str:
    if change.agent in broken and change.field.startswith(CONTEXT):
        return broken[change.agent]
    found = live.agents.get(change.agent)
    if found is None:
        quarantined = any(problem.agent == change.agent for problem in live.problems)
        return "its key in Redis is quarantined" if quarantined else ""
    name = "context" if change.field.startswith(CONTEXT) else change.field
    return f"{name} in Redis cannot be read" if name in found.broken else ""


def _file_block(change: Change, wanted: Desired, broken: Mapping[str, str]) -> str:
    if change.agent in broken and change.field.startswith(CONTEXT):
        return broken[change.agent]
    if "" in wanted.unreadable:
        return "context.json cannot be read"
    return "its record in context.json cannot be read" if change.agent in wanted.unreadable else ""


def _check_contexts(settings: Settings, wanted: Desired, merged: State, problems: list[Problem]) -> dict[str, str]:
    """Hold each context against the schema its manifest names; the agents that break it, and why."""
    broken: dict[str, str] = {}
    checks: dict[Path, schema.ContextCheck] = {}
    for agent, manifest in wanted.loaded.manifests.items():
        if manifest.context_schema is None or agent not in merged:
            continue
        place = Place(manifest.path, manifest.line, 1)
        path = (settings.manifests_base / manifest.path).parent / manifest.context_schema
        try:
            if path not in checks:
                found = files.read(path, 1 << 20)
                if found is None:
                    raise InputError(Problem(place, f"contextSchema {manifest.context_schema} does not exist"))
                checks[path] = schema.ContextCheck(found[0].decode("utf-8", "replace"), str(path))
            context = decode(record_to_text(_context_of(merged[agent]))).get("context", {})
            wrong = [
                Problem(
                    place,
                    f"context breaks {manifest.context_schema}: {message}",
                    path=schema.dotted(steps),
                    agent=agent,
                )
                for steps, message in checks[path].check(context)
            ]
        except InputError as error:
            wrong = [problem.about(agent) for problem in error.problems]
        if wrong:
            problems += wrong
            broken[agent] = f"its context breaks {manifest.context_schema}"
    return broken


def _context_of(agent: Agent) -> dict[str, str]:
    return {name: value.text for name, value in agent.items()
            if name.startswith(CONTEXT) and value.text is not None}  # fmt: skip


def _notes(view: View) -> list[str]:
    """What a person should know beside the changes: who was gone, and from where."""
    memory, wanted, live, pruned = view.memory, view.desired, view.live, view.pruned
    notes = []
    lost = _gone_from_redis(memory, live)
    if lost:
        wiped = memory.epoch and live.epoch != memory.epoch
        what = "Redis was wiped or restored" if wiped else "gone from Redis"
        notes.append(_note(what, [agent for agent in lost if agent not in pruned]))
    if wanted.context.emptied:
        notes.append("context.json was lost or emptied: it is written anew from the last good state")
    notes.append(_note("gone from context.json", [a for a in wanted.context.edits.gone if a not in pruned]))
    dropped = [agent for agent in _gone_from_manifests(memory, wanted) if agent not in pruned]
    notes.append(_note("gone from the manifests", dropped, "kept"))
    if wanted.context.edits.stale:
        notes.append(f"old copies in context.json, put right: {_some(wanted.context.edits.stale)}")
    if pruned:
        notes.append(f"pruned, because one side lacks them: {_some(sorted(pruned))}")
    if view.late:
        notes.append(f"stamps in Redis' future became its now; is this machine's clock ahead? {_some(view.late)}")
    if memory.journal:
        notes.append(f"{len(memory.journal)} writes from while Redis was away are merged")
    return [note for note in notes if note]


def _note(what: str, agents: list[str], done: str = "restored") -> str:
    return f"{what}: {_some(agents)}: {done} (--prune deletes instead)" if agents else ""


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def check_guards(settings: Settings, view: View, options: Options) -> None:
    """Refuse what deletes too much or is not what was reviewed. Raises Refused."""
    if options.reviewed is not None:
        moved = what_moved(options.reviewed, view.plan)
        if moved:
            raise Refused("the plan is not the reviewed one:\n  " + "\n  ".join(moved), hint="review a new diff")
    if not options.force:
        limit = Limit.parse(options.max_deletes or settings.max_deletes)
        guard(view.memory.merged, view.merged, view.pruned, limit)


def remember(workspace: Workspace, view: View) -> tuple[Memory, str | None]:
    """Commit what is about to be written, and the text `context.json` will have (None: it stays as it is).

    Before the writes, so that a crash between them is told from an edit: a file that still holds the older
    version is then a carry-over, put right by the next round.
    """
    before, source = view.memory, view.desired.context
    changes = view.plan.towards("file")
    text: str | None = None
    state, versions = source.state, list(source.versions)
    if "" in view.desired.unreadable:
        state = before.file
    elif changes or source.identity is None:
        text = _render(workspace.settings, view, changes)
        context = desired.parse(workspace.settings, text.encode())
        state = desired.file_state(context.values, view.merged)
        state |= desired.standing_in(context, before)
        replaced = before.file if source.emptied else source.state
        versions.append(Version(view.now, True, undo_of(replaced, state)))
    after = Memory(
        merged=_keep(view, workspace.settings),
        versions=_versions(before, view.live),
        file=state,
        clean=source.clean if text is None else None,
        manifests=Known(view.desired.loaded.files, view.desired.declared.fields),
        epoch=view.live.epoch or before.epoch,
        empty=False,
    )
    if _differs(before, after) or versions:
        conflicts = _conflicts(view)
        files.private_folder(workspace.settings.folder)
        workspace.base.save(before, after, now=view.now, new_versions=versions, conflicts=conflicts)
    return after, text


def _render(settings: Settings, view: View, changes: Mapping[str, Mapping[str, Change]]) -> str:
    context = view.desired.context.context or _read_again(settings)
    return context_file.render(context, changes, view.merged, encode(format_time(view.now)))


def _read_again(settings: Settings) -> Context:
    """The file that was not read because it had not changed; if it has by now, the swap will find out."""
    found = files.read(settings.context_file, context_file.MAX_BYTES)
    return desired.parse(settings, found[0] if found else context_file.NEW.encode())


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


def write_live(store: LiveStore, view: View, memory: Memory, oldest: float) -> dict[str, Written]:
    """Adopt raw writes, then write what Redis must learn; what came of it, by agent."""
    if not view.live.up:
        return {}
    changes = view.plan.towards("redis")
    adoptions = [
        Write(agent, found.raw + expired, floor=memory.versions.get(agent, 0), seen=found.seen)
        for agent, found in sorted(view.live.agents.items())
        if (expired := _expired(found, oldest)) or found.raw or found.foreign
    ]
    answers = dict(zip((write.agent for write in adoptions), store.write(adoptions), strict=True))
    writes = [
        _write(agent, fields, view.live.agents.get(agent, LiveAgent()), memory.versions.get(agent, 0))
        for agent, fields in sorted(changes.items())
        if not answers.get(agent, Written()).refused
    ]
    return answers | dict(zip((write.agent for write in writes), store.write(writes), strict=True))


def _write(agent: str, changes: Mapping[str, Change], live: LiveAgent, floor: int) -> Write:
    puts = tuple(Put(change.field, change.new, change.at, change.by) for change in changes.values())
    seen = live.seen if live.gone else {}
    return Write(agent, restoring(live, puts), floor=floor, seen=seen)


def write_file(workspace: Workspace, view: View, memory: Memory, text: str | None) -> bool:
    """Put the new `context.json` in place; whether the round must start again because the file moved."""
    if text is None:
        return False
    path = workspace.settings.context_file
    path.parent.mkdir(exist_ok=True)
    try:
        done = files.replace(path, text.encode(), view.desired.context.identity)
    except files.Moved:
        source = view.desired.context
        workspace.base.unwrite(memory, view.memory.file if source.emptied else source.state)
        return True
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


def _with_problems(first: Plan | None, last: Plan) -> Plan:
    assert first is not None
    return replace(first, problems=last.problems, withheld=last.withheld)
