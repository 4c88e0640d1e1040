"""Two files say different things of one field in the same microsecond: whoever comes first, all end with the same."""

from __future__ import annotations

import os

from tests.faults.scenarios.kit import another
from tests.story.desk import Desk, six_agents


def outcome(desks: tuple[Desk, Desk], said: tuple[str, str]) -> str:
    """What all hold when the first file's word comes to an empty server before the second's."""
    desks[0].redis.flushall()
    for desk in desks:
        desk.save(six_agents(), age=900)
        desk.apply()
    moment = (desks[0].now() - 5_000_000) * 1_000
    for desk, status in zip(desks, said, strict=True):
        desk.set("mary", status=status)
        os.utime(desk.path, ns=(moment, moment))
    for desk in (*desks, desks[0]):
        desk.apply()
    [found] = {desk.record("mary")["status"] for desk in desks} | {desks[0].live("mary")["status"]}
    return str(found)


def test_same_stamp(desk: Desk) -> None:
    """The tie is broken by the values, not by the order."""
    first = outcome((another(desk, "a"), another(desk, "b")), ("one", "two"))
    assert outcome((another(desk, "c"), another(desk, "d")), ("two", "one")) == first
