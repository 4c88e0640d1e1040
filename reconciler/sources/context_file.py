"""`context.json`: what it says, and how it is written so that every byte nobody changed stays as it was.

Values are taken out as the text that stands there, and put back in the file's own style. Every key that this
program does not know is kept, in place, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .. import schema
from ..edits import FILE, TIMES
from ..errors import InputError, Place, Problem
from ..plan import Change
from ..stamp import parse_time
from ..state import (
    CONTEXT,
    LAST_UPDATE,
    MAX_DEPTH,
    SHARED,
    Member,
    NotJson,
    State,
    check_depth,
    decode,
    decode_at,
    encode,
    is_agent_name,
    is_text,
    members,
    minify,
    present,
    record_to_text,
    reindent,
    skip_blank,
    split_object,
)
from .text import Locate, Path, line_and_column, utf8_problem

MAX_BYTES = 256 << 20
_SHOWN = 2_000
"""A line is shown with a problem up to this column: a file on one line would be shown with each of them."""
NEW = '{\n  "version": "1.0",\n  "agents": {}\n}\n'
"""A `context.json` that nobody has written yet."""

MEND = "correct it, or move it away and run: reconciler apply (it is written anew from the last good state)"

_OWN = ("version", LAST_UPDATE, "agents")


@dataclass(frozen=True, slots=True)
class Context:
    """One reading of the file.

    `text` is the file without its byte order mark. `values`: agent to field to JSON text, with the shared
    sections under SHARED and the file's own `version` and `last_update` under FILE. `broken`: agents whose
    record cannot be read; base stands in for them and their record is left alone. `legacy`: agents whose
    record has an older shape; it is written whole when it is written.
    """

    text: str
    values: Mapping[str, Mapping[str, str]]
    problems: tuple[Problem, ...] = ()
    broken: frozenset[str] = frozenset()
    legacy: frozenset[str] = frozenset()


def parse(data: bytes, source: str, local: Iterable[str]) -> Context:
    """Read the file. `local`: sections that describe this machine and never leave it.

    Raises InputError when the whole of it is unusable; one bad record only hurts itself.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(utf8_problem(data, error, source)) from None
    return _Parser(text.removeprefix("\ufeff"), source, frozenset(local)).parse()


