"""Twenty thousand random lives of an agent: the script says what `merge` says, stamp for stamp."""

from __future__ import annotations

import random

from reconciler.merge import merge_agent
from reconciler.state import Field, encode
from reconciler.store import Put, Write
from tests.contract.kit import T
from tests.servers import Memory

CASES = 20_000
SEED = 20251112
NAMES = ["status", "context.a", "context.b", "insight", "context."]
WRITERS = ["a", "ab", "a b", "A", "", "é", "\uffff", "😀", "z", "raw"]
VALUES = [
    *map(encode, ["x", "xy", "", "é", "\uffff", "😀", "1", None, 1, 10, 1.0, True, [], {"b": 1, "a": 2}, 'a\n"b\\']),
    None,
]


def random_put(dice: random.Random) -> Put:
    return Put(dice.choice(NAMES), dice.choice(VALUES), T + dice.randrange(4), dice.choice(WRITERS))


def expected(known: dict[str, Field], put: Put) -> tuple[dict[str, Field], str]:
    """The fields after a put, and its flag, by the join alone."""
    assert put.at is not None
    joined = merge_agent(known, {put.field: Field(put.text, put.at, put.by)})
    old, new = known.get(put.field), joined[put.field]
    if old is None or old != new:
        return joined, "w" if (old.text if old else None) != new.text else "s"
    return joined, "s" if old == Field(put.text, put.at, put.by) else "o"


def test_the_script_merges_as_merge_does(real: Memory) -> None:
    """Same values, same stamps, the right flags, and as many versions as writes that changed something."""
    dice = random.Random(SEED)
    memory = real.with_limits(history=0)
    for start in range(0, CASES, 2_000):
        agents = [f"a{number}" for number in range(start, start + 2_000)]
        writes = [
            Write(agent, tuple(random_put(dice) for _ in range(dice.randint(1, 4))))
            for agent in agents
            for _ in range(dice.randint(1, 5))
        ]
        states: dict[str, dict[str, Field]] = {agent: {} for agent in agents}
        versions = dict.fromkeys(agents, 0)
        for write, answer in zip(writes, memory.store.write(writes), strict=True):
            flags = ""
            for put in write.puts:
                states[write.agent], flag = expected(states[write.agent], put)
                flags += flag
            versions[write.agent] += "w" in flags
            assert (answer.flags, answer.version) == (flags, versions[write.agent]), (write, SEED)
        live = memory.store.observe({}, agents).agents
        for agent, state in states.items():
            found = {name: field for name, field in live[agent].fields.items() if name != "last_update"}
            assert (found, live[agent].version, live[agent].raw) == (state, versions[agent], ()), (agent, SEED)
        real.redis.flushall()
