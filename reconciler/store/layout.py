"""How an agent lies in Redis: keys, the hash people know, the sidecar that tells who wrote what when.

    memory:agents:mary                  status busy · context {"task":"x"} · last_update 2025-...Z · insight ...
    memory:meta:{memory:agents:mary}    version 42 · by "<at> <by>" of the first write · = <digest of the context> ·
                                        .insight "<at> s <digest> <by>" · and shorter where who wrote first writes:
                                        .status "<µs since> s <digest>" · :task <µs since> · @ <at of last_update>

`write.lua` writes this, and tells the rules; `read_agent` reads it back and tells a raw write from a known one by the
digests.
Pure: bytes in, values out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import Place, Problem
from ..stamp import format_time, parse_time, refine
from ..state import (
    CONTEXT,
    LAST_UPDATE,
    SHARED,
    Agent,
    Field,
    NotJson,
    decode,
    decode_at,
    encode,
    is_text,
    read_json,
    same_text,
    split_object,
)
from . import LiveAgent, Put, Seen

AGENTS = "memory:agents:"
RAW = "raw"
"""The writer's name of what somebody wrote with a plain HSET."""

_SIDECAR = re.compile(r"memory:meta:\{(.*)\}", re.S)
_ENTRY = re.compile(r"([0-9]{1,18})(?: ([sjcx]) (\S+)(?: (.*))?)?", re.S)
_FIRST = re.compile(r"([0-9]{1,18}) (.*)", re.S)
_VERSION = re.compile(r"[0-9]{1,15}")
"""As `write.lua` believes them: what is longer is no stamp and no version, as if it were not there."""
_FORMER = re.compile(r"\.(context\.|last_update\Z)")
"""Names of registers as they were before a sidecar told who wrote first; the script gives them their new ones."""
_LAST = "@"
ABSENT = Seen("-")


class Keys(NamedTuple):
    """The three keys of one agent; the braces keep them in one cluster slot."""

    hash: str
    sidecar: str
    history: str


@lru_cache(maxsize=20_000)
def keys_of(agent: str) -> Keys:
    name = "memory:shared" if agent == SHARED else AGENTS + agent
    return Keys(name, f"memory:meta:{{{name}}}", f"memory:history:{{{name}}}")


def agent_of(key: str) -> str | None:
    """The agent that a hash's or a sidecar's key belongs to; None for any other key."""
    sidecar = _SIDECAR.fullmatch(key)
    name = sidecar[1] if sidecar else key
    if name == "memory:shared":
        return SHARED
    return name.removeprefix(AGENTS) if name.startswith(AGENTS) else None


def digest(text: bytes) -> str:
    """What `write.lua` notes of every text it writes."""
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()[:16]


def encode_field(field: str, text: str | None) -> tuple[str, str]:
    """The kind and the hash text of a value: strings are plain text, everything else its JSON text."""
    if text is None:
        return "x", ""
    if field.startswith(CONTEXT):
        return "c", text
    if text.startswith('"'):
        if "\\" not in text:
            return "s", text[1:-1]
        plain = decode(text)
        try:
            plain.encode()
        except UnicodeEncodeError:
            return "j", text
        return "s", plain
    return "j", text


def frame(members: Mapping[str, str]) -> str:
    """A context as the script keeps it: one member a line."""
    lines = ",\n".join(f"{encode(key)}:{text}" for key, text in members.items())
    return "{\n" + lines + "\n}" if lines else "{}"


def unframe(text: str) -> dict[str, str]:
    """The members of a context the script wrote; `split_object` reads any other JSON object."""
    if text == "{}":
        return {}
    found = {}
    for line in text[2:-2].split(",\n"):
        key, end = decode_at(line)
        found[key] = line[end + 1 :]
    return found


def decode_framed(text: str) -> dict[str, Any] | None:
    """A context that `unframe` can read, a JSON object with one member a line; None for any other. Raises NotJson."""
    if text == "{}":
        return {}
    if not (text.startswith('{\n"') and text.endswith("\n}")):
        return None
    found: dict[str, Any] = decode(text)
    return found if len(found) == text.count('\n"') == text.count("\n") - 1 else None


