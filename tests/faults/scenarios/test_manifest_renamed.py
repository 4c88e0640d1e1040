"""A manifest file is renamed and moved into a subfolder: it is the same declaration, and beats nothing newer."""

from __future__ import annotations

from tests.story.desk import Desk


def test_manifest_renamed(shared: Desk) -> None:
    """Its file is new, its words are not: a live value that came later stands."""
    path = shared.manifest("mary", "spec: {status: active, context: {role: dispatcher}}", age=60)
    shared.apply()
    shared.hset("mary", status="busy")
    shared.apply()
    (path.parent / "team").mkdir()
    path.rename(path.parent / "team" / "dispatcher.yml")
    (path.parent / "team" / "dispatcher.yml").touch()
    shared.apply()
    assert shared.record("mary")["status"] == shared.live("mary")["status"] == "busy"
    shared.assert_agree()
