"""A hook is killed while it drops: the half is neither taken in nor thrown away, and holds up no other drop."""

from __future__ import annotations

import os

from reconciler.spool import backlog
from tests.faults.scenarios.kit import dropped
from tests.story.desk import Desk, set_age


def test_half_written_drop(shared: Desk) -> None:
    """When nobody has gone on with it for a minute it is put aside, with the reason."""
    dropped(shared, "mary", task="lost", result="x" * 100)
    [path] = shared.settings.spool.glob("*.drop")
    os.truncate(path, 40)
    dropped(shared, "mary", task="whole")
    shared.apply()
    assert shared.live("mary")["context"] == {"task": "whole"}
    assert path.exists()
    set_age(path, 120)
    assert shared.apply().exit_code == 3
    assert [reason for _, reason in backlog(shared.settings).rejected] == ["its end is missing"]
    assert shared.apply().exit_code == 0
    shared.assert_agree()
