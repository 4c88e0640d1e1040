"""`shared_memory` is a link to a synced folder, and then to another one: the link stays, the file is written."""

from __future__ import annotations

from tests.story.desk import Desk


def test_symlinked_folder(shared: Desk) -> None:
    """First with the file in it, then led elsewhere, where there is none yet."""
    first, second = shared.root.parent / "synced", shared.root.parent / "synced again"
    folder = shared.path.parent
    folder.rename(first)
    second.mkdir()
    folder.symlink_to(first)
    shared.hset("mary", status="busy")
    assert shared.apply().exit_code == 0
    assert folder.is_symlink() and not shared.path.is_symlink()
    folder.unlink()
    folder.symlink_to(second)
    assert shared.apply().exit_code == 0
    assert folder.is_symlink()
    assert (second / "context.json").exists()
    assert shared.record("mary")["status"] == "busy"
    shared.assert_agree()
