"""A manifest file holds thousands of documents that are none: they are explained in one reading, and others go on."""

from __future__ import annotations

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk


def test_thousands_of_bad_documents(shared: Desk) -> None:
    """Found by fuzzing: 27 KB took a minute, 1 MB would have taken a day; what is told stays bounded too."""
    shared.manifest("mary", "spec: {status: busy}")
    (shared.root / "manifests" / "bad.yaml").write_text("---\na: 1\n" * 5_000)
    done = shared.apply()
    assert done.exit_code == 3
    assert "manifests/bad.yaml:" in named(done)
    assert len(named(done)) < 100_000
    assert shared.live("mary")["status"] == "busy"
