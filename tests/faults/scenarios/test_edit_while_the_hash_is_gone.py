"""A key is taken out of the file while the agent's hash is gone: the hash is put back without it, the event says so."""

from __future__ import annotations

from tests.faults.scenarios.kit import hub
from tests.story.desk import Desk


def test_edit_while_the_hash_is_gone(shared: Desk) -> None:
    """Found by simulated histories: subscribers kept the key for ever."""
    shared.set("gc", context={"task": "old", "role": "builder"})
    shared.apply()
    shared.redis.delete("memory:agents:gc")
    shared.edit(lambda data: data["agents"]["gc"]["context"].pop("task"))
    shared.apply()
    assert shared.live("gc")["context"] == {"role": "builder"}
    with hub(shared) as memory:
        told = [(change["field"], change["op"]) for change in memory.history("gc")[0].changes]
    assert ("context.task", "delete") in told
    shared.assert_agree()
