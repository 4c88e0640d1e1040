"""The server hangs with open connections (SIGSTOP): writes go to the file, and the newest stands when it goes on."""

from __future__ import annotations

from pathlib import Path

from tests.faults.real.server import trial_server
from tests.faults.scenarios.kit import hub, reaches_redis, six_on


def test_hanging_server(tmp_path: Path) -> None:
    """The newer of two writes made while it hung is what stands when it goes on."""
    with trial_server() as server, six_on(tmp_path, server.url) as desk, hub(desk) as memory:
        memory.update_agent_context("mary", {"n": 0})
        server.freeze()
        assert memory.update_agent_context("mary", {"n": 1, "first": True}).store == "file"
        assert memory.update_agent_context("mary", {"n": 2}).store == "file"
        assert memory.get_agent("mary")["context"] == {"n": 2, "first": True}
        server.thaw()
        reaches_redis(desk, "mary", n=2, first=True)
        desk.apply()
        assert desk.record("mary")["context"] == {"n": 2, "first": True}
        desk.assert_agree()
