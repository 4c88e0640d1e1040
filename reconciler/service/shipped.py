"""The files that are shipped beside the code: samples, schemas, the template of the LaunchAgent."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def shipped(name: str) -> Path:
    """A folder of the project: `launchd`, `manifests` or `schemas`. The wheel carries them inside the package."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
