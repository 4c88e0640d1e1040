"""One look at every replica: observed, merged, and compared into a plan. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import files, schema
from .base import Memory, part
from .bulk import making_many
from .errors import InputError, Place, Problem
from .inbox import announced
from .merge import merge, pin, seeds_only, with_times
from .plan import Change, Content, Plan, Withheld, diff, make_plan
from .settings import Settings
from .sources import desired
from .sources.desired import Desired, Reading
from .sources.manifests import Manifest
from .spool import NOTHING, Waiting
from .state import CONTEXT, SHARED, Agent, Field, State, decode, record_to_text, same_text
from .store import Live
from .store.layout import lost_text
from .workspace import Workspace


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
class Scope:
    """What a round is about beside what the files say anew. `agents`: those written in Redis, None for all;
    `paths`: the manifest files that may have changed, None for all; `resting`: agents somebody wrote a moment ago:
    raw writes to them wait, unless a file says something new about them too."""

    agents: frozenset[str] | None = None
    paths: frozenset[str] | None = None
    resting: frozenset[str] = frozenset()


ALL = Scope()


@dataclass(frozen=True, slots=True)
class View:
    """One look at the replicas, merged and compared. `memory.names`: the agents it is about, None for all;
    `resting`: those left out because somebody is still writing; `whole`: it is about all but these."""

    memory: Memory
    desired: Desired
    live: Live
    merged: State
    pruned: frozenset[str]
    clashes: tuple[Problem, ...]
    now: int
    late: tuple[str, ...] = ()
    waiting: Waiting = NOTHING
    resting: frozenset[str] = frozenset()
    whole: bool = True
    plan: Plan = field(default_factory=Plan)

    @property
    def is_only_live(self) -> bool:
        """Whether Redis alone says anything: it has nothing to learn, and no file, journal or drop has a part in it."""
        memory, context = self.memory, self.desired.context
        known = self.live.up and self.live.epoch == memory.epoch and not (memory.empty or memory.journal)
        said = context.edits.state or context.versions or context.emptied or self.desired.declared.edits
        owing = self.plan.towards("redis") or self.plan.withheld or memory.unlearnt
        return known and not (said or owing or self.waiting.state or self.pruned)


@making_many()
def look(workspace: Workspace, options: Options, scope: Scope = ALL) -> View:
    """Observe the replicas, merge them, and plan what each side must learn."""
    settings = workspace.settings
    memory = workspace.base.load() if scope.agents is not None else workspace.base.load().unpacked()
    reading = workspace.sources.read(settings, memory, workspace.clock, scope.paths)
    now = workspace.clock()  # not before: a file that was saved meanwhile is none of the future
    waiting = _waiting(workspace, options, memory, now)
    if reading.touched is not None:
        reading = replace(reading, touched=reading.touched | waiting.agents)
    memory, live, resting, whole = _observe(workspace, memory, reading, scope)
    dropped = waiting.state if memory.names is None else part(waiting.state, memory.names)
    wanted = replace(desired.desire(reading, memory, now), dropped=dropped)
    merged, late = join(settings, memory, wanted, live, options.first_run or settings.first_run)
    clashes = _drop_clashes(merged, memory)
    pruned = _pruned(memory, wanted, live) if options.prune else frozenset()
    for agent in pruned:
        merged[agent] = {name: Field(None, max(now, old.at + 1), "prune") for name, old in merged[agent].items()}
    view = View(memory, wanted, live, merged, pruned, tuple(clashes), now, tuple(late), waiting, resting, whole)
    return replace(view, plan=compare(settings, view))


def _waiting(workspace: Workspace, options: Options, memory: Memory, now: int) -> Waiting:
    """What hooks dropped; for those who only look, with what lies in the inbox and is on its way there."""
    if workspace.spool is None:
        return NOTHING
    waiting = workspace.spool.look(now)
    if options.dry and workspace.inbox is not None:
        return announced(waiting, workspace.inbox.look(memory.merged.keys, now))
    return waiting


def _observe(
    workspace: Workspace, memory: Memory, reading: Reading, scope: Scope
) -> tuple[Memory, Live, frozenset[str], bool]:
    """What is remembered and what is live of the agents that this round is about, the resting ones left out, and
    whether it is about all the others.

    It is about all of them when anybody may have changed: a server that was wiped, a new name that may be a
    known one in other letters.
    """
    names = None if scope.agents is None or reading.touched is None else scope.agents | reading.touched
    live = workspace.store.observe(memory.merged, names)
    if names is not None and (_is_new(names, memory) or (live.up and live.epoch != memory.epoch)):
        names, live = None, workspace.store.observe(memory.merged)
    memory = memory if names is not None else memory.unpacked()
    whole, touched = names is None, reading.touched if reading.touched is not None else scope.resting
    resting = frozenset(name for name in scope.resting - touched
                        if name in live.agents and (live.agents[name].raw or live.agents[name].foreign))  # fmt: skip
    if resting:
        if names is None:
            known = memory.merged.keys() | memory.file.keys() | memory.manifests.fields.keys() | live.agents.keys()
            named = reading.context.state.keys() | reading.loaded.manifests.keys() | touched
            names = frozenset(known | named)
        names -= resting
        live = replace(live, agents={name: found for name, found in live.agents.items() if name in names})
    if names is not None:
        memory = memory.only(names, reading.loaded.files if reading.paths is None else reading.paths)
    return memory, live, resting, whole


def _is_new(names: frozenset[str], memory: Memory) -> bool:
    """Whether one of these may be a known agent's name in other letters: of those that are not there, or are again."""
    new = {name for name in names if not _alive(memory.merged.get(name, {}))}
    lower = {name.lower() for name in new}
    return bool(new) and any(name.lower() in lower and name not in new for name in memory.merged)


