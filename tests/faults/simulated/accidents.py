"""More that happens to a workspace: a disk that fills up, a server that hangs, a rollback, a batch, a manifest that
goes, a poisoned key.

Each is a step of `World`, which is a class of its own only because there are many.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reconciler.errors import ReconcilerError
from reconciler.state import encode
from tests.faults import check
from tests.faults.record import Op, Records
from tests.faults.simulated.machine import Machine

if TYPE_CHECKING:
    from tests.faults.simulated.world import Place

POISON, TORN = "memory:agents:poison", "apiVersion: [reconciler/v1\n"


class Accidents:
    """What `World` needs for them is named here."""

    machine: Machine
    records: Records
    places: list[Place]
    cut: bool
    wiped: bool
    robbed: set[str]
    """The agents whose hash somebody removed: what puts it back is told as if nothing had been there, with the stamps
    of what the files knew."""
    founded: set[str]
    """Those that were written before anybody had put them back: Redis does not know what else they had."""
    echoes: set[str]
    """The writes that say what another said before: that a file holds their values proves nothing."""

    if TYPE_CHECKING:

        def begin(self, mark: str, kind: str, agent: str, sets: dict[str, str | None], **more: Any) -> Op: ...
        def found(self, agent: str) -> None: ...
        def undeclare(self, place: Place, agent: str) -> None: ...
        def process(self, number: int) -> AbstractContextManager[Place]: ...

    def do_full(self) -> None:
        """From now on nobody's file finds room; what was there stays."""
        self.machine.full = True

    def do_room(self) -> None:
        self.machine.full = False

    def do_hang(self) -> None:
        """The server takes the next write and does it later, when nobody waits for it any more."""
        self.machine.hangs = self.cut = True

    def do_rollback(self, number: int, agent: str, back: int, mark: str) -> None:
        """Make an agent what it was some versions ago. What that is, the history tells the judge too."""
        if self.machine.away:
            return
        self.found(agent)
        client = self.machine.client
        events = check.History.read(client).events.get(agent, {})
        version = max(events, default=0) - back
        if version not in events:
            return
        then, _ = check.replay({key: event for key, event in events.items() if key <= version})
        known = {name for op in self.records.ops.values() if op.agent == agent for name in op.sets}
        op = self.begin(mark, "rollback", agent, {name: then.get(name) for name in sorted(known)})
        for other in self.places:  # what comes back was in a file before, and is not yet in one again
            other.seen -= {(agent, name, text) for name, text in op.sets.items() if text is not None}
        with self.process(number) as place:
            try:
                done = place.writer().rollback(agent, version)
            except ReconcilerError as error:
                self.records.ops[op.id] = replace(op, end=float("inf"), error=str(error))
                raise
            won = {name: op.sets.get(name) for name in done.won}
            op = replace(op, sets=won, outcome=done.store, end=self.machine.now, at=done.at, version=done.version)
            self.records.ops[op.id] = op

    def do_many(self, number: int, agents: tuple[str, ...], mark: str) -> None:
        """One call that writes several agents."""
        for agent in agents:
            self.found(agent)
        marks = {agent: f"{mark}.{agent}" for agent in agents}
        ops = [self.begin(one, "hub", agent, {"context.k1": encode(one)}) for agent, one in marks.items()]
        with self.process(number) as place:
            updates = {op.agent: {"k1": op.id} for op in ops}
            for op, done in zip(ops, place.writer().update_many(updates), strict=True):
                outcome = "refused" if done.error else done.store
                facts = {"id": op.id, "outcome": outcome, "end": self.machine.now, "at": done.at}
                self.records.take({**facts, "version": done.version, "won": done.won, "stale": done.stale})

    def do_spoil_manifest(self, number: int, agent: str, how: str) -> None:
        """A manifest is `gone`, or `torn`: nothing is deleted, and what it said last still holds."""
        place = self.places[number]
        path = place.settings.manifests / f"{agent}.yaml"
        self.undeclare(place, agent)
        if how == "gone":
            path.unlink(missing_ok=True)
        elif path.exists():
            path.write_text(TORN)

    def do_remove_hash(self, agent: str) -> None:
        """Somebody removes an agent's hash: it is put back, but for what no round has seen."""
        if not self.machine.away:
            self.wiped = True
            self.robbed.add(agent)
            self.machine.client.delete(f"memory:agents:{agent}")

    def do_poison(self) -> None:
        """A key that is no hash, in a place of its own: it is nobody else's business."""
        if not self.machine.away:
            self.machine.client.rpush(POISON, "x")

    def repair(self) -> None:
        """All of it is over."""
        self.machine.full = self.machine.hangs = False
        self.machine.client.delete(POISON)
        for place in self.places:
            for path in place.settings.manifests.glob("*.yaml"):
                if path.read_text() == TORN:
                    path.unlink()
