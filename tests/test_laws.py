"""Laws: merge is a join, equal to a dumb oracle; a diff of a thing with itself is empty; so is a second round.

The same few cases each time; RECONCILER_LAWS=500000 tries so many others, in all, with `--hypothesis-seed=N`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reconciler.base import Base
from reconciler.base.warm import WarmBase
from reconciler.controller import Options, Round, Scope, reconcile
from reconciler.merge import merge, pin, seeds_only, with_times
from reconciler.plan import Change, diff
from reconciler.sources.desired import Sources
from reconciler.spool import Part, Spool, pack
from reconciler.stamp import format_time
from reconciler.state import Field, State, same_value
from reconciler.workspace import Workspace, read_settings
from tests.fakes import MemoryStore, present

CASES = int(os.environ.get("RECONCILER_LAWS", "0"))
pinned = settings(derandomize=not CASES, database=None, deadline=None, max_examples=max(300, CASES * 33 // 200))
slow = settings(pinned, max_examples=max(150, CASES // 250), suppress_health_check=[HealthCheck.too_slow])
"""A law of values takes a fraction of the time of one of rounds, which the simulated histories try at length, and gets
more cases: 6 * 33/200 + 3/250 > 1."""

NAMES = ("mary", "gc", "rnd")
FIELDS = ("status", "context.x", "insight", "last_update")
TEXTS = (None, "1", "1.0", "true", '"1"', '"a"', '"b"', '"\\u0061"', "null", '{"a":1,"b":2}', '{"b":2,"a":1}')
TIMES = tuple(json.dumps(format_time(second * 1_000_000)) for second in range(4))


def state(data: bytes) -> dict[str, dict[str, Field]]:
    """A small state out of any bytes, two for each field: six times quicker than to draw each part by itself."""
    found: dict[str, dict[str, Field]] = {}
    for pair in zip(data[::2], data[1::2], strict=False):
        rest, agent = divmod(int.from_bytes(pair, "big"), 2)
        rest, name = divmod(rest, len(FIELDS))
        rest, at = divmod(rest, 4)
        rest, by = divmod(rest, 3)
        time = FIELDS[name] == "last_update"
        field = Field(TIMES[rest % 4], at, "a") if time else Field(TEXTS[rest % len(TEXTS)], at, ("", "a", "b")[by])
        found.setdefault(NAMES[agent], {})[FIELDS[name]] = field
    return found


STATES = st.binary(max_size=14).map(state)


@pinned
@given(STATES, STATES, STATES)
def test_merge_is_a_join(one: State, two: State, three: State) -> None:
    """Commutative, associative, idempotent: replicas may be merged in any order and any number of times."""
    assert merge(one, one) == merge(one)
    assert len({repr(_sorted(merge(*order))) for order in permutations([one, two, three])}) == 1
    assert merge(merge(one, two), three) == merge(one, merge(two, three)) == merge(one, two, three)
    assert merge(merge(one, two), two) == merge(one, two)


@pinned
@given(st.lists(STATES, max_size=4))
def test_merge_equals_a_dumb_oracle(replicas: list[State]) -> None:
    """Of every field the write that no other write beats, found by comparing each with each."""
    assert merge(*replicas) == oracle(replicas)


def oracle(replicas: list[State]) -> dict[str, dict[str, Field]]:
    found: dict[str, dict[str, Field]] = {}
    for replica in replicas:
        for agent, fields in replica.items():
            found.setdefault(agent, {})
            for name in fields:
                rivals = [r[agent][name] for r in replicas if agent in r and name in r[agent]]
                for candidate in rivals:
                    if not any(beats(rival, candidate) for rival in rivals):
                        found[agent][name] = candidate
    return found


def beats(one: Field, other: Field) -> bool:
    """Newer; at the same time the greater name; of the same writer the greater text, none being the least."""
    if one.at != other.at:
        return one.at > other.at
    if one.by != other.by:
        return one.by > other.by
    if one.text is None or other.text is None:
        return one.text is not None and other.text is None
    return one.text > other.text


@pinned
@given(STATES)
def test_nothing_differs_from_itself(state: State) -> None:
    """`diff(x, x)` is empty, also when x is a copy."""
    copy = {agent: {name: Field(*field) for name, field in fields.items()} for agent, fields in state.items()}
    for direction in ("redis", "file"):
        assert diff(state, state, direction) == []
        assert diff(copy, state, direction) == []


@pinned
@given(STATES, STATES)
def test_a_replica_that_learned_the_diff_has_nothing_more_to_learn(replica: State, other: State) -> None:
    """Applying `diff(replica, merged)` leaves no difference, and touches nothing that was already right."""
    merged = merge(replica, other)
    changes = diff(replica, merged, "redis")
    assert diff(learn(replica, changes), merged, "redis") == []
    assert all(not same_value(change.field, change.old, change.new) for change in changes)


def learn(replica: State, changes: list[Change]) -> State:
    taught = {agent: dict(fields) for agent, fields in replica.items()}
    for change in changes:
        taught.setdefault(change.agent, {})[change.field] = Field(change.new, change.at, change.by)
    return taught


@pinned
@given(STATES, STATES)
def test_policies_hold_after_one_step(merged: State, asked: State) -> None:
    """Pinning twice is pinning once, a pinned value beats what it was pinned over, and a seed never replaces."""
    pins = {agent: {name: f for name, f in fields.items() if f.text is not None and name != "last_update"}
            for agent, fields in asked.items()}  # fmt: skip
    held = pin(merged, pins)
    assert pin(held, pins) == held
    assert merge(held, merged) == held
    seeded = merge(merged, seeds_only(asked, [merged]))
    assert all(seeded[agent][name] == field for agent, fields in merged.items() for name, field in fields.items())


@pinned
@given(STATES)
def test_an_agents_time_is_its_newest_stamp(state: State) -> None:
    """`with_times` twice is `with_times` once, and never sets a time back."""
    timed = with_times(state)
    assert with_times(timed) == timed
    assert merge(timed, state) == timed


def _sorted(state: State) -> list[Any]:
    return sorted((agent, sorted(fields.items())) for agent, fields in state.items())


KEYS = st.sampled_from(["status", "context.task", "context.n", "insight"])
VALUES = st.sampled_from(["idle", "busy", "5", "é\\n"])
SKEWS = st.sampled_from([-100_000_000, -3_000_000, -1, 0, 0, 0, 2_000_000, 59_000_000, 90_000_000])
DECLARED = st.sampled_from(["", "", "now", "whole", "naive", "past", "future", "rubbish"])
POLICIES = st.sampled_from(["follow", "pin", "seed"])
EVENTS = ["round", "round", "remember", "restore", "flush", "empty", "no file", "no manifest", "wait"]
STEP = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from(NAMES), KEYS, VALUES | st.none(), SKEWS, DECLARED),
    st.tuples(st.just("stale edit"), st.sampled_from(NAMES), KEYS, VALUES | st.none(), SKEWS, DECLARED),
    st.tuples(st.just("put"), st.sampled_from(NAMES), KEYS, VALUES | st.none(), SKEWS),
    st.tuples(st.just("raw"), st.sampled_from(NAMES), KEYS, VALUES | st.none()),
    st.tuples(st.just("manifest"), st.sampled_from(NAMES), KEYS, VALUES, SKEWS, POLICIES),
    st.tuples(st.sampled_from(EVENTS)),
    st.tuples(st.just("drop"), st.sampled_from(NAMES)),
    st.tuples(st.just("hook"), st.sampled_from(NAMES), st.sampled_from(["task", "n"]), VALUES, SKEWS),
)  # fmt: skip


EMPTY = b'{"agents": {}}'


class World:
    """A workspace whose three replicas are written at will, under a clock that only steps move."""

    def __init__(self, root: Path) -> None:
        self.now = 1_900_000_000_250_000
        self.store = MemoryStore(lambda: self.now)
        chosen = read_settings(str(root), {}, {})
        self.workspace = Workspace(chosen, Base(chosen.folder), self.store, lambda: self.now)
        self.path, self.manifests = chosen.context_file, chosen.manifests
        self.path.parent.mkdir()
        self.manifests.mkdir()
        self.copy: bytes = b'{"agents": {}}'

    def take(self, step: tuple[Any, ...]) -> None:
        self.now += 700_001
        what: Callable[..., object] = getattr(self, "do_" + step[0].replace(" ", "_"))
        what(*step[1:])

    def round(self, *, dry: bool = False) -> Round:
        self.workspace = replace(self.workspace, sources=Sources(), spool=Spool(self.workspace.settings.spool))
        return reconcile(self.workspace, Options(dry=dry))

    def do_round(self) -> None:
        self.round()

    def do_wait(self) -> None:
        self.now += 7_000_000

    def do_remember(self) -> None:
        self.copy = self.path.read_bytes() if self.path.exists() else b'{"agents": {}}'

    def do_restore(self) -> None:
        self.save(self.copy, 0)

    def do_flush(self) -> None:
        self.store.flush()

    def do_empty(self) -> None:
        self.save(b'{"agents": {}}', 0)

    def do_no_file(self) -> None:
        self.path.unlink(missing_ok=True)

    def do_no_manifest(self) -> None:
        for path in self.manifests.iterdir():
            path.unlink()

    def do_drop(self, agent: str) -> None:
        data = self.load()
        data["agents"].pop(agent, None)
        self.save(json.dumps(data).encode(), 0)

    def do_edit(self, agent: str, field: str, value: str | None, skew: int, declared: str) -> None:
        self.change(self.load(), agent, field, value, declared)
        self.save(json.dumps(self.data, indent=2).encode(), skew)

    def do_stale_edit(self, agent: str, field: str, value: str | None, skew: int, declared: str) -> None:
        self.change(json.loads(self.copy), agent, field, value, declared)
        self.save(json.dumps(self.data).encode(), skew)

    def do_put(self, agent: str, field: str, value: str | None, skew: int) -> None:
        text = None if value is None else json.dumps(value, ensure_ascii=False)
        self.store.agents.setdefault(agent, {})
        known = self.store.agents[agent].get(field)
        if known is None or known.at < self.now + min(skew, 0):
            self.store.agents[agent][field] = Field(text, self.now + min(skew, 0), "somebody")

    def do_raw(self, agent: str, field: str, value: str | None) -> None:
        self.store.hset(agent, field, None if value is None else json.dumps(value, ensure_ascii=False))

    def do_hook(self, agent: str, key: str, value: str, skew: int) -> None:
        spool = self.workspace.settings.spool
        spool.mkdir(parents=True, exist_ok=True)
        (spool / f"{self.now + skew}-{len(value)}.drop").write_bytes(pack(agent, [Part(key, "text", value.encode())]))

    def do_manifest(self, agent: str, field: str, value: str, skew: int, policy: str) -> None:
        inside = {"context": {field[8:]: value}} if field.startswith("context.") else {"fields": {field: value}}
        spec = {"status": value} if field == "status" else inside
        path = self.manifests / f"{agent}.yaml"
        metadata: dict[str, Any] = {"name": agent}
        if skew < 0:
            metadata["updated"] = format_time(self.now + skew)
        document = {"apiVersion": "reconciler/v1", "kind": "Agent", "metadata": metadata, "spec": spec,
                    "policy": {field: policy}}  # fmt: skip
        path.write_text(json.dumps(document))
        self.date(path, skew)

    def load(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_bytes() if self.path.exists() else EMPTY))

    def change(self, data: dict[str, Any], agent: str, field: str, value: str | None, declared: str) -> None:
        self.data = data
        record = data["agents"].setdefault(agent, {})
        place = record.setdefault("context", {}) if field.startswith("context.") else record
        name = field.removeprefix("context.")
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
        times = {"now": 0, "whole": 0, "naive": 0, "past": -900_000_000, "future": 900_000_000}
        if declared in times:
            text = format_time(self.now + times[declared])
            record["last_seen"] = text[:19] + "Z" if declared == "whole" else text[:-1] if declared == "naive" else text
        elif declared:
            record["last_seen"] = declared

    def save(self, data: bytes, skew: int) -> None:
        self.path.write_bytes(data)
        self.date(self.path, skew)

    def date(self, path: Path, skew: int) -> None:
        os.utime(path, ns=((self.now + skew) * 1000,) * 2)


DROP_AGAINST_A_PIN: list[tuple[Any, ...]] = [
    ("manifest", "rnd", "context.n", "idle", -100_000_000, "pin"),
    ("hook", "rnd", "n", "busy", -3_000_000),
    ("put", "rnd", "context.n", "idle", -100_000_000),
]
"""Redis held the pinned value, lost it to a drop in the round itself, and was not given it back (found by chance)."""


@slow
@given(st.lists(STEP, max_size=14))
@example(DROP_AGAINST_A_PIN)
def test_a_second_round_is_empty(steps: list[tuple[Any, ...]]) -> None:
    """After any history of edits, deletions, ties, skewed and missing times, one round makes all replicas one."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for step in steps:
            world.take(step)
        world.now += 100_000_000
        world.round()
        again = world.round(dry=True)
        assert again.plan.changes == ()
        assert again.plan.in_sync
        assert_one(world)
        before = world.path.read_bytes()
        world.round()
        assert world.path.read_bytes() == before


