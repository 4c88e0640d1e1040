"""`shared_memory` may not be written: the round says which folder and changes no file; given the right, it goes on."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.cli.shell import Shell
from tests.faults.scenarios.kit import unchanged
from tests.story.desk import Desk


@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="nothing can be closed to root")
def test_read_only_folder(shared: Desk) -> None:
    """Redis has learnt nothing wrong meanwhile."""
    shell = Shell(shared.root, shared.url)
    if os.getuid() == 0:
        shell.prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    before = shared.path.read_bytes()
    shared.hset("mary", status="busy")
    shared.path.parent.chmod(0o555)
    done = shell("apply")
    shared.path.parent.chmod(0o755)
    assert done.code == 3
    assert "shared_memory" in done.err
    assert unchanged(shared.path, before)
    assert shared.apply().exit_code == 0
    assert shared.record("mary")["status"] == "busy"
    shared.assert_agree()
