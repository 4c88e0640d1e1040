"""`context.json` is truncated to nothing: that deletes nobody, Redis keeps everything, and nothing is written over it.

An editor or a full disk may still hold the rest; when the file is removed as well, it is written again from base.
"""

from __future__ import annotations

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk


def test_emptied_file(shared: Desk) -> None:
    """Named while it is empty; whole again once it is away."""
    before = shared.file()
    shared.save(b"")
    done = shared.apply(prune=True, force=True)
    assert done.exit_code == 3
    assert "shared_memory/context.json:1:1" in named(done)
    assert shared.path.read_bytes() == b""
    assert len(shared.redis.keys("memory:agents:*")) == 6
    shared.path.unlink()
    assert shared.apply().exit_code == 0
    assert shared.file()["agents"].keys() == before["agents"].keys()
    assert shared.file()["token_usage"] == before["token_usage"]
    shared.assert_agree()
