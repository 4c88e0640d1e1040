"""Redis is away and the disk is full: a write is an error, because nobody could keep it; it is not acknowledged."""

from __future__ import annotations

from tests.faults.scenarios.kit import child, unchanged
from tests.story.desk import Desk

FULL = """
import resource
from reconciler.errors import ReconcilerError
from tests.faults.scenarios.kit import hub_away
memory = hub_away(desk)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    memory.update_agent_context("mary", {"task": "deploy"})
except ReconcilerError as error:
    os._exit(error.exit_code)
os._exit(0)
"""


def test_full_disk_while_redis_is_away(shared: Desk) -> None:
    """Afterwards it is nowhere, not even in half."""
    before = shared.path.read_bytes()
    assert child(shared, FULL) == 3
    assert unchanged(shared.path, before)
    assert shared.apply().exit_code == 0
    assert "deploy" not in shared.text()
    shared.assert_agree()