def assert_one(world: World) -> None:
    """File, live and base hold the same values."""
    memory = world.workspace.base.load()
    live = {agent: values for agent, fields in world.store.agents.items() if (values := present(fields))}
    base = {agent: values for agent, fields in memory.merged.items() if (values := present(fields))}
    file = {agent: values for agent, fields in memory.file.items() if agent != "@file" and (values := present(fields))}
    assert base == live
    assert file == live
    on_disk = json.loads(world.path.read_bytes())["agents"]
    assert {agent for agent, record in on_disk.items() if any(record.values())} == live.keys()


class WarmWorld(World):
    """The same, as a daemon works on it: it keeps what it knows, and a round looks only at what was touched."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        settings = self.workspace.settings
        self.workspace = replace(self.workspace, base=WarmBase(settings.folder), spool=Spool(settings.spool))
        self.agents: set[str] | None = None
        self.paths: set[str] | None = None

    def take(self, step: tuple[Any, ...]) -> None:
        super().take(step)
        if step[0] in ("put", "raw") and self.agents is not None:
            self.agents.add(step[1])
        elif step[0] == "manifest" and self.paths is not None:
            self.paths.add(f"manifests/{step[1]}.yaml")
        elif step[0] == "no manifest" and self.paths is not None:
            self.paths |= {f"manifests/{name}.yaml" for name in NAMES}
        elif step[0] == "flush":
            self.agents = None

    def round(self, *, dry: bool = False) -> Round:
        agents = None if self.agents is None else frozenset(self.agents)
        scope = Scope(agents, None if self.paths is None else frozenset(self.paths))
        done = reconcile(self.workspace, Options(dry=dry), scope)
        self.workspace.sources.rest()
        self.agents, self.paths = set(done.again), set()
        return done


def remembered(base: Base) -> list[Any]:
    memory = base.load()
    undone = [version.undo for version in memory.file_versions]
    versions = {name: memory.versions[name] for name in memory.merged}
    said = {agent: {name: value.text for name, value in fields.items()} for agent, fields in memory.file.items()}
    return [memory.merged, versions, said, memory.manifests.fields, undone, memory.journal, memory.empty]


@slow
@given(st.lists(STEP, max_size=14))
@example(DROP_AGAINST_A_PIN)
def test_a_round_over_what_was_touched_does_what_a_full_round_does(steps: list[tuple[Any, ...]]) -> None:
    """Whatever happened before, to the byte: in live memory, in the file, in base, and in what is kept of it."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        cold, warm = World(Path(one)), WarmWorld(Path(other))
        for step in [*steps, ("round",), ("wait",), ("round",)]:
            for world in (cold, warm):
                world.take(step)
            if step == ("round",):
                assert warm.path.read_bytes() == cold.path.read_bytes()
                assert warm.store.agents == cold.store.agents
                on_disk = remembered(Base(warm.workspace.settings.folder))
                assert on_disk == remembered(warm.workspace.base) == remembered(cold.workspace.base)
        warm.workspace.base.close()


