"""Yesterday's backup is copied over `context.json`: every value that was written since stands, on both sides."""

from __future__ import annotations

from tests.story.desk import Desk, six_agents


def test_old_backup_put_back(shared: Desk) -> None:
    """Its records' own times went back, which tells a copy from an edit."""
    for number, name in enumerate(("gc", "mary", "rnd")):
        shared.set(name, status=f"busy {number}", last_seen="2025-11-12T09:00:00+07:00")
    shared.apply()
    shared.hset("cls", insight="live")
    shared.apply()
    shared.later(3600)
    shared.save(six_agents("2025-11-11T07:00:00+07:00"))
    done = shared.apply()
    assert any("old cop" in note for note in done.plan.notes)
    assert [shared.record(name)["status"] for name in ("gc", "mary", "rnd")] == ["busy 0", "busy 1", "busy 2"]
    assert shared.record("cls")["insight"] == shared.live("cls")["insight"] == "live"
    shared.assert_agree()
