"""The tiers of the laboratory: how each is run in a process of its own, and what it says of itself.

Each ends with one line, `faults: tier=B histories=20000 operations=… seed=… seconds=… violations=0`; a tier that ends
without it, with fewer than it was asked for, or with another exit code than 0, has failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[2]
LAST = 100
"""How many of its last lines are kept of a tier."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One sort of evidence. `unit` names what is counted, `count` is how many make the whole; `words` and `env` are
    what follows `python` and what is set, of which `{count}` and `{seed}` are filled in. One that `waits` for processes
    most of the time leaves the processors to another."""

    name: str
    what: str
    unit: str
    count: int
    words: str
    env: Mapping[str, str] = field(default_factory=dict)
    summary: Callable[[list[str]], dict[str, str]] | None = None
    waits: bool = False

    def scaled(self, scale: float) -> int:
        """How many to ask for when that part of the whole is wanted; 0 where it is always run whole."""
        return max(1, round(self.count * scale)) if self.count else 0

    def command(self, count: int, seed: int) -> str:
        """What a person types to run it again."""
        said = {"count": count, "seed": seed}
        return " ".join([*(f"{name}={text.format(**said)}" for name, text in self.env.items()), "python"]) + (
            " " + self.words.format(**said)
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a tier ended. `figures` are those of its summary line, `wrong` is why it failed, empty if it held."""

    tier: Tier
    seed: int
    asked: int
    command: str
    figures: Mapping[str, str]
    seconds: float
    wrong: str
    last: tuple[str, ...]

    def figure(self, name: str) -> str:
        text = self.figures.get(name, "")
        return f"{int(text):,}" if text.isdigit() else text or "–"

    @property
    def count(self) -> str:
        return self.figure(self.tier.unit)


def of_statistics(lines: list[str]) -> dict[str, str]:
    """What Hypothesis counted: every case that it generated for every law."""
    found = [re.search(r"(\d+) passing(?: examples)?, (\d+) failing", line) for line in lines]
    counts = [(int(match[1]), int(match[2])) for match in found if match]
    failing = sum(bad for _, bad in counts)
    return {"cases": str(sum(good for good, _ in counts) + failing), "violations": str(failing)} if counts else {}


def of_pytest(lines: list[str]) -> dict[str, str]:
    """The closing line of pytest. What was skipped was not run, and is counted apart."""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", lines[-1])}
    skipped, passed = counts.pop("skipped", 0), counts.get("passed", 0)
    run = sum(counts.values())
    return {"tests": str(run), "violations": str(run - passed), "skipped": str(skipped)} if counts else {}


def of_storm(lines: list[str]) -> dict[str, str]:
    """The line of each target that was fuzzed."""
    found = [re.search(r": ([\d,]+) inputs in .* (\d+) kinds of findings", line) for line in lines]
    counts = [(int(match[1].replace(",", "")), int(match[2])) for match in found if match]
    inputs, kinds = sum(one for one, _ in counts), sum(kind for _, kind in counts)
    return {"inputs": str(inputs), "targets": str(len(counts)), "violations": str(kinds)} if counts else {}


def of_mutants(lines: list[str]) -> dict[str, str]:
    """Its closing line; a mutant that nobody caught is a violation."""
    found = re.search(r"mutants=(\d+) missed=(\d+)", lines[-1])
    return {"mutants": found[1], "violations": found[2]} if found else {}


def caught(lines: Iterable[str]) -> list[tuple[str, str, str]]:
    """Of each mutant its name, the rule that was found broken, and after how many histories."""
    found = [re.fullmatch(r"(.+): (.+) after (\d+)", line) for line in lines]
    return [(match[1], match[2], match[3]) for match in found if match]


def of_line(lines: list[str]) -> dict[str, str]:
    """The summary line. pytest may have put a dot in front of it, and shows the source of it when a test fails."""
    found = [match[1] for line in lines if (match := re.search(r"faults: (tier=\w+ \w+=\d.*)", line))]
    return dict(word.split("=", 1) for word in found[-1].split() if "=" in word) if found else {}


