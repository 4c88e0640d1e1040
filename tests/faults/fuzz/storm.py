"""Fuzz in millions: `python -m tests.faults.fuzz.storm --help` tells how.

    python -m tests.faults.fuzz.storm                      each target for a minute, with a seed of its own
    python -m tests.faults.fuzz.storm --inputs 10000000 context drop       so many inputs, of these targets
    python -m tests.faults.fuzz.storm --seed 7 --only 1234 context         one input of a run, again
    python -m tests.faults.fuzz.storm --atheris context              guided by coverage, if atheris is installed

Input n of a run depends on the seed, the target and n alone. Each kind of finding is made small and printed once, as
bytes that a test can hold; the exit code is 1 if there was one. An input that takes more CPU than `--cpu` seconds is a
finding too.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType, FunctionType

from tests.faults.fuzz.inputs import random_input
from tests.faults.fuzz.more import ALL
from tests.faults.fuzz.targets import Target


class TooSlow(BaseException):
    """An input took more CPU than any may; no handler of the program may swallow this."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TooSlow inside when so many seconds of this process's CPU went by."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def fault_of(check: Callable[[bytes], None], data: bytes, cpu: float = 2) -> BaseException | None:
    """What goes wrong with one input."""
    try:
        with at_most(cpu):
            check(data)
    except (Exception, TooSlow) as error:
        return error
    return None


def kind_of(error: BaseException) -> str:
    """Two findings of one kind have one cause, more or less: the error, and the last lines it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "reconciler" in frame.filename or "fuzz" in frame.filename]
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(ours[-2:]))
    return type(error).__name__ if isinstance(error, TooSlow) else f"{type(error).__name__} in {where}"


def smaller(data: bytes, still: Callable[[bytes], bool], tries: int = 3_000) -> bytes:
    """Cut out whatever can go, in ever smaller pieces."""
    size = len(data) // 2
    while size and tries:
        at, cut = 0, False
        while at < len(data) and tries:
            tries -= 1
            shorter = data[:at] + data[at + size :]
            if still(shorter):
                data, cut = shorter, True
            else:
                at += size
        size = size if cut and size == 1 else size // 2
    return data


def run(target: Target, seed: int, numbers: Iterator[int], cpu: float) -> Counter[str]:
    """Feed a target; the findings by kind. `numbers` says which inputs, and when it is enough."""
    found: Counter[str] = Counter()
    count, begun = 0, time.monotonic()
    for number in numbers:
        count += 1
        data = random_input(Random(f"{seed} {target.name} {number}"), target.samples)
        error = fault_of(target.check, data, cpu)
        if error is None:
            continue
        kind = kind_of(error)
        found[kind] += 1
        if found[kind] == 1:
            _tell(f"{target.name} input {number}", target.check, data, error, cpu)
    took = time.monotonic() - begun
    _say(f"{target.name}: {count:,} inputs in {took:.0f} s, seed {seed}, {len(found)} kinds of findings")
    return found


def _tell(name: str, check: Callable[[bytes], None], data: bytes, error: BaseException, cpu: float) -> None:
    kind = kind_of(error)

    def still(shorter: bytes) -> bool:
        other = fault_of(check, shorter, cpu)
        return other is not None and kind_of(other) == kind

    small = data if isinstance(error, TooSlow) else smaller(data, still)
    shown = fault_of(check, small, cpu) or error
    text = "".join(traceback.format_exception(shown)[-12:])
    _say(f"== {name}: {kind}\n{small[:2_000]!r}\n{text}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _numbers(inputs: int, seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    number = 0
    while (number < inputs) if inputs else (number % 256 or time.monotonic() < end):
        yield number
        number += 1


def _guided(target: Target) -> None:
    atheris = importlib.import_module("atheris")
    for name, module in list(sys.modules.items()):
        if name.startswith("reconciler"):
            holders = [module, *(value for value in vars(module).values() if isinstance(value, type))]
            for function in [value for holder in holders for value in vars(holder).values()]:
                if isinstance(function, FunctionType) and function.__module__ == name:
                    atheris.instrument_func(function)
    with tempfile.TemporaryDirectory() as folder:
        for number, sample in enumerate(target.samples):
            Path(folder, str(number)).write_bytes(sample)
        atheris.Setup([sys.argv[0], folder], target.check)
        atheris.Fuzz()


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [target.name for target in ALL]
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names)}; all when none is named")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    parser.add_argument("--inputs", type=int, default=0, help="of each target; else --seconds says when it is enough")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cpu", type=float, default=2.0, help="seconds that one input may take")
    parser.add_argument("--only", type=int, help="one input, by its number")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; of one target")
    given = parser.parse_args(args)
    unknown = set(given.targets) - set(names)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}")
    chosen = [target for target in ALL if target.name in (given.targets or names)]
    if given.atheris:
        _guided(chosen[0])
        return 0
    slowest_first = [ALL.index(target) for target in reversed(chosen)]
    with ProcessPoolExecutor(os.cpu_count()) as fed:
        return 1 if any(list(fed.map(partial(_feed, given), slowest_first))) else 0


def _feed(given: argparse.Namespace, target: int) -> Counter[str]:
    """One target in a process of its own; it is named by its place, since a function does not travel."""
    numbers = iter([given.only]) if given.only is not None else _numbers(given.inputs, given.seconds)
    return run(ALL[target], given.seed, numbers, given.cpu)


if __name__ == "__main__":
    sys.exit(main())