LIVE = st.sampled_from([("gc", "status"), ("gc", "task"), ("rnd", "status"), ("mary", "insight")])
WORDS = st.sampled_from(["idle", "busy"])
MANNERS = st.sampled_from(["plain", "says when", "sets the header", "both"])
TURN = st.one_of(
    st.tuples(st.just("read")),
    st.tuples(st.just("write"), st.dictionaries(st.sampled_from(["status", "task"]), WORDS, min_size=1), MANNERS),
    st.tuples(st.just("live"), LIVE, WORDS),
    st.tuples(st.sampled_from(["round", "round", "rest"])),
)


@slow
@given(st.lists(TURN, max_size=30))
def test_a_script_and_live_memory_lose_nothing_to_each_other(turns: list[tuple[Any, ...]]) -> None:
    """One script rewrites the whole file from the copy it read last, going to and fro between two words; live
    memory does the same with other fields: after a round everybody's last word stands on both sides. No copy is
    older than 5 s when it is written."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        words = {("mary", "status"): "idle", ("mary", "task"): "idle", ("gc", "status"): "idle"}
        world.save(
            json.dumps({"agents": {"mary": {"status": "idle", "task": "idle"}, "gc": {"status": "idle"}}}).encode(), 0
        )
        world.round()
        copy = world.load()
        for turn in turns:
            world.now += 130_001
            if turn[0] == "read":
                copy = world.load()
            elif turn[0] == "write":
                copy = script_writes(world, copy, *turn[1:])
                words |= {("mary", field): word for field, word in turn[1].items()}
            elif turn[0] == "live":
                agent, field = turn[1]
                world.do_raw(agent, field, turn[2])
                words[turn[1]] = turn[2]
            elif turn[0] == "rest":
                world.round()
                world.now += 10_000_000
                copy = world.load()
            else:
                world.round()
        world.round()
        live = world.store.agents
        assert {key: json.loads(live[key[0]][key[1]].text or "") for key in words} == words
        assert {key: world.load()["agents"][key[0]][key[1]] for key in words} == words


def script_writes(world: World, copy: dict[str, Any], words: dict[str, str], manner: str) -> dict[str, Any]:
    said = format_time(world.now)[:19] + "Z"
    if manner in ("says when", "both"):
        words = {**words, "last_seen": said}
    if manner in ("sets the header", "both"):
        copy["last_update"] = said
    copy["agents"]["mary"].update(words)
    world.save(json.dumps(copy).encode(), 0)
    return world.load()