class Entry(NamedTuple):
    """A register: the field's stamp, and what the script noted of its text."""

    at: int
    kind: str
    digest: str
    by: str


def register(field: str) -> str:
    """The name of a field's register in the sidecar."""
    if field.startswith(CONTEXT):
        return ":" + field.removeprefix(CONTEXT)
    return _LAST if field == LAST_UPDATE else "." + field


def _field_of(name: str) -> str | None:
    if name[:1] == ":":
        return CONTEXT + name[1:]
    if name[:1] == ".":
        return name[1:]
    return LAST_UPDATE if name == _LAST else None


def read_registers(sidecar: Mapping[str, str]) -> dict[str, Entry]:
    """What the sidecar knows of each field; a register that cannot be read is left out."""
    found: dict[str, Entry] = {}
    first = _FIRST.fullmatch(sidecar.get("by", ""))
    birth, writer = (int(first[1]), first[2]) if first else (0, "")
    for name, packed in sidecar.items():
        field = _field_of(name)
        parts = _ENTRY.fullmatch(packed) if field is not None else None
        if field is None or parts is None or (first and name[0] == "." and _FORMER.match(name)):
            continue
        at, kind, mark, by = parts.groups()
        if by is not None:
            found[field] = Entry(int(at), kind, mark, by)
        elif name == _LAST and first:
            found[field] = Entry(int(at), kind or "s", mark or "-", writer)
        elif first:
            found[field] = Entry(birth + int(at), kind or "c", mark or "-", writer)
    return found


def read_agent(
    agent: str, raw_hash: Mapping[bytes, bytes], raw_sidecar: Mapping[bytes, bytes], base: Agent, now: int
) -> tuple[LiveAgent, list[Problem]]:
    """One agent from its hash and sidecar. `base` tells what a raw write replaced, `now` (µs) is when it was seen.

    Whatever cannot be read is named in the problems and in `broken`, and left out; the rest goes on.
    """
    return _Reader(agent, raw_hash, raw_sidecar, base, now).read()


