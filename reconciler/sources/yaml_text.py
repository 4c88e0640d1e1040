"""YAML read with JSON's types only; the one module that knows the YAML library.

Built from the C parser's events, without recursion: deep nesting, alias bombs and megabytes of brackets end in
an error, never in a crash (the library's own composer overflows the C stack at some 100,000 brackets).
Plain scalars follow JSON: no dates, no yes/no/on/off, no octal, no NaN. A key given twice is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from ..errors import InputError, Place, Problem
from ..render import clip
from ..state import MAX_DEPTH
from .text import Document, Locate, Path, decode_text, line_and_column
from .yaml_usual import read_usual

MAX_NODES = 100_000
"""Of one document, aliases counted with all they stand for."""

_LITERALS = {"": None, "~": None, "null": None, "true": True, "True": True, "TRUE": True,
             "false": False, "False": False, "FALSE": False}  # fmt: skip
_INT = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_STRING_TAGS = ("!", "tag:yaml.org,2002:str")


def _position(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


class _Bad(Exception):
    def __init__(self, message: str, event: Event, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
        self.line, self.column = _position(event)


def read_documents(data: bytes, source: str) -> list[Document]:
    """All documents of a YAML file. Raises InputError with the place of the first fault."""
    text = decode_text(data, source)
    try:
        # a node has a character at least, and so has its value
        with suppress(_Odd):  # the long way says where
            usual = read_usual(_parser(text).get_event, _plain) if 2 * len(text) < MAX_NODES else None
            if usual is not None:
                return usual
        return [Document(value, line) for value, line, _ in _documents(text, keep_marks=False)]
    except _Bad as bad:
        raise InputError(_problem(bad.message, text, Place(source, bad.line, bad.column), bad.hint)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        if mark is None:  # a character YAML forbids, told by its offset
            message, offset = str(getattr(error, "reason", error)), getattr(error, "position", 0)
            before = text.encode()[:offset].decode("utf-8", "replace")  # counted in bytes
            line, column = line_and_column(text, len(before))
        else:
            message = getattr(error, "problem", None) or getattr(error, "context", None) or "not YAML"
            line, column = mark.line + 1, mark.column + 1
        raise InputError(_problem(f"not YAML: {message}", text, Place(source, line, column))) from None


def locator(data: bytes, source: str, index: int) -> Locate:
    """Where the parts of document `index` stand."""
    return next(islice(locators(data, source), index, None))


def locators(data: bytes, source: str) -> Iterator[Locate]:
    """Where the parts of each document stand: the file is parsed a second time, now with marks."""
    text = decode_text(data, source)
    lines = text.splitlines()

    def locate(marks: Mapping[Path, tuple[int, int]], path: Path) -> tuple[Place, str]:
        while path and path not in marks:
            path = path[:-1]
        line, column = marks.get(path, (1, 1))
        return Place(source, line, column), lines[line - 1] if line <= len(lines) else ""

    for _, _, marks in _documents(text, keep_marks=True):
        yield partial(locate, marks)


def _problem(message: str, text: str, place: Place, hint: str = "") -> Problem:
    lines = text.splitlines()
    shown = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    return Problem(place, message, hint, text=shown)


class _Open(NamedTuple):
    """A container being filled: for a mapping `key` waits for its value."""

    value: Any
    anchor: str | None
    path: Path
    nodes_before: int


def _documents(text: str, *, keep_marks: bool) -> Iterator[tuple[Any, int, dict[Path, tuple[int, int]]]]:
    parser = _parser(text)
    line, builder = 1, _Builder(keep_marks)
    while parser.check_event():
        event: Any = parser.get_event()
        kind = type(event)
        if kind is DocumentStartEvent:
            builder = _Builder(keep_marks)
            line = _position(event)[0]
        elif kind is DocumentEndEvent:
            yield builder.result, line, builder.marks
        elif kind is not StreamStartEvent and kind is not StreamEndEvent:
            builder.take(event)


def _parser(text: str) -> Any:
    """libyaml's parser; the slow one in Python where the package was built without it."""
    if yaml.__with_libyaml__:
        return yaml.cyaml.CParser(text)  # type: ignore[attr-defined]
    return yaml.Loader(text)


