"""`context.json` is made read-only: it is replaced, not opened, so live updates reach it; its mode stays."""

from __future__ import annotations

from tests.story.desk import Desk


def test_read_only_file(shared: Desk) -> None:
    """0444 before and after."""
    shared.path.chmod(0o444)
    shared.hset("mary", status="busy")
    assert shared.apply().exit_code == 0
    assert shared.record("mary")["status"] == "busy"
    assert shared.path.stat().st_mode & 0o777 == 0o444
    shared.assert_agree()
