"""A second `run` is started in one workspace: it ends with 6 and names the first one, which goes on undisturbed."""

from __future__ import annotations

from tests.cli.shell import Shell, read_until
from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk
from tests.waiting import wait_until


def test_two_daemons(shared: Desk) -> None:
    """When the first one is killed, its lock is nobody's, and the next one works."""
    shell = Shell(shared.root, shared.url)
    with shell.start("run") as first:
        read_until(first, "Watching for changes")
        second = shell("run")
        assert second.code == 6
        assert str(first.pid) in second.err
        shared.hset("mary", status="busy")
        wait_until(lambda: shared.record("mary")["status"] == "busy", what="the first one at work")
        first.kill()
        first.wait()
        shared.hset("mary", status="done")
    with hub(shared) as memory:
        assert memory.sync_from_file().held_by is None
    assert shared.record("mary")["status"] == "done"
