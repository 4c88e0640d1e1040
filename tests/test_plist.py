"""The launchd template: what launchd reads is complete, expands nothing and holds no secret."""

from __future__ import annotations

import plistlib
from pathlib import Path

TEMPLATE = Path(__file__).parent.parent / "launchd" / "com.02luka.memory.hub.plist"


def test_the_template_parses_and_starts_the_reconciler() -> None:
    """With the two paths filled in it runs `reconciler --root ROOT run`, and again when that ends."""
    text = TEMPLATE.read_text("utf-8")
    filled = text.replace("@RECONCILER@", "/opt/bin/reconciler").replace("@ROOT@", "/Users/x/my luka")
    job = plistlib.loads(filled.encode())
    assert job["Label"] == TEMPLATE.stem
    assert job["ProgramArguments"] == ["/opt/bin/reconciler", "--root", "/Users/x/my luka", "run"]
    assert job["RunAtLoad"] is True
    assert job["KeepAlive"] is True
    for key in ("WorkingDirectory", "StandardOutPath", "StandardErrorPath"):
        assert job[key].startswith("/Users/x/my luka")


def test_nothing_in_it_needs_a_shell_or_a_secret() -> None:
    """launchd expands no ~ and no $; every user may read the file."""
    text = TEMPLATE.read_text("utf-8")
    values = text[text.index("<dict>") :]
    assert "~" not in values
    assert "$" not in values
    assert "password" not in values.lower()
    assert "redis" not in values.lower()
    assert "EnvironmentVariables" not in values
