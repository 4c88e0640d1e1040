"""A program leaves a file of one name in the inbox again and again: each of them counts, none is overwritten."""

from __future__ import annotations

from tests.faults.scenarios.kit import version, with_inbox
from tests.story.desk import Desk


def test_inbox_file_of_the_same_name(shared: Desk) -> None:
    """Three rounds, three versions, three files put by."""
    desk = with_inbox(shared)
    before = version(desk, "mary")
    for number in range(3):
        (desk.settings.inbox_folder / "mary_result.json").write_text(f'{{"n": {number}}}')
        desk.apply()
        assert desk.live("mary")["context"] == {"n": number}
    assert version(desk, "mary") == before + 3
    assert len(list((desk.settings.inbox_folder / "processed").iterdir())) == 3
    desk.assert_agree()
