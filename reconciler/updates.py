"""What callers of the hub ask for, checked and put into JSON texts, and what they are told. Pure.

Everything illegal is found here, before anything is sent: Redis hears only of what it can take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from .errors import NotFound, UsageError
from .events import PRIORITIES, Event
from .stamp import format_time, parse_time
from .state import (
    CONTEXT,
    LAST_UPDATE,
    SHARED,
    NotJson,
    State,
    context_field,
    encode,
    is_agent_name,
    present,
    record_to_text,
)

MAX_VALUE = 16 << 20
"""Characters of one value. An event carries a value up to three times, and a subscriber is cut at 32 MB."""

_PARTS = ("context", "status", "fields")
_NAMES = "1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"


class Json(str):
    """A value as JSON text, minified, which is written token for token."""


class WriteResult(NamedTuple):
    """What became of a write. `won`: the fields that changed; `stale`: those where a newer value stands.

    `version`: the agent's version in Redis, 0 when nothing changed there; `store`: "redis", or "file" while
    Redis is away; `at`: its stamp's time, in µs since 1970 UTC. `error`: why Redis refused this one of a batch, ""
    if it did not.
    """

    agent: str
    won: tuple[str, ...]
    stale: tuple[str, ...]
    version: int
    store: str
    at: int
    error: str = ""


class Update(NamedTuple):
    """One write of one agent. `values`: field to JSON text. With `whole`, these are all keys that the context has
    afterwards."""

    agent: str
    values: dict[str, str]
    whole: bool = False


def make_update(agent: str, context: Any, status: Any, fields: Any, *, whole: bool = False) -> Update:
    """Check and encode what a caller gave. Raises UsageError."""
    check_name(agent)
    values: dict[str, str] = {}
    for key, value in _mapping("context", context):
        name = CONTEXT + key
        if type(value) is str and value.isascii() and name.isascii() and len(value) < 10_000:
            values[name] = encode_basestring(value)  # as below, at half the price
        else:
            values[name] = _text(name, value)
    if status is not None:
        if not isinstance(status, str):
            hint = "any other value belongs into the context"
            raise UsageError(f"status must be text, not {type(status).__name__}", hint=hint)
        values["status"] = _text("status", status)
    for name, value in _mapping("fields", fields) if fields is not None else ():
        if name in _NOT_FIELDS or name.startswith(CONTEXT):
            hint = _NOT_FIELDS.get(name, "give context keys as context")
            raise UsageError(f"{name!r} is not a field of its own", hint=hint)
        values[name] = _text(name, value)
    if whole and context is None:
        raise UsageError("replace=True replaces the context, and none is given", hint="context={} empties it")
    if not values and not whole:
        raise UsageError("nothing to write", hint="give at least one key, a status or a field")
    return Update(agent, values, whole)


_NOT_FIELDS = {
    "status": "it is given as status=...",
    "context": "its keys are given as context",
    LAST_UPDATE: "it is the time of the newest write, which nobody sets",
}


def make_updates(batch: Any) -> list[Update]:
    """The items of a batch: a mapping, or pairs of agent and what to write, each as `read_item` takes it.

    Raises one UsageError that names everything that is wrong.
    """
    if isinstance(batch, str | bytes) or not isinstance(batch, Iterable):
        raise UsageError(f"a batch must be a mapping or pairs, not {type(batch).__name__}", hint=_BATCH)
    found, wrong = [], []
    for number, pair in enumerate(batch.items() if isinstance(batch, Mapping) else batch):
        try:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise UsageError("is not a pair of an agent and its keys", hint=_BATCH)
            found.append(read_item(*pair))
        except UsageError as error:
            name = pair[0] if isinstance(pair, tuple | list) and pair else ""
            wrong.append(f"item {number} ({str(name)[:70]}): {error}")
    if wrong:
        more = f"\nand {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UsageError("nothing was written:\n" + "\n".join(wrong[:10]) + more)
    return found


_BATCH = 'for example: {"mary": {"last_task": "deploy"}}'


def read_item(agent: Any, item: Any) -> Update:
    """`{key: value}` are context keys; `{"context": {...}, "status": "...", "fields": {...}}` says where each belongs.

    Where both could be meant it is refused. Raises UsageError.
    """
    if not isinstance(item, Mapping):
        raise UsageError(f"an agent's keys must be a mapping, not {type(item).__name__}", hint=_BATCH)
    parts = [name for name in item if name in _PARTS and isinstance(item[name], str if name == "status" else Mapping)]
    if not parts:
        return make_update(agent, item, None, None)
    if len(parts) < len(item):
        hint = 'say {"context": {...}, "status": "...", "fields": {...}}'
        raise UsageError(f"{', '.join(parts)} beside other keys: part of the context or not?", hint=hint)
    return make_update(agent, item.get("context"), item.get("status"), item.get("fields"))


def _mapping(what: str, value: Any) -> Iterable[tuple[str, Any]]:
    if value is None:
        return ()
    if type(value) is not dict and not isinstance(value, Mapping):
        hint = f'for example {what}={{"key": "value"}}'
        raise UsageError(f"{what} must be a mapping, not {type(value).__name__}", hint=hint)
    for key in value:
        if type(key) is not str and not isinstance(key, str):
            shown = repr(key)[:70]
            raise UsageError(f"{what}: {shown}: a key must be text, not {type(key).__name__}", hint=f"str({shown})")
    return value.items()


def _text(name: str, value: Any) -> str:
    try:
        name.isascii() or name.encode()
        text = str(value) if type(value) is Json else encode(value)
    except (NotJson, UnicodeEncodeError) as error:
        hint = "text, numbers, true, false, null, lists and objects with text as keys are JSON"
        raise UsageError(f"{ascii(name)[:70]}: not JSON: {error}", hint=hint) from None
    if len(text) > MAX_VALUE:
        hint = "keep it in a file, and its path here"
        raise UsageError(f"{name:.70}: {len(text):,} characters are too many, {MAX_VALUE:,} are allowed", hint=hint)
    check_keys(name, value)
    return text


def check_keys(name: str, value: Any) -> None:
    """Raises UsageError for keys that are no text: Python's encoder makes text of them, and two may become one."""
    if isinstance(value, dict):
        _mapping(name[:70], value)
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for member in value:
        check_keys(name, member)


