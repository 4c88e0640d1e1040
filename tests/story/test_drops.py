"""What hooks drop into the spool: each drop becomes one version, whatever happens to Redis or to the round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import UnifiedMemoryHub
from reconciler.base import Base
from reconciler.controller import reconcile, reconcile_or_away
from reconciler.errors import StoreAway
from reconciler.spool import Part, Spool, Waiting, backlog, pack
from reconciler.stamp import format_time
from reconciler.store import AwayStore, Now, Write, Written
from reconciler.store.redis_store import RedisStore
from reconciler.workspace import Workspace, open_workspace, read_settings
from tests.story.desk import Desk, shown, six_agents

DIED = 9
PROJECT = Path(__file__).parents[2]


class Hook:
    """A process that drops: its stamps are in the past by `ago` seconds, and go up by one µs with each drop."""

    def __init__(self, desk: Desk, ago: float = 10.0, pid: int = 4711) -> None:
        self.desk, self.pid = desk, pid
        self.at = time.time_ns() // 1000 - int(ago * 1_000_000)

    def __call__(self, agent: str, **values: Any) -> str:
        """Drop text as text, bytes as JSON text, anything else as JSON; the name of the drop."""
        folder = self.desk.settings.spool
        folder.mkdir(mode=0o700, exist_ok=True)
        self.at += 1
        name = f"{self.at:016}-{self.pid}"
        (folder / f"{name}.drop").write_bytes(pack(agent, [_part(*item) for item in values.items()]))
        return name


def _part(key: str, value: Any) -> Part:
    if isinstance(value, str):
        return Part(key, "text", value.encode())
    return Part(key, "json", value if isinstance(value, bytes) else json.dumps(value).encode())


def away(workspace: Workspace) -> Workspace:
    return replace(workspace, store=AwayStore(StoreAway("away")))


def versions(desk: Desk, agent: str) -> list[dict[str, Any]]:
    """The events in an agent's history, oldest first."""
    entries = desk.redis.xrange(f"memory:history:{{memory:agents:{agent}}}")
    return [json.loads(fields["event"]) for _, fields in entries]


def by_hooks(desk: Desk, agent: str) -> list[tuple[str, Any]]:
    """Time and `n` of each version that a hook made."""
    found = versions(desk, agent)
    assert [event["version"] for event in found] == list(range(1, len(found) + 1))
    made = [event for event in found if event["changes"][0]["by"].startswith("hook-")]
    return [(event["timestamp"], event["data"]["n"]) for event in made]


def dropped(hook: Hook, agent: str, numbers: Iterable[int]) -> list[tuple[str, Any]]:
    """Drop these numbers; the versions that must come of it."""
    return [(format_time(int(hook(agent, n=number, task=f"WO-{number}")[:16])), number) for number in numbers]


def test_a_drop_that_waits_does_not_bring_a_deleted_agent_back(shared: Desk) -> None:
    """It was made before the deletion, and says keys of which Redis and base know nothing yet."""
    Hook(shared)("mary", task="WO-1")
    with UnifiedMemoryHub(settings=shared.settings) as hub:
        hub.delete_agent("mary")
    shared.apply()
    assert shared.live("mary") == {}
    assert "mary" not in shared.file()["agents"]
    shared.assert_agree()


def test_one_round_takes_a_drop_to_redis_and_what_deleted_it_since(shared: Desk) -> None:
    """The drop is a version of the history; the deletion, made while Redis was away, is the next."""
    Hook(shared)("mary", task="WO-1")
    shared.round(away)
    shared.edit(lambda data: data["agents"]["mary"]["context"].pop("task"))
    shared.round(away)
    shared.apply()
    assert [[change["op"] for change in event["changes"]] for event in versions(shared, "mary")[-2:]] == [
        ["create"], ["delete"],
    ]  # fmt: skip
    assert "task" not in shared.live("mary").get("context", {})
    shared.assert_agree()


