"""What every replica is: for each agent a map from field to (value, when, who).

A value is JSON text, minified: white space outside strings removed, every token kept byte for byte, so big
integers, floats, key order and Unicode survive. `canonical` is the text under which two values are the
same. Pure: no file, no clock, no client.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from .errors import ReconcilerError
from .stamp import parse_time

SHARED = "@shared"
"""The reserved document of `context.json`'s own sections; no agent can have this name."""

LAST_UPDATE = "last_update"
QUIET = frozenset({LAST_UPDATE, "last_seen"})
"""Fields that only say when: carried, but never a difference that counts (issue 1, DESIGN §5)."""

CONTEXT = "context."
MAX_DEPTH = 64
"""Brackets within brackets of one value."""
AROUND = 8
"""Those that may stand around a value: of a context, a record, an event, a plan, all of `context.json`."""
AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Field(NamedTuple):
    """One register. `text` is the value as JSON text, None a tombstone; `at` microseconds, `by` the writer."""

    text: str | None
    at: int
    by: str

    def order(self) -> tuple[int, str, str]:
        """The total order of DESIGN §2; a tombstone comes before every value of its stamp."""
        return (self.at, self.by, self.text or "")


Agent = Mapping[str, Field]
State = Mapping[str, Agent]


class NotJson(ReconcilerError):
    """A text that is not strict JSON; `message` says why, `position` is the offset of the fault."""

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


@lru_cache(maxsize=20_000)
def is_agent_name(name: str) -> bool:
    return bool(AGENT_NAME.fullmatch(name))