class _Builder:
    """Plain data from the events of one document."""

    def __init__(self, keep_marks: bool) -> None:
        self.result: Any = None
        self.marks: dict[Path, tuple[int, int]] = {}
        self.keep_marks = keep_marks
        self.nodes = 0
        self.stack: list[_Open] = []
        self.keys: list[str | None] = []
        self.anchors: dict[str, tuple[Any, int]] = {}

    def take(self, event: Any) -> None:
        kind = type(event)  # of a hundred thousand events: isinstance costs twice as much
        if kind is ScalarEvent:
            self._add(event, _scalar(event))
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            self._open(event)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            self._close()
        elif isinstance(event, AliasEvent):
            if event.anchor not in self.anchors:
                raise _Bad(f"the alias *{clip(str(event.anchor), 60)} stands for nothing, or for itself", event)
            value, nodes = self.anchors[event.anchor]
            self.nodes += nodes
            self._add(event, value)

    def _open(self, event: Any) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise _Bad(f"nested deeper than {MAX_DEPTH} levels", event)
        if event.tag is not None:
            raise _Bad(f"the tag {clip(event.tag, 60)} is not supported", event, "JSON's types only")
        value: Any = {} if isinstance(event, MappingStartEvent) else []
        before = self.nodes
        path = self._add(event, value, keep_anchor=False)
        self.stack.append(_Open(value, event.anchor, path, before))
        self.keys.append(None)

    def _close(self) -> None:
        done = self.stack.pop()
        self.keys.pop()
        if done.anchor:
            self.anchors[done.anchor] = (done.value, self.nodes - done.nodes_before)

    def _add(self, event: Any, value: Any, *, keep_anchor: bool = True) -> Path:
        """Put a finished value, or a container about to be filled, where it belongs; its path."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _Bad(f"more than {MAX_NODES:,} values (aliases counted with what they stand for)", event)
        if keep_anchor and getattr(event, "anchor", None) and not isinstance(event, AliasEvent):
            self.anchors[event.anchor] = (value, 1)
        if not self.stack:
            self.result = value
            return self._mark(event, ())
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
            return self._mark(event, (*top.path, len(top.value) - 1)) if self.keep_marks else ()
        key = self.keys[-1]
        if key is None:
            self._take_key(event, value, top)
            return ()
        top.value[key] = value
        self.keys[-1] = None
        return (*top.path, key) if self.keep_marks else ()

    def _take_key(self, event: Any, key: Any, top: _Open) -> None:
        if not isinstance(key, str):
            raise _Bad("a key must be text", event, "put it in quotes")
        if key == "<<" and isinstance(event, ScalarEvent) and not event.style:
            raise _Bad("merge keys (<<) are not supported", event, "write the keys out")
        if key in top.value:
            raise _Bad(f"the key '{clip(key, 60)}' is given twice", event)
        self.keys[-1] = key
        if self.keep_marks:
            self._mark(event, (*top.path, key))

    def _mark(self, event: Any, path: Path) -> Path:
        if self.keep_marks:
            self.marks[path] = _position(event)
        return path


def _scalar(event: ScalarEvent) -> Any:
    value: str = event.value
    if event.tag is not None:
        if event.tag in _STRING_TAGS:
            return value
        raise _Bad(f"the tag {clip(event.tag, 60)} is not supported", event, "JSON's types only")
    if event.style:
        return value
    try:
        return _plain(value)
    except _Odd as odd:
        message, hint = odd.args
        raise _Bad(message, event, hint) from None


class _Odd(Exception):
    """A plain scalar that is refused: why, and what to do."""


def _plain(value: str) -> Any:
    """What a scalar without quotes stands for. Raises _Odd."""
    return _short(value) if len(value) < 40 else _meaning(value)


def _meaning(value: str) -> Any:
    if value in _LITERALS:
        return _LITERALS[value]
    if value[0] not in "+-.0123456789":
        return value
    try:
        if _INT.fullmatch(value):
            return int(value)
        if _FLOAT.fullmatch(value):
            number = float(value)
            if math.isfinite(number):
                return number
            raise _Odd(f"the number {value[:20]} is too large", "")
    except ValueError:
        raise _Odd("a number of more than 4,300 digits", "") from None
    if _NOT_FINITE.fullmatch(value):
        raise _Odd(f"{clip(value, 40)} is no JSON number", "put it in quotes if it is text")
    return value


_short = lru_cache(maxsize=10_000)(_meaning)
"""Most plain scalars are the same few words in all files."""


class _Dumper(yaml.SafeDumper):
    """Quotes what the library leaves plain and would not be read back: `1e5`, and line ends of other alphabets."""

    def represent_text(self, text: str) -> yaml.Node:
        style = '"' if _FLOAT.fullmatch(text) or _ODD_LINE_ENDS.search(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_ODD_LINE_ENDS = re.compile("[\x85\u2028\u2029\ufeff]")
_Dumper.add_representer(str, _Dumper.represent_text)


def write_document(value: Any) -> str:
    """Plain JSON data as YAML that any YAML reader reads back the same (`no` and dates are quoted)."""
    text: str = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100)
    return text