def test_each_drop_is_one_version_with_its_own_time(shared: Desk) -> None:
    """One event and one entry of the history each, in order; the last word stands in Redis and in the file."""
    hook = Hook(shared)
    expected = dropped(hook, "mary", range(300))
    dropped(hook, "rnd", range(2))
    done = shared.apply()
    assert by_hooks(shared, "mary") == expected
    assert shared.live("mary")["context"] == shared.record("mary")["context"] == {"n": 299, "task": "WO-299"}
    assert done.exit_code == 0
    assert list(shared.settings.spool.iterdir()) == []
    shared.assert_agree()


def test_diff_shows_drops_and_touches_nothing(shared: Desk) -> None:
    """Neither the drops nor what is no drop."""
    hook = Hook(shared)
    hook("mary", last_task="WO-1")
    (shared.settings.spool / "stranger").write_text("?")
    os.utime(shared.settings.spool / "stranger", (0, 0))
    before = sorted(path.name for path in shared.settings.spool.iterdir())
    plan = shared.diff()
    assert shown(plan) == {
        "mary.context.last_task > redis": (None, '"WO-1"'),
        "mary.context.last_task > file": (None, '"WO-1"'),
    }
    assert {change.by for change in plan.changes if not change.quiet} == {"hook-4711"}
    assert [problem.message.partition(":")[0] for problem in plan.errors] == ["not taken in"]
    assert sorted(path.name for path in shared.settings.spool.iterdir()) == before


def test_a_round_says_what_was_no_drop_once(shared: Desk) -> None:
    """It is put aside, everything else goes on, and the next round is good."""
    hook = Hook(shared)
    hook("mary", n=1)
    hook("../evil", n=2)
    assert shared.apply().exit_code == 3
    assert shared.live("mary")["context"] == {"n": 1}
    assert shared.apply().exit_code == 0
    assert [reason for _, reason in backlog(shared.settings).rejected] == ["'../evil' is no legal agent name"]


PAYLOADS = [
    b'{"note":"it\'s $(touch pwned) `id` \\" ; rm -rf"}',
    '{"emoji":"\U0001f680\U0001f469\u200d\U0001f52c","lines":"a\\nb\\r\\n"}'.encode(),
    b'{"big":"' + b"x" * 1_000_000 + b'"}',
    b"[12345678901234567890,1.0,1e400]",
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=["shell", "unicode", "1 MB", "numbers"])
def test_a_result_is_the_json_that_was_passed(shared: Desk, payload: bytes) -> None:
    """Byte for byte, in Redis and in the file; nothing ran."""
    Hook(shared)("mary", result=payload)
    shared.apply()
    assert f'"result":{payload.decode()}' in shared.redis.hget("memory:agents:mary", "context")
    assert json.loads(shared.text())["agents"]["mary"]["context"] == {"result": json.loads(payload)}
    assert not list(shared.root.rglob("pwned"))


def test_what_is_not_json_is_kept_until_a_good_one_comes(shared: Desk) -> None:
    """As text, with the reason; the good one takes it away again."""
    hook = Hook(shared)
    hook("mary", result={"ok": True})
    hook("mary", result=b'{"stray": "brace"}}')
    shared.apply()
    kept = {"result_raw": '{"stray": "brace"}}',
            "result_raw_reason": "not JSON: extra text behind the value at character 19"}  # fmt: skip
    assert shared.live("mary")["context"] == shared.record("mary")["context"] == kept
    hook("mary", result={"ok": False})
    shared.apply()
    assert shared.live("mary")["context"] == shared.record("mary")["context"] == {"result": {"ok": False}}
    hook("mary", result={"ok": 1})
    hook("mary", result=b"broken")
    hook("mary", result={"ok": 2})
    shared.apply()
    assert shared.live("mary")["context"] == {"result": {"ok": 2}}
    assert len(versions(shared, "mary")) == 1 + 6


def test_a_result_that_is_recorded_twice_counts_once(shared: Desk) -> None:
    """The same said again is no version."""
    hook = Hook(shared)
    for _ in range(2):
        hook("mary", last_task="WO-1", task_status="completed", result={"ok": True})
    shared.apply()
    assert len(versions(shared, "mary")) == 1 + 1