class _Parser:
    def __init__(self, text: str, source: str, local: frozenset[str]) -> None:
        self.text, self.source, self.local = text, source, local
        self.values: dict[str, dict[str, str]] = {}
        self.problems: list[Problem] = []
        self.broken: set[str] = set()
        self.legacy: set[str] = set()
        self.lower: dict[str, str] = {}

    def parse(self) -> Context:
        if not self.text.strip():
            raise InputError(Problem(Place(self.source, 1, 1), "the file is empty", MEND))
        try:
            self._parse_root()
        except NotJson as error:
            raise InputError(self._problem(error.position, f"not JSON: {error.message}", MEND)) from None
        return Context(self.text, self.values, tuple(self.problems), frozenset(self.broken), frozenset(self.legacy))

    def _parse_root(self) -> None:
        start = skip_blank(self.text, 0)
        value, end = decode_at(self.text, start)
        if (end := skip_blank(self.text, end)) < len(self.text):
            raise NotJson("extra text behind the end", end)
        if not isinstance(value, dict) or not isinstance(value.get("agents"), dict):
            problems = schema.validate("context", value, json_locator(self.text, self.source), source=self.source)
            raise InputError(*(replace(problem, hint=problem.hint or MEND) for problem in problems))
        del value  # of a large file it is the most of all, and was needed only to see that the whole is JSON
        own: dict[str, str] = {}
        shared: dict[str, str] = {}
        for member in self._once(members(self.text, start), "section"):
            if member.key == "agents":
                for record in self._once(members(self.text, member.start), "agent"):
                    self._take_record(record)
            elif member.key in _OWN:
                own[member.key] = self._plain(member)
            elif member.key == "context" or member.key.startswith(CONTEXT):
                message = f"the section {encode(member.key)} stays in the file: Redis keeps that name for itself"
                self._warn(member.key_start, message)
            elif not is_text(member.key):
                self._warn(
                    member.key_start, f"the section {encode(member.key)} stays in the file: it is not Unicode text"
                )
            elif member.key not in self.local:
                self._take_section(member, shared)
        self.values[FILE] = own
        if shared and SHARED not in self.broken:
            self.values[SHARED] = shared

    def _take_section(self, member: Member, shared: dict[str, str]) -> None:
        text = self._plain(member)
        try:
            check_depth(text)
            shared[member.key] = text
        except NotJson as error:
            self._break(SHARED, member.key_start, f"the section {encode(member.key)} is {error.message}")

    def _once(self, found: Iterable[Member], what: str) -> list[Member]:
        """Refuse a key given twice: which of the two is meant cannot be told."""
        keys: dict[str, Member] = {}
        for member in found:
            if member.key in keys:
                raise NotJson(f"the {what} {encode(member.key)} is there twice", member.key_start)
            keys[member.key] = member
        return list(keys.values())

    def _plain(self, member: Member) -> str:
        return plain_text(self.text[member.start : member.end])

    def _take_record(self, record: Member) -> None:
        name = record.key
        if not is_agent_name(name):
            hint = "letters, digits, dot, dash and underscore, at most 64"
            self._break(name, record.key_start, f"{encode(name)[:70]} is not a legal agent name", hint)
            return
        first = self.lower.setdefault(name.lower(), name)
        if first != name:
            message = f"agent {name} differs from agent {first} only in its letters' case"
            self._break(name, record.key_start, message, "rename one of them")
            return
        try:
            values = self._read_record(record)
            if name not in self.broken:
                self.values[name] = values
        except NotJson as error:
            self._break(name, record.start, error.message)

    def _read_record(self, record: Member) -> dict[str, str]:
        raw = self.text[record.start : record.end]
        if raw.startswith('"'):
            self._warn(record.start, "a bare string is read as the agent's status", record.key)
            self.legacy.add(record.key)
            return {"status": plain_text(raw)}
        if not raw.startswith("{"):
            raise NotJson(f"expected an object, found {raw[:20]}")
        values: dict[str, str] = {}
        found = split_object(raw)
        for key, text in found.items():
            if key == "context":
                values.update(self._read_context(record, text))
            else:
                values[key] = plain_text(text)
        for key in values:
            if not is_text(key):
                raise NotJson(f"the key {encode(key.removeprefix(CONTEXT))} is not Unicode text")
        if raw.count("[") + raw.count("{") > MAX_DEPTH:
            for text in values.values():
                check_depth(text)
        if not _is_good(values, found):
            self._explain(record, raw)
            return {}
        naive = [key for key in TIMES if key in values and _is_naive(values[key])]
        if naive:
            self._warn(record.start, f"{' and '.join(naive)} without a time zone: read as local time", record.key)
        return values

    def _read_context(self, record: Member, text: str) -> dict[str, str]:
        """`context` as an object; one or two layers of text around it are taken off, with a warning."""
        for _ in range(3):
            if text.startswith("{"):
                return {CONTEXT + key: member for key, member in split_object(text).items()}
            if not text.startswith('"'):
                break
            self._warn(record.start, "context is text instead of an object; it was put right", record.key)
            self.legacy.add(record.key)
            text = decode(text).strip()
            decode(text)
        if text == "null":
            return {}
        raise NotJson(f"context: expected an object, found {text[:20]}")

    def _explain(self, record: Member, raw: str) -> None:
        locate = json_locator(self.text, self.source, record.start)
        found = schema.validate("record", decode(raw), locate, source=self.source, agent=record.key)
        self.problems += found or [self._problem(record.start, "not an agent's record").about(record.key)]
        self.broken.add(record.key)

    def _break(self, agent: str, position: int, message: str, hint: str = "") -> None:
        self.broken.add(agent)
        self.problems.append(self._problem(position, message, hint).about(agent))

    def _warn(self, position: int, message: str, agent: str | None = None) -> None:
        found = self._problem(position, message)
        self.problems.append(Problem(found.place, message, agent=agent, severity="warning", text=found.text))

    def _problem(self, position: int, message: str, hint: str = "") -> Problem:
        place, line = _place(self.text, self.source, position)
        return Problem(place, message, hint, text=line)


def read_record(name: str, raw: str) -> dict[str, str] | None:
    """The values of one record's text; None unless there is nothing to be said about it."""
    parser = _Parser(raw, "", frozenset())
    try:
        values = parser._read_record(Member(name, 0, 0, len(raw)))
    except NotJson:
        return None
    return None if parser.problems or parser.broken or parser.legacy else values


def plain_text(raw: str) -> str:
    """A value's text; strings spelt one way, so that stamps tie on them here as they do in Redis."""
    if raw.startswith('"'):
        return encode(decode(raw)) if "\\" in raw else raw
    return minify(raw)


def _is_good(values: Mapping[str, str], plain: Iterable[str]) -> bool:
    """Whether a record is as the schema wants it, told without the schema (it costs a thousand times more)."""
    if not values.get("status", '"').startswith('"'):
        return False
    if any(values.get(key, '"')[:1] not in '"-0123456789' for key in TIMES):
        return False
    return not any(key.startswith(CONTEXT) for key in plain)


def _is_naive(text: str) -> bool:
    moment = parse_time(decode(text))
    return moment is not None and moment.naive


def _place(text: str, source: str, position: int) -> tuple[Place, str]:
    """A place and its line, for a caret under it; of a line on which everything stands, nothing."""
    line, column = line_and_column(text, position)
    if column > _SHOWN:
        return Place(source, line, column), ""
    end = text.find("\n", position)
    return Place(source, line, column), text[position - column + 1 : end if end >= 0 else len(text)][: column + 200]


def json_locator(text: str, source: str, start: int = 0) -> Locate:
    """Where the parts of the JSON value at `start` stand; an object's member is where its key is."""
    known: dict[int, dict[str, tuple[int, int]]] = {}

    def locate(path: Path) -> tuple[Place, str]:
        position = shown = skip_blank(text, start)
        for step in path:
            found = _child(text, position, step, known)
            if found is None:
                break
            shown, position = found
        return _place(text, source, shown)

    return locate


