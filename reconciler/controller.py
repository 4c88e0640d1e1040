"""The product: one round that makes files and live memory agree.

    merged  = merge(files, base, live)
    to_live = diff(live, merged)
    to_file = diff(context, merged)

`diff` is its first half (`view.look`), `apply` is it once, `run` is it on triggers; Redis away is the same round
with one replica missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from . import files
from .apply import adopt, collect, remember, remember_written, settle, take_left, write_file, write_live
from .base import Memory
from .conflicts import tell_conflicts
from .errors import Problem, Refused, StoreAway
from .plan import Limit, Plan, deleted_agents, guard, what_moved
from .settings import Settings
from .state import State
from .store import AwayStore, Written
from .view import ALL, Options, Scope, View, look
from .workspace import Workspace

__all__ = ["Options", "Round", "Scope", "reconcile", "reconcile_or_away"]

ATTEMPTS = 5
"""How often a round starts again because a file or a hash changed under it; what is left, the next one does."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did: the plan it carried out, the state that came of it, and what was refused.

    `merged` holds the agents it was about: `names`, None for all but those `resting`, left alone because somebody is
    writing. `again`: the agents that the next round must look at: resting, refused, or moving faster than the round.
    `found`: what is wrong with agents rather than with sources; a round about other agents does not find it again.
    `more`: there are drops that this round has left for the next one.
    """

    plan: Plan
    merged: State
    refused: tuple[str, ...] = ()
    names: frozenset[str] | None = None
    resting: frozenset[str] = frozenset()
    again: frozenset[str] = frozenset()
    found: tuple[Problem, ...] = ()
    more: bool = False

    @property
    def exit_code(self) -> int:
        """3 when a part was quarantined or refused, 5 when Redis is away, else 0."""
        if self.plan.errors or self.refused:
            return 3
        return 0 if self.plan.redis_up else 5


def reconcile(workspace: Workspace, options: Options = Options(), scope: Scope = ALL) -> Round:
    """One round: observe, validate, merge, plan, guard, apply, remember.

    Starts again when a file or a hash changed between being read and being written. The plan returned is the
    first one, which is what a person sees; later attempts only add what happened meanwhile.
    """
    first: Plan | None = None
    resting: frozenset[str] = frozenset()
    if not options.dry:
        collect(workspace)
    for _ in range(ATTEMPTS):
        view = look(workspace, options, scope)
        first = first or view.plan
        if options.dry:
            return Round(first, view.merged)
        if take_left(workspace, view):
            scope = ALL
            view = look(workspace, options, scope)
        check_guards(workspace, view, options)
        resting |= view.resting  # the next attempt does not look at them
        adopted = adopt(workspace, view)
        memory, rewrite = remember(workspace, view, adopted)
        written, late = write_live(workspace, view, memory, adopted)
        moved = write_file(workspace, view, memory, rewrite)
        memory = remember_written(workspace, view, memory, written, late)
        options, scope = replace(options, reviewed=None), replace(scope, agents=None if view.whole else memory.names)
        unsettled = {agent for agent, answer in written.items() if answer.foreign or "o" in answer.flags.lower()}
        if not moved and not unsettled:
            break
    settle(workspace, view)
    if memory.untold and view.live.up:
        tell_conflicts(workspace)
    return _done(view, replace(first or view.plan, problems=view.plan.problems, withheld=view.plan.withheld),
                 memory, written, resting.union(unsettled if not moved else view.merged))  # fmt: skip


def _done(view: View, plan: Plan, memory: Memory, written: Mapping[str, Written], left: frozenset[str]) -> Round:
    refused = {agent: answer.refused for agent, answer in sorted(written.items()) if answer.refused}
    again = left | refused.keys()
    found = tuple(problem for problem in view.plan.problems if problem not in view.desired.problems)
    lines = tuple(f"{agent}: {why}" for agent, why in refused.items())
    names = None if view.whole else memory.names
    return Round(plan, memory.merged, lines, names, view.resting, again, found, view.waiting.more)


def reconcile_or_away(workspace: Workspace, options: Options = Options(), scope: Scope = ALL) -> Round:
    """One round, and on while the spool holds more than one takes in; on files from where Redis goes away."""
    done = _round_or_away(workspace, options, scope)
    while done.more and not options.dry:
        rest = _round_or_away(workspace, replace(options, reviewed=None), Scope(frozenset(), frozenset()))
        plan = replace(done.plan, problems=(*done.plan.problems, *rest.plan.problems), redis_up=rest.plan.redis_up)
        merged = {**done.merged, **rest.merged}
        done = replace(done, plan=plan, merged=merged, refused=(*done.refused, *rest.refused), more=rest.more)
    return done


def _round_or_away(workspace: Workspace, options: Options, scope: Scope) -> Round:
    try:
        return reconcile(workspace, options, scope)
    except StoreAway as error:
        reason = error.with_traceback(None)
    return reconcile(replace(workspace, store=AwayStore(reason)), options, scope)


def check_guards(workspace: Workspace, view: View, options: Options) -> None:
    """Refuse what deletes too much or is not what was reviewed. Raises Refused."""
    if options.reviewed is not None:
        moved = what_moved(options.reviewed, view.plan)
        if moved:
            raise Refused("the plan is not the reviewed one:\n  " + "\n  ".join(moved), hint="review a new diff")
    before = view.memory.merged
    if options.force or not deleted_agents(before, view.merged):
        return
    limit = Limit.parse(options.max_deletes or workspace.settings.max_deletes)
    whole = before if view.memory.names is None else workspace.base.load().merged
    guard(whole, {**whole, **view.merged}, view.pruned, limit)


def back_up(settings: Settings, done: Round) -> None:
    """The day's copy of `context.json`, unless it is there already or the file cannot be read."""
    if settings.backups and settings.context_file.exists() and "context.json" not in str(done.plan.errors):
        folder = settings.folder / "backups"
        files.backup(settings.context_file, folder, datetime.now().astimezone().date(), settings.backups)
