"""The page says what the tiers told, and nothing better."""

from __future__ import annotations

import pytest

from tests.faults import report, tiers
from tests.faults.scenarios.catalogue import catalogue
from tests.faults.tiers import TIERS, Outcome, Tier

BY_NAME = {tier.name: tier for tier in TIERS}
MACHINE = report.Machine(2, "3.11", "Linux x86_64")


def outcome(name: str, lines: list[str], code: int = 0, asked: int = 0) -> Outcome:
    """What becomes of a tier that printed this and ended so."""
    tier = BY_NAME[name]
    figures = (tier.summary or tiers.of_line)(lines)
    wrong = tiers.verdict(tier, asked, figures, code)
    return Outcome(tier, 7, asked, tier.command(asked, 7), figures, 12.3, wrong, tuple(lines))


def page(*outcomes: Outcome, soaked: str = "") -> str:
    return report.page({one.tier.name: one for one in outcomes}, MACHINE, soaked)


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


HELD = {
    "A": ["  - 999 passing examples, 0 failing examples, 5 invalid", "  - 1 passing examples, 0 failing examples"],
    "B": ["faults: tier=B histories=1000 operations=4000 seed=7 seconds=9 violations=0"],
    "C": [".faults: tier=C histories=1000 operations=30 faults_injected=12 seed=7 seconds=1 violations=0", "1 passed"],
    "E": ["1000 passed in 3.04s"],
    "fuzz": ["settings: 500 inputs in 3 s, 0 kinds of findings", "events: 500 inputs in 3 s, 0 kinds of findings"],
    "mutants": ["seed=7 mutants=1000 missed=0"],
}


@pytest.mark.parametrize("name", HELD)
def test_a_tier_that_held_is_shown_with_its_own_numbers(name: str) -> None:
    """What it counted, its seed, and no violation."""
    found = outcome(name, HELD[name], asked=1_000)
    assert found.wrong == ""
    told = row(page(found), name)
    assert "| 1,000 " in told
    assert told.endswith("| 7 | 12 s | 0 |")
    assert found.command in page(found)


@pytest.mark.parametrize(
    ("name", "lines", "code", "why"),
    [
        ("B", HELD["B"], 1, "exit code 1"),
        ("B", ["Traceback", "ValueError"], 1, "it told no number of histories"),
        ("B", ["faults: tier=B histories=1000 violations=2"], 0, "2 violations"),
        ("B", ["faults: tier=B histories=1000"], 0, "an unknown number of violations"),
        ("B", ["faults: tier=B histories=999 violations=0"], 0, "999 of 1000 histories"),
        ("E", ["1 failed, 999 passed in 3 s"], 1, "1 violations"),
        ("E", ["2 errors in 3 s"], 2, "2 violations"),
        ("E", ["no tests ran in 0.01s"], 5, "it told no number of tests"),
        ("fuzz", ["events: 1,000 inputs in 3 s, 1 kinds of findings"], 1, "1 violations"),
        ("mutants", ["seed=7 mutants=1000 missed=3"], 1, "3 violations"),
        ("A", ["  - 999 passing examples, 1 failing examples"], 1, "1 violations"),
    ],
)
def test_a_tier_that_failed_is_shown_as_failed(name: str, lines: list[str], code: int, why: str) -> None:
    """Whatever it printed: too few, violations, another exit code, or no summary at all; with its last words."""
    found = outcome(name, lines, code, asked=1_000)
    assert why in found.wrong
    text = page(found)
    assert f"**failed: {found.wrong}**" in row(text, name)
    assert f"Tier {name} failed" in text
    assert lines[-1] in text


def test_what_was_not_run_is_shown_as_that() -> None:
    """An empty page claims nothing."""
    text = page()
    assert all("| not run |" in row(text, tier.name) for tier in TIERS)
    assert "It was not run for this page." in text
    assert "They were not run for this page." in text


def test_what_was_skipped_is_counted_apart() -> None:
    """A skipped test has shown nothing."""
    assert "| 8 tests, 2 skipped |" in row(page(outcome("E", ["8 passed, 2 skipped in 1 s"])), "E")


def test_each_mutant_is_shown_with_what_caught_it() -> None:
    """Also one that nothing caught."""
    lines = ["no event is sent: event after 3", "two at once: MISSED after 400", "seed=7 mutants=2 missed=1"]
    text = page(outcome("mutants", lines, 1))
    assert "| no event is sent | event | 3 |" in text
    assert "| two at once | MISSED | 400 |" in text


def test_every_scenario_and_the_soak_are_on_the_page() -> None:
    """The catalogue with its links, the soak with its own last line."""
    text = page(soaked="faults: tier=F hours=1.00 violations=0")
    assert all(f"| [{one.name}]({one.link}) | {one.line.replace('|', chr(92) + '|')} |" in text for one in catalogue())
    assert "faults: tier=F hours=1.00 violations=0" in text


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_part_of_a_tier_can_be_asked_for(tier: Tier) -> None:
    """Never nothing of it; and those that have no number are run whole."""
    assert tier.scaled(1) == tier.count
    assert (tier.scaled(1e-9) == 1) == bool(tier.count)


def test_every_rule_is_held_by_tiers_that_there_are() -> None:
    """F, the soak, is run apart."""
    assert len(report.RULES) == 15
    assert {tier for _, held in report.RULES for tier in held.split()} <= {*BY_NAME, "F"}