TIERS = (
    Tier(
        "A", "Laws of merge, plan and round, by Hypothesis over an in-memory store", "cases", 500_000,
        "-m pytest -n auto -o faulthandler_timeout=0 tests/test_laws.py --hypothesis-show-statistics "
        "--hypothesis-seed={seed}",
        {"RECONCILER_LAWS": "{count}"}, of_statistics,
    ),
    Tier(
        "B", "Simulated histories: the real program over a Redis, a disk and a clock of its own", "histories", 20_000,
        "-m tests.faults.simulated --histories {count} --seed {seed}",
    ),
    Tier(
        "C", "Histories of real processes: servers, daemons, writers, faults and repairs", "histories", 200,
        "-m pytest -o faulthandler_timeout=0 tests/faults/real/test_histories.py -s",
        {"RECONCILER_HISTORIES": "{count}", "RECONCILER_HISTORIES_SEED": "{seed}"}, waits=True,
    ),
    Tier(
        "D", "Kill storm on whoever writes `context.json`", "kills", 2_000,
        "-m pytest -o faulthandler_timeout=0 tests/faults/real/test_kill_storm.py -s",
        {"RECONCILER_KILLS": "{count}", "RECONCILER_KILLS_SEED": "{seed}"}, waits=True,
    ),
    Tier(
        "E", "Named scenarios, all of the catalogue below", "tests", 0,
        "-m tests.faults.scenarios -n auto", {}, of_pytest,
    ),
    Tier(
        "fuzz", "Everything that parses, fed with damaged bytes; so many inputs for each target", "inputs", 40_000,
        "-m tests.faults.fuzz.storm --inputs {count} --seed {seed}", {}, of_storm,
    ),
    Tier(
        "mutants", "Planted mistakes of the program, each of which B or C must find", "mutants", 0,
        "-m tests.faults.simulated.mutants --seed {seed}", {}, of_mutants,
    ),
)  # fmt: skip
"""In the order of the page. Those of count 0 are always run whole."""


def run_all(tiers: Sequence[Tier], scale: float, seed: int, say: Callable[[str], object]) -> dict[str, Outcome]:
    """Run these, the outcomes by name: one after the other those that compute, beside them those that wait."""
    with ThreadPoolExecutor(2) as lanes:
        each = [
            lanes.submit(lambda lane: [run(tier, tier.scaled(scale), seed, say) for tier in lane], lane)
            for lane in ([tier for tier in tiers if tier.waits], [tier for tier in tiers if not tier.waits])
        ]
        outcomes = {outcome.tier.name: outcome for lane in each for outcome in lane.result()}
    return {tier.name: outcomes[tier.name] for tier in tiers}


def run(tier: Tier, count: int, seed: int, say: Callable[[str], object]) -> Outcome:
    """Run one, saying each line as it comes."""
    filled = {name: text.format(count=count, seed=seed) for name, text in tier.env.items()}
    words = [sys.executable, *tier.words.format(count=count, seed=seed).split()]
    lines: deque[str] = deque(maxlen=10_000)
    begun = time.monotonic()
    with subprocess.Popen(
        words, cwd=PROJECT, env={**os.environ, "PYTHONUNBUFFERED": "1", **filled}, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            say(f"{tier.name}: {line.rstrip()}")
    figures = (tier.summary or of_line)(list(lines) or [""])
    wrong = verdict(tier, count, figures, process.returncode)
    seconds = time.monotonic() - begun
    return Outcome(tier, seed, count, tier.command(count, seed), figures, seconds, wrong, tuple(lines)[-LAST:])


def verdict(tier: Tier, count: int, figures: Mapping[str, str], code: int) -> str:
    """Why it has failed, or nothing."""
    if tier.unit not in figures:
        return f"it told no number of {tier.unit} (exit code {code})"
    if figures.get("violations") != "0":
        return f"{figures.get('violations', 'an unknown number of')} violations"
    if code:
        return f"exit code {code}"
    if int(figures[tier.unit]) < count:
        return f"{figures[tier.unit]} of {count} {tier.unit}"
    return ""
