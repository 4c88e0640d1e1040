"""What a drop is: one write of one agent, as a hook leaves it in the spool. Pure: bytes in, values out.

A drop is made of parts that end with NUL: `reconciler-drop 1`, the agent, `<key> <type> <value>` for each context key,
`end`. Types: `text`; `json`; `base64`, bytes that have no other place here; `status`, the agent's own status. Its name
is its stamp: µs since 1970 and the process. A value that is not what its type says is kept as `<key>_raw` with the
reason in `<key>_raw_reason`; a good one takes those away.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from .errors import ReconcilerError
from .state import CONTEXT, Agent, Field, NotJson, State, decode, encode, is_agent_name, read_json

HEAD = b"reconciler-drop 1"
RAW, REASON = "_raw", "_raw_reason"
NAME = re.compile(r"(\.?)((\d{16})-(\d{1,10}|inbox-[^/\s]{1,64}))\.(drop|kept)((?:\.\w+)*\.tmp)?", re.A)
"""A drop's file; group 2 is its name, 3 and 4 the two halves of its stamp. Hidden and `.tmp` while it is written."""
_LONE = re.compile(r"\\u[dD][89a-fA-F]")


class NotADrop(ReconcilerError):
    """A file that cannot be taken in. `torn`: perhaps it is not whole yet."""

    def __init__(self, message: str, *, torn: bool = False) -> None:
        super().__init__(message)
        self.torn = torn


class Drop(NamedTuple):
    """One write of one agent; `name` is its file's, without the ending. A text None in `fields` deletes."""

    name: str
    agent: str
    fields: Agent

    @property
    def size(self) -> int:
        return sum(len(field.text or "") for field in self.fields.values())


class Part(NamedTuple):
    """One key of a drop: `kind` is its type, `value` bytes without NUL."""

    key: str
    kind: str
    value: bytes


def stamp_of(name: str) -> int:
    """The µs in a drop's name; 0 for a name that is none."""
    return int(name[:16]) if name[:16].isdecimal() else 0


def parse(name: str, data: bytes) -> Drop:
    """A drop from its name and its bytes. Raises NotADrop."""
    named = NAME.fullmatch(f"{name}.drop")
    if named is None:
        raise NotADrop("its name is not that of a drop: <µs since 1970, 16 digits>-<pid>.drop", torn=True)
    head, *parts = data.split(b"\0")
    if parts[-2:] != [b"end", b""] or len(parts) % 3:
        raise NotADrop("its end is missing", torn=True)
    agent = parts[0].decode("utf-8", "backslashreplace")
    if head != HEAD:
        raise NotADrop(f"it does not begin with {HEAD.decode()!r}")
    if not is_agent_name(agent):
        raise NotADrop(f"{agent[:70]!r} is no legal agent name")
    if len(parts) == 3:
        raise NotADrop("it has no key")
    at, by = int(named[3]), named[4] if named[4].startswith("inbox-") else f"hook-{named[4]}"
    texts: dict[str, str | None] = {}
    for key, kind, value in zip(*[iter(parts[1:-2])] * 3, strict=True):
        found = _texts(key, kind, value)
        # What a good value takes away may be said by another key: `{"x_raw": 1, "x": 2}` has both.
        texts |= {field: text for field, text in found.items() if text is not None or field not in texts}
    return Drop(name, agent, {field: Field(text, at, by) for field, text in texts.items()})


def _texts(key: bytes, kind: bytes, value: bytes) -> dict[str, str | None]:
    """What one key of a drop says: field to JSON text."""
    try:
        name = key.decode()
    except UnicodeDecodeError:
        raise NotADrop(f"the key {key[:70]!r} is not UTF-8 text") from None
    if not name:
        raise NotADrop("a key is empty")
    text, raw, reason = _read_value(kind, value)
    if kind == b"status" and text is not None:
        return {"status": text}
    field = CONTEXT + name
    return {field: text, field + RAW: raw, field + REASON: reason}


def _read_value(kind: bytes, value: bytes) -> tuple[str | None, str | None, str | None]:
    """A value's JSON text; or, where it is not what its type says, what it is, and why: both as JSON texts."""
    try:
        if kind == b"base64":
            return None, encode(value.decode("ascii", "replace")), encode("bytes that are no text, in base64")
        text = value.decode()
        if kind in (b"text", b"status"):
            return encode(text), None, None
        if kind != b"json":
            raise NotADrop(f"{kind.decode()[:70]!r} is no type: text, json, base64 or status")
        return _strict_json(text), None, None
    except UnicodeDecodeError as error:
        packed = base64.b64encode(value).decode()
        return None, encode(packed), encode(f"not UTF-8 at byte {error.start + 1}; in base64")
    except NotJson as error:
        return None, encode(text), encode(f"not JSON: {error.message} at character {error.position + 1}")


def _strict_json(text: str) -> str:
    """As `read_json`, but every string must be Unicode text. Raises NotJson."""
    found = read_json(text)
    lone = _LONE.search(text)
    if lone:
        try:
            json.dumps(decode(text), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise NotJson("half of a surrogate pair", lone.start()) from None
    return found


def pack(agent: str, parts: Iterable[Part]) -> bytes:
    """The bytes of a drop. A value that holds NUL has another place only as base64."""
    found = [HEAD, agent.encode()]
    for key, kind, value in parts:
        if b"\0" in value:
            kind, value = "base64", base64.b64encode(value)
        found += (key.encode(), kind.encode(), value)
    return b"\0".join((*found, b"end", b""))


class RawValue(NamedTuple):
    """A value that was not what its type said, where it stands, and why it is there."""

    agent: str
    field: str
    text: str
    reason: str
    at: int


def raw_values(state: State) -> list[RawValue]:
    """The values that are kept as `<key>_raw`, sorted."""
    return [
        RawValue(agent, field, value.text, str(decode(reason.text)), value.at)
        for agent, fields in sorted(state.items())
        for field, value in sorted(fields.items())
        if field.startswith(CONTEXT) and field.endswith(RAW) and value.text is not None
        and (reason := fields.get(field.removesuffix(RAW) + REASON)) is not None and reason.text is not None
    ]  # fmt: skip
