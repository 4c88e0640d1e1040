"""The rounds of a daemon that runs, called one by one in this process."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from reconciler.controller import Options, Scope
from reconciler.daemon import Daemon
from reconciler.workspace import read_settings

from .group import timed


class Warm:
    """What `run` holds between two rounds, its watchers included; only the loop is ours.

    It is asked for by its private names: the program has no use for a daemon that does one round when told to.
    """

    def __init__(self, root: Path, url: str) -> None:
        settings = read_settings(str(root), {"redis": url}, {})
        self._daemon = Daemon(settings, Options(), lambda notice: None, lambda: settings)
        self._open = ExitStack()
        self._workspace, _ = self._open.enter_context(self._daemon._session())
        self._reconcile(Scope())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def round(self, agents: Iterable[str] | None = None) -> float:
        """Seconds of one round, as the daemon does it: the clock's, which looks at all files, or over what somebody
        wrote in Redis."""
        scope = Scope(frozenset(), None) if agents is None else Scope(frozenset(agents), frozenset())
        return timed(lambda: self._reconcile(scope))

    def _reconcile(self, scope: Scope) -> None:
        self._daemon._reconcile(self._workspace, scope)
