"""A file in the inbox can never be taken in: it is put aside with the reason, and those beside it are taken in."""

from __future__ import annotations

from tests.faults.scenarios.kit import named, with_inbox
from tests.story.desk import Desk


def test_inbox_rejected(shared: Desk) -> None:
    """Said once, not round after round."""
    desk = with_inbox(shared)
    (desk.settings.inbox_folder / "mary_bad.json").write_text('["a", "list"]')
    (desk.settings.inbox_folder / "gc_good.json").write_text('{"task": "deploy"}')
    done = desk.apply()
    assert done.exit_code == 3
    assert "mary_bad.json" in named(done)
    assert desk.live("gc")["context"] == {"task": "deploy"}
    assert desk.live("mary").get("context", {}) == {}
    assert desk.apply().exit_code == 0
    assert [path.name for path in desk.settings.inbox_folder.rglob("mary_bad.json*")] != []
    desk.assert_agree()