def _child(
    text: str, position: int, step: str | int, known: dict[int, dict[str, tuple[int, int]]]
) -> tuple[int, int] | None:
    """Where a member's key, or an element, stands, and where its value does. `known`: the objects seen so far."""
    if text[position : position + 1] == "{" and isinstance(step, str):
        if position not in known:
            known[position] = {}
            for member in members(text, position):
                known[position].setdefault(member.key, (member.key_start, member.start))
        return known[position].get(step)
    elif text[position : position + 1] == "[" and isinstance(step, int):
        position = skip_blank(text, position + 1)
        for _ in range(step):
            _, position = decode_at(text, position)
            position = skip_blank(text, skip_blank(text, position) + 1)
        return position, position
    return None


class Style(NamedTuple):
    """How a file is laid out: its line end ("" for one line), one step of indentation, and what stands behind
    `:` and, on one line, `,`."""

    newline: str
    step: str
    colon: str
    comma: str


Edit = str | None | Mapping[str, Any]
"""What becomes of a member: a new value as JSON text, None to take it out, or edits inside the object."""

_ORDER = {"status": 0, "last_seen": 1, LAST_UPDATE: 2, "context": 3}


def render(context: Context, changes: Mapping[str, Mapping[str, Change]], merged: State, last_update: str) -> str:
    """The file's text with the changes in it. `changes`: agent to field to change, SHARED for the sections;
    `merged` gives whole records where a legacy one is replaced; `last_update` is JSON text for the file."""
    text = context.text
    edits = file_edits(context, changes, merged, last_update)
    start = skip_blank(text, 0)
    end = len(text.rstrip(" \t\r\n"))
    style = style_of(text, start)
    return text[:start] + _edit_object(text[start:end], edits, style, style.newline) + text[end:]


def file_edits(
    context: Context, changes: Mapping[str, Mapping[str, Change]], merged: State, last_update: str
) -> dict[str, Edit]:
    """What becomes of the members of the file's object."""
    edits: dict[str, Edit] = {
        name: change.new for name, change in changes.get(SHARED, {}).items() if name != LAST_UPDATE
    }
    records = {
        agent: _record_edit(agent, fields, context, present(merged[agent]))
        for agent, fields in changes.items()
        if agent != SHARED
    }
    if records:
        edits["agents"] = records
    edits[LAST_UPDATE] = last_update
    return edits


def _record_edit(agent: str, fields: Mapping[str, Change], context: Context, whole: Mapping[str, str]) -> Edit:
    if not whole:
        return None
    if agent in context.legacy:
        return record_to_text(whole)
    edit: dict[str, Edit] = {}
    inside: dict[str, Edit] = {}
    for name, change in fields.items():
        if name.startswith(CONTEXT):
            inside[name.removeprefix(CONTEXT)] = change.new
        else:
            edit[name] = change.new
    if any(text is not None for text in inside.values()) or (inside and agent in context.values):
        edit["context"] = inside
    return dict(sorted(edit.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))))


def _edit_object(raw: str, edits: Mapping[str, Edit], style: Style, margin: str) -> str:
    """A JSON object's text with some members changed; what stands between the others stays as it is."""
    found = list(members(raw))
    inner = margin + style.step
    lead = raw[1 : found[0].key_start] if found else inner
    tail = raw[found[-1].end : -1] if found else margin
    out: list[str] = []
    for index, member in enumerate(found):
        value = raw[member.start : member.end]
        if member.key in edits:
            edit = edits[member.key]
            if edit is None:
                continue
            value = edit_value(value, edit, style, inner)
        if out:
            out.append(raw[found[index - 1].end : member.key_start])
        out.append(raw[member.key_start : member.start] + value)
    known = {member.key for member in found}
    for key, edit in edits.items():
        if key not in known and edit is not None:
            if out:
                out.append("," + (lead or style.comma))
            out.append(encode(key) + style.colon + edit_value("{}", edit, style, inner))
    return "{" + lead + "".join(out) + tail + "}" if out else "{}"


def edit_value(raw: str, edit: str | Mapping[str, Any], style: Style, margin: str) -> str:
    if not isinstance(edit, str):
        return _edit_object(raw if raw.startswith("{") else "{}", edit, style, margin)
    if not style.newline:
        return edit
    return reindent(edit, step=style.step, margin=margin, colon=style.colon)


def style_of(text: str, start: int) -> Style:
    """The layout of the file, from its first member."""
    first = next(members(text, start), None)
    if first is None:
        return Style("\n", "  ", ": ", "")
    lead, newline, step = text[start + 1 : first.key_start].rpartition("\n")
    _, end = decode_at(text, first.key_start)
    colon = text[end : first.start]
    if not newline:
        return Style("", "", colon, " " if colon.endswith(" ") else "")
    return Style("\r\n" if lead.endswith("\r") else "\n", step, colon, "")
