"""The judge: after everything has gone quiet, do file, Redis and base hold the same, and is every write there?

`Faults` are lines of text, each one thing that is wrong, so that a failing trial shows all of them at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from reconciler import UnifiedMemoryHub
from reconciler.base import Base
from reconciler.stamp import parse_time
from reconciler.state import SHARED, canonical, encode
from tests.faults.record import AGENT, CONTEXT, Op, Records

Values = dict[str, dict[str, str]]
"""Agent to field to canonical JSON text; `last_update` and `last_seen` left out."""

RAW = "raw"
TIMES = ("last_update", "last_seen")


def of_document(document: Mapping[str, Any]) -> Values:
    """What a document in the shape of `context.json` says."""
    found: Values = {}
    for agent, record in document["agents"].items():
        values = {name: canonical(encode(value)) for name, value in record.items() if name != "context"}
        context = record.get("context", {})
        values |= {f"context.{key}": canonical(encode(value)) for key, value in context.items()}
        found[agent] = {name: text for name, text in values.items() if name not in TIMES}
    return {agent: values for agent, values in found.items() if values}


def of_file(root: Path) -> Values:
    return of_document(json.loads((root / "shared_memory" / "context.json").read_text(encoding="utf-8")))


def of_redis(client: Any) -> Values:
    """What the hashes say; every plain field is a string here (the trials write no other)."""
    document: dict[str, Any] = {"agents": {}}
    for key in client.scan_iter("memory:agents:*", count=1000):
        record = {name.decode(): text.decode() for name, text in client.hgetall(key).items()}
        record["context"] = json.loads(record.get("context", "{}"))
        document["agents"][key.decode().removeprefix("memory:agents:")] = record
    return of_document(document)


def of_base(root: Path) -> Values:
    merged = Base(root / ".reconciler").load().merged
    found = {
        agent: {name: canonical(v.text) for name, v in fields.items() if v.text is not None and name not in TIMES}
        for agent, fields in merged.items()
        if agent != SHARED
    }
    return {agent: values for agent, values in found.items() if values}


def differences(one: Values, other: Values, names: str) -> list[str]:
    """Where two replicas differ; `names` says which two."""
    found = []
    for agent in sorted(one.keys() | other.keys()):
        here, there = one.get(agent, {}), other.get(agent, {})
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                found.append(f"{names}: {agent}.{name}: {short(here.get(name))} | {short(there.get(name))}")
    return found


def short(text: str | None) -> str:
    return "nothing" if text is None else text[:60]


def quick(client: Any, roots: list[Path]) -> list[str]:
    """Whether all files and Redis are equal now; what differs. Cheap enough to be asked again and again."""
    live = of_redis(client)
    found = [line for root in roots for line in differences(of_file(root), live, f"{root.name} | redis")]
    for agent, path in newest_manifests(roots).items():
        said, there = path.read_text(encoding="utf-8"), live.get(agent, {}).get("context.role")
        if there is None or there not in said:
            found.append(f"{path.parent.parent.name} | redis: {agent}.context.role: {said[-20:-1]} | {there}")
    waiting = {root.name: len(Base(root / ".reconciler").load().journal) for root in roots}
    return found + [f"{name}: {count} writes wait in the journal" for name, count in waiting.items() if count]


def newest_manifests(roots: list[Path]) -> dict[str, Path]:
    """Of each agent the manifest that was saved last, wherever it is; nobody else writes its one field."""
    paths = sorted(
        (path for root in roots for path in root.glob("manifests/*.yaml")), key=lambda p: p.stat().st_mtime_ns
    )
    return {path.stem: path for path in paths}


def emptiness(client: Any) -> list[str]:
    return [] if of_redis(client) else ["Redis is empty"]


def times(client: Any, root: Path) -> list[str]:
    """Where the file's `last_update` of an agent is another instant than the one in Redis."""
    document = json.loads((root / "shared_memory" / "context.json").read_text(encoding="utf-8"))
    found = []
    for agent, record in document["agents"].items():
        text = client.hget(f"memory:agents:{agent}", "last_update")
        here, there = parse_time(record.get("last_update")), parse_time(text.decode() if text else None)
        if (here and here.at) != (there and there.at):
            found.append(f"{root.name}: {agent}.last_update: {record.get('last_update')} | {text}")
    return found


