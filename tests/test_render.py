"""A plan as people and programs read it: golden files for text and markdown, the schema for JSON.

`REWRITE_GOLDEN=1 make test ARGS=tests/test_render.py` writes the golden files anew; read the difference.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import schema
from reconciler.errors import Place, Problem
from reconciler.plan import Change, Plan, Withheld, make_plan
from reconciler.render import ago, clip, markdown, summary, text_lines, to_json, values, why
from reconciler.state import Field

GOLDEN = Path(__file__).parent / "golden"
T = 1_762_934_400_000_000
"""2025-11-12T08:00:00Z, in µs."""
S, MIN = 1_000_000, 60_000_000
IDLE = Field('"idle"', T - 3 * S, "context.json")


def a_plan() -> Plan:
    """One of everything."""
    long = json.dumps(
        {"steps": ["build", "test", "deploy"], "note": "größer als die Spalte erlaubt"}, ensure_ascii=False
    )
    changes = [
        Change("mary", "status", "redis", None, '"active"', T, "manifests/mary.yaml"),
        Change("mary", "status", "file", None, '"active"', T, "manifests/mary.yaml"),
        Change("mary", "context.role", "file", '"idle"', '"dispatcher"', T, "raw", IDLE),
        Change("mary", "context.gone", "redis", "[1,2]", None, T, "context.json", Field("[1,2]", T - 90 * MIN, "raw")),
        Change("mary", "last_update", "file", None, '"2025-11-12T08:00:00Z"', T, "raw"),
        Change("gc", "last_seen", "redis", '"a"', '"b"', T, "context.json"),
        Change("gpt", "context.plan", "redis", long, '"x"', T, "raw", Field(long, T, "mary@host")),
        Change("gpt", "context.tab\t|*", "redis", '"\u202ex\x7f"', "1.10", T, "raw"),
        Change("@shared", "current_work", "file", "{}", '{"a":1}', T, "mary@host", Field("{}", T - 1, "context.json")),
    ]  # fmt: skip
    place = Place("manifests/rnd.yaml", 7, 3)
    return make_plan(
        changes,
        withheld=[
            Withheld("rnd", "", "redis", "its context breaks rnd.schema.json"),
            Withheld("rnd", "status", "file", "context.json cannot be read"),
        ],
        notes=["gone from Redis: cls: restored (--prune deletes instead)"],
        problems=[Problem(place, "unknown key 'contxt'", "did you mean 'context'?", "spec", "rnd")],
    )


def same_as_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text("utf-8")


@pytest.mark.parametrize(("columns", "name"), [(None, "plan.txt"), (80, "plan-80.txt"), (120, "plan-120.txt")])
def test_text_is_as_it_was(columns: int | None, name: str) -> None:
    """Whole lines when piped, fitted on a terminal."""
    same_as_golden(name, "".join(f"{line.text}\n" for line in text_lines(a_plan(), columns)))


def test_a_value_of_which_nobody_knows_the_time_has_no_age() -> None:
    """Not fifty years: it came back with an old copy, or its record says no time."""
    change = Change("mary", "context.a", "file", '"x"', '"y"', T, "raw", Field('"x"', 0, "an old copy"))
    assert why(change) == "raw 2025-11-12T08:00:00Z beats an old copy"


def test_markdown_is_as_it_was() -> None:
    """A table, with everything in it escaped."""
    same_as_golden("plan.md", "".join(f"{line}\n" for line in markdown(a_plan())))


def test_json_is_as_it_was_and_keeps_to_its_schema() -> None:
    """Values are written token for token; the rest is the schema's business."""
    text = to_json(a_plan())
    same_as_golden("plan.json", json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n")
    assert '"new":1.10' in text
    assert schema.validate("plan", json.loads(text), lambda steps: (Place("plan"), ""), source="plan") == []


def test_the_same_plan_gives_the_same_bytes_in_whatever_order_it_was_found() -> None:
    """Sorted at birth."""
    plan = a_plan()
    shuffled = make_plan(
        reversed(plan.changes), withheld=reversed(plan.withheld), notes=plan.notes, problems=plan.problems
    )
    assert to_json(shuffled) == to_json(plan)
    assert list(text_lines(shuffled)) == list(text_lines(plan))
    assert list(markdown(shuffled)) == list(markdown(plan))


@pytest.mark.parametrize("columns", [80, 120])
def test_text_for_a_terminal_fits_it(columns: int) -> None:
    """Fields, values and reasons; only a note or a reason of a thing withheld may be longer."""
    lines = [line.text for line in text_lines(a_plan(), columns) if line.style not in ("note", "withheld")]
    assert max(map(len, lines)) <= columns


def test_no_control_character_reaches_the_terminal() -> None:
    """A value may hold an escape sequence; it is shown, not sent."""
    for line in text_lines(a_plan()):
        assert line.text.isprintable()


def test_an_empty_plan_is_one_line() -> None:
    """In sync, and whether Redis could be asked."""
    assert [line.text for line in text_lines(Plan())] == ["In sync."]
    away = replace(Plan(), redis_up=False)
    assert summary(away) == "In sync. (Redis is away: files and base only)"


@pytest.mark.parametrize(
    ("micros", "said"),
    [(0, "0 µs"), (999, "999 µs"), (1_000, "1 ms"), (S, "1 s"), (-3 * S, "3 s"), (MIN, "1 min"), (90 * MIN, "1 h"),
     (24 * 60 * MIN, "1 day"), (12 * 24 * 60 * MIN, "12 days")],
)  # fmt: skip
def test_a_span_is_told_in_its_largest_unit(micros: int, said: str) -> None:
    """A number a person reads."""
    assert ago(micros) == said


@pytest.mark.parametrize("width", [8, 20, 44])
def test_old_and_new_share_their_room(width: int) -> None:
    """A short one leaves its room to the other; nothing is wider than told."""
    for old in ('"a"', '"' + "o" * 50 + '"'):
        for new in ('"b"', '"' + "n" * 50 + '"'):
            change = Change("a", "f", "redis", old, new, T, "raw")
            assert len(values(change, width)) <= width
    assert values(Change("a", "f", "redis", '"a"', '"b"', T, "raw"), 20) == '"a" → "b"'


def test_clip_makes_control_characters_visible_and_marks_what_it_cut() -> None:
    """Also those that turn text around."""
    assert clip("a\nb\u202e", 20) == "a\\nb\\u202e"
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcd", 4) == "abcd"
