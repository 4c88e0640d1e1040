"""The disk is full: the round fails with a reason, `context.json` stays whole, and with room nothing is missing."""

from __future__ import annotations

from tests.faults.scenarios.kit import child, unchanged
from tests.story.desk import Desk

FULL = """
import resource
from reconciler.errors import ReconcilerError
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    desk.apply()
except ReconcilerError as error:
    sys.exit(error.exit_code)
"""


def test_full_disk(shared: Desk) -> None:
    """Here: a process that may write no file of more than 8 KB."""
    before = shared.path.read_bytes()
    shared.hset("mary", insight="x" * 20_000)
    assert child(shared, FULL) == 3
    assert unchanged(shared.path, before)
    assert shared.apply().exit_code == 0
    assert shared.record("mary")["insight"] == "x" * 20_000
    shared.assert_agree()
