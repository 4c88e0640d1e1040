"""One field explained: its value, every place that holds one, who won, when and by whose clock. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import NamedTuple

from . import files
from .base import Conflict
from .edits import Key, Version
from .errors import InputError, NotFound, Place, StoreAway, StoreError
from .merge import Policy, merge_agent
from .rewind import changed
from .settings import Settings
from .sources.desired import BY
from .sources.manifests import Manifest
from .sources.text import MAX_BYTES
from .sources.yaml_text import locator, read_documents
from .stamp import SECOND
from .state import CONTEXT, Agent, Field, present, same_text
from .store import AwayStore
from .store.layout import RAW
from .updates import check_known
from .view import Options, View, look
from .workspace import Workspace

VERSIONS = 1_000
"""How far back the history is searched for earlier values."""


class Holder(NamedTuple):
    """A place that holds a value of the field (redis, file, manifest, journal, spool, base), and where in a file."""

    where: str
    value: Field
    place: str = ""


class Earlier(NamedTuple):
    """A version that changed the field; `text` is the value it gave, None for a deletion."""

    version: int
    time: str
    by: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one field. `won` is what a round would leave everywhere; `now` in µs since 1970 UTC.

    `policy`: what its manifest says of it, and where. `withheld`: why a side does not learn it. `earlier`: versions
    that changed it, newest first, None while Redis, which has the history, is away.
    """

    agent: str
    field: str
    won: Field
    now: int
    obtained: str
    holders: tuple[Holder, ...]
    policy: Policy | None
    policy_place: str
    withheld: tuple[str, ...]
    earlier: tuple[Earlier, ...] | None
    conflicts: tuple[Conflict, ...]
    away: StoreAway | None


def explain(workspace: Workspace, agent: str, field: str) -> Explanation:
    """Everything about a field, named as `status`, `context.<key>` or, where that is clear, the bare key.

    Raises NotFound, with a name that is near, for an agent or a field that nobody knows.
    """
    view, away = observe(workspace)
    lost = workspace.base.conflicts(agent)
    check_known([] if lost else [agent], view.merged)
    name = _find(agent, field, view.merged.get(agent, {}), [conflict.field for conflict in lost])
    mine = [conflict for conflict in lost if conflict.field == name]
    key = (agent, name)
    won = view.merged.get(agent, {}).get(name) or Field(None, mine[0].won.at, mine[0].won.by)
    manifest = view.desired.loaded.manifests.get(agent)
    policy = manifest.policy.get(name, "follow") if manifest and name in manifest.values else None
    return Explanation(
        agent, name, won, view.now, _obtained(view, manifest, key, won), tuple(_holders(workspace, view, key)), policy,
        _place(workspace.settings, manifest, "policy", name) if manifest and policy not in (None, "follow") else "",
        tuple(_withheld(view, key)), None if away else _earlier(workspace, key), tuple(mine), away,
    )  # fmt: skip


def observe(workspace: Workspace) -> tuple[View, StoreAway | None]:
    """One look; at the files alone while Redis is away."""
    try:
        if not isinstance(workspace.store, AwayStore):
            return look(workspace, Options(dry=True)), None
        reason = workspace.store.reason
    except StoreAway as error:
        reason = error
    return look(replace(workspace, store=AwayStore(reason)), Options(dry=True)), reason


def _find(agent: str, asked: str, fields: Agent, others: Iterable[str]) -> str:
    known = dict.fromkeys([*fields, *others])
    for name in (asked, CONTEXT + asked):
        if name in known:
            return name
    there = list(present(fields))
    bare = {name.removeprefix(CONTEXT): name for name in there}
    near = get_close_matches(asked, [*there, *bare], 1)
    listed = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    hint = f"did you mean {bare.get(near[0], near[0])}?" if near else f"it has {listed}" if there else ""
    raise NotFound(f"{agent} has no field {asked[:70]}", hint=hint)


def _holders(workspace: Workspace, view: View, key: Key) -> Iterator[Holder]:
    """Every place that holds a value or a deletion of the field."""
    agent, name = key
    memory, wanted, live = view.memory, view.desired, view.live.agents.get(agent)
    if live is not None and name in live.fields:
        yield Holder("redis", live.fields[name])
    if name in wanted.context.state.get(agent, {}):
        yield Holder("file", wanted.context.state[agent][name])
    manifest = wanted.loaded.manifests.get(agent)
    declared = wanted.declared.fields.get(agent, {})
    if manifest is not None and name in manifest.values and name in declared:
        yield Holder("manifest", declared[name], _place(workspace.settings, manifest, "spec", name))
    waiting: Agent = {}
    for entry in memory.journal:
        if (entry.agent, entry.field) == key:
            waiting = merge_agent(waiting, {name: entry.value})
    if waiting:
        yield Holder("journal", waiting[name])
    if name in view.waiting.state.get(agent, {}):
        yield Holder("spool", view.waiting.state[agent][name])
    if name in memory.merged.get(agent, {}):
        yield Holder("base", memory.merged[agent][name])


