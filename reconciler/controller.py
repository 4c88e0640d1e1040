"""The product: one round that makes files and live memory agree.

    merged  = merge(files, base, live)
    to_live = diff(live, merged)
    to_file = diff(context, merged)

`diff` is its first half (`view.look`), `apply` is it once, `run` is it on triggers; Redis away is the same round
with one replica missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .apply import remember, remember_written, write_file, write_live
from .errors import Refused, StoreAway
from .plan import Limit, Plan, guard, what_moved
from .settings import Settings
from .state import State
from .store import AwayStore
from .view import Options, View, look
from .workspace import Workspace

__all__ = ["Options", "Round", "reconcile", "reconcile_or_away"]

ATTEMPTS = 5
"""How often a round starts again because a file or a hash changed under it; what is left, the next one does."""


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
        written = write_live(workspace, view, memory)
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


def check_guards(settings: Settings, view: View, options: Options) -> None:
    """Refuse what deletes too much or is not what was reviewed. Raises Refused."""
    if options.reviewed is not None:
        moved = what_moved(options.reviewed, view.plan)
        if moved:
            raise Refused("the plan is not the reviewed one:\n  " + "\n  ".join(moved), hint="review a new diff")
    if not options.force:
        limit = Limit.parse(options.max_deletes or settings.max_deletes)
        guard(view.memory.merged, view.merged, view.pruned, limit)


def _with_problems(first: Plan | None, last: Plan) -> Plan:
    assert first is not None
    return replace(first, problems=last.problems, withheld=last.withheld)
