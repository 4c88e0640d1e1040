"""`redis-cli HDEL` of one field: it is a deletion like any other, and an old copy of the file does not undo it."""

from __future__ import annotations

from tests.story.desk import Desk


def test_raw_hdel(shared: Desk) -> None:
    """Gone from the file with the next round, and it stays gone."""
    shared.set("mary", insight="outdated", note="stays")
    shared.apply()
    copy = shared.file()
    shared.redis.hdel("memory:agents:mary", "insight")
    shared.apply()
    assert "insight" not in shared.record("mary")
    copy["agents"]["gc"]["status"] = "from the old copy"
    shared.save(copy)
    shared.apply()
    assert "insight" not in shared.record("mary")
    assert (shared.live("gc")["status"], shared.record("mary")["note"]) == ("from the old copy", "stays")
    shared.assert_agree()
