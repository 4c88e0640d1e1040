"""An editor saves in the instant of the swap, and the process is killed before it has kept that: it is found.

What came out of the swap lies beside the file until it is in the journal; the next round takes it from there.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.scenarios.kit import DIED, child
from tests.story.desk import Desk, set_age

DYING = """
from reconciler.base import Base
real = files._rename
def swap(source, target, flag):
    if target.name == "context.json":
        desk.set("gc", status="edited")
        real(source, target, flag)
        if sys.argv[3] == "swap":
            os._exit(137)
        return True
    return real(source, target, flag)
files._rename = swap
Base.append_journal = lambda *args: os._exit(137)
desk.apply()
"""


def dead() -> int:
    """The number of a process that is no more."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


@pytest.mark.parametrize("after", ["swap", "reading"])
def test_killed_holding_an_edit(shared: Desk, after: str) -> None:
    """Nobody else had it, and its editor was told that it was saved."""
    shared.hset("mary", status="before")
    shared.apply()
    attic = shared.path.with_name(f".context.json.{dead()}.0123abcd.tmp")
    attic.write_text(shared.text().replace("active", "from the attic"))
    set_age(attic, 3600)
    shared.hset("mary", status="busy")
    assert child(shared, DYING, after) == DIED
    assert shared.record("gc")["status"] == "active"
    shared.apply()
    assert "attic" not in shared.text()
    assert shared.record("mary")["status"] == "busy"
    assert shared.record("gc")["status"] == shared.live("gc")["status"] == "edited"
    assert [path.name for path in shared.path.parent.iterdir()] == ["context.json"]
    shared.assert_agree()
