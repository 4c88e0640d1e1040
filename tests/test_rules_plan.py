"""Rows of the tables above `merge` and `diff`, the guards, and what makes two plans the same."""

from __future__ import annotations

import pytest

from reconciler.errors import Place, Problem, Refused, UsageError
from reconciler.merge import merge, pin
from reconciler.plan import Change, Limit, Withheld, deleted_agents, diff, guard, make_plan, what_moved
from reconciler.state import Field, State

BUSY, IDLE, GONE = '"busy"', '"idle"', None


@pytest.mark.parametrize(
    ("one", "other", "won"),
    [
        ((BUSY, 5, "x"), (IDLE, 7, "x"), (IDLE, 7, "x")),
        ((BUSY, 5, "x"), None, (BUSY, 5, "x")),
        ((GONE, 9, "x"), (IDLE, 7, "x"), (GONE, 9, "x")),
        ((GONE, 9, "x"), (IDLE, 10, "x"), (IDLE, 10, "x")),
        ((BUSY, 5, "x"), (IDLE, 5, "y"), (IDLE, 5, "y")),
        ((IDLE, 5, "x"), (BUSY, 5, "x"), (IDLE, 5, "x")),
        ((GONE, 5, "x"), (BUSY, 5, "x"), (BUSY, 5, "x")),
    ],
)
def test_of_two_writes_one_wins(
    one: tuple[str | None, int, str], other: tuple[str | None, int, str] | None, won: tuple[str | None, int, str]
) -> None:
    """Newer; then the writer's name; then the value's text."""
    replicas: list[State] = [{"mary": {"status": Field(*write)}} for write in (one, other) if write]
    assert merge(*replicas) == merge(*reversed(replicas)) == {"mary": {"status": Field(*won)}}


@pytest.mark.parametrize(
    ("field", "here", "merged", "op"),
    [
        ("status", None, BUSY, "create"),
        ("status", IDLE, BUSY, "update"),
        ("status", IDLE, None, "delete"),
        ("status", None, None, None),
        ("status", BUSY, BUSY, None),
        ("insight", '{"a":1,"b":2}', '{"b":2,"a":1}', None),
        ("insight", "1", "1.0", "update"),
        ("insight", "1", "true", "update"),
        ("insight", "1.10", "1.1", None),
        ("insight", '"1"', "1", "update"),
        ("insight", '"\\u00e9"', '"é"', None),
        ("insight", "null", None, "delete"),
        ("last_update", '"2025-11-12T08:00:00Z"', '"2025-11-12T15:00:00+07:00"', None),
        ("last_seen", '"2025-11-12T08:00:00Z"', '"2025-11-12T15:00:00+07:00"', "update"),
    ],
)
def test_a_replica_must_learn_what_differs(field: str, here: str | None, merged: str | None, op: str | None) -> None:
    """Another value; never another spelling or another stamp of the same."""
    replica: State = {"mary": {field: Field(here, 1, "x")}} if here is not None else {}
    changes = diff(replica, {"mary": {field: Field(merged, 9, "y")}}, "redis")
    assert [change.op for change in changes] == ([op] if op else [])


def test_a_plan_is_sorted_whatever_the_order_it_was_found_in() -> None:
    """The same input, the same bytes."""
    changes = [Change(agent, field, "redis", None, "1", 5, "x") for agent in "ba" for field in ("status", "insight")]
    held = [Withheld("b", "x", "file", "why"), Withheld("a", "x", "file", "why")]
    problems = [Problem(Place("b", 2, 1), "m"), Problem(Place("a", 1, 1), "m")]
    plan = make_plan(changes, withheld=held, problems=problems)
    assert plan == make_plan(changes[::-1], withheld=held[::-1], problems=problems[::-1])
    assert [(change.agent, change.field) for change in plan.changes] == [
        ("a", "insight"), ("a", "status"), ("b", "insight"), ("b", "status"),
    ]  # fmt: skip


def test_times_alone_are_in_sync_and_what_is_withheld_is_not() -> None:
    """What counts, and what does not."""
    quiet = Change("mary", "last_seen", "redis", "1", "2", 5, "x")
    assert make_plan([quiet]).in_sync
    assert make_plan([]).in_sync
    assert not make_plan([quiet._replace(field="status")]).in_sync
    assert not make_plan([], withheld=[Withheld("a", "", "file", "why")]).in_sync


def test_a_reviewed_plan_is_told_from_another() -> None:
    """What came and what went is named; a later moment of the same change is the same plan."""
    change = Change("mary", "status", "redis", IDLE, BUSY, 5, "x")
    reviewed = make_plan([change])
    assert what_moved(reviewed.contents, make_plan([change._replace(at=9)])) == []
    assert reviewed.id == make_plan([change._replace(at=9)]).id
    moved = what_moved(reviewed.contents, make_plan([change._replace(agent="gc")]))
    assert moved == [
        'no longer planned: mary.status → redis: "idle" → "busy"',
        'new since: gc.status → redis: "idle" → "busy"',
    ]


@pytest.mark.parametrize(
    ("limit", "deleted", "known", "allowed"),
    [("30%", 3, 4, True), ("30%", 4, 6, False), ("30%", 30, 100, True), ("30%", 31, 100, False), ("0", 1, 100, False),
     ("5", 5, 5, True), ("0%", 3, 100, True), ("100%", 9, 9, True)],
)  # fmt: skip
def test_how_many_agents_may_be_deleted(limit: str, deleted: int, known: int, allowed: bool) -> None:
    """A share of the known ones and at least 3, or a plain number."""
    assert Limit.parse(limit).allows(deleted, known) == allowed


@pytest.mark.parametrize("text", ["", "many", "-1", "130%", "-5%", "1.5", "nan%"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    """With what may be said instead."""
    with pytest.raises(UsageError, match="say 30% or 5"):
        Limit.parse(text)


def agents(count: int, text: str | None = BUSY) -> dict[str, dict[str, Field]]:
    return {f"a{number}": {"status": Field(text, 1, "x")} for number in range(count)}


def test_the_guard_counts_agents_not_fields() -> None:
    """An agent is deleted when its last value is; the shared sections are none."""
    before = {**agents(10), "@shared": {"x": Field("1", 1, "x")}}
    after = {**before, **agents(3, None), "@shared": {"x": Field(None, 2, "x")}}
    assert deleted_agents(before, after) == ["a0", "a1", "a2"]
    guard(before, after, (), Limit())
    with pytest.raises(Refused, match="4 of 10 agents"):
        guard(before, {**before, **agents(4, None)}, (), Limit())


def test_the_guard_refuses_to_empty_a_side_whatever_the_limit() -> None:
    """All agents missing on one side is a lost side, not a decision."""
    with pytest.raises(Refused, match="one side is empty"):
        guard(agents(2), agents(2, None), ["a0", "a1"], Limit(1.0))


def test_a_pin_is_stamped_just_behind_what_it_beats() -> None:
    """So that a replica that knows nothing of policies takes it over."""
    pins = {"mary": {"status": Field(IDLE, 3, "m.yaml")}}
    assert pin({"mary": {"status": Field(BUSY, 7, "x")}}, pins) == {"mary": {"status": Field(IDLE, 8, "m.yaml")}}
    assert pin({}, pins) == {"mary": {"status": Field(IDLE, 3, "m.yaml")}}
    same: State = {"mary": {"status": Field(IDLE, 1, "x")}}
    assert pin(same, pins) == same