def join(
    settings: Settings, memory: Memory, wanted: Desired, live: Live, first_run: str
) -> tuple[dict[str, dict[str, Field]], list[str]]:
    """Every replica merged, policies on top; and the agents whose stamps were in the future.

    On a first run nothing is deleted, and undated values are weak (DESIGN §5.4).
    """
    file_edits = without_local(settings, wanted.context.edits.state)
    declared: State = wanted.declared.edits
    live_state = live.state
    if memory.empty:
        undated = wanted.context.edits.undated | wanted.declared.undated
        file_edits = desired.first_run_edits(file_edits, undated, live_state, first_run)
        declared = desired.first_run_edits(declared, undated, live_state, first_run)
    journal: dict[str, dict[str, Field]] = {}
    for entry in memory.journal:
        journal = merge(journal, {entry.agent: {entry.field: entry.value}})
    ours = merge(memory.merged, journal, file_edits, declared, wanted.dropped)
    late = _clamp(ours, live, int(settings.max_skew.total_seconds() * 1_000_000))
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
    """Agents whose names differ only in case: the known one stays, the others are quarantined. Of one that was deleted
    nothing is left that another could be mistaken for."""
    by_lower: dict[str, list[str]] = {}
    for agent in merged:
        by_lower.setdefault(agent.lower(), []).append(agent)
    problems = []
    for names in by_lower.values():
        if len(names) == 1:
            continue
        known = {name: _alive(memory.merged.get(name, {})) for name in names}
        kept, *others = sorted(names, key=lambda name: (not _alive(merged[name]), not known[name], name))
        for name in others:
            if not _alive(merged[name]) and name in memory.merged:  # it was deleted
                continue
            if not _alive(merged.pop(name)):  # its hash is gone again: only a sidecar is left
                continue
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
    problems = [*wanted.problems, *view.waiting.problems, *live.problems, *view.clashes]
    shared = without_local(settings, view.merged)
    to_live = diff(_with_gone(_with_drops(live.state, view), view), shared, "redis") if live.up else []
    to_file = diff(wanted.context.state, shared, "file")
    broken = _check_contexts(settings, wanted, view.merged, problems)
    held: list[Withheld] = []
    changes = [change for change in to_live if _allowed(change, _live_block(change, live, broken), held)]
    changes += [change for change in to_file if _allowed(change, _file_block(change, wanted, broken), held)]
    return make_plan(changes, withheld=held, notes=_notes(view), problems=problems, redis_up=live.up)