def test_drops_wait_in_the_file_while_redis_is_away(shared: Desk) -> None:
    """Every round on files has them; when Redis is back each becomes a version with the time it was made."""
    hook = Hook(shared)
    expected = dropped(hook, "mary", range(3))
    shared.round(away)
    assert shared.record("mary")["context"] == {"n": 2, "task": "WO-2"}
    assert backlog(shared.settings)[:2] == (0, 3)
    expected += dropped(hook, "mary", range(3, 6))
    shared.round(away)
    assert shared.record("mary")["context"] == {"n": 5, "task": "WO-5"}
    assert backlog(shared.settings)[:3] == (0, 6, hook.at - 5)
    shared.apply()
    assert by_hooks(shared, "mary") == expected
    assert backlog(shared.settings)[:2] == (0, 0)
    shared.assert_agree()


def test_what_lost_to_something_newer_is_in_the_ledger(shared: Desk) -> None:
    """Field by field; what did not lose is taken in. Told once, however often it is looked at."""
    shared.set("mary", context={"task": "edited"})
    shared.apply()
    hook = Hook(shared, ago=100.0)
    hook("mary", task="late", n=1)
    shared.round(away)
    shared.apply()
    assert shared.live("mary")["context"] == {"task": "edited", "n": 1}
    lost = [(c.field, c.lost.text, c.lost.by, c.won.text) for c in Base(shared.settings.folder).conflicts()]
    assert lost == [("context.task", '"late"', "hook-4711", '"edited"')]


def test_what_an_edit_replaced_that_had_seen_it_is_no_conflict(shared: Desk) -> None:
    """Though the drop waits for Redis all the time."""
    hook = Hook(shared)
    hook("mary", task="dropped")
    shared.round(away)
    shared.edit(lambda data: data["agents"]["mary"]["context"].update(task="edited"))
    shared.round(away)
    shared.apply()
    assert shared.live("mary")["context"] == {"task": "edited"}
    assert [event["data"] for event in versions(shared, "mary")[1:]] == [{"task": "dropped"}, {"task": "edited"}]
    assert Base(shared.settings.folder).conflicts() == []


def test_drops_come_after_the_hash_that_somebody_removed_is_whole_again(shared: Desk) -> None:
    """What stood there is restored first; every drop has its version."""
    shared.set("mary", status="busy", context={"role": "x"})
    shared.apply()
    shared.redis.delete("memory:agents:mary")
    expected = dropped(Hook(shared, ago=-1), "mary", range(3))
    shared.apply()
    assert by_hooks(shared, "mary")[-3:] == expected
    assert shared.live("mary")["context"] == {"role": "x", "n": 2, "task": "WO-2"}
    assert shared.live("mary")["status"] == "busy"
    shared.assert_agree()


def test_a_wiped_server_gets_everything_and_the_drops(shared: Desk) -> None:
    """Versions go on counting."""
    shared.set("mary", status="busy")
    shared.apply()
    shared.redis.flushall()
    dropped(Hook(shared, ago=-1), "mary", range(3))
    shared.apply()
    assert [event["data"]["n"] for event in versions(shared, "mary") if event["data"]] == [0, 1, 2]
    assert shared.live("mary")["status"] == "busy"
    assert int(shared.redis.hget("memory:meta:{memory:agents:mary}", "version")) > 3
    shared.assert_agree()


def test_drops_of_a_quarantined_agent_wait_until_it_is_mended(shared: Desk) -> None:
    """The file has them, nobody else is held up, and then each has its version."""
    shared.redis.rename("memory:agents:mary", "elsewhere")
    shared.redis.set("memory:agents:mary", "not a hash")
    hook = Hook(shared)
    expected = dropped(hook, "mary", range(3))
    dropped(hook, "rnd", range(1))
    shared.apply()
    assert shared.record("mary")["context"] == {"n": 2, "task": "WO-2"}
    assert shared.live("rnd")["context"] == {"n": 0, "task": "WO-0"}
    expected += dropped(hook, "mary", [3])
    shared.apply()
    assert backlog(shared.settings)[:2] == (0, 4)
    shared.redis.rename("elsewhere", "memory:agents:mary")
    shared.apply()
    assert by_hooks(shared, "mary") == expected
    assert backlog(shared.settings)[:2] == (0, 0)
    shared.assert_agree()


