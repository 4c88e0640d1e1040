"""A manifest is cut off while it is saved: its agent keeps the last good word, and the other manifests go on."""

from __future__ import annotations

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk


def test_torn_manifest(shared: Desk) -> None:
    """Its place is named; saved whole it counts."""
    path = shared.manifest("mary", "spec: {status: active, context: {role: dispatcher}}", age=60)
    shared.apply()
    whole = path.read_bytes()
    path.write_bytes(whole[:-12])
    shared.manifest("gc", "spec: {context: {role: builder}}")
    done = shared.apply()
    assert done.exit_code == 3
    assert "manifests/mary.yaml:" in named(done)
    assert shared.live("mary")["context"] == {"role": "dispatcher"}
    assert shared.live("gc")["context"] == {"role": "builder"}
    path.write_bytes(whole.replace(b"dispatcher", b"operator"))
    assert shared.apply().exit_code == 0
    assert shared.live("mary")["context"] == {"role": "operator"}
    shared.assert_agree()