def replicas(client: Any, root: Path, url: str) -> list[str]:
    """File, Redis, base and `get_unified_context` of one workspace compared, and the versions base remembers."""
    live = of_redis(client)
    found = differences(of_file(root), live, f"{root.name}: file | redis")
    found += differences(of_base(root), live, f"{root.name}: base | redis")
    with UnifiedMemoryHub(str(root), url) as hub:
        found += differences(of_document(hub.get_unified_context()), live, f"{root.name}: hub | redis")
    remembered = Base(root / ".reconciler").load().versions
    for agent, version in versions(client).items():
        if remembered.get(agent) != version:
            found.append(f"{root.name}: base remembers version {remembered.get(agent)} of {agent}, Redis has {version}")
    return found


def versions(client: Any) -> dict[str, int]:
    found = {}
    for key in client.scan_iter("memory:meta:{memory:agents:*}", count=1000):
        agent = key.decode().removeprefix("memory:meta:{memory:agents:").removesuffix("}")
        found[agent] = int(client.hget(key, "version") or 0)
    return found


@dataclass
class History:
    """The history of every agent: version to event."""

    events: dict[str, dict[int, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, client: Any) -> History:
        found = cls()
        for key in client.scan_iter("memory:history:{memory:agents:*}", count=1000):
            agent = key.decode().removeprefix("memory:history:{memory:agents:").removesuffix("}")
            entries = [json.loads(fields[b"event"]) for _, fields in client.xrange(key)]
            found.events[agent] = {entry["version"]: entry for entry in entries}
        return found

    def faults(self, client: Any, *, gaps: bool = False) -> Iterator[str]:
        """Gaps, unless there may be some, a last version that is not the live one, and a replay that does not end
        in the live state."""
        live, latest = of_redis(client), versions(client)
        for agent, events in self.events.items():
            numbers = list(events)
            whole = list(range(numbers[0], numbers[0] + len(numbers)))
            if numbers != (sorted(set(numbers)) if gaps else whole):
                yield f"history of {agent} has gaps or is out of order: {missing(numbers)}"
            if numbers[-1] != latest.get(agent):
                yield f"history of {agent} ends with {numbers[-1]}, Redis has version {latest.get(agent)}"
            state, wrong = replay(events)
            yield from (f"history of {agent}: {line}" for line in wrong)
            yield from differences({agent: state}, {agent: live.get(agent, {})}, "replayed history | redis")

    def unheard(self, heard: Path) -> list[str]:
        """Where what `watch --since 0` printed is not every version of every agent, each once and in order."""
        numbers: dict[str, list[int]] = {}
        wrong = []
        for line in heard.read_bytes().split(b"\n")[:-1]:
            if not line.startswith(b"{"):
                continue  # a word about the connection
            event = json.loads(line)
            if event["event"] == "conflict":
                continue  # nothing was written
            numbers.setdefault(event["agent"], []).append(event["version"])
            known = self.events.get(event["agent"], {}).get(event["version"])
            if known and known["changes"] != event["changes"]:
                wrong.append(f"watch: version {event['version']} of {event['agent']} is not what the history says")
        for agent, events in self.events.items():
            found = numbers.get(agent, [])
            if found != list(events):
                lacking, twice = set(events) - set(found), len(found) - len(set(found))
                order = "in order" if found == sorted(found) else "out of order"
                told = f"{len(lacking)} of {len(events)} not heard {sorted(lacking)[:5]}, {twice} twice, {order}"
                wrong.append(f"watch: {agent}: {told}")
        return wrong

    def lacks(self, op: Op) -> Iterator[str]:
        """What an acknowledged write of one agent should have left in the version it was told."""
        event = self.events.get(op.agent, {}).get(op.version)
        changes = {change["field"]: change["new"] for change in event["changes"]} if event else {}
        for name, text in op.sets.items():
            if name not in op.stale and (name not in changes or canonical(encode(changes[name])) != text):
                yield f"{op.id} was acknowledged as version {op.version} of {op.agent}, which lacks its {name}"


def missing(numbers: list[int]) -> str:
    gaps = [f"{a}..{b}" for a, b in pairwise(numbers) if b != a + 1]
    return ", ".join(gaps[:5])


def replay(events: Mapping[int, Any]) -> tuple[dict[str, str], list[str]]:
    """The state that the changes of these versions lead to, from nothing; and where an `old` is not what was there.

    What a raw write replaced is gone before anybody could look: its `old` may be unknown.
    """
    state: dict[str, str] = {}
    wrong = []
    for version, event in events.items():
        for change in event["changes"]:
            name, old, new = change["field"], change["old"], change["new"]
            was = state.get(name)
            unknown = change["by"] == RAW and old is None and change["op"] != "create"
            if canonical(encode(old)) != (was or "null") and not unknown:
                wrong.append(f"version {version}: {name} was {short(was)}, but old says {short(encode(old))}")
            if encode(old) == encode(new) and change["op"] == "update" and change["by"] != RAW:  # in another spelling
                wrong.append(f"version {version}: {name} is told to have changed, and was {short(encode(old))} before")
            if change["op"] == "delete":
                state.pop(name, None)
            else:
                state[name] = canonical(encode(new))
    return {name: text for name, text in state.items() if name not in TIMES}, wrong


def lost(
    records: Records, final: Values, must: Mapping[str, bool] | None = None, *, elsewhere: bool = False
) -> Iterator[str]:
    """Acknowledged writes that an older one took the place of, and values that nobody wrote.

    `must`: which operations have to be there, by id; all acknowledged ones unless given. `elsewhere`: an agent that
    was deleted may come back with what waited in the files of another workspace, of which the deletion knew nothing;
    as with what was on its way to files while the deletion was at work.
    """
    by_agent: dict[str, list[Op]] = {}
    for op in records.ops.values():
        by_agent.setdefault(op.agent, []).append(op)
    for agent, ops in by_agent.items():
        names = {name for op in ops for name in op.sets} | set(final.get(agent, {}))
        for name in sorted(names):
            writes = [op for op in ops if op.writes(name)]
            there = final.get(agent, {}).get(name)
            wrote = [op for op in writes if op.sets.get(name) == there]
            asked = [op for op in writes if op.acknowledged and meant(op, name)]
            owed = [op for op in asked if must is None or must.get(op.id)]
            if there is not None and not wrote:
                yield f"invented: {agent}.{name} holds {short(there)}, which nobody wrote"
                continue
            for op in owed:
                rivals = [
                    other for other in wrote
                    if not (name not in op.sets and other.in_file and (elsewhere or other.end > op.start))
                ]  # fmt: skip
                if op not in wrote and len(rivals) == len(wrote) and all(other.surely_before(op) for other in wrote):
                    found = ", ".join(map(told, wrote)) or "nothing"
                    yield f"lost: {agent}.{name}: {told(op)}; there is: {found}"
    for agent in final.keys() - by_agent.keys():
        yield f"{agent} is an agent that nobody wrote"


def meant(op: Op, name: str) -> bool:
    """Whether an operation was about this field. A context that was replaced as a whole carries what had been read:
    a value that did not change is no write, and a key that is not there is deleted only where Redis knew it."""
    if op.clears == CONTEXT:
        return op.id in (op.sets.get(name) or "")
    return name in op.sets or op.clears == AGENT


def told(op: Op) -> str:
    """An operation in a line: what, when (s within the hour), the stamp where it is known."""
    start, at = op.start % 3_600_000_000 / 1e6, op.at % 3_600_000_000 / 1e6
    what = f"{op.kind} {op.clears or 'update'} {op.outcome}"
    return f"{op.id} ({what}, from {start:.3f}, took {op.took / 1e6:.3f}, stamp {at:.3f}, version {op.version})"


def unfit(records: Records) -> list[str]:
    """Errors that no caller should meet."""
    return [f"{op.id}: {op.kind}: {op.error}" for op in records.ops.values() if op.outcome == "fault"]


def shortened(wrong: list[str], of_each: int = 6) -> str:
    """The first few faults of each sort."""
    sorts: dict[str, list[str]] = {}
    for line in wrong:
        sorts.setdefault(line.partition(":")[0][:20], []).append(line)
    return "\n".join(line for found in sorts.values() for line in [*found[:of_each], f"({len(found)} of these)"])