class _Reader:
    """One agent being read: the hash field by field, known texts apart from foreign ones."""

    def __init__(
        self,
        agent: str,
        raw_hash: Mapping[bytes, bytes],
        raw_sidecar: Mapping[bytes, bytes],
        base: Agent,
        now: int,
    ) -> None:
        self.agent, self.base, self.now = agent, base, now
        self.key = keys_of(agent).hash
        self.hash = raw_hash
        sidecar = {name.decode("utf-8", "replace"): text.decode("utf-8", "replace")
                   for name, text in raw_sidecar.items()}  # fmt: skip
        version = sidecar.get("version", "0")
        self.version = int(version) if _VERSION.fullmatch(version) else 0
        self.context_digest = sidecar.get("=" if "by" in sidecar or "=" in sidecar else "=context", "-")
        self.entries = read_registers(sidecar)
        self.fields: dict[str, Field] = {}
        self.raw: list[Put] = []
        self.seen: dict[str, Seen] = {}
        self.broken: set[str] = set()
        self.problems: list[Problem] = []
        self.seen_at = self._seen_at()

    def read(self) -> tuple[LiveAgent, list[Problem]]:
        if not self.hash and any(entry.kind != "x" for entry in self.entries.values()):
            return self._gone(), []
        for key, text in self.hash.items():
            try:
                self._read_hash_field(key.decode(), text)
            except UnicodeDecodeError:
                self._broken(key.decode("utf-8", "backslashreplace"), "not UTF-8 text")
        if b"context" not in self.hash:
            self._read_context("{}", known=self.context_digest == "-", there=False)
        for name, entry in self.entries.items():
            self._read_missing(name, entry)
        live = LiveAgent(self.fields, self.version, tuple(self.raw), self.seen, broken=frozenset(self.broken))
        return live, self.problems

    def _seen_at(self) -> int:
        """The stamp of raw writes: when they were seen, or the `last_update` they declare (DESIGN §4)."""
        text = self.hash.get(b"last_update", b"").decode("utf-8", "replace")
        known = self.entries.get(LAST_UPDATE)
        if known is not None and text == format_time(known.at):
            return self.now
        declared = parse_time(text)
        if declared is None or declared.at > self.now or (known is not None and declared.at <= known.at):
            return self.now
        return refine(declared, self.now)

    def _read_hash_field(self, name: str, text: bytes) -> None:
        if name == "context" and self.agent != SHARED:
            known = digest(text) == self.context_digest
            self._read_context(text.decode(), known=known, there=True)
            return
        if name.startswith(CONTEXT) or (name == "context" and self.agent == SHARED):
            self._broken(name, "this name is reserved", f"use the JSON object in {self.key} context")
            return
        entry = self.entries.get(name)
        known = format_time(entry.at).encode() == text if name == LAST_UPDATE and entry else False
        if entry and entry.kind in "sj" and (known or entry.digest == digest(text)):
            self.fields[name] = Field(self._value(name, entry, text.decode()), entry.at, entry.by)
        elif name == LAST_UPDATE:
            self._read_time(text.decode(), entry)
        else:
            self._take_raw(name, self._value(name, entry, text.decode()))
            self.seen[name] = Seen(digest(text))

    def _value(self, name: str, entry: Entry | None, text: str) -> str:
        """Plain text is a string, unless the field held other JSON before, or is a shared section."""
        if (entry is not None and entry.kind == "j") or (self.agent == SHARED and text[:1] in "{["):
            try:
                return read_json(text)
            except NotJson:
                pass  # it was JSON once; what somebody wrote there now is plain text
        return encode(text)

    def _read_time(self, text: str, entry: Entry | None) -> None:
        declared = parse_time(text)
        if declared is None or (entry is not None and declared.at <= entry.at) or declared.at > self.now:
            if entry is not None and entry.kind == "s":  # no newer time: put right what was known
                self._take_time(Put(LAST_UPDATE, encode(format_time(entry.at)), entry.at, entry.by))
            return
        self._take_time(Put(LAST_UPDATE, encode(format_time(declared.at)), declared.at, RAW))

    def _take_time(self, put: Put) -> None:
        assert put.at is not None
        self.fields[LAST_UPDATE] = Field(put.text, put.at, put.by)
        self.raw.append(put)

    def _read_context(self, text: str, *, known: bool, there: bool) -> None:
        try:
            known = known and decode_framed(text) is not None  # a digest can be forged
            members = unframe(text) if known else self._foreign_context(text)
        except NotJson as error:
            self._broken("context", f"not a JSON object: {error.message}")
            return
        if not known:
            self.seen["context"] = Seen(digest(text.encode()), frame(members)) if there else ABSENT
        for key, value in members.items():
            name = CONTEXT + key
            entry = self.entries.get(name)
            if known and entry:
                self.fields[name] = Field(value, entry.at, entry.by)
            elif entry and self._unchanged(name, entry, value):
                self.fields[name] = Field(value, entry.at, entry.by)
            else:
                self._take_raw(name, value)

    def _foreign_context(self, text: str) -> dict[str, str]:
        """A context somebody else wrote; one or two layers of JSON text around it are taken off."""
        value, layers = decode(text, 1), 0
        while isinstance(value, str) and layers < 2:
            text, value, layers = value, decode(value, 1), layers + 1
        if not isinstance(value, dict):
            raise NotJson(f"found {type(value).__name__}")
        if layers:
            self._warn("context", "the object is encoded twice; it was put right")
        stripped = text.strip(" \t\r\n")
        stripped.encode()
        members = split_object(stripped)
        for key in members:
            if not is_text(key):
                raise NotJson(f"the key {encode(key)} is not Unicode text")
        return members

    def _unchanged(self, name: str, entry: Entry, value: str) -> bool:
        known = self.base.get(name)
        return known is not None and (known.at, known.by) == (entry.at, entry.by) and same_text(known.text, value)

    def _take_raw(self, name: str, text: str | None) -> None:
        entry = self.entries.get(name)
        at = max(self.seen_at, entry.at + 1) if entry else self.seen_at
        known = self.base.get(name)
        if known and known.by == RAW and known.at > (entry.at if entry else 0) and same_text(known.text, text):
            at = known.at  # seen before, when it could not be adopted: not written once more
        old = known.text if known and entry and (known.at, known.by) == (entry.at, entry.by) else None
        self.fields[name] = Field(text, at, RAW)
        self.raw.append(Put(name, text, at, RAW, old or "null"))

    def _read_missing(self, name: str, entry: Entry) -> None:
        """A field the sidecar knows and the hash lacks: a tombstone, or one that somebody removed."""
        if name in self.fields:
            return
        if entry.kind == "x":
            self.fields[name] = Field(None, entry.at, entry.by)
        elif name.startswith(CONTEXT):
            if "context" not in self.broken:
                self._take_raw(name, None)
        elif name != LAST_UPDATE and name not in self.broken:
            self._take_raw(name, None)
            self.seen[name] = ABSENT

    def _gone(self) -> LiveAgent:
        """The whole hash was removed: no deletion (DESIGN §5.3). What may be written there again, and which
        stamps to forget of fields that nobody here can restore."""
        seen = {"context" if name.startswith(CONTEXT) else name: ABSENT
                for name, entry in self.entries.items() if entry.kind != "x"}  # fmt: skip
        if self.context_digest != "-":  # it may have been there with nothing in it
            seen["context"] = ABSENT
        tombs = {name: Field(None, entry.at, entry.by)
                 for name, entry in self.entries.items() if entry.kind == "x"}  # fmt: skip
        forget = tuple(Put(name, None, entry.at, entry.by, forget=True)
                       for name, entry in self.entries.items()
                       if entry.kind != "x" and name != LAST_UPDATE)  # fmt: skip
        return LiveAgent(tombs, self.version, (), seen, gone=forget)

    def _broken(self, name: str, message: str, hint: str = "") -> None:
        self.broken.add(name)
        shown = name[:200]
        hint = hint or f"mend it with HSET {self.key} {shown}, or HDEL it"
        self.problems.append(Problem(Place(f"{self.key} {shown}"), message, hint, agent=self.agent))

    def _warn(self, name: str, message: str) -> None:
        self.problems.append(Problem(Place(f"{self.key} {name}"), message, agent=self.agent, severity="warning"))


