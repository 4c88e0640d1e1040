"""An agent's record becomes a list: it keeps its last good value, and the other five agents go on in the same round."""

from __future__ import annotations

from tests.story.desk import Desk


def test_wrong_shape_of_one_record(shared: Desk) -> None:
    """Both directions go on for the others; the spoilt record is nobody's to repair but its writer's."""

    def spoil(data: dict[str, dict[str, object]]) -> None:
        data["agents"]["mary"] = ["busy", "since noon"]
        data["agents"]["gc"] = {"status": "from the file"}

    shared.edit(spoil)
    shared.hset("cls", status="from redis")
    done = shared.apply()
    assert done.exit_code == 3
    assert [problem.agent for problem in done.plan.errors] == ["mary"]
    assert shared.live("gc")["status"] == "from the file"
    assert shared.record("cls")["status"] == "from redis"
    assert shared.live("mary")["status"] == "active"
    assert shared.file()["agents"]["mary"] == ["busy", "since noon"]
