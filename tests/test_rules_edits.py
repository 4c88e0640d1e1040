"""Rows of DESIGN §5, rules 0 to 3: what a file says, which version it was made from, and what is an edit in it.

Versions are written as `status task seen`, times are seconds; `ours` were written by this program.
"""

from __future__ import annotations

import pytest

from reconciler.edits import Edits, Reference, Seen, Version, find_edits, undo_of
from reconciler.stamp import SECOND, format_time
from reconciler.state import Field, State, encode

NOW = 1_900_000_000


def record(line: str) -> dict[str, str]:
    """`busy x 5`: status, task and the second of `last_seen`; `-` is not there."""
    status, task, seen = line.split()
    found = {"status": encode(status), "task": encode(task)}
    if seen != "-":
        found["last_seen"] = encode(format_time((NOW + int(seen)) * SECOND))
    return {name: text for name, text in found.items() if text != '"-"'}


def state_of(records: dict[str, str], mark: str, at: int) -> State:
    found = {agent: record(line) for agent, line in records.items()} | {"@file": {"last_update": encode(mark)}}
    return {
        agent: {name: Field(text, at * SECOND, "x") for name, text in fields.items()} for agent, fields in found.items()
    }


def history(*steps: tuple[str, str, str, str]) -> Reference:
    """Versions, oldest first: who wrote it, mary's record, gc's, and the file's own mark."""
    states = [state_of({"mary": mary, "gc": gc}, mark, NOW + turn) for turn, (_, mary, gc, mark) in enumerate(steps)]
    versions = [
        Version((NOW + turn) * SECOND, who == "ours", undo_of(states[turn - 1], states[turn]))
        for turn, (who, *_) in enumerate(steps)
        if turn
    ]
    return Reference(states[-1], versions[::-1])


def edits(reference: Reference, mary: str, gc: str, mark: str, saved: float) -> Edits:
    found = {"mary": record(mary), "gc": record(gc), "@file": {"last_update": encode(mark)}}
    seen = Seen(int((NOW + saved) * SECOND), (NOW + 1000) * SECOND)
    return find_edits(found, reference, seen, by="me")


M0, M1, M2 = (format_time((NOW + number) * SECOND + 5) for number in range(3))
OWN = "2025-11-12T08:00:00Z"

MIRRORED = (("ours", "idle a 0", "idle a 0", M0), ("ours", "idle a 0", "busy b 0", M1))
"""We wrote what live memory said of gc."""
SCRIPT = (("ours", "idle a 0", "idle a 0", M0), ("theirs", "busy b 1", "idle a 0", M0))
"""A script changed mary."""
BOTH = (*SCRIPT, ("ours", "busy b 1", "busy b 0", M2))


