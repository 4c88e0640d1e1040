"""Fixtures that all tests may use; what they need is in modules of their own."""

from __future__ import annotations

from tests.servers import launch, memory, real, valkey

__all__ = ["launch", "memory", "real", "valkey"]
