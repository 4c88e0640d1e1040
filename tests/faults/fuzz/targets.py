"""Everything that parses, each as a function of bytes that raises AssertionError, or what the parser let through.

A check knows which errors are documented. Whatever was read must be what the program promises (strict JSON,
Unicode, times that can be written), and must be read back the same from whatever writes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from reconciler import schema
from reconciler.address import public_name, read_hosts, take_password, without_password
from reconciler.base import Memory
from reconciler.drops import NAME, Drop, NotADrop, Part, pack, raw_values
from reconciler.drops import parse as parse_drop
from reconciler.edits import FILE
from reconciler.errors import InputError, Place, Problem, UsageError
from reconciler.events import Foreign, read_event
from reconciler.files import Identity
from reconciler.inbox import HalfWritten, read_letter
from reconciler.plan import Change
from reconciler.schema import ContextCheck
from reconciler.settings import TABLE, Settings, build, environment, find_root
from reconciler.sources import context_file, desired, manifests
from reconciler.sources.context_file import Context
from reconciler.sources.pieces import Draft, Pieces
from reconciler.sources.yaml_text import locator, locators, read_documents, write_document
from reconciler.stamp import LAST, format_time, parse_time
from reconciler.state import (
    LAST_UPDATE,
    SHARED,
    Field,
    NotJson,
    canonical,
    check_depth,
    decode,
    encode,
    minify,
    read_json,
    record_to_text,
    reindent,
    split_object,
)
from reconciler.store.layout import AGENTS, agent_of, arguments, digest, frame, read_agent, unframe
from tests.faults.fuzz import samples

NOW = 1_762_934_400_123_456
ROOT = Path("workspace")


class Target(NamedTuple):
    """One parser, and what it is fed with."""

    name: str
    check: Callable[[bytes], None]
    samples: tuple[bytes, ...]


def check_json(data: bytes) -> None:
    """`state`: the JSON texts that values are made of."""
    text = data.decode("utf-8", "replace")
    try:
        found = read_json(text)
    except NotJson:
        return
    whole = canonical(text)
    assert minify(found) == found
    assert canonical(reindent(found)) == whole
    check_depth(reindent(found))
    if "Infinity" not in whole:  # a number beyond all floats stays what it is; only its canonical text is no JSON
        assert canonical(whole) == whole
    if found.startswith("{"):
        with suppress(NotJson):  # a key given twice
            members = split_object(found)
            assert canonical(record_to_text({f"x{key}": value for key, value in members.items()}))
            framed = frame(members)
            assert unframe(framed) == split_object(framed) == members


def check_yaml(data: bytes) -> None:
    """`yaml_text`: documents are plain JSON data, and each of them can be written and read."""
    try:
        documents = read_documents(data, "a.yaml")
    except InputError as error:
        _good_problems(error.problems)
        return
    for document in documents[:100]:
        text = encode(document.value)
        again = read_documents(write_document(document.value).encode(), "b.yaml")
        assert [encode(each.value) for each in again] == [text]
    for locate in list(locators(data, "a.yaml"))[-1:]:
        place, _ = locate(("metadata", "name", 3))
        assert place.line >= 1 and place.column >= 1


def check_manifest(data: bytes) -> None:
    """`manifests`: what is taken is what the schema allows, and is exported as what is taken again."""
    try:
        good, problems = manifests.parse(data, "manifests/a.yaml")
    except InputError as error:
        _good_problems(error.problems)
        return
    _good_problems(problems)
    for document in read_documents(data, "manifests/a.yaml"):
        found = manifests.build(document, "a.yaml")
        if found is not None:
            assert not schema.validate("manifest", document.value, _nowhere, source="a.yaml")
    for one in good:
        assert one.updated is None or 0 <= one.updated <= LAST
        _good_values(one.values)
        if LAST_UPDATE not in one.values:
            _exported(one.agent, one.values)


def check_context(data: bytes) -> None:
    """`context.json`: read, written, edited in pieces, followed."""
    try:
        context = context_file.parse(data, "context.json", ("paths",))
    except InputError as error:
        _good_problems(error.problems)
        return
    _good_problems(context.problems)
    for name, values in context.values.items():
        _good_values(values)
        if not name.startswith("@"):
            _exported(name, {key: text for key, text in values.items() if _is_manifest_field(key)})
    _rendered(context)
    _remembered(context)


def _rendered(context: Context) -> None:
    """A file that is written says what it said, but for what was changed."""
    agents = [name for name in context.values if not name.startswith("@")]
    changes: dict[str, dict[str, Change]] = {}
    wanted = {name: dict(values) for name, values in context.values.items()}
    for name in [*agents[:1], "zoe"]:
        wanted[name] = wanted.get(name, {}) | {"status": '"new"', "context.k": '{"a":[1,{}]}'}
        changes[name] = {key: Change(name, key, "file", None, wanted[name][key], 2, "b")
                         for key in ("status", "context.k")}  # fmt: skip
    merged = {name: {key: Field(text, 1, "a") for key, text in values.items()} for name, values in wanted.items()}
    stamp = encode(format_time(NOW))
    wanted[FILE] = wanted.get(FILE, {}) | {LAST_UPDATE: stamp}
    text = context_file.render(context, changes, merged, stamp)
    again = context_file.parse(text.encode("utf-8"), "context.json", ("paths",))
    assert again.values == wanted, "what was written is not what is read"
    assert Pieces(context.text).text() == context.text
    short = Draft(context)
    if short.edited(changes, merged, stamp):
        assert (short.context.text, short.values) == (text, wanted), "the short way writes something else"
    followed = Draft(context)
    if followed.follow(text) is not None:
        assert followed.context.values == wanted, "a version that is followed is not what is read"


def _remembered(context: Context) -> None:
    """A first round's reading, and a second one's of the same file, which finds no edit."""
    identity = Identity(1, 2, len(context.text), NOW * 1_000)
    first = desired.read_version(context, identity, Memory(), NOW)
    file = {**first.state}
    second = desired.read_version(context, identity, Memory(file=file, empty=False), NOW)
    assert not second.edits.state, "reading the same again is an edit"


def check_live(data: bytes) -> None:
    """A hash and its sidecar as anybody may have left them: pairs of NUL-separated words, `sidecar` between them."""
    words = data.split(b"\0")
    cut = words.index(b"sidecar") if b"sidecar" in words else len(words)
    raw, side = _pairs(words[:cut]), _pairs(words[cut + 1 :])
    side = {name: _with_digest(name, text, raw) for name, text in side.items()}
    base = {"status": Field('"busy"', 5, "a"), "context.a": Field("1", 5, "a")}
    for agent in ("mary", SHARED):
        live, problems = read_agent(agent, raw, side, base, NOW)
        _good_problems(problems)
        for field in live.fields.values():
            assert field.at >= 0
            if field.text is not None:
                _good_json(field.text)
        _good_values({put.field: put.text for put in live.raw if put.text is not None})
        "".join(arguments(live.raw)).encode()
    for name in raw:
        agent_of(AGENTS + name.decode("utf-8", "replace"))


def _pairs(words: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(words[::2], words[1::2], strict=False))


def _with_digest(name: bytes, text: bytes, raw: Mapping[bytes, bytes]) -> bytes:
    """`#` in a sidecar's entry is the digest of what lies in the hash."""
    there = raw.get(b"context" if name in (b"=", b"=context") else name.lstrip(b"."), b"")
    if name in (b"=", b"=context") and not _is_minified(there):
        return text  # a forged digest: it is believed that the script wrote what is JSON
    return text.replace(b"#", digest(there).encode())


