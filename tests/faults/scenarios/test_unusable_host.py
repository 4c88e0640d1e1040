"""The environment says `REDIS_HOST=:`: the setting is named and nothing is tried, let alone written."""

from __future__ import annotations

import pytest

from reconciler.errors import UsageError
from reconciler.workspace import read_settings
from tests.story.desk import Desk


@pytest.mark.parametrize("host", [":", "::\t"])
def test_unusable_host(desk: Desk, host: str) -> None:
    """Found by fuzzing: it came out as a fault of the program."""
    with pytest.raises(UsageError, match="redis_host"):
        read_settings(str(desk.root), {}, {"REDIS_HOST": host})
