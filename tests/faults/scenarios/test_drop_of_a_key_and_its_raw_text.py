"""A drop says both `result` and `result_raw`: it keeps both, although a good result takes away an earlier raw one."""

from __future__ import annotations

from reconciler.spool import Part, drop
from tests.story.desk import Desk


def test_drop_of_a_key_and_its_raw_text(shared: Desk) -> None:
    """In whichever order they stand."""
    raw, good = Part("result_raw", "text", b"raw"), Part("result", "json", b"1")
    for agent, parts in (("mary", [raw, good]), ("gc", [good, raw])):
        drop(shared.settings, agent, parts)
        shared.apply()
        assert shared.live(agent)["context"] == shared.record(agent)["context"] == {"result": 1, "result_raw": "raw"}
    shared.assert_agree()