@pytest.mark.parametrize(
    ("steps", "file", "saved", "expected"),
    [
        pytest.param(MIRRORED, ("idle a 0", "busy b 0", M1), 2, set(), id="nothing"),
        pytest.param(MIRRORED, ("done a 0", "busy b 0", M1), 2, {"mary.status"}, id="an edit of the latest"),
        pytest.param(MIRRORED, ("done a 0", "idle a 0", M0), 2, {"mary.status"}, id="an edit of a stale copy"),
        pytest.param(MIRRORED, ("done a 0", "idle a 0", "x"), 90, {"mary.status"}, id="the header tells nothing"),
        pytest.param(MIRRORED, ("idle a 0", "idle a 0", M1), 2, {"gc.status", "gc.task"}, id="set back by hand"),
        pytest.param(MIRRORED, ("idle a 0", "idle a 0", M0), 5, set(), id="carried over within 5 s"),
        pytest.param(MIRRORED, ("idle a 0", "idle a 0", M0), 7, {"gc.status", "gc.task"}, id="an undo after 5 s"),
        pytest.param(MIRRORED, ("- a 0", "idle a 0", M0), 2, {"mary.status"}, id="a field taken out of a stale copy"),
        pytest.param(SCRIPT, ("idle a 2", "idle a 0", M0), 2, {"mary.status", "mary.task", "mary.last_seen"},
                     id="to and fro"),
        pytest.param(SCRIPT, ("idle a 0", "done a 0", M0), 2, {"gc.status"}, id="two programs, one copy"),
        pytest.param(BOTH, ("idle a 2", "busy b 0", M2), 3, {"mary.status", "mary.task", "mary.last_seen"},
                     id="to and fro, from the latest"),
        pytest.param(BOTH, ("idle a 2", "idle a 0", OWN), 3, {"mary.status", "mary.task", "mary.last_seen"},
                     id="to and fro, from a stale copy"),
        pytest.param(BOTH, ("idle a 2", "busy b 0", OWN), 3, {"mary.status", "mary.task", "mary.last_seen"},
                     id="to and fro, under its own header"),
        pytest.param(MIRRORED, ("idle a 0", "idle a 20", OWN), 20, {"gc.status", "gc.task", "gc.last_seen"},
                     id="ours set back, said 19 s later"),
        pytest.param(MIRRORED, ("idle a 0", "idle a 3", OWN), 3, {"gc.last_seen"}, id="ours not seen, said 2 s later"),
    ],
)  # fmt: skip
def test_what_is_an_edit(
    steps: tuple[tuple[str, str, str, str], ...], file: tuple[str, str, str], saved: float, expected: set[str]
) -> None:
    """Only what the writer of the file changed, held against what they had read."""
    found = edits(history(*steps), *file, saved).state
    assert {f"{agent}.{name}" for agent, fields in found.items() for name in fields} == expected


@pytest.mark.parametrize(
    ("line", "saved", "at"),
    [
        pytest.param("busy a 0", 3, 3, id="no new time: when it was saved"),
        pytest.param("busy a -", 3, 3, id="no time at all"),
        pytest.param("busy a 2", 3, 2, id="its own time"),
        pytest.param("busy a 5000", 3, 1000, id="never later than now"),
        pytest.param("busy a 0", -500, 0.000001, id="never before what it replaced"),
    ],
)
def test_when_an_edit_was_made(line: str, saved: float, at: float) -> None:
    """Rules 0 and 1."""
    found = edits(history(("ours", "idle a 0", "idle a 0", M0)), line, "idle a 0", M0, saved)
    assert found.state["mary"]["status"] == Field('"busy"', NOW * SECOND + round(at * SECOND), "me")


def test_a_record_that_went_back_in_time_is_an_old_copy() -> None:
    """None of its times moved forward and one went back: nothing in it is an edit, and it is named."""
    found = edits(history(("ours", "idle a 9", "idle a 0", M0)), "busy a 3", "idle a 0", OWN, 2)
    assert found.state == {"mary": {}}
    assert found.stale == ("mary",)


def test_a_time_that_was_yet_to_come_makes_no_old_copies() -> None:
    """A clock that was ahead once does not shut its agent up for good."""
    found = edits(history(("ours", "idle a 9000", "idle a 0", M0)), "busy a 3", "idle a 0", M0, 2)
    assert found.state["mary"]["status"].at == (NOW + 3) * SECOND
    assert found.stale == ()


def test_an_agent_that_is_missing_is_gone_not_edited() -> None:
    """It is told apart from fields that were taken out."""
    reference = history(("ours", "idle a 0", "idle a 0", M0))
    found = find_edits({"mary": record("idle a 0")}, reference, Seen(0, NOW * SECOND), by="me")
    assert (found.gone, found.state) == (("gc",), {})


def test_undoing_a_version_gives_the_one_before() -> None:
    """`undo_of` turns the later state back into the earlier, also for agents that came or went."""
    before = state_of({"mary": "idle a 0", "gc": "busy - 0"}, M0, 1)
    after = state_of({"mary": "idle - 3", "rnd": "busy - 0"}, M1, 2)
    reference = Reference(after, [Version(0, True, undo_of(before, after))])
    found = {agent: {name: field.text or "" for name, field in fields.items()} for agent, fields in before.items()}
    assert find_edits(found, reference, Seen(0, NOW * SECOND), by="me").state == {}
