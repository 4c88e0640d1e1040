"""The power went in the very first save of `state.db`: the next round starts from nothing, and deletes nothing."""

from __future__ import annotations

from tests.story.desk import Desk, six_agents


def test_first_save_cut_off(desk: Desk) -> None:
    """An empty database is an empty memory."""
    desk.save(six_agents(), age=900)
    desk.hset("mary", status="busy")
    desk.settings.folder.mkdir(mode=0o700)
    (desk.settings.folder / "state.db").write_bytes(b"")
    assert desk.apply().exit_code == 0
    assert len(desk.file()["agents"]) == 6
    assert desk.record("mary")["status"] == "busy"
    desk.assert_agree()
