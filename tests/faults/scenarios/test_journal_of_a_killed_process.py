"""A process writes while Redis is away and another holds the workspace, and is killed: its journal is taken in."""

from __future__ import annotations

import time

from reconciler import files
from tests.faults.scenarios.kit import child
from tests.registers import registers
from tests.story.desk import Desk

WRITE_AND_DIE = """
from tests.faults.scenarios.kit import hub_away
assert hub_away(desk).update_agent_context("mary", {"task": "deploy"}).store == "file"
os._exit(137)
"""


def test_journal_of_a_killed_process(shared: Desk) -> None:
    """What was acknowledged was on disk, with its stamp: by then, not by the round's time."""
    with files.Lock(shared.settings.folder / "lock"):
        assert child(shared, WRITE_AND_DIE) == 137
        written_by = time.time()
    assert "deploy" not in shared.text()
    shared.later(60)
    assert shared.apply().exit_code == 0
    assert shared.record("mary")["context"] == shared.live("mary")["context"] == {"task": "deploy"}
    assert registers(shared.redis, "mary")["context.task"].at <= written_by * 1e6
    shared.assert_agree()
