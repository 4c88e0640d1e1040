"""What is no Unicode text hurts itself alone: bytes, half of a surrogate pair, the name of a file."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from reconciler.base.warm import WarmBase
from reconciler.controller import Options, reconcile
from reconciler.errors import StoreAway
from reconciler.store import AwayStore
from reconciler.view import Scope
from reconciler.workspace import Workspace, open_workspace
from tests.story.desk import Desk

NOTHING = Scope(frozenset(), frozenset())
"""As `run` looks when only `context.json` may have changed."""


def away(workspace: Workspace) -> Workspace:
    return replace(workspace, store=AwayStore(StoreAway("gone")))


def warm(workspace: Workspace, desk: Desk) -> Workspace:
    """As `run` has it, which follows the file and does not read it anew."""
    return replace(workspace, base=WarmBase(desk.settings.folder))


def test_bytes_that_are_no_text_are_no_edit_for_one_who_follows_the_file(shared: Desk) -> None:
    """They stay as they are, and the round says where."""
    with open_workspace(shared.settings, lambda text: None) as opened:
        workspace = warm(opened, shared)
        reconcile(workspace)
        shared.set("mary", status="busy")
        reconcile(workspace)
        shared.save(shared.path.read_bytes().replace(b'"busy"', b'"caf\xe9"'))
        done = reconcile(workspace, Options(), NOTHING)
    assert done.exit_code == 3
    assert shared.live("mary")["status"] == "busy"
    assert b"\xe9" in shared.path.read_bytes()


@pytest.mark.parametrize("redis", [True, False], ids=["redis", "away"])
@pytest.mark.parametrize("place", ["key", "field", "section"])
def test_half_of_a_surrogate_pair_hurts_its_place_alone(shared: Desk, place: str, redis: bool) -> None:
    """JSON can say it in a name, and neither Redis nor a database can take it. In a value it is JSON text like any."""
    data = shared.file()
    if place == "section":
        data["half \ud800"] = 1
    else:
        more = {"key": {"context": {"\ud800": 1}}, "field": {"\ud800": "x"}}
        data["agents"]["mary"] |= more[place]
    data["agents"]["gc"]["status"] = "busy"
    shared.path.write_text(json.dumps(data))
    done = shared.round(away) if not redis else shared.apply()
    assert "\\ud800" in shared.text()
    assert any("\\ud800" in problem.message for problem in done.plan.problems)
    shared.apply()
    assert shared.live("gc")["status"] == "busy"


def test_a_manifest_whose_name_is_no_text_is_named_and_left_out(shared: Desk) -> None:
    """In a round over everything, and in one over this file alone."""
    name = os.fsdecode(b"caf\xe9.yaml")
    with open_workspace(shared.settings, lambda text: None) as opened:
        workspace = warm(opened, shared)
        reconcile(workspace)
        shared.manifest("mary", "spec: {status: busy}", name=name)
        shared.manifest("gc", "spec: {status: busy}")
        for scope in (Scope(frozenset(), frozenset([f"manifests/{name}"])), Scope()):
            done = reconcile(workspace, Options(), scope)
            assert [problem.message for problem in done.plan.errors] == ["the file's name is not UTF-8"]
    assert (shared.live("mary")["status"], shared.live("gc")["status"]) == ("active", "busy")
