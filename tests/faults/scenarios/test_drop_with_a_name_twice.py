"""A hook's drop says one key twice: it is one version, the last word of the key stands, and nothing is rejected."""

from __future__ import annotations

from reconciler.spool import Part, backlog, drop
from tests.faults.scenarios.kit import version
from tests.story.desk import Desk


def test_drop_with_a_name_twice(shared: Desk) -> None:
    """As when a script sets `result` again before it ends."""
    before = version(shared, "mary")
    drop(shared.settings, "mary", [Part("result", "text", b"first"), Part("n", "json", b"1"),
                                   Part("result", "text", b"second")])  # fmt: skip
    assert shared.apply().exit_code == 0
    assert shared.live("mary")["context"] == {"result": "second", "n": 1}
    assert version(shared, "mary") == before + 1
    assert backlog(shared.settings).rejected == ()
    shared.assert_agree()
