"""The drop-ins: what stood in `agents/memory_hub/` and `tools/memory_sync.sh`, done by this program.

They are run by whatever Python their callers use, so they name the interpreter that installed them.
"""

from __future__ import annotations

import shlex
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from ..settings import Settings
from . import Target, Wanted, whole
from .hooks import template

_INIT = b"# Put here by `reconciler install shim`, so that the hub is found from the workspace's root.\n"


def _filled(name: str, **values: str) -> bytes:
    text = template(name).decode()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode("utf-8", "surrogateescape")


def _packages() -> list[str]:
    """Where this interpreter has the reconciler and what it needs."""
    own = str(Path(__file__).resolve().parent.parent.parent)
    return list(dict.fromkeys([own, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]))


def _init(path: Path) -> Wanted:
    return Wanted(path, lambda there: _INIT if there is None else there)


def _wanted(settings: Settings) -> Sequence[Wanted]:
    agents = settings.root / "agents"
    hub = _filled(
        "memory_hub.template",
        PYTHON=ascii(sys.executable),
        VERSION=repr(sys.version_info[:2]),
        PACKAGES=ascii(_packages()),
    )
    sync = _filled("memory_sync.template", PYTHON=shlex.quote(sys.executable))
    return [
        _init(agents / "__init__.py"),
        _init(agents / "memory_hub" / "__init__.py"),
        whole(agents / "memory_hub" / "memory_hub.py", hub, 0o755),
        whole(settings.root / "tools" / "memory_sync.sh", sync, 0o755),
    ]


TARGET = Target("shim", _wanted)
