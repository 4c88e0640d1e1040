"""Everything that parses, fed with what nobody meant to write. Few inputs of each here; millions by

    python -m tests.faults.fuzz.storm --seconds 600            (--help tells the rest)

RECONCILER_FUZZ=n gives each target n inputs here, RECONCILER_FUZZ_SEED=n the seed; a test that fails prints its own.
"""

from __future__ import annotations

import os
import sys
import tracemalloc
from random import Random

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.faults.fuzz.bombs import BOMBS, Bomb
from tests.faults.fuzz.inputs import inputs, random_input
from tests.faults.fuzz.more import ALL
from tests.faults.fuzz.storm import at_most, fault_of, smaller
from tests.faults.fuzz.targets import Target

COUNT = int(os.environ.get("RECONCILER_FUZZ", "40"))
SEED = int(os.environ.get("RECONCILER_FUZZ_SEED", "5"))
SLOW = {"cli": 10, "base": 10}
"""How many times fewer inputs these get: each makes a folder."""
MEMORY = 200
"""Bytes that a parser may hold for each byte of its input."""

_by_name = pytest.mark.parametrize("target", ALL, ids=[target.name for target in ALL])


@_by_name
def test_samples_are_read_and_edited_ones_raise_only_what_is_documented(target: Target) -> None:
    """As `storm` does it: the number and the seed of what fails are all it takes to see it again."""
    for sample in target.samples:
        target.check(sample)
    for number in range(COUNT // SLOW.get(target.name, 1)):
        data = random_input(Random(f"{SEED} {target.name} {number}"), target.samples)
        error = fault_of(target.check, data, cpu=20)
        again = f"python -m tests.faults.fuzz.storm --seed {SEED} --only {number} {target.name}"
        assert error is None, f"{data[:300]!r}: {type(error).__name__}: {error}; again: {again}"


@_by_name
def test_bytes_and_documents_of_any_kind_raise_only_what_is_documented(target: Target) -> None:
    """Hypothesis looks for them, and makes what fails small. The seed is in what it prints."""
    examples = max(1, COUNT // SLOW.get(target.name, 1))

    @seed(SEED)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs(target.samples))
    def check(data: bytes) -> None:
        target.check(data)

    sys.stdout.write(f"RECONCILER_FUZZ={COUNT} RECONCILER_FUZZ_SEED={SEED} runs the same inputs\n")
    check()


@pytest.mark.parametrize("bomb", BOMBS, ids=[f"{bomb.target}: {bomb.name}" for bomb in BOMBS])
def test_what_grows_costs_memory_in_proportion_and_comes_to_an_end(bomb: Bomb) -> None:
    """Nesting, aliases, long numbers and long rows of small things. The end is an alarm, so that nothing hangs."""
    check = next(target.check for target in ALL if target.name == bomb.target)
    data = bomb.make(10_000)
    tracemalloc.start()
    try:
        with at_most(30):
            check(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY * len(data) + 5_000_000


def test_what_fails_is_found_and_made_small() -> None:
    """A parser that is wrong about one byte is caught, and one that hangs too."""

    def wrong(data: bytes) -> None:
        assert b"~" not in data

    def hangs(data: bytes) -> None:
        while True:
            pass

    found = (random_input(Random(f"1 {number}"), (b"a: b",)) for number in range(100_000))
    data = next(data for data in found if fault_of(wrong, data) is not None)
    assert smaller(data, lambda shorter: fault_of(wrong, shorter) is not None) == b"~"
    assert fault_of(hangs, b"", cpu=0.05) is not None
