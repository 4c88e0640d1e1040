"""Keep the shared memory of several agents the same in files and in Redis.

Read the package in this order: errors, stamp, state, merge, plan, render, events, drops, address (pure), bulk,
settings, schema, failpoints, files, password, spool, inbox, edits, sources, base, sources.desired, store, workspace,
view, conflicts, apply, settled, controller, health, follow, subscribe, updates, rewind, explain, offline, writing,
cache, hub, aio, daemon, service, doctor, cli. A module imports only from those above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aio import AsyncUnifiedMemoryHub
    from .hub import UnifiedMemoryHub

__version__ = "0.1.0"
__all__ = ["AsyncUnifiedMemoryHub", "UnifiedMemoryHub", "__version__"]


def __getattr__(name: str) -> Any:
    """The hubs are imported when they are asked for: `reconciler --help` must not pay for Redis."""
    if name == "UnifiedMemoryHub":
        from .hub import UnifiedMemoryHub

        return UnifiedMemoryHub
    if name == "AsyncUnifiedMemoryHub":
        from .aio import AsyncUnifiedMemoryHub

        return AsyncUnifiedMemoryHub
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
