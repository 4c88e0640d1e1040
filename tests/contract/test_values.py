"""A value is opaque JSON text: what is read back is what was written, byte for byte."""

from __future__ import annotations

import json
import random

import pytest

from reconciler.state import encode
from reconciler.store import Put
from tests.contract.kit import T, attempt, gone, listening, look, plain_hash, put, values, write
from tests.servers import Memory

TEXTS = [
    "9007199254740993",
    "-" + "9" * 400,
    "1.10",
    "1e5",
    "-0.0",
    "[]",
    "{}",
    "[[],{}]",
    "null",
    "false",
    '{"b":1,"a":{"d":2,"c":3}}',
    '""',
    '" "',
    '"😀 é 日本"',
    r'"\ud83d"',
    r'{"\udc00":"\ud800"}',
    r'"a\"b\\c\/d"',
    r'"\u0000\u0001\b\f\n\r\t\u001f"',
    '"\x7f\u2028\u2029"',
    '"a,\\nb"',
    '"},{"',
    '"12"',
    '"null"',
    '"[1]"',
]
KEYS = [
    "k",
    "",
    " ",
    '"',
    "\\",
    '\\"',
    "a.b",
    "context.k",
    "é😀",
    "\n",
    "\x00\x01\x1f\x7f",
    "},\n{",
    '":',
    "=",
    "a" * 5000,
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_value_comes_back_byte_for_byte(memory: Memory, text: str) -> None:
    """In a context, in a field of its own, and said in the event."""
    with listening(memory) as ears:
        write(memory, Put("context.k", text, T, "a"), Put("own", text, T, "a"), put("context.z", 1, T))
        said = ears.texts()[0]
    assert values(memory)["context.k"] == text
    assert json.loads(values(memory)["own"]) == json.loads(text)
    assert values(memory)["own"] == (encode(json.loads(text)) if text.startswith('"') else text)
    assert f'"data":{{"k":{text},"z":1}}' in said
    assert json.loads(plain_hash(memory)["context"]) == {"k": json.loads(text), "z": 1}


@pytest.mark.parametrize("key", KEYS)
def test_any_text_is_a_key(memory: Memory, key: str) -> None:
    """It is written, written again, deleted, and its neighbours stay."""
    name = "context." + key
    write(memory, put("context.first", 1), put(name, 1), put("context.last", 1))
    assert write(memory, put(name, 2)).flags == "w"
    assert values(memory) == {"context.first": "1", name: "2", "context.last": "1"}
    assert json.loads(plain_hash(memory)["context"]) == {"first": 1, key: 2, "last": 1}
    write(memory, Put(name, None, None, "a"))
    assert values(memory) == {"context.first": "1", "context.last": "1"}


@pytest.mark.parametrize("name", [key for key in KEYS if not key.startswith("context")])
def test_any_text_is_the_name_of_a_field(memory: Memory, name: str) -> None:
    """The same for hash fields beside `context`; `version` and `=context` clash with nothing."""
    for field in (name, "version", "=context", "." + name):
        write(memory, put(field, "x"), put(field + "2", "y"))
        assert write(memory, put(field, "z")).flags == "w"
        assert plain_hash(memory)[field] == "z"
        assert look(memory).fields[field].text == '"z"'


@pytest.mark.parametrize("by", ["a b", "é", "", "a\nb", '"', "7 x - y"])
def test_any_text_is_a_writers_name(memory: Memory, by: str) -> None:
    """Names come from hosts and people."""
    with listening(memory) as ears:
        write(memory, put("status", "x", T, by), put("context.k", 1, T, by))
        assert {change["by"] for change in ears.event()["changes"]} == {by}
    assert {field.by for field in look(memory).fields.values()} == {by}


def test_the_order_of_keys_is_kept(memory: Memory) -> None:
    """New keys come last; a key that is written again stays where it was."""
    write(memory, *(put(f"context.{key}", 1) for key in "zab"))
    write(memory, put("context.a", 2), put("context.0", 3))
    assert list(json.loads(plain_hash(memory)["context"])) == ["z", "a", "b", "0"]


def test_a_value_of_a_megabyte_is_a_value(memory: Memory) -> None:
    """In both places."""
    text = "x" * 1_000_000
    write(memory, put("context.k", text), put("insight", text))
    assert values(memory) == {"context.k": f'"{text}"', "insight": f'"{text}"'}


def test_five_thousand_keys_are_written_in_one_call(memory: Memory) -> None:
    """Lua's unpack has its limit; plain fields and tombstones pass it too."""
    names = [*(f"context.k{n}" for n in range(5_000)), *(f"f{n}" for n in range(5_000))]
    answer = write(memory, *(put(name, n) for n, name in enumerate(names)))
    assert (answer.version, set(answer.flags)) == (1, {"w"})
    assert values(memory) == {name: str(n) for n, name in enumerate(names)}
    write(memory, *(Put(name, None, None, "a") for name in names[1:-1]))
    assert values(memory) == {names[0]: "0", names[-1]: "9999"}


@pytest.mark.parametrize("field", ["context.k", "own"])
def test_a_raw_newline_in_a_value_is_refused(memory: Memory, field: str) -> None:
    """It cannot occur in minified JSON and would break the frame; nothing of the call is written."""
    answer = attempt(memory, put("status", "x"), Put(field, "[1,\n2]", None, "a"))
    assert field in answer.refused and not answer.foreign
    assert memory.redis.keys("memory:*") == []


def test_a_change_of_type_is_a_change(memory: Memory) -> None:
    """`1`, `1.0`, `"1"` and `true` differ (DESIGN §4)."""
    for field in ("own", "context.k"):
        for text in ("1", '"1"', "1.0", "true", "1"):
            assert write(memory, Put(field, text, None, "a")).flags == "w"
            assert values(memory)[field] == text


def test_many_members_at_once_are_as_one_after_another(memory: Memory) -> None:
    """Keys with quotes and backslashes among them, new, changed and deleted: the same context, byte for byte."""
    dice = random.Random(11)
    keys = [f"k{n}{dice.choice(['', chr(34), chr(92), chr(92) + chr(34), ':', 'é', chr(10)])}" for n in range(120)]
    for _ in range(5):
        chosen = dice.sample(keys, 70)
        puts = [
            gone(f"context.{key}") if dice.random() < 0.3 else put(f"context.{key}", dice.random()) for key in chosen
        ]
        write(memory, *puts, agent="once")
        for change in puts:
            write(memory, change, agent="singly")
        assert plain_hash(memory, "once")["context"] == plain_hash(memory, "singly")["context"]
        assert values(memory, "once") == values(memory, "singly")
