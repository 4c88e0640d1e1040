"""Tier B: simulated histories. Few in `make test`; as many as you like by

    python -m tests.faults.simulated --histories 20000            (--help tells the rest)

RECONCILER_SIMULATED=n plays n of them here, RECONCILER_SIMULATED_SEED=s others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from reconciler.store.redis_store import SCRIPT
from tests.faults.simulated.history import Theatre, plainly, theatre
from tests.faults.simulated.mutants import MUTANTS, Mutant
from tests.faults.simulated.world import Step

COUNT = int(os.environ.get("RECONCILER_SIMULATED", "60"))
SEED = os.environ.get("RECONCILER_SIMULATED_SEED", "1")


@pytest.fixture(scope="module")
def stage() -> Iterator[Theatre]:
    with theatre() as found:
        yield found


def test_nothing_is_lost_whatever_happens_in_whatever_order(stage: Theatre) -> None:
    """Each history is drawn from its seed; one that goes wrong is told with what plays it again, alone."""
    for number in range(COUNT):
        told = stage.play(f"{SEED}:{number}")
        again = f"python -m tests.faults.simulated --seed {SEED} --only {number}"
        assert not told.wrong, "\n".join([again, *told.wrong, plainly(told.steps)])


def test_a_history_is_the_same_each_time_to_the_byte(stage: Theatre) -> None:
    """Every moment, every outcome and the state at the end depend on the seed alone."""
    for number in range(10):
        seed = f"again:{number}"
        assert stage.play(seed).trace == stage.play(seed).trace


FOUND: dict[str, tuple[int, list[Step]]] = {
    "a drop that waited brought a deleted agent back": (
        1, [("drop", 0, "rnd", "s0"), ("delete", 0, "rnd", "s1")],
    ),
    "a drop was in Redis after the round that had deleted it": (
        1, [("away",), ("drop", 0, "mary", "s0"), ("round", 0),
            ("update", 0, "mary", ("context.k2",), "replace", "s1")],
    ),
    "an agent was not deleted a second time": (
        1, [("delete", 0, "gc", "s0"), ("edit", 0, "gc", ("context.k0", "insight"), "says", "s1"), ("tick", 7_000_000),
            ("delete", 0, "gc", "s2")],
    ),
    "a deletion was not told of an agent whose hash somebody had removed": (
        1, [("remove hash", "gc"), ("edit", 0, "gc", ("context.k1",), "remove", "s0")],
    ),
    "a replacement was not told of an agent whose hash somebody had removed": (
        1, [("remove hash", "mary"), ("away",), ("update", 0, "mary", ("context.k0",), "replace", "s0")],
    ),
    "an agent was deleted whose hash somebody had removed": (
        1, [("remove hash", "mary"), ("away",), ("delete", 0, "mary", "s0")],
    ),
    "an agent was deleted in Redis whose hash somebody had removed": (
        1, [("remove hash", "mary"), ("delete", 0, "mary", "s0")],
    ),
    "a removed hash was written by the hub before anybody had put it back": (
        1, [("remove hash", "mary"), ("update", 0, "mary", ("context.k0",), "plain", "s0")],
    ),
    "an older write to a field came back after the agent was deleted a second time": (
        1, [("delete", 0, "gc", "s1"), ("many", 0, ("gc", "mary", "raw"), "s3"), ("tick", 3_000_000),
            ("delete", 0, "gc", "s4"), ("journal", 0, "gc", "context.k0", "s5", 1_900_000_000_255_000)],
    ),
    "a deletion told of an edit that nobody had seen": (
        1, [("edit", 0, "gc", ("status",), "plain", "s9"), ("remove hash", "gc"), ("delete", 0, "gc", "s12")],
    ),
    "a drop between two deletions was in Redis after the round": (
        1, [("skew", 0, 50_000_000), ("drop", 0, "gc", "s23"), ("lose reply",), ("delete", 0, "gc", "s28")],
    ),
    "an agent whose context had been emptied was not put back": (
        1, [("update", 0, "mary", ("status",), "replace", "s4"), ("round", 0), ("remove hash", "mary"),
            ("edit", 0, "mary", ("context.k1",), "plain", "s21")],
    ),
    "an older value that was put back stood above a durable one": (
        2, [("update", 0, "rnd", ("context.k0", "status"), "durable", "s15"), ("tick", 400_000),
            ("update", 0, "rnd", ("context.k0", "status"), "same", "s17"), ("remove hash", "rnd"), ("round", 1)],
    ),
    "a new field in a hash that somebody had removed took the others away": (
        1, [("remove hash", "rnd"), ("update", 0, "rnd", ("insight",), "plain", "s0")],
    ),
    "a durable write after everything was lost was older than what base knew": (
        1, [("skew", 0, 2_000_000), ("edit", 0, "mary", ("context.k0", "insight", "status"), "plain", "s15"),
            ("round", 0), ("update", 0, "mary", ("context.k0", "context.k1"), "same", "s19"), ("round", 0), ("wipe",),
            ("update", 0, "mary", ("context.k1", "context.k2", "status"), "durable", "s23")],
    ),
    "a version of the file that never got there was taken for the one that another write had read": (
        1, [("stop", 0), ("lose reply",), ("away",), ("tick", 61_000_000), ("many", 0, ("gc", "mary", "rnd"), "s7"),
            ("back",), ("raw context", "s10"), ("teach", 0), ("hang",),
            ("update", 0, "rnd", ("context.k0", "insight"), "replace", "s18")],
    ),
}  # fmt: skip
"""What the simulator found, in as few steps as it takes."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(stage: Theatre, name: str) -> None:
    """One history each."""
    assert stage.run(*FOUND[name]).wrong == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_the_program(mutant: Mutant) -> None:
    """One whose line in the script is gone proves nothing: it is told here, before hours of histories."""
    assert mutant.patch is not nullcontext or mutant.script(SCRIPT) != SCRIPT
