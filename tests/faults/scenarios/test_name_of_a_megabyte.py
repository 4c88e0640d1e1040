"""Somebody HSETs a field whose name is a megabyte of bytes that are no text: the message stays a line, others go on."""

from __future__ import annotations

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk


def test_name_of_a_megabyte(shared: Desk) -> None:
    """Found by fuzzing: terminals and logs got all of it."""
    shared.redis.hset("memory:agents:mary", b"9" * 500_000 + b"\xcc" * 500_000, "x")
    shared.hset("gc", status="busy")
    done = shared.apply()
    assert done.exit_code == 3
    assert len(named(done)) < 2_000
    assert shared.record("gc")["status"] == "busy"
