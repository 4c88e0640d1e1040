"""YAML with JSON's types only: what is read, what is refused and where, in bounded time and memory."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import InputError, Place
from reconciler.sources import yaml_text
from reconciler.sources.text import Document
from reconciler.sources.yaml_text import locator, read_documents, write_document
from reconciler.sources.yaml_usual import read_usual


def read(text: str | bytes) -> object:
    [document] = read_documents(text if isinstance(text, bytes) else text.encode(), "f.yaml")
    return document.value


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "y", "n", "No", "YES", "Null", "NULL", "tRue", "<", "="])
def test_words_that_yaml_takes_for_something_else_are_words(word: str) -> None:
    """Norway's code is no Boolean."""
    assert read(f"a: {word}") == {"a": word}


@pytest.mark.parametrize(
    "text",
    ["2025-11-12", "2025-11-12T08:00:00Z", "2025-11-12 08:00:00", "12:30:45", "010", "0o10", "0x1F", "0b1", "1_000",
     "+1", ".5", "1.", "1e", "--1", "1,000", "0.1.2"],
)  # fmt: skip
def test_what_json_has_no_number_for_is_text(text: str) -> None:
    """No dates, no octal, no sexagesimal: an editor's habits do not change a value's type."""
    assert read(f"a: {text}") == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-7", -7), ("0", 0), ("123456789012345678901234567890", 123456789012345678901234567890), ("1.5", 1.5),
     ("-0.5e-3", -0.0005), ("1e5", 1e5), ("1E+5", 1e5), ("true", True), ("True", True), ("FALSE", False),
     ("null", None), ("~", None), ("", None),
     ("'1'", "1"), ('"true"', "true"), ("!!str 1", "1"), ("! 1", "1"), ("[]", []), ("{}", {}),
     ("|\n  x\n  y\n", "x\ny\n"), (">\n  x\n  y\n", "x y\n"), ("ไทย", "ไทย"), ('"\\u00e9"', "é")],
    ids=repr,
)  # fmt: skip
def test_jsons_types_are_read(text: str, value: object) -> None:
    """Numbers, Booleans, null, text, lists, objects."""
    found = read(f"a: {text}")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "3:1", "the key 'a' is given twice"),
        ("x:\n  - {a: 1, a: 2}\n", "2:12", "the key 'a' is given twice"),
        ("a: .nan\n", "1:4", ".nan is no JSON number"),
        ("a: -.Inf\n", "1:4", "-.Inf is no JSON number"),
        ("a: 1e999\n", "1:4", "the number 1e999 is too large"),
        ("a: " + "9" * 5000, "1:4", "a number of more than 4,300 digits"),
        ("1: a\n", "1:1", "a key must be text"),
        ("~: a\n", "1:1", "a key must be text"),
        ("? [a]\n: 1\n", "1:3", "a key must be text"),
        ("a: &a {x: 1}\nb: {<<: *a}\n", "2:5", "merge keys (<<) are not supported"),
        ("a: *x\n", "1:4", "the alias *x stands for nothing, or for itself"),
        ("a: &x [*x]\n", "1:8", "the alias *x stands for nothing, or for itself"),
        ("a: !!python/object:os.system x\n", "1:4", "python/object:os.system is not supported"),
        ("a: !!int '1'\n", "1:4", "is not supported"),
        ("a: !mine {x: 1}\n", "1:4", "the tag !mine is not supported"),
        ("a:\n\tb: 1\n", "2:1", "not YAML: found character that cannot start any token"),
        ("a: 'x\n", "2:1", "not YAML: found unexpected end of stream"),
        ("a: b: c\n", "1:5", "not YAML: mapping values are not allowed"),
        ("ü: x\na: \x00\n", "2:4", "not YAML: control characters are not allowed"),
        ("- *x" + "9" * 5_000, "1:3", "99… stands for nothing, or for itself"),
        ("[" * 200_000, "1:65", "nested deeper than 64 levels"),
        ("{a: " * 200_000, "1:257", "nested deeper than 64 levels"),
        ("\n".join(" " * depth + "a:" for depth in range(300)), "65:65", "nested deeper than 64 levels"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_meant_is_refused_with_its_place(text: str, place: str, message: str) -> None:
    """Line, column and a reason."""
    with pytest.raises(InputError) as caught:
        read(text)
    [problem] = caught.value.problems
    assert str(problem.place) == f"f.yaml:{place}"
    assert message in problem.message


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        (b"a: x\n\n  b: \xff\n", "f.yaml:3:6", "not UTF-8: byte 0xff"),
        ("é: ".encode() + b"\xe9", "f.yaml:1:4", "not UTF-8: byte 0xe9"),
        ("a: 1".encode("utf-16"), "f.yaml:1:1", "not UTF-8"),
        (b"a: b\n" * 2_000_000, "f.yaml", "9.5 MiB is too large"),
    ],
    ids=["a byte", "latin-1", "UTF-16", "10 MB"],
)
def test_bytes_that_are_no_manifest_are_refused(data: bytes, place: str, message: str) -> None:
    """Encoding and size, before anything is parsed."""
    with pytest.raises(InputError) as caught:
        read_documents(data, "f.yaml")
    assert str(caught.value.problems[0].place) == place
    assert message in str(caught.value)


