"""`state.db` is overwritten with noise: the program says so, changes nothing on either side, and names the way out."""

from __future__ import annotations

import pytest

from reconciler.errors import ReconcilerError
from tests.faults.scenarios.kit import unchanged
from tests.story.desk import Desk


def test_damaged_state_db(shared: Desk) -> None:
    """Moved away, it is a first round, and nothing is lost."""
    path, text = shared.settings.folder / "state.db", shared.path.read_bytes()
    path.write_bytes(path.read_bytes()[:100] + bytes(range(256)) * 40)
    shared.hset("mary", status="busy")
    with pytest.raises(ReconcilerError, match=r"state\.db") as told:
        shared.apply()
    assert told.value.hint
    assert unchanged(shared.path, text)
    path.rename(path.with_name("state.db.damaged"))
    assert shared.apply().exit_code == 0
    assert shared.record("mary")["status"] == "busy"
    shared.assert_agree()
