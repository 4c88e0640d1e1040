"""`--prune` meets a server that was wiped: it is refused with the numbers, and a plain round fills the server again."""

from __future__ import annotations

import pytest

from reconciler.errors import Refused
from tests.story.desk import Desk


def test_prune_after_a_wipe(shared: Desk) -> None:
    """What looks like six deletions is one lost server."""
    before = shared.path.read_bytes()
    shared.redis.flushall()
    with pytest.raises(Refused, match="one side is empty"):
        shared.apply(prune=True)
    assert shared.path.read_bytes() == before
    shared.apply()
    assert len(shared.redis.keys("memory:agents:*")) == 6
    shared.assert_agree()