def _withheld(view: View, key: Key) -> Iterator[str]:
    """Why a side does not learn it."""
    for held in view.plan.withheld:
        if held.agent in (key[0], "") and held.field in (key[1], ""):
            yield f"not carried → {held.direction}: {held.reason}"


def _earlier(workspace: Workspace, key: Key) -> tuple[Earlier, ...] | None:
    agent, name = key
    found = []
    try:
        events = workspace.store.history(agent, VERSIONS)
    except (StoreAway, StoreError):
        return None
    for event in events:
        if name in (values := changed(event)):
            by = next((str(change.get("by")) for change in event.changes if change.get("field") == name), event.origin)
            at = next((str(change.get("at")) for change in event.changes if change.get("field") == name), "")
            found.append(Earlier(event.version, at or event.timestamp, by, values[name][1]))
    return tuple(found)


def _place(settings: Settings, manifest: Manifest, part: str, name: str) -> str:
    """Where a manifest says something of a field, as file:line; the document's line where that cannot be read."""
    steps: tuple[str, ...] = (part, name)
    if part == "spec":
        steps = ("spec", "context", name.removeprefix(CONTEXT)) if name.startswith(CONTEXT) else steps
        steps = ("spec", "fields", name) if name != "status" and not name.startswith(CONTEXT) else steps
    line = manifest.line
    try:
        found = files.read(settings.manifests_base / manifest.path, MAX_BYTES)
        documents = read_documents(found[0], manifest.path) if found else []
        for index, document in enumerate(documents):
            if found and document.line == manifest.line:
                line = locator(found[0], manifest.path, index)(steps)[0].line
    except (InputError, OSError):
        pass
    return str(Place(manifest.path, line, 1)).removesuffix(":1")


def _obtained(view: View, manifest: Manifest | None, key: Key, won: Field) -> str:
    """By which clock, or by whose word, the winner's stamp came to be; docs/decisions/who-stamps-what.md."""
    memory = view.memory
    if won.by == RAW:
        return f"a plain HSET: {_raw(view, key, won)}"
    if won.by == BY:
        return f"an edit in context.json: {_edited(view, key, won)}"
    if won.by == "prune":
        return "a prune, because one side lacked the agent: when it ran"
    if won.by.startswith("hook-"):
        return "a hook, or `record`: when it dropped the result into the spool"
    if won.by.startswith("inbox-"):
        return "a file in the inbox: its own time, or the file's mtime"
    if won.by.endswith((".yaml", ".yml")):
        return f"a manifest: {_declared(view, manifest, key, won)}"
    if key in memory.unlearnt or any((entry.agent, entry.field) == key for entry in memory.journal):
        return "written through the program while Redis was away: by its machine's clock"
    return "written through the program: by the clock of Redis, or of its machine while Redis was away"


def _raw(view: View, key: Key, won: Field) -> str:
    live = view.live.agents.get(key[0])
    if live is not None and any(put.field == key[1] for put in live.raw) and won.at >= view.live.now:
        return "when it was seen, which is now: no round has taken it in yet"
    return _EITHER_RAW if won.at % SECOND else "the last_update that was written with it"


_EITHER_RAW = "when it was seen, or the last_update that was written with it"


def _edited(view: View, key: Key, won: Field) -> str:
    """The file's own versions tell, as long as they are kept: when each was saved, and what it changed."""
    source = view.desired.context
    version = next((v for v in [*source.versions, *view.memory.file_versions] if _made(v, key)), None)
    if version is None:
        return "the record's own last_update or last_seen, or the file's mtime"
    was = version.undo[key]
    if won.at == version.written:
        return "the file's mtime"
    if was is not None and won.at == was.at + 1:
        return "just behind what it replaced, because no write is stamped before that"
    return "the record's own last_update or last_seen"


def _made(version: Version, key: Key) -> bool:
    return not version.ours and key in version.undo


def _declared(view: View, manifest: Manifest | None, key: Key, won: Field) -> str:
    agent, name = key
    if manifest is None or manifest.path != won.by:
        return "its metadata.updated, or the file's mtime then"
    declared = view.desired.declared.fields.get(agent, {}).get(name)
    if manifest.policy.get(name) == "pin" and (declared is None or declared.at != won.at):
        return "pinned, so just behind the write that it beat"
    if won.at == manifest.updated:
        return "its metadata.updated"
    if won.at == view.desired.loaded.files[manifest.path].saved:
        return "the file's mtime"
    return "its metadata.updated, or the file's mtime, when it said so first"


def standing(found: Explanation, holder: Holder) -> tuple[str, int]:
    """How a value stands against the winner: won, same, older, newer or tie; and by how many µs."""
    value, won = holder.value, found.won
    if (value.text, value.at, value.by) == tuple(won):
        return "won", 0
    if same_text(value.text, won.text):
        return "same", 0
    if value.at == won.at:
        return "tie", 0
    return ("older" if value.at < won.at else "newer"), abs(won.at - value.at)