def check_name(agent: Any) -> None:
    """Raises UsageError for a name that cannot be an agent's."""
    if not isinstance(agent, str) or not is_agent_name(agent):
        raise UsageError(f"{repr(agent)[:70]} is not a legal agent name", hint=_NAMES)


def no_agent(names: list[str], known: Iterable[str]) -> NotFound:
    """The error for agents that there are not; a name that is near to the first of them is told."""
    from difflib import get_close_matches

    near = get_close_matches(names[0], list(known), 1)
    hint = f"did you mean {near[0]}?" if near else "reconciler get lists them"
    return NotFound(f"no agent {', '.join(names)}", hint=hint)


def check_known(asked: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError for a name that cannot be an agent's, NotFound for one that there is not."""
    missing = sorted(set(asked) - set(known))
    for name in missing:
        check_name(name)
    if missing:
        raise no_agent(missing, known)


def check_priority(priority: Any) -> None:
    if priority not in PRIORITIES:
        raise UsageError(f"{repr(priority)[:70]} is not a priority", hint=f"one of {', '.join(PRIORITIES)}")


_NOT_SAID = ("v", "id", "version", "changes", "replayed")


def make_event(update: Any, now: int) -> Event:
    """What `publish_update` says; `now` (µs) is its time if it has none. Raises UsageError."""
    example = 'for example: {"agent": "mary", "event": "note", "data": {"text": "hello"}}'
    if not isinstance(update, Mapping):
        raise UsageError(f"an update must be a mapping, not {type(update).__name__}", hint=example)
    said = dict(update)
    agent, event, data = said.pop("agent", None), said.pop("event", None), said.pop("data", {})
    timestamp, priority = said.pop("timestamp", format_time(now)), said.pop("priority", "normal")
    if agent != SHARED:
        check_name(agent)
    if not isinstance(event, str) or not event:
        raise UsageError("event must be a word that says what happened", hint=example)
    if not isinstance(data, Mapping):
        raise UsageError(f"data must be a mapping, not {type(data).__name__}", hint=example)
    if claimed := [name for name in _NOT_SAID if name in said]:
        hint = "update_agent_context writes, and its event has them"
        raise UsageError(f"{', '.join(claimed)}: only an event of a write has these", hint=hint)
    check_priority(priority)
    moment = parse_time(timestamp) if isinstance(timestamp, str) else None
    if moment is None:
        hint = f"for example {format_time(now)}, or leave it out"
        raise UsageError(f"{repr(timestamp)[:70]} is not a time", hint=hint)
    made = Event(agent, event, format_time(moment.at), dict(data), priority=priority, more=said)
    _text("update", made.to_plain())
    return made


def unified(merged: State) -> str:
    """A merged state as JSON text in the shape of `context.json`."""
    agents = [
        f"{encode(name)}:{record_to_text(values)}"
        for name, fields in sorted(merged.items())
        if name != SHARED and (values := present(fields))
    ]
    sections = [
        f"{encode(name)}:{text}" for name, text in present(merged.get(SHARED, {})).items() if name != LAST_UPDATE
    ]
    return "{" + ",".join(['"agents":{' + ",".join(agents) + "}", *sections]) + "}"


__all__ = [
    "Json", "Update", "WriteResult", "check_keys", "check_known", "check_name", "check_priority", "context_field",
    "make_event", "make_update", "make_updates", "no_agent", "read_item", "unified",
]  # fmt: skip