def _with_drops(live: State, view: View) -> State:
    """What Redis will hold of the agents that have drops: each is written before the changes are. Only where Redis has
    the right value before them, and loses it to one of them, is that seen; else the changes tell it anyway."""
    seen: dict[str, Agent] = {}
    for agent, dropped in view.waiting.state.items():
        here, merged = live.get(agent, {}), view.merged.get(agent, {})
        nothing = Field(None, 0, "")
        wrong = {
            name: value
            for name, value in dropped.items()
            if name in merged and not same_text(merged[name].text, value.text)
            and same_text((there := here.get(name, nothing)).text, merged[name].text) and there.order() < value.order()
        }  # fmt: skip
        if wrong:
            seen[agent] = {**here, **wrong}
    return {**live, **seen} if seen else live


def _with_gone(live: State, view: View) -> State:
    """What Redis held of the agents whose hash somebody removed, as far as it was deleted since: it must hear of that,
    though nothing is there, for its history still tells of the value."""
    seen: dict[str, dict[str, Field]] = {}
    for agent, found in view.live.agents.items():
        merged, known = view.merged.get(agent, {}), view.memory.merged.get(agent, {})
        for put in found.gone:
            won = merged.get(put.field)
            if won is not None and won.text is None and put.at is not None and (won.at, won.by) > (put.at, put.by):
                lost = Field(lost_text(put, known.get(put.field)), put.at, put.by)
                seen.setdefault(agent, dict(live[agent]))[put.field] = lost
    return {**live, **seen} if seen else live


def without_local(settings: Settings, state: State) -> State:
    """A state without the sections that describe this machine: they neither leave its file nor come into it."""
    if not state.get(SHARED, {}).keys() & set(settings.local_sections):
        return state
    kept = {name: value for name, value in state[SHARED].items() if name not in settings.local_sections}
    return {**state, SHARED: kept}


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
    checks: dict[tuple[Path, str], schema.ContextCheck] = {}
    for agent, manifest in wanted.loaded.manifests.items():
        if manifest.context_schema is None or agent not in merged:
            continue
        place = Place(manifest.path, manifest.line, 1)
        where = Path(manifest.path).parent, manifest.context_schema
        try:
            if where not in checks:
                checks[where] = context_check(settings.manifests_base, manifest)
            context = decode(record_to_text(_context_of(merged[agent]))).get("context", {})
            wrong = [
                Problem(
                    place,
                    f"context breaks {manifest.context_schema}: {message}",
                    path=schema.dotted(steps),
                    agent=agent,
                )
                for steps, message in checks[where].check(context)
            ]
        except InputError as error:
            wrong = [problem.about(agent) for problem in error.problems]
        if wrong:
            problems += wrong
            broken[agent] = f"its context breaks {manifest.context_schema}"
    return broken


def context_check(base: Path, manifest: Manifest) -> schema.ContextCheck:
    """The schema that a manifest names for its agent's context; `base`: what its own path is relative to. Raises
    InputError."""
    assert manifest.context_schema is not None
    path = (base / manifest.path).parent / manifest.context_schema
    found = files.read(path, 1 << 20)
    if found is None:
        place = Place(manifest.path, manifest.line, 1)
        raise InputError(Problem(place, f"contextSchema {manifest.context_schema} does not exist"))
    return schema.ContextCheck(found[0].decode("utf-8", "replace"), str(path))


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
        count = len(memory.journal)
        notes.append(f"{count} write{'s are' if count != 1 else ' is'} merged that waited in the journal")
    if view.waiting.new:
        count = len(view.waiting.new)
        notes.append(f"{count} drop{'s are' if count != 1 else ' is'} taken in that waited in the spool")
    return [note for note in notes if note]


def _note(what: str, agents: list[str], done: str = "restored") -> str:
    return f"{what}: {_some(agents)}: {done} (--prune deletes instead)" if agents else ""


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