def _is_minified(text: bytes) -> bool:
    with suppress(NotJson, UnicodeDecodeError):
        return frame(split_object(read_json(text.decode()))).encode() == text
    return False


def check_event(data: bytes) -> None:
    """`events`: a message is an event or Foreign; what is said again is the same."""
    try:
        event = read_event(data)
    except Foreign:
        return
    line = event.line
    assert "\n" not in line and "\r" not in line
    assert read_event(line) == event
    assert read_event(replace(event, replayed=True).line).replayed
    try:
        said = event.text
    except NotJson:
        assert "e" in line.lower(), "only a number beyond all floats cannot be said again"
        return
    assert read_event(said).text == said


def check_time(data: bytes) -> None:
    """`stamp.parse_time` over texts, and over the numbers that they mean to Python."""
    text = data.decode("utf-8", "replace")
    values: list[object] = [text]
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            values.append(kind(text))
    for value in values:
        found = parse_time(value)
        if found is not None:
            assert 0 <= found.at <= LAST
            again = parse_time(format_time(found.at))
            assert again is not None and again.at == found.at and not again.naive


def check_drop(data: bytes) -> None:
    """`drops`: a name, a newline, and the bytes of a drop."""
    name, _, rest = data.partition(b"\n")
    try:
        drop = parse_drop(name.decode("utf-8", "replace"), rest)
    except NotADrop:
        return
    _good_drop(drop)


def _good_drop(drop: Drop) -> None:
    assert NAME.fullmatch(f"{drop.name}.drop")
    _good_values({key: field.text for key, field in drop.fields.items() if field.text is not None})
    raw_values({drop.agent: drop.fields})
    parts = [Part(key.removeprefix("context."), "status" if key == "status" else "json", field.text.encode())
             for key, field in drop.fields.items() if field.text is not None and key != "status"]  # fmt: skip
    if parts and drop.size < 10_000:
        again = parse_drop(drop.name, pack(drop.agent, parts))
        for part in parts:
            assert canonical(again.fields[f"context.{part.key}"].text or "") == canonical(part.value.decode())


