"""An editor puts a byte order mark before `context.json`: its edit lands, and live updates still reach it."""

from __future__ import annotations

from tests.story.desk import Desk


def test_byte_order_mark(shared: Desk) -> None:
    """It is text all the same, and stays readable by a strict JSON parser once we have written it."""
    shared.save(b"\xef\xbb\xbf" + shared.path.read_bytes().replace(b'"active"', b'"busy"', 1))
    assert shared.apply().exit_code == 0
    assert shared.live("gc")["status"] == "busy"
    shared.hset("mary", status="done")
    assert shared.apply().exit_code == 0
    text = shared.path.read_bytes().decode("utf-8-sig")
    assert '"done"' in text and '"busy"' in text
    assert shared.diff().in_sync
