"""The server's password changes under a hub: a write is refused in so many words, and goes through when it is right.

Nobody restarts anything, and no password is told.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.errors import StoreError
from tests.faults.scenarios.kit import hub, set_to, six_on
from tests.servers import running
from tests.waiting import wait_until


def written(memory: UnifiedMemoryHub) -> bool:
    with suppress(StoreError):  # it looks again after a second at most
        return memory.update_agent_context("mary", {"n": 1}).store == "redis"
    return False


def test_password_changed(tmp_path: Path) -> None:
    """Connections that are cut meanwhile find the door closed; what was refused was not written anywhere."""
    with running() as server, six_on(tmp_path, server.url) as desk, hub(desk) as memory:
        with set_to(desk, "requirepass", "another-one"):
            desk.redis.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(StoreError, match="password") as refused:
                memory.update_agent_context("mary", {"refused": 1})
            assert "another-one" not in str(refused.value)
            assert "refused" not in desk.text()
        wait_until(lambda: written(memory), what="a write to Redis")
        assert desk.live("mary")["context"] == {"n": 1}
