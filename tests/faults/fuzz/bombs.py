"""Inputs that grow: what a parser may do with them is bounded by their size, and by nothing else.

`Bomb.make(n)` is an input of some n bytes. A parser that goes back and forth in it, or that copies it for each of its
parts, shows as memory or as CPU that is out of all proportion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Bomb(NamedTuple):
    """An input of some size, for one target."""

    target: str
    name: str
    make: Callable[[int], bytes]


def _aliases(size: int) -> bytes:
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for number in range(1, max(2, size // 60)):
        aliases = b", ".join([b"*a%d" % (number - 1)] * 9)
        lines.append(b"a%d: &a%d [%s]" % (number, number, aliases))
    return b"\n".join(lines) + b"\n"


def _chain(size: int) -> bytes:
    return b"\n".join(b"- &a%d [*a%d]" % (n, n - 1) if n else b"- &a0 x" for n in range(size // 20)) + b"\n"


def _repeat(before: bytes, part: bytes, after: bytes) -> Callable[[int], bytes]:
    return lambda size: before + part * (size // len(part)) + after


def _members(before: bytes, after: bytes) -> Callable[[int], bytes]:
    return lambda size: before + b",".join(b'"k%d":{"a":%d}' % (n, n) for n in range(size // 20)) + after


def _numbered(part: bytes, count: int) -> bytes:
    return b",".join(part % number for number in range(count))


_RECORD = b'{"agents":{"mary":'
_MANIFEST = b"apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: mary}\nspec:\n"
_EVENT = b'{"agent":"a","event":"e","timestamp":"t","data":'
_DROP = b"1762934400123456-4711\nreconciler-drop 1\0mary\0"

BOMBS = (
    Bomb("json", "brackets", _repeat(b"", b"[", b"")),
    Bomb("json", "objects", _repeat(b"", b'{"a":', b"")),
    Bomb("json", "closed brackets", lambda size: b"[" * (size // 2) + b"]" * (size // 2)),
    Bomb("json", "digits", _repeat(b"", b"9", b"")),
    Bomb("json", "digits behind a point", _repeat(b"0.", b"9", b"")),
    Bomb("json", "exponent", _repeat(b"1e", b"9", b"")),
    Bomb("json", "backslashes", _repeat(b'"', b"\\", b"")),
    Bomb("json", "escapes", _repeat(b'"', b"\\u0041", b'"')),
    Bomb("json", "open string", _repeat(b'{"a": "', b" ", b"")),
    Bomb("json", "white space", _repeat(b"[1", b" ", b"x]")),
    Bomb("json", "members", _members(b"{", b"}")),
    Bomb("yaml", "aliases of aliases", _aliases),
    Bomb("yaml", "chain of aliases", _chain),
    Bomb("yaml", "brackets", _repeat(b"", b"[", b"")),
    Bomb("yaml", "braces", _repeat(b"", b"{", b"")),
    Bomb("yaml", "dashes", _repeat(b"", b"- ", b"x")),
    Bomb("yaml", "questions", _repeat(b"", b"? ", b"x")),
    Bomb("yaml", "documents", _repeat(b"", b"--- x\n", b"")),
    Bomb("yaml", "digits", _repeat(b"", b"9", b"")),
    Bomb("yaml", "digits and an exponent", _repeat(b"1", b"1", b"e")),
    Bomb("yaml", "one key again and again", _repeat(b"", b"a: 1\n", b"")),
    Bomb("yaml", "quotes", _repeat(b'"', b"''\\\"", b"")),
    Bomb("yaml", "tags", _repeat(b"", b"!a ", b"x")),
    Bomb("yaml", "block text", _repeat(b"|\n", b"  x\n", b"")),
    Bomb("yaml", "a broken end", lambda size: b"".join(b"k%d: x\n" % n for n in range(size // 8)) + b"\x07"),
    Bomb("manifest", "unknown keys", lambda size: _MANIFEST + b"".join(b"  k%d: 1\n" % n for n in range(size // 10))),
    Bomb("manifest", "documents of one agent", _repeat(b"", b"---\n" + _MANIFEST + b"  status: a\n", b"")),
    Bomb("manifest", "documents that are none", _repeat(b"", b"---\na: 1\n", b"")),
    Bomb("manifest", "a long name", _repeat(b"apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: ", b"a", b"}")),
    Bomb("context", "agents", _members(b'{"agents":{', b"}}")),
    Bomb("context", "brackets", _repeat(_RECORD + b'{"context":{"a":', b"[", b"}}}}")),
    Bomb("context", "a text of texts", lambda size: _RECORD + b'{"context":"' + b"\\\\" * (size // 2) + b'"}}}'),
    Bomb("context", "bad agents", lambda size: b'{"agents":{' + _numbered(b'"!%d":1', size // 10) + b"}}"),
    Bomb("context", "bad fields", lambda size: _RECORD + b"{" + _numbered(b'"context.%d":1', size // 20) + b"}}}"),
    Bomb("context", "sections", _members(b'{"agents":{},', b"}")),
    Bomb("context", "one agent twice", _repeat(b'{"agents":{"a":{}', b',"b":{}', b"}}")),
    Bomb("live", "fields", lambda size: b"\0".join(b"f%d\0x" % n for n in range(size // 10))),
    Bomb("live", "context", lambda size: b"context\0" + _members(b"{", b"}")(size)),
    Bomb("live", "entries", lambda size: b"sidecar\0" + b"\0".join(b".f%d\x005 s - a" % n for n in range(size // 20))),
    Bomb("event", "data", lambda size: _EVENT + _members(b"{", b"}")(size) + b"}"),
    Bomb("event", "brackets", _repeat(_EVENT, b"[", b"}")),
    Bomb("event", "white space", _repeat(_EVENT + b"{}", b" \n", b"}")),
    Bomb("time", "digits", _repeat(b"", b"1", b"")),
    Bomb("time", "blanks", _repeat(b"1", b" ", b"1")),
    Bomb("drop", "keys", lambda size: _DROP + b"".join(b"k%d\0text\0x\0" % n for n in range(size // 14)) + b"end\0"),
    Bomb("drop", "json", lambda size: _DROP + b"k\0json\0" + _members(b"{", b"}")(size) + b"\0end\0"),
    Bomb("drop", "brackets", lambda size: _DROP + b"k\0json\0" + b"[" * size + b"\0end\0"),
    Bomb("drop", "no end", _repeat(_DROP, b"k\0text\0x\0", b"")),
    Bomb("letter", "members", _members(b"mary_a\n{", b"}")),
    Bomb("letter", "half of it", _repeat(b'mary_a\n{"a":"', b"x", b"")),
    Bomb("settings", "names", _repeat(b"{}\n===\nRECONCILER_LOCAL_SECTIONS=", b"a, ", b"")),
    Bomb("settings", "digits", _repeat(b"{}\n===\nRECONCILER_HISTORY=", b"9", b"")),
    Bomb("settings", "unknown keys", lambda size: b"".join(b"k%d: 1\n" % n for n in range(size // 10))),
    Bomb("address", "hosts", _repeat(b"redis+cluster://", b"a:1,", b"a:1")),
    Bomb("address", "at signs", _repeat(b"redis://", b"@", b"")),
    Bomb("address", "percent signs", _repeat(b"redis://:", b"%2F", b"@h")),
    Bomb("address", "options", _repeat(b"redis://h/0?", b"a=b&", b"")),
)  # fmt: skip
