"""A program writes its file into the inbox slowly: it waits there until it is whole, and counts once."""

from __future__ import annotations

import json

from tests.faults.scenarios.kit import version, with_inbox
from tests.story.desk import Desk


def test_inbox_half_written(shared: Desk) -> None:
    """Every part of it that is no whole object is left alone, round after round."""
    desk = with_inbox(shared)
    path, whole, before = (
        desk.settings.inbox_folder / "mary_1.json",
        json.dumps({"task": "deploy"}),
        version(desk, "mary"),
    )
    for part in range(1, len(whole), 4):
        path.write_text(whole[:part])
        desk.apply()
        assert path.exists()
    path.write_text(whole)
    desk.apply()
    desk.apply()
    assert desk.live("mary")["context"] == {"task": "deploy"}
    assert version(desk, "mary") == before + 1
    assert not path.exists()
    desk.assert_agree()
