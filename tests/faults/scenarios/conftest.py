"""The desk of the stories: an empty workspace, or one of six agents, on a real server that is empty too."""

from __future__ import annotations

from tests.story.conftest import desk, shared

__all__ = ["desk", "shared"]