def check_letter(data: bytes) -> None:
    """`inbox`: a file's name, a newline, its content; what is taken becomes a drop that is taken."""
    name, _, rest = data.partition(b"\n")
    file = name.decode("utf-8", "surrogateescape").replace("/", "_").replace("\0", "_")
    try:
        letter = read_letter(Path("inbox") / (file + ".json"), rest, {"mary", "a_b"}, NOW)
    except (NotADrop, HalfWritten):
        return
    if letter.data:
        _good_drop(parse_drop(letter.name, letter.data))


def check_settings(data: bytes) -> None:
    """`reconciler.yaml`, and after a line of `===` the environment, a `NAME=value` a line, flags as `--name=value`."""
    file, _, more = data.partition(b"\n===\n")
    given: dict[str, Any] = {}
    try:
        documents = read_documents(file, "reconciler.yaml")
        if documents and documents[0].value is not None:
            locate = locator(file, "reconciler.yaml", 0)
            problems = schema.validate("settings", documents[0].value, locate, source="reconciler.yaml")
            _good_problems(problems)
            given = {} if problems else dict(documents[0].value)
    except InputError as error:
        _good_problems(error.problems)
    pairs = [line.partition("=")[::2] for line in more.decode("utf-8", "replace").replace("\0", "").split("\n")]
    flags = {name[2:]: value for name, value in pairs if name.startswith("--")}
    env = {name: value for name, value in pairs if not name.startswith("--")}
    with suppress(UsageError):
        find_root(flags.get("root"), env)
    try:
        found = build(ROOT, given, env, flags)
    except UsageError:
        return
    plain = build(ROOT, {}, {}, {})
    again = build(ROOT, {}, environment(found, plain), {})
    assert replace(again, password=found.password) == found, "the environment of these settings makes others"
    _good_address(found)


def _good_address(found: Settings) -> None:
    url = found.redis
    public_name(url)
    if url != "embedded:":
        without_password(url)
        rest, secret = take_password(url)
        assert take_password(rest)[1] is None
        assert secret is None or len(secret) < 6 or url.count(secret) != 1 or secret not in public_name(url)


def check_address(data: bytes) -> None:
    """`address`: what the settings let through is taken apart without a fault, and no password is shown."""
    text = data.decode("utf-8", "replace")
    public_name(text)
    with suppress(ValueError):
        read_hosts(text)
    for row in TABLE[:3]:
        with suppress(UsageError):
            found = build(ROOT, {}, {}, {row.name: text})
            if row.name != "redis_host" or ":" not in text:
                _good_address(found)


def check_schema(data: bytes) -> None:
    """A `contextSchema`, a newline, and a context that is held against it."""
    text, _, value = data.decode("utf-8", "replace").partition("\n")
    try:
        check = ContextCheck(text, "a.json")
    except InputError as error:
        _good_problems(error.problems)
        return
    with suppress(NotJson):
        assert all(isinstance(said, str) for _, said in check.check(decode(value)))


def _nowhere(_: object) -> tuple[Place, str]:
    return Place("a.yaml"), ""


def _good_problems(problems: Iterable[Problem]) -> None:
    """Each can be said in some words, on paper that takes Unicode."""
    for problem in problems:
        assert problem.message
        assert len(str(problem)) < 5_000, "a message holds a whole input"
        str(problem).encode("utf-8", "backslashreplace")
        schema.caret(problem)


def _good_values(values: Mapping[str, str]) -> None:
    for text in values.values():
        _good_json(text)


def _good_json(text: str) -> None:
    assert read_json(text) == text, "a value is not minified"
    json.loads(text)


def _has_place(text: str) -> bool:
    try:
        encode(decode(text)).encode()
    except NotJson:  # beyond all floats
        return False
    return "\\ud" not in text.lower()


def _is_manifest_field(name: str) -> bool:
    return name not in (LAST_UPDATE, "context") and name != "context."


def _exported(agent: str, values: Mapping[str, str]) -> None:
    """What is exported is a manifest that says the same; what YAML has no place for is left out by `export`."""
    values = {name: text for name, text in values.items() if name and _has_place(text)}
    plain = manifests.to_yaml_plain(agent, values)
    good, problems = manifests.parse(write_document(plain).encode("utf-8"), "a.yaml")
    assert not problems, f"the exported manifest is refused: {problems[0]}"
    assert {name: canonical(text) for name, text in good[0].values.items()} == {
        name: canonical(text) for name, text in values.items()
    }


TARGETS = tuple(
    Target(name, check, found)
    for name, check, found in (
        ("json", check_json, samples.JSON),
        ("yaml", check_yaml, samples.YAML),
        ("manifest", check_manifest, samples.MANIFESTS),
        ("context", check_context, samples.CONTEXTS),
        ("live", check_live, samples.LIVE),
        ("event", check_event, samples.EVENTS),
        ("time", check_time, samples.TIMES),
        ("drop", check_drop, samples.DROPS),
        ("letter", check_letter, samples.LETTERS),
        ("settings", check_settings, samples.SETTINGS),
        ("address", check_address, samples.ADDRESSES),
        ("schema", check_schema, samples.SCHEMAS),
    )
)
