"""A raw write that was read and cannot be adopted: Redis is gone, or does not let this program write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from reconciler.base import Base
from reconciler.base.warm import WarmBase
from reconciler.controller import reconcile
from reconciler.errors import ReconcilerError, StoreAway, StoreError
from reconciler.store import AwayStore, LiveStore, Write, Written
from reconciler.workspace import Workspace, open_workspace
from tests.story.desk import Desk


class Failing:
    """A store that answers reads, and goes wrong at the first write."""

    def __init__(self, store: LiveStore, error: Exception, *, late: bool) -> None:
        self._store, self._error, self._late = store, error, late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, writes: Sequence[Write]) -> list[Written]:
        if writes and not self._late:
            raise self._error
        found = self._store.write(writes)
        if writes:
            raise self._error
        return found


@pytest.fixture
def workspace(shared: Desk) -> Iterator[Workspace]:
    """As `run` has it."""
    with open_workspace(shared.settings, lambda text: None) as opened:
        found = replace(opened, base=WarmBase(shared.settings.folder), clock=shared.now)
        reconcile(found)
        yield found


def failing(workspace: Workspace, error: Exception, *, late: bool = False) -> Workspace:
    store: Any = Failing(workspace.store, error, late=late)
    return replace(workspace, store=store)


def away(workspace: Workspace) -> Workspace:
    return replace(workspace, store=AwayStore(StoreAway("gone")))


@pytest.mark.parametrize("kind", [StoreAway, StoreError])
def test_it_is_kept_on_files(shared: Desk, workspace: Workspace, kind: type[ReconcilerError]) -> None:
    """As any write that was read before Redis went away."""
    shared.hset("mary", status="raw")
    with pytest.raises(kind):
        reconcile(failing(workspace, kind("gone")))
    reconcile(away(workspace))
    assert shared.record("mary")["status"] == "raw"


def test_its_time_is_that_of_the_first_look(shared: Desk, workspace: Workspace) -> None:
    """A round that cannot adopt it does not take it for written once more: each would write the file anew."""
    shared.hset("mary", status="raw")
    seen = []
    for _ in range(3):
        shared.later(60)
        with pytest.raises(StoreError):
            reconcile(failing(workspace, StoreError("not allowed")))
        reconcile(away(workspace))
        seen.append((Base(shared.settings.folder).load().merged["mary"]["status"], shared.text()))
    assert seen[0] == seen[1] == seen[2]
    reconcile(workspace)
    shared.assert_agree()


@pytest.mark.parametrize("edited", [False, True])
def test_it_is_one_version_if_only_the_answer_was_lost(shared: Desk, workspace: Workspace, edited: bool) -> None:
    """And it is no conflict of itself."""
    history = "memory:history:{memory:agents:mary}"
    before = shared.redis.xlen(history)
    shared.hset("mary", status="raw", context='{"a":1}')
    with pytest.raises(StoreAway):
        reconcile(failing(workspace, StoreAway("gone"), late=True))
    reconcile(away(workspace))
    assert shared.record("mary")["status"] == "raw"
    if edited:
        shared.set("mary", status="by hand")
        reconcile(away(workspace))
    reconcile(workspace)
    assert shared.redis.xlen(history) == before + 1 + edited
    assert not Base(shared.settings.folder).conflicts()
    shared.assert_agree()
