"""Nothing has changed: round after round no byte is written, no version counted and no event sent."""

from __future__ import annotations

from tests.cli.shell import listing
from tests.story.desk import Desk


def test_nothing_to_do(shared: Desk) -> None:
    """A manifest with a mistake in it is named every time, and nothing else happens."""
    shared.manifest("bad", "spec: {statuss: busy}")
    shared.manifest("zoe", "spec: {status: active}")
    shared.apply()
    shared.later(60)  # until then a file that was just saved may be saved again within the clock's step
    shared.apply()
    before = listing(shared.root), {key: shared.redis.execute_command("DUMP", key, NEVER_DECODE=True)
                                    for key in shared.redis.keys("*")}  # fmt: skip
    with shared.redis.pubsub() as listener:
        listener.psubscribe("memory:*")
        assert listener.get_message(timeout=5)["type"] == "psubscribe"
        for _ in range(3):
            assert shared.apply().exit_code == 3
        shared.redis.publish("memory:updates", "the end")
        assert listener.get_message(timeout=5)["data"] == "the end"
    after = listing(shared.root), {key: shared.redis.execute_command("DUMP", key, NEVER_DECODE=True)
                                   for key in shared.redis.keys("*")}  # fmt: skip
    assert after == before