def is_text(name: str) -> bool:
    """Whether it is Unicode text: half of a surrogate pair is none, and neither Redis nor SQLite takes it."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_LONG_NUMBER = re.compile(r"\d{4301}")
_BLANK = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+')


def _refuse_constant(name: str) -> Any:
    raise NotJson(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))  # making one costs more


_WHITE = re.compile(r"[ \t\r\n]*")


def skip_blank(text: str, position: int) -> int:
    """The offset of the next token."""
    if text[position : position + 1] > " ":
        return position
    found = _WHITE.match(text, position)
    return found.end() if found else position


def decode_at(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that starts at `start`, and the offset behind it. Raises NotJson."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise NotJson(error.msg[:1].lower() + error.msg[1:], error.pos) from None
    except RecursionError:
        raise NotJson(f"nested deeper than {MAX_DEPTH} levels", start) from None
    except ValueError:  # an integer of more digits than Python converts
        found = _LONG_NUMBER.search(text, start)
        raise NotJson("a number of more than 4,300 digits", found.start() if found else start) from None


def minify(text: str) -> str:
    """JSON text without the white space between its tokens. The text must already be JSON."""
    if not any(blank in text for blank in " \n\t\r"):
        return text
    return _BLANK.sub(lambda found: found[1] or "", text)


def check_depth(text: str, around: int = 0) -> None:
    """Refuse what is nested too deeply to be walked safely everywhere. Raises NotJson.

    Whatever comes in is held to it value by value; with `AROUND`, what is read again is not.
    """
    limit = MAX_DEPTH + around
    if text.count("[") + text.count("{") <= limit:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth > limit:
            raise NotJson(f"nested deeper than {limit} levels", token.start())


def encode(value: object, around: int = 0) -> str:
    """Plain data as JSON text. Raises NotJson for what JSON cannot say (NaN, sets), or `check_depth` refuses."""
    if type(value) is str and value.isascii():
        return encode_basestring(value)
    if type(value) is int and value.bit_length() < 64:
        return repr(value)
    try:
        text = _ENCODER.encode(value)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise NotJson(f"nested deeper than {MAX_DEPTH} levels") from None
    except (TypeError, ValueError) as error:
        raise NotJson(str(error)) from None
    check_depth(text, around)
    return text


def decode(text: str, around: int = AROUND) -> Any:
    """Plain data from JSON text, a value or what holds some. Raises NotJson, also for anything behind it."""
    value, end = decode_at(text, skip_blank(text, 0))
    end = skip_blank(text, end)
    if end < len(text):
        raise NotJson("extra text behind the value", end)
    check_depth(text, around)
    return value


def read_json(text: str) -> str:
    """Check that a text is one JSON value and give it minified. Raises NotJson."""
    decode(text, 0)
    return minify(text.strip(" \t\r\n"))


def canonical(text: str) -> str:
    """The text under which equal values are equal: sorted keys, one spelling of every string and float.

    `1`, `1.0` and `true` stay different (DESIGN §4): this is text, never Python's equality.
    """
    return json.dumps(_DECODER.decode(text), sort_keys=True, separators=(",", ":"))


def same_text(one: str | None, other: str | None) -> bool:
    """Whether two values are the same value; None is "not there"."""
    if one == other:
        return True
    if one is None or other is None or (one[0] == '"') != (other[0] == '"'):
        return False
    if one[0] == '"' and "\\" not in one and "\\" not in other:
        return False
    return canonical(one) == canonical(other)


def same_value(field: str, one: str | None, other: str | None) -> bool:
    """`same_text`, and for `last_update` the same instant however it is written."""
    if same_text(one, other):
        return True
    if field != LAST_UPDATE or one is None or other is None:
        return False
    left, right = parse_time(decode(one)), parse_time(decode(other))
    return left is not None and right is not None and left.at == right.at


class Member(NamedTuple):
    """One member of a JSON object inside a longer text: its key and where key and value stand."""

    key: str
    key_start: int
    start: int
    end: int


def members(text: str, start: int = 0) -> Iterator[Member]:
    """The members of the object that opens at `start`, in order, as spans. Raises NotJson."""
    position = skip_blank(text, start + 1)
    if text[position : position + 1] == "}":
        return
    while True:
        if text[position : position + 1] != '"':
            raise NotJson("expecting a property name in double quotes", position)
        key, colon = decode_at(text, position)
        colon = skip_blank(text, colon)
        if text[colon : colon + 1] != ":":
            raise NotJson("expecting ':' behind a property name", colon)
        value_start = skip_blank(text, colon + 1)
        _, end = decode_at(text, value_start)
        yield Member(key, position, value_start, end)
        position = skip_blank(text, end)
        if text[position : position + 1] == "}":
            return
        if text[position : position + 1] != ",":
            raise NotJson("expecting ',' or '}'", position)
        position = skip_blank(text, position + 1)


def split_object(text: str) -> dict[str, str]:
    """A JSON object's members as minified texts, in order. Raises NotJson; also for a key given twice."""
    found: dict[str, str] = {}
    for key, key_start, start, end in members(text):
        if key in found:
            raise NotJson(f"the key {encode(key)} is given twice", key_start)
        found[key] = minify(text[start:end])
    return found


def context_field(key: str) -> str:
    return CONTEXT + key


def present(agent: Agent) -> dict[str, str]:
    """The values that are there: field to JSON text, tombstones left out."""
    return {name: field.text for name, field in agent.items() if field.text is not None}


def record_to_text(values: Mapping[str, str]) -> str:
    """A record's fields as one JSON object in the shape of `context.json`: `context.<key>` gathered under `context`."""
    plain = [f"{encode(name)}:{text}" for name, text in values.items() if not name.startswith(CONTEXT)]
    context = [
        f"{encode(name.removeprefix(CONTEXT))}:{text}" for name, text in values.items() if name.startswith(CONTEXT)
    ]
    if context:
        plain.append('"context":{' + ",".join(context) + "}")
    return "{" + ",".join(plain) + "}"


def reindent(text: str, *, step: str = "  ", margin: str = "\n", colon: str = ": ") -> str:
    """Minified JSON spread over lines as `json.dumps(indent=...)` does it, tokens kept byte for byte.

    `margin`: the line end, and what stands before the outermost brackets.
    """
    lines: list[str] = []
    depth = 0
    previous = ""
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in "}]":
            depth -= 1
            if previous not in "{[":
                lines.append(margin + step * depth)
        elif previous and previous in "{[,":
            lines.append(margin + step * depth)
        lines.append(colon if token == ":" else token)
        depth += token in "{["
        previous = token
    return "".join(lines)
