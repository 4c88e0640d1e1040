"""A hook drops a result as JSON that is none: the text is kept as `result_raw` with the reason, and nothing is lost."""

from __future__ import annotations

from reconciler.spool import Part, drop
from tests.story.desk import Desk


def test_drop_that_is_not_json(shared: Desk) -> None:
    """A good result later takes the raw one away."""
    drop(shared.settings, "mary", [Part("result", "json", b'{"done": tru')])
    shared.apply()
    context = shared.record("mary")["context"]
    assert context["result_raw"] == '{"done": tru'
    assert context["result_raw_reason"]
    assert "result" not in context
    drop(shared.settings, "mary", [Part("result", "json", b'{"done": true}')])
    shared.apply()
    assert shared.record("mary")["context"] == shared.live("mary")["context"] == {"result": {"done": True}}
    shared.assert_agree()
