"""A manifest of a few lines expands to billions of values: it is refused at once, and the other manifests go on."""

from __future__ import annotations

import pytest

from tests.faults.scenarios.kit import named
from tests.story.desk import Desk

ALIASES = "\n".join(f"  k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
DEEP = "spec: {context: {deep: " + "[" * 20_000 + "]" * 20_000 + "}}"


@pytest.mark.parametrize("body", ["spec:\n  k0: &a0 [x, x]\n" + ALIASES, DEEP], ids=["aliases", "depth"])
def test_yaml_bomb(shared: Desk, body: str) -> None:
    """By its aliases or by its depth; neither memory nor stack is spent on it."""
    shared.manifest("bomb", body)
    shared.manifest("mary", "spec: {status: busy}")
    done = shared.apply()
    assert done.exit_code == 3
    assert "manifests/bomb.yaml:" in named(done)
    assert shared.live("mary")["status"] == "busy"
    assert shared.live("bomb") == {}
