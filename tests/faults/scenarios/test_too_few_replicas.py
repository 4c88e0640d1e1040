"""The server has too few replicas to take writes (NOREPLICAS): the edit waits, and goes across when it has enough."""

from __future__ import annotations

from pathlib import Path

from tests.faults.scenarios.kit import set_to, six_on
from tests.servers import running


def test_too_few_replicas(tmp_path: Path) -> None:
    """The round that could not write it says so, and so would `status`."""
    with running() as server, six_on(tmp_path, server.url) as desk:
        with set_to(desk, "min-replicas-to-write", "1"):
            desk.set("mary", status="edited")
            done = desk.apply()
            assert done.exit_code == 3
            assert any("takes no writes" in line for line in done.refused)
            assert desk.live("mary")["status"] == "active"
        assert desk.apply().exit_code == 0
        assert desk.live("mary")["status"] == "edited"
        desk.assert_agree()
