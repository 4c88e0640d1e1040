"""An empty workspace on a real server that is empty too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Memory, Server
from tests.story.desk import Desk, six_agents


@pytest.fixture
def desk(tmp_path: Path, valkey: Server, real: Memory) -> Iterator[Desk]:
    root = tmp_path / "work space"
    root.mkdir()
    found = Desk(root, valkey.url)
    yield found
    found.redis.close()


@pytest.fixture
def shared(desk: Desk) -> Desk:
    """The six agents in file and Redis, in agreement."""
    desk.save(six_agents(), age=900)
    desk.apply()
    return desk
