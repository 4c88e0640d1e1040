"""`state.db` is deleted: the next round is a first one, which deletes nothing and keeps the newest words."""

from __future__ import annotations

from tests.story.desk import Desk


def test_lost_state_db(shared: Desk) -> None:
    """Edits and live writes that no round has seen are both kept."""
    shared.hset("mary", status="busy", insight="x")
    shared.apply()
    for path in shared.settings.folder.glob("state.db*"):
        path.unlink()
    shared.hset("cls", note="live")
    shared.set("gc", note="edited")
    assert shared.apply().exit_code == 0
    assert (shared.record("mary")["status"], shared.record("mary")["insight"]) == ("busy", "x")
    assert shared.record("cls")["note"] == "live"
    assert shared.live("gc")["note"] == "edited"
    assert len(shared.file()["agents"]) == len(shared.redis.keys("memory:agents:*")) == 6
    shared.assert_agree()