def test_a_field_that_cannot_be_read_holds_up_no_drop(shared: Desk) -> None:
    """Unless the drop is about that field."""
    shared.set("mary", insight="tea")
    shared.apply()
    shared.redis.hset("memory:agents:mary", "insight", b"\xff")
    expected = dropped(Hook(shared), "mary", range(2))
    assert shared.apply().exit_code == 3
    assert by_hooks(shared, "mary") == expected


def test_an_agent_of_another_spelling_is_put_aside(shared: Desk) -> None:
    """It can never be written."""
    Hook(shared)("Mary", n=1)
    assert shared.apply().exit_code == 3
    assert shared.apply().exit_code == 0
    assert [reason for _, reason in backlog(shared.settings).rejected] == [
        "the agent differs from a known one only in its letters' case"
    ]


def test_drops_of_the_future_keep_their_order_and_are_told(shared: Desk) -> None:
    """A clock that ran ahead cannot freeze a field, and no drop is written over by one before it."""
    hook = Hook(shared, ago=-3600)
    dropped(hook, "mary", range(5))
    plan = shared.apply().plan
    assert [number for _, number in by_hooks(shared, "mary")] == [0, 1, 2, 3, 4]
    assert shared.live("mary")["context"] == {"n": 4, "task": "WO-4"}
    assert any("in Redis' future became its now" in note for note in plan.notes)
    shared.hset("mary", context='{"n": 5}')
    shared.apply()
    assert shared.record("mary")["context"] == {"n": 5}


def test_raw_writes_and_drops_at_once_lose_nothing(shared: Desk) -> None:
    """An HSET that nobody has adopted yet stands in the way of no drop."""
    shared.hset("mary", insight="tea")
    expected = dropped(Hook(shared), "mary", range(3))
    shared.apply()
    assert by_hooks(shared, "mary") == expected
    assert shared.live("mary")["insight"] == "tea"
    shared.assert_agree()


def test_a_first_round_takes_drops_in(desk: Desk) -> None:
    """Where nothing was known before."""
    desk.save(six_agents(), age=900)
    desk.settings.folder.mkdir(mode=0o700)
    expected = dropped(Hook(desk), "mary", range(3))
    desk.apply()
    assert by_hooks(desk, "mary") == expected
    desk.assert_agree()


