"""Tier B: simulated histories. Few in `make test`; as many as you like by

    python -m tests.faults.simulated --histories 20000            (--help tells the rest)

RECONCILER_SIMULATED=n plays n of them here, RECONCILER_SIMULATED_SEED=s others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults.simulated.history import Theatre, plainly, theatre
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
}  # fmt: skip
"""What the simulator found, in as few steps as it takes."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(stage: Theatre, name: str) -> None:
    """One history each."""
    assert stage.run(*FOUND[name]).wrong == []