def lost_text(put: Put, known: Field | None) -> str:
    """What a removed hash held where `put` would forget it, as JSON text: base has it if the stamp is the same; "null"
    where nobody can tell."""
    return (known.text if known and (known.at, known.by) == (put.at, put.by) else None) or "null"


def restoring(live: LiveAgent, puts: tuple[Put, ...]) -> tuple[Put, ...]:
    """The puts that refill an agent whose hash somebody removed, and forget what they do not refill."""
    written = {put.field for put in puts}
    return puts + tuple(put for put in live.gone if put.field not in written)


def arguments(puts: tuple[Put, ...]) -> Iterator[str]:
    """The puts as `write.lua` takes them, six arguments each."""
    for put in puts:
        kind, text = ("f", "") if put.forget else encode_field(put.field, put.text)
        yield from (put.field, kind, text, "" if put.at is None else str(max(put.at, 0)), put.by, put.old)


def live_arguments(values: Mapping[str, str | None]) -> list[str] | None:
    """The values of a live write as `write.lua` takes them, three arguments each; None if one needs more care."""
    found: list[str] = []
    for field, text in values.items():
        begins = _begins(field)
        if begins is None or text is None:
            return None
        found += (field, begins, text) if begins else (field, *encode_field(field, text))
    whole = "".join(found)
    return found if "\n" not in whole and is_text(whole) else None


@lru_cache(maxsize=20_000)
def _begins(field: str) -> str | None:
    """What a context member begins with in its hash, "" for a field of its own; None for a name that is not simple."""
    if field in ("context", LAST_UPDATE) or not is_plain(field):
        return None
    return f'"{field.removeprefix(CONTEXT)}":' if field.startswith(CONTEXT) else ""


def is_plain(name: str) -> bool:
    """Whether a name stands in JSON as it is."""
    return encode(name) == f'"{name}"'
