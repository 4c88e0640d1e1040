"""A script reads `context.json`, waits, and writes it whole over ten live updates: its edit lands and all ten stay."""

from __future__ import annotations

from tests.story.desk import Desk


def test_stale_copy_put_back(shared: Desk) -> None:
    """The file is compared with the version that the script had read."""
    copy = shared.file()
    for number in range(10):
        shared.hset("gc", **{f"k{number}": str(number)})
        shared.apply()
    copy["agents"]["mary"]["status"] = "edited"
    shared.save(copy)
    shared.apply()
    assert shared.live("mary")["status"] == "edited"
    assert [shared.record("gc")[f"k{number}"] for number in range(10)] == [str(number) for number in range(10)]
    shared.assert_agree()
