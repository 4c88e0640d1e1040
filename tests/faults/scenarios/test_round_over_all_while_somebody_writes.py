"""A round over everything leaves out the agent that somebody is just writing: it still is about all others."""

from __future__ import annotations

from reconciler.controller import Options, reconcile
from reconciler.daemon.news import News
from reconciler.view import Scope
from reconciler.workspace import open_workspace
from tests.faults.scenarios.kit import dropped
from tests.story.desk import Desk

ONE = frozenset({"mary"})
WHILE_ONE_WRITES = Scope(resting=ONE)


def test_a_drop_for_a_new_agent_is_taken_in(shared: Desk) -> None:
    """Found by reading: it was rejected, as if its name clashed with another's."""
    with open_workspace(shared.settings, lambda text: None) as workspace:
        reconcile(workspace)
        shared.hset("mary", status="raw")
        dropped(shared, "newcomer", task="first")
        assert reconcile(workspace, Options(), WHILE_ONE_WRITES).again == ONE
        assert shared.record("newcomer")["context"] == shared.live("newcomer")["context"] == {"task": "first"}
        reconcile(workspace)
    assert shared.record("mary")["status"] == "raw"
    shared.assert_agree()


def test_what_was_mended_is_no_longer_told(shared: Desk) -> None:
    """Found by histories of real processes: `status` stayed red for a key that was gone."""
    news = News(lambda notice: None)
    with open_workspace(shared.settings, lambda text: None) as workspace:
        reconcile(workspace)
        shared.redis.set("memory:agents:poison", "no hash")
        news.round(reconcile(workspace, Options(), WHILE_ONE_WRITES), None, "")
        assert news.health.code == 3
        shared.redis.delete("memory:agents:poison")
        shared.hset("mary", status="raw")
        shared.set("gc", status="busy")
        done = reconcile(workspace, Options(), WHILE_ONE_WRITES)
        news.round(done, None, "")
        assert (done.again, news.health.code) == (ONE, 0)
        reconcile(workspace)
    shared.assert_agree()
