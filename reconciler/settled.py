"""Whether everything is as it was when a round found nothing to do: then a dry run need not look at each agent.

`.reconciler/settled` holds a digest of all that goes into a round: the program and its settings, base, `context.json`,
the times of the manifests, and what Redis holds, as the server itself digests it. While they are the same, so is the
answer. It is noted by who may write (`apply`), after one more look; the file may be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path

from . import __version__, files
from .errors import ReconcilerError
from .inbox import PROCESSED
from .plan import Plan
from .sources import context_file
from .sources.manifests import identities
from .spool import REJECTED
from .workspace import Workspace

NAME = "settled"


def is_settled(workspace: Workspace) -> bool:
    """Whether a look at everything would find nothing to do and nothing wrong. False where that takes a look."""
    path = workspace.settings.folder / NAME
    with suppress(OSError, ReconcilerError):
        found = files.read(path, 1_000)
        return found is not None and found[0].decode("utf-8", "replace") == _digest(workspace)
    return False


def note_settled(workspace: Workspace) -> None:
    """Look once more, and note it if there is nothing to do: the same before and after, so it is what was looked at."""
    path = workspace.settings.folder / NAME
    with suppress(OSError, ReconcilerError):
        before = _digest(workspace)
        if before and not is_settled(workspace) and _is_quiet(workspace) and _digest(workspace) == before:
            files.write_private(path, before.encode())


def _is_quiet(workspace: Workspace) -> bool:
    """Whether a look finds nothing, and what it finds depends on nothing but what is in the digest: a write that is not
    adopted has the time at which it is seen, a file that was saved a moment ago may have been saved again."""
    from .view import Options, look  # only who notes it pays for that

    view = look(workspace, Options(dry=True))
    loaded = view.desired.loaded
    return (
        view.plan == Plan()
        and not any(agent.raw or agent.seen for agent in view.live.agents.values())
        and not any(file.racy for file in loaded.files.values())
        and not any(manifest.context_schema for manifest in loaded.manifests.values())
    )


def _digest(workspace: Workspace) -> str:
    """Of all that goes into a round; "" where that cannot be told, or something waits to be taken in."""
    settings = workspace.settings
    waiting = _names(settings.spool, REJECTED)
    if waiting or (settings.inbox and _names(settings.inbox_folder, REJECTED, PROCESSED)):
        return ""
    with ThreadPoolExecutor(1) as other:  # the server is at work while the files are looked at
        live = other.submit(workspace.store.mark)
        context = files.read(settings.context_file, context_file.MAX_BYTES)
        told = hashlib.sha256(context[0] if context else b"")
        for part in (__version__, astuple(replace(settings, password=None)), workspace.base.mark()):
            told.update(repr(part).encode())
        told.update("\0".join(map(_line, identities(settings.manifests).items())).encode("utf-8", "surrogateescape"))
        told.update(live.result().encode())
    return told.hexdigest() if live.result() else ""


def _line(item: tuple[str, files.Identity | None]) -> str:
    """A manifest file, written out: Python shows a list of ten thousand tuples in twice the time."""
    path, identity = item
    if identity is None:
        return path
    device, inode, size, mtime_ns = identity  # a path may have "%" in it: no template
    return f"{path} {device} {inode} {size} {mtime_ns}"


def _names(folder: Path, *ours: str) -> list[str]:
    """What is in a folder, but for our own."""
    try:
        return [name for name in os.listdir(folder) if name not in ours]
    except FileNotFoundError:
        return []
