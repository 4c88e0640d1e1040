"""Defects planted in the program, each of which the simulated histories must find: a judge that cannot fail proves
nothing.

    python -m tests.faults.simulated.mutants              (--histories: how many each may take; names: only these)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from reconciler import apply, controller, files, hub, merge, plan, view
from reconciler.base import Base
from reconciler.edits import Reference
from reconciler.spool import Spool
from reconciler.state import Field
from reconciler.store import AwayStore
from reconciler.store.layout import _Reader
from tests.faults.simulated.history import theatre

Patch = Callable[[], AbstractContextManager[object]]


class Mutant(NamedTuple):
    """A defect: of the Python code (`patch`), or of the write script (`script`)."""

    name: str
    patch: Patch = nullcontext
    script: Callable[[str], str] = lambda text: text


class Caught(NamedTuple):
    """The first history that went wrong, and the rule it broke; 0 histories: none did."""

    mutant: str
    histories: int
    rule: str


def catch(number: int, seed: str, most: int) -> Caught:
    """Play histories with the mutant of this number until one goes wrong."""
    mutant = MUTANTS[number]
    with theatre(mutant.script) as stage, mutant.patch():
        for played in range(most):
            try:
                wrong = stage.play(f"{seed}:{played}").wrong
            except Exception as error:  # the judge stumbles over what the mutant made: found all the same
                if traceback.extract_tb(error.__traceback__)[-1].filename == __file__:
                    raise  # it is the mutant that stumbled, and nobody found it
                wrong = [f"{type(error).__name__}: {error}"]
            if wrong:
                return Caught(mutant.name, played + 1, wrong[0].partition(":")[0])
    return Caught(mutant.name, 0, "")


def _in(where: Any, name: str, new: Any) -> Patch:
    return lambda: mock.patch.object(where, name, new)


def _script(name: str, old: str, new: str) -> Mutant:
    def changed(script: str) -> str:
        assert old in script, f"the script has no {old!r} any more"
        return script.replace(old, new)

    return Mutant(name, script=changed)


# Each of these stands in for a function of the program, and does less, or something else, than it should.

_keep, _read, _save, _merge, _diff = apply._keep, files.read, Base.save, merge.merge, plan.diff
_add, _take_raw, _write_live = Spool._add, _Reader._take_raw, apply.write_live


def _without_tombstones(view_: Any, settings: Any) -> Any:
    kept = _keep(view_, settings)
    return {name: {key: f for key, f in agent.items() if f.text is not None} for name, agent in kept.items()}


def _fields_vanish(path: Path | str, limit: int) -> Any:
    """What cannot be parsed is read as a file whose records are empty."""
    found = _read(path, limit)
    if found is None or Path(path).name != "context.json":
        return found
    try:
        json.loads(found[0])
    except ValueError:
        agents: dict[str, dict[str, str]] = {name: {} for name in ("mary", "rnd", "gc", "raw")}
        return json.dumps({"agents": agents}).encode(), found[1]
    return found


@contextmanager
def _no_fsync() -> Iterator[None]:
    real = os.fsync

    def only_folders(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            real(fd)

    with mock.patch.object(os, "fsync", only_folders):
        yield


def _loses_journal(self: Base, state: Any) -> None:
    return None


def _forgets_versions(self: Base, *args: Any, **more: Any) -> None:
    _save(self, *args, **{**more, "new_versions": ()})


def _from_the_latest(self: Reference, found: Any, seen: Any) -> Any:
    self._undone = {}
    return set(self._differing(found))


def _at_once(self: Spool, drop: Any) -> None:
    _add(self, drop)
    (self.folder / self._files[drop.name]).unlink(missing_ok=True)


def _raw_is_old(self: _Reader, name: str, text: str | None) -> None:
    _take_raw(self, name, text)
    self.fields[name] = self.fields[name]._replace(at=1)
    self.raw[-1] = self.raw[-1]._replace(at=1)


def _no_refill(replica: Any, merged: Any, direction: Any) -> Any:
    return [c for c in _diff(replica, merged, direction) if direction == "file" or c.agent in replica]


def _beats(workspace: Any, *more: Any) -> Any:
    if not isinstance(workspace.store, AwayStore):
        workspace.store.client.hset("memory:hub", "beat", str(random.random()))
    return _write_live(workspace, *more)


def _not_mirrored(workspace: Any, seen: Any, memory: Any, rewrite: Any) -> bool:
    return False


def _merged_wrong(*replicas: Any) -> Any:
    with mock.patch.object(merge, "merge_agent", _older):
        return _merge(*replicas)


def _older(one: Mapping[str, Field], other: Mapping[str, Field]) -> dict[str, Field]:
    joined = dict(one)
    for name, field in other.items():
        if name not in joined or joined[name].order() > field.order():
            joined[name] = field
    return joined


MUTANTS = (
    Mutant("no fsync of a new context.json", _no_fsync),
    Mutant("tombstones are not remembered", _in(apply, "_keep", _without_tombstones)),
    Mutant("of two writes the older one wins", _in(view, "merge", _merged_wrong)),
    Mutant("an unreadable context.json counts as empty records", _in(files, "read", _fields_vanish)),
    Mutant("the journal keeps nothing", _in(Base, "append_journal", _loses_journal)),
    Mutant("versions of context.json are not remembered", _in(Base, "save", _forgets_versions)),
    Mutant("a stale copy is taken for an edit", _in(Reference, "choose", _from_the_latest)),
    Mutant("a drop is removed when it is read", _in(Spool, "_add", _at_once)),
    Mutant("a raw write is stamped older than what it replaced", _in(_Reader, "_take_raw", _raw_is_old)),
    Mutant("a server that lost an agent is not refilled", _in(view, "diff", _no_refill)),
    Mutant("a round with nothing to do writes", _in(controller, "write_live", _beats)),
    Mutant("context.json is not written", _in(controller, "write_file", _not_mirrored)),
    Mutant("a deletion does not know what waits in files", _in(hub.UnifiedMemoryHub, "_said", lambda self, agent: {})),
    Mutant("what deleted a drop's keys is not written after it", _in(view, "_with_drops", lambda live, view: live)),
    _script("a partial update drops the other keys",
            "pieces[#pieces + 1] = sub(context, from)", "pieces[#pieces + 1] = '\\n}'"),
    _script("the version is not counted", "format('%d', version + 1)", "format('%d', version)"),
    _script("the version is counted twice", "tonumber(floor) or 0) + 1", "tonumber(floor) or 0) + 2"),
    _script("an event is sent twice",
            "local all, own = redis", "redis.pcall('PUBLISH', channel, event) local all, own = redis"),
    _script("no event is sent", "redis.pcall('PUBLISH', channel, event), redis", "1, redis"),
    _script("the history has gaps", "if event and ARGV[6] ~= '0' then", "if event and #event % 3 > 0 then"),
    _script("an older write wins", "if at < entry.at then return 'o' end", ""),
    _script("an older deletion deletes",
            "if at < entry.at then return 'o' end", "if at < entry.at and kind ~= 'x' then return 'o' end"),
    _script("an equal value counts as a change",
            "or 'delete', json ~= current", "or 'delete', true"),
    _script("the tie-break is the other way round",
            "if below(by, entry.by) then return 'o' end", "if not below(by, entry.by) then return 'o' end"),
    _script("what somebody else wrote is not looked at", "if actual ~= expected then", "if false then"),
    _script("the short way overwrites what somebody else wrote",
            "not find(entry, '^%d+ ' .. kind .. ' ' .. sub(digest(old), 1, 16))", "false"),
)  # fmt: skip


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.faults.simulated.mutants", description=__doc__)
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--histories", type=int, default=10_000)
    arguments.add_argument("--seed", default=str(random.randrange(1 << 32)))
    chosen = arguments.parse_args()
    missed = 0
    numbers = [number for number, mutant in enumerate(MUTANTS)
               if not chosen.names or any(name in mutant.name for name in chosen.names)]  # fmt: skip
    with ProcessPoolExecutor(os.cpu_count()) as players:
        for caught in players.map(partial(catch, seed=chosen.seed, most=chosen.histories), numbers):
            missed += not caught.histories
            sys.stdout.write(
                f"{caught.mutant}: {caught.rule or 'MISSED'} after {caught.histories or chosen.histories}\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"seed={chosen.seed} mutants={len(numbers)} missed={missed}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
