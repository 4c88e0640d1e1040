"""The user may not PUBLISH: a write is refused before anything is written, because a change without its event is lost.

The refusal names the right that is missing; given it, the same write is made.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import StoreError
from tests.faults.scenarios.kit import hub, six_on, version
from tests.servers import running
from tests.story.desk import Desk

RIGHTS = ("on", ">small-secret", "~memory:*", "resetchannels", "+@all")


def test_no_right_to_publish(tmp_path: Path) -> None:
    """No half of it: neither the hash nor the version has moved."""
    with running() as server, six_on(tmp_path, server.url) as desk:
        desk.redis.execute_command("ACL", "SETUSER", "small", *RIGHTS)
        before = version(desk, "mary")
        small = Desk(desk.root, server.url.replace("unix://", "unix://small:small-secret@"))
        with hub(small) as memory:
            with pytest.raises(StoreError, match="channels") as refused:
                memory.update_agent_context("mary", {"n": 1})
            assert "small-secret" not in str(refused.value)
            assert "context" not in desk.live("mary")
            assert version(desk, "mary") == before
            desk.redis.execute_command("ACL", "SETUSER", "small", "&memory:*")
            assert memory.update_agent_context("mary", {"n": 1}).version == before + 1
        small.redis.close()