def test_more_than_one_round_takes_in_is_taken_in_all_the_same(shared: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """`apply` goes on until nothing is left."""
    monkeypatch.setattr("reconciler.spool.MOST", 4)
    expected = dropped(Hook(shared), "mary", range(10))
    with open_workspace(shared.settings, lambda text: None) as workspace:
        done = reconcile_or_away(workspace)
    assert not done.more
    assert by_hooks(shared, "mary") == expected
    shared.assert_agree()


class DyingStore(RedisStore):
    """A store on which the process ends while drops are written."""

    point = ""
    writes = 0

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        hooks = [write for write in writes if isinstance(write, Write) and write.puts
                 and write.puts[0].by.startswith("hook-")]  # fmt: skip
        if hooks and self.writes == 0:
            die_at(self.point, "before the first drop is written")
        if self.point == "after some drops are written" and len(hooks) > 3:
            super().write(writes[: len(writes) // 2])
            os._exit(DIED)
        answers = super().write(writes)
        self.writes += bool(hooks)
        return answers


class DyingSpool(Spool):
    """A spool on which the process ends before, while or after drops are removed or renamed."""

    point = ""

    def settle(self, waiting: Waiting) -> None:
        die_at(self.point, "before drops are removed")
        if self.point == "while drops are removed":
            self._taken = set(sorted(self._taken)[:2])
            waiting = replace(waiting, new=waiting.new[:2])
        super().settle(waiting)
        die_at(self.point, "while drops are removed")
        die_at(self.point, "after drops are removed")

    def redate(self, *args: Any) -> None:
        super().redate(*args)
        die_at(self.point, "after drops are redated")


def die_at(point: str, here: str) -> None:
    if point == here:
        os._exit(DIED)


POINTS = (
    "before the first drop is written",
    "after some drops are written",
    "before drops are removed",
    "while drops are removed",
    "after drops are removed",
    "after drops are redated",
)


def dying_round(root: str, url: str, point: str, redis: str) -> None:
    """What the other process does; it does not return."""
    chosen = read_settings(root, {"redis": url}, {})
    with open_workspace(chosen, lambda text: None) as workspace:
        store, spool = workspace.store, DyingSpool(chosen.spool)
        assert isinstance(store, RedisStore)
        dying = DyingStore(store.client, store.origin, store.limits, store.name)
        dying.point = spool.point = point
        dead = AwayStore(StoreAway("away"))
        reconcile(replace(workspace, store=dead if redis == "away" else dying, spool=spool))
    raise AssertionError(f"it did not die {point}")


def crash(desk: Desk, point: str, redis: str = "up") -> None:
    code = "import sys; from tests.story.test_drops import dying_round; dying_round(*sys.argv[1:])"
    crash_with(code, str(desk.root), desk.url, point, redis)


def crash_with(code: str, *args: str) -> None:
    """A process that runs this, and dies of it."""
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=False)
    assert done.returncode == DIED


@pytest.mark.parametrize(("point", "future"), [(point, False) for point in POINTS[:5]]
                         + [(point, True) for point in POINTS[1::2]])  # fmt: skip
def test_a_round_that_is_killed_loses_and_doubles_nothing(shared: Desk, point: str, future: bool) -> None:
    """Wherever it ended: the next one gives every drop its one version, in order."""
    expected = dropped(Hook(shared, ago=-3600 if future else 10), "mary", range(8))
    crash(shared, point)
    shared.apply()
    found = by_hooks(shared, "mary")
    assert [number for _, number in found] == list(range(8))
    assert future or found == expected
    assert shared.live("mary")["context"] == {"n": 7, "task": "WO-7"}
    assert backlog(shared.settings)[:2] == (0, 0)
    assert Base(shared.settings.folder).conflicts() == []
    shared.assert_agree()


@pytest.mark.parametrize("point", ["before drops are removed", "while drops are removed", "after drops are removed"])
def test_a_round_on_files_that_is_killed_loses_and_doubles_nothing(shared: Desk, point: str) -> None:
    """The drops wait for Redis, whether they were renamed or not."""
    expected = dropped(Hook(shared), "mary", range(8))
    crash(shared, point, "away")
    assert shared.record("mary")["context"] == {"n": 7, "task": "WO-7"}
    shared.apply()
    assert by_hooks(shared, "mary") == expected
    assert Base(shared.settings.folder).conflicts() == []
    shared.assert_agree()


def test_redis_that_goes_away_in_the_middle_gets_the_rest_later(shared: Desk) -> None:
    """What it took is not asked of it again."""

    class Leaving(RedisStore):
        parts = 0

        def write(self, writes: Sequence[Write | Now]) -> list[Written]:
            self.parts += len(writes) > 50
            if self.parts == 2:
                raise StoreAway("gone")
            return super().write(writes)

    def leaving(workspace: Workspace) -> Workspace:
        store = workspace.store
        assert isinstance(store, RedisStore)
        return replace(workspace, store=Leaving(store.client, store.origin, store.limits, store.name))

    expected = dropped(Hook(shared), "mary", range(250))
    with open_workspace(shared.settings, lambda text: None) as workspace:
        done = reconcile_or_away(leaving(workspace))
    assert done.exit_code == 5
    assert shared.record("mary")["context"]["n"] == 249
    assert backlog(shared.settings)[:2] == (0, 150)
    shared.apply()
    assert by_hooks(shared, "mary") == expected
    shared.assert_agree()