def test_a_byte_order_mark_is_read_over() -> None:
    """At the beginning of the file, where Windows editors put it."""
    assert read(b"\xef\xbb\xbfa: 1\n") == {"a": 1}


def test_an_alias_stands_for_its_anchor() -> None:
    """Aliases that stay small are welcome."""
    assert read("a: &x [1, &y b]\nb: *x\nc: *y\n") == {"a": [1, "b"], "b": [1, "b"], "c": "b"}


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, "[" * 500_000, "- " * 300_000, "? " * 200_000, "a: [" + "x," * 400_000 + "]", "&a " * 300_000, "!" * 900_000,
     "'" * 999_999, "#" * 1_000_000, "a: |\n" + " x\n" * 300_000, "--- a\n" * 150_000, '"' + "\\n" * 400_000 + '"'],
    ids=lambda text: text[:6],
)  # fmt: skip
def test_a_megabyte_made_to_hurt_ends_soon_and_stays_small(text: str) -> None:
    """Bombs, brackets and the like: an answer or an error, within seconds and some hundred megabytes."""
    tracemalloc.start()
    began = time.process_time()
    with suppress(InputError):
        read_documents(text.encode(), "f.yaml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - began < 20
    assert peak < 300 << 20


def test_documents_know_their_lines() -> None:
    """Several in one file; an empty one is None."""
    found = read_documents(b"a: 1\n---\n\nb: 2\n---\n...\n", "f.yaml")
    assert [document.value for document in found] == [{"a": 1}, {"b": 2}, None]
    assert [document.line for document in found] == [1, 2, 5]
    assert read_documents(b"# nothing\n", "f.yaml") == []


def test_the_parts_of_a_document_are_found_again() -> None:
    """A key where it begins, an element where it stands; what is not there at its nearest parent."""
    data = b"x: 1\n---\nspec:\n  context:\n    a: [1, {b: 2}]\n"
    locate = locator(data, "f.yaml", 1)
    assert locate(("spec", "context", "a"))[0] == Place("f.yaml", 5, 5)
    assert locate(("spec", "context", "a", 1, "b")) == (Place("f.yaml", 5, 13), "    a: [1, {b: 2}]")
    assert locate(("spec", "nothing"))[0] == Place("f.yaml", 3, 1)
    assert locate(())[0].line == 3


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["no", "2025-11-12", "1e3", "~", "", "012"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(derandomize=True, database=None, deadline=None)
@given(st.dictionaries(st.text(max_size=8), PLAIN))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    """By this reader and by any other."""
    text = write_document(value)
    assert json.dumps(read(text)) == json.dumps(value)
    assert yaml.safe_load(text) == value


@settings(derandomize=True, database=None, deadline=None)
@given(st.text(max_size=60) | st.text("{}[]&*!|>-?:,#'\" \nab1%@`~<=.", max_size=40))
def test_nothing_raises_but_an_input_error(text: str) -> None:
    """Whatever is in the file; and what is read is JSON."""
    try:
        found = read_documents(text.encode("utf-8", "surrogatepass"), "f.yaml")
    except InputError:
        return
    for document in found:
        assert math.isfinite(document.line)
        json.dumps(document.value, allow_nan=False)


_PARTS = (
    *"ab1-?:,#~{}[]'\"\n\t", "<<", "'<<'", "1e5", "- ", ": ", "? ", "\n  ", "\n- ", "&x ", "*x", "!t ", "! ", "---\n",
    "...\n", "|\n", "null", ".inf", "{a: 1, a: 2}", "[[", "]]",
)  # fmt: skip


@given(st.lists(st.sampled_from(_PARTS), max_size=25).map("".join))
def test_the_quick_way_reads_what_the_long_way_reads(text: str) -> None:
    """Or leaves it to that one, which also says what is wrong."""
    parser = yaml_text._parser(text)
    try:
        quick = read_usual(parser.get_event, yaml_text._plain)
    except (yaml.YAMLError, yaml_text._Odd):
        quick = None
    if quick is not None:
        assert quick == [Document(value, line) for value, line, _ in yaml_text._documents(text, keep_marks=False)]
