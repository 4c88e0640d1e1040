"""The logs that launchd lets grow for ever: those in `logs/` that this process itself writes are kept bounded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .. import files
from ..errors import ReconcilerError
from ..settings import Settings

LIMIT = 5 << 20
"""Bytes of a log before it begins anew."""
KEEP = 3
"""Older parts of each log; `.1` is the newest."""


def own_logs(settings: Settings) -> dict[int, Path]:
    """By descriptor, the logs of the workspace that this process's stdout and stderr write; one file is there once."""
    found: dict[tuple[int, int], tuple[int, Path]] = {}
    for path in (settings.root / "logs").glob("memory_hub.*.log"):
        for fd in (1, 2):
            with suppress(OSError):
                if os.path.samestat(there := os.fstat(fd), path.lstat()):
                    found[there.st_dev, there.st_ino] = fd, path
    return dict(found.values())


def bound(logs: Mapping[int, Path]) -> None:
    """Begin those anew that are too large. One that cannot be is tried again the next time: the work matters more."""
    for fd, path in logs.items():
        with suppress(OSError, ReconcilerError):
            if os.path.samestat(os.fstat(fd), path.lstat()):
                files.rotate(fd, path, LIMIT, KEEP)
