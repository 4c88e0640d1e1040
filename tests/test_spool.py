"""The spool's format: what a drop says, what is kept of a value that is not what its type says, what is no drop."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest

from reconciler.drops import RawValue, raw_values
from reconciler.settings import Settings
from reconciler.spool import (
    PATIENCE,
    Backlog,
    Drop,
    NotADrop,
    Part,
    Rejected,
    Spool,
    backlog,
    drop,
    pack,
    parse,
)
from reconciler.state import Field
from reconciler.workspace import read_settings

NAME = "1762934400123456-4711"
AT = 1_762_934_400_123_456
NOW = AT + 10_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings(str(tmp_path), {}, {})


def said(*parts: Part) -> dict[str, str | None]:
    """What a drop with these parts says: field to JSON text."""
    found = parse(NAME, pack("mary", parts))
    assert {(field.at, field.by) for field in found.fields.values()} == {(AT, "hook-4711")}
    return {name: field.text for name, field in found.fields.items()}


GOOD = [
    ("text", b"WO-1", '"WO-1"'),
    ("text", b"", '""'),
    ("text", b"end", '"end"'),
    ("text", b"it's $(touch pwned) `id` \" ; rm -rf", '"it\'s $(touch pwned) `id` \\" ; rm -rf"'),
    ("text", "first\nsecond\t\U0001f680".encode(), '"first\\nsecond\\t\U0001f680"'),
    ("json", b"null", "null"),
    ("json", b' {"b": 1.0,\n "a": [ ]}\n', '{"b":1.0,"a":[]}'),
    ("json", b"12345678901234567890.10", "12345678901234567890.10"),
    ("json", b'"\\ud83d\\ude80 \\u00e9"', '"\\ud83d\\ude80 \\u00e9"'),
    ("json", b'{"note":"it\'s $(touch pwned) `id` \\" ; rm -rf"}',
     '{"note":"it\'s $(touch pwned) `id` \\" ; rm -rf"}'),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "text"), GOOD)
def test_a_good_value_is_kept_token_for_token(kind: str, value: bytes, text: str) -> None:
    """And it takes away what an earlier one has left behind that was not good."""
    assert said(Part("k", kind, value)) == {"context.k": text, "context.k_raw": None, "context.k_raw_reason": None}


BAD = [
    ("json", b'{"a": 1}}', "{\"a\": 1}}", "not JSON: extra text behind the value at character 9"),
    ("json", b"", "", "not JSON: expecting value at character 1"),
    ("json", b"done", "done", "not JSON: expecting value at character 1"),
    ("json", b'{"a": NaN}', '{"a": NaN}', "not JSON: NaN is not JSON at character 1"),
    ("json", b'"\\ud800"', '"\\ud800"', "not JSON: half of a surrogate pair at character 2"),
    ("json", b"[" * 65 + b"]" * 65, "[" * 65 + "]" * 65, "not JSON: nested deeper than 64 levels at character 65"),
    ("json", b'"\xff"', base64.b64encode(b'"\xff"').decode(), "not UTF-8 at byte 2; in base64"),
    ("json", b'"\xed\xa0\x80"', base64.b64encode(b'"\xed\xa0\x80"').decode(), "not UTF-8 at byte 2; in base64"),
    ("text", b"caf\xe9", base64.b64encode(b"caf\xe9").decode(), "not UTF-8 at byte 4; in base64"),
    ("text", b"a\0b", base64.b64encode(b"a\0b").decode(), "bytes that are no text, in base64"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "raw", "reason"), BAD)
def test_a_value_that_is_not_what_its_type_says_is_kept_with_the_reason(
    kind: str, value: bytes, raw: str, reason: str
) -> None:
    """Nothing of it is lost, and nothing older stands in its place."""
    found = parse(NAME, pack("mary", [Part("k", kind, value)]))
    assert found.fields["context.k"].text is None
    assert raw_values({"mary": found.fields})[0][3:] == (reason, AT)
    assert (
        parse(NAME, pack("mary", [Part("k", "text", raw.encode())])).fields["context.k"]
        == found.fields["context.k_raw"]
    )


def test_the_status_of_the_agent_has_a_type_of_its_own() -> None:
    """It is no key of the context."""
    assert said(Part("status", "status", b"busy")) == {"status": '"busy"'}


ENDLESS = pack("mary", [Part("k", "text", b"v")])
NONE = [
    (b"", "its end is missing", True),
    (ENDLESS[:-5], "its end is missing", True),
    (ENDLESS[:-1], "its end is missing", True),
    (b"reconciler-drop 1\0mary\0k\0text\0end\0", "its end is missing", True),
    (b"reconciler-drop 2\0mary\0k\0text\0v\0end\0", "it does not begin with 'reconciler-drop 1'", False),
    (b"reconciler-drop 1\0../x\0k\0text\0v\0end\0", "'../x' is no legal agent name", False),
    (b"reconciler-drop 1\0@shared\0k\0text\0v\0end\0", "'@shared' is no legal agent name", False),
    (b"reconciler-drop 1\0mary\0k\0yaml\0v\0end\0", "'yaml' is no type: text, json, base64 or status", False),
    (b"reconciler-drop 1\0mary\0\0text\0v\0end\0", "a key is empty", False),
    (b"reconciler-drop 1\0mary\0\xff\0text\0v\0end\0", "the key b'\\xff' is not UTF-8 text", False),
    (b"reconciler-drop 1\0mary\0end\0", "it has no key", False),
]


@pytest.mark.parametrize(("data", "reason", "torn"), NONE)
def test_what_is_no_drop_is_told_with_the_reason(data: bytes, reason: str, torn: bool) -> None:
    """A file whose end is missing may still be written."""
    with pytest.raises(NotADrop) as refused:
        parse(NAME, data)
    assert (refused.value.message, refused.value.torn) == (reason, torn)


def put(spool: Path, file: str, data: bytes = ENDLESS, *, age: float = 0.0) -> Path:
    spool.mkdir(parents=True, exist_ok=True)
    path = spool / file
    path.write_bytes(data)
    moment = NOW * 1000 - int(age * 1_000_000_000)
    os.utime(path, ns=(moment, moment))
    return path


def test_a_drop_goes_through_the_spool(settings: Settings) -> None:
    """As it is written so it is read, private, and stamped with the time and the process."""
    before = time.time_ns() // 1000
    name = drop(settings, "mary", [Part("last_task", "text", b"WO-1"), Part("result", "json", b"[1]")])
    after = time.time_ns() // 1000
    assert [path.name for path in settings.spool.iterdir()] == [f"{name}.drop"]
    assert (settings.spool / f"{name}.drop").stat().st_mode & 0o777 == 0o600
    assert settings.spool.stat().st_mode & 0o777 == 0o700
    (found,) = Spool(settings.spool).look(after).new
    at, by = found.fields["context.last_task"][1:]
    assert before <= at <= after
    assert (by, name) == (f"hook-{os.getpid()}", f"{at}-{os.getpid()}")


def test_a_torn_file_waits_for_a_minute(settings: Settings) -> None:
    """It may be written still; then it is put aside."""
    put(settings.spool, f"{NAME}.drop", ENDLESS[:-5], age=59)
    spool = Spool(settings.spool)
    assert spool.look(NOW).rejected == ()
    assert spool.look(NOW + PATIENCE).rejected == (Rejected(f"{NAME}.drop", "its end is missing"),)


def test_a_drop_whose_writer_was_killed_before_the_renaming_is_not_lost(settings: Settings) -> None:
    """It is whole and a minute old, only hidden; one that is not whole is put aside."""
    put(settings.spool, f".{NAME}.drop.tmp", age=61)
    put(settings.spool, f".{AT}-1.drop.4711.0a1b2c3d.tmp", ENDLESS[:-9], age=61)
    put(settings.spool, f".{AT}-2.drop.tmp", age=1)
    found = Spool(settings.spool).look(NOW)
    assert [drop.name for drop in found.new] == [NAME]
    assert [name for name, _ in found.rejected] == [f".{AT}-1.drop.4711.0a1b2c3d.tmp"]


def test_strangers_are_put_aside_with_the_reason(settings: Settings) -> None:
    """Hidden files and what was put aside before are left alone; a name that is taken is not written over."""
    for number in (1, 2):
        put(settings.spool, "notes.txt", b"number %d" % number, age=61)
        put(settings.spool, ".DS_Store", age=61)
        spool = Spool(settings.spool)
        found = spool.look(NOW)
        assert [str(problem.place) for problem in found.problems] == [str(settings.spool / "notes.txt")]
        spool.settle(found)
    rejected = settings.spool / "rejected"
    assert {path.name for path in rejected.iterdir()} == {
        "notes.txt", "notes.txt.reason", "notes.2.txt", "notes.2.txt.reason",
    }  # fmt: skip
    assert (rejected / "notes.2.txt").read_bytes() == b"number 2"
    assert (rejected / "notes.txt.reason").read_text().startswith("its name is not that of a drop")
    assert [item.name for item in backlog(settings).rejected] == ["notes.2.txt", "notes.txt"]
    assert Spool(settings.spool).look(NOW).problems == ()


def test_what_base_has_is_kept_under_another_name_until_redis_has_it(settings: Settings) -> None:
    """Whoever looks next knows that it is nothing new; and what Redis has is gone."""
    put(settings.spool, f"{NAME}.drop")
    spool = Spool(settings.spool)
    spool.settle(spool.look(NOW))
    assert backlog(settings) == Backlog(drops=0, kept=1, oldest=AT)
    for again in (spool, Spool(settings.spool)):
        found = again.look(NOW)
        assert (found.new, found.state) == ((), {"mary": parse(NAME, ENDLESS).fields})
        assert [drop.name for part in again.parts({"mary"}) for drop in part] == [NAME]
    spool.took(drop for part in spool.parts({"mary"}) for drop in part)
    spool.settle(spool.look(NOW))
    assert list(settings.spool.iterdir()) == []
    assert spool.look(NOW).state == {}


def test_drops_of_one_agent_come_in_the_order_of_their_names(settings: Settings) -> None:
    """Whatever order the folder tells them in; of each field the newest stands."""
    for number in (3, 1, 2):
        put(settings.spool, f"{AT + number}-9.drop", pack("mary", [Part("n", "json", b"%d" % number)]))
    spool = Spool(settings.spool)
    assert spool.look(NOW).state["mary"]["context.n"] == Field("3", AT + 3, "hook-9")
    order = [drop.fields["context.n"].text for part in spool.parts({"mary"}) for drop in part]
    assert order == ["1", "2", "3"]
    assert list(spool.parts({"rnd"})) == []


def test_what_goes_to_redis_in_one_go_is_bounded(settings: Settings) -> None:
    """By number, and by size: a command has only so much time."""
    for number in range(250):
        put(settings.spool, f"{AT + number}-9.drop")
    for number in range(3):
        put(settings.spool, f"{AT + 1000 + number}-9.drop", pack("mary", [Part("k", "text", b"x" * 1_100_000)]))
    spool = Spool(settings.spool)
    spool.look(NOW)
    assert [len(part) for part in spool.parts({"mary"})] == [100, 100, 51, 1, 1]


def test_a_drop_that_has_not_rested_is_left_for_the_next_look(settings: Settings) -> None:
    """And all that come after one that is being written: its stamp is told by its hidden name."""
    put(settings.spool, f"{AT}-1.drop")
    put(settings.spool, f"{AT + 500}-2.drop")
    spool = Spool(settings.spool, rest=1000)
    found = spool.look(AT + 1000)
    assert ([drop.name for drop in found.new], found.more) == ([f"{AT}-1"], True)
    (settings.spool / f"{AT + 500}-2.drop").rename(settings.spool / f".{AT + 500}-2.drop.tmp")
    put(settings.spool, f"{AT + 600}-3.drop")
    assert [drop.name for drop in spool.look(AT + 9000).new] == [f"{AT}-1"]
    (settings.spool / f".{AT + 500}-2.drop.tmp").rename(settings.spool / f"{AT + 500}-2.drop")
    found = spool.look(AT + 9000)
    assert ([drop.name for drop in found.new], found.more) == ([f"{AT}-1", f"{AT + 500}-2", f"{AT + 600}-3"], False)


def test_drops_of_the_future_get_the_last_moments_before_now(settings: Settings) -> None:
    """In their order, by their names: who comes after a crash goes on with the same stamps."""
    for number in (1, 2, 3):
        put(settings.spool, f"{NOW + number * 10**9}-9.drop", pack("mary", [Part("n", "json", b"%d" % number)]))
    put(settings.spool, f"{AT}-9.drop", pack("rnd", [Part("n", "json", b"0")]))
    spool = Spool(settings.spool)
    spool.look(NOW)
    spool.redate({"mary", "rnd"}, NOW + 60_000_000, NOW)
    expected = [(f"{AT}-9", "0", AT), *((f"{NOW - 3 + n}-9", str(n), NOW - 3 + n) for n in (1, 2, 3))]
    for again in (spool, Spool(settings.spool)):
        again.look(NOW)
        found = [drop for part in again.parts({"mary", "rnd"}) for drop in part]
        assert [(d.name, d.fields["context.n"].text, d.fields["context.n"].at) for d in found] == expected


def test_a_spool_that_cannot_be_read_is_a_problem_and_no_end(settings: Settings) -> None:
    """Somebody put a file in its place; everything else of the round goes on."""
    settings.folder.mkdir()
    settings.spool.write_text("in the way")
    found = Spool(settings.spool).look(NOW)
    assert [(str(p.place), p.message) for p in found.problems] == [
        (str(settings.spool), "cannot be read: Not a directory")
    ]
    assert (found.state, backlog(settings)) == ({}, Backlog())


def test_values_that_are_raw_are_told_by_agent() -> None:
    """With the place, the reason and the time; a key that only ends like one is none."""
    fields = parse(NAME, pack("rnd", [Part("result", "json", b"{"), Part("straw", "text", b"x")])).fields
    reason = "not JSON: expecting property name enclosed in double quotes at character 2"
    other = {"mary": {"context.x_raw": Field('"mine"', 1, "mary")}, "rnd": fields}
    assert raw_values(other) == [RawValue("rnd", "context.result_raw", '"{"', reason, AT)]


def test_a_drop_is_a_value() -> None:
    """Two readings of one file are equal."""
    assert parse(NAME, ENDLESS) == Drop(NAME, "mary", parse(NAME, ENDLESS).fields)


def test_a_key_that_ends_like_a_kept_text_is_a_value_like_any_other() -> None:
    """In whatever order they come: the good value takes nothing away that the same drop says."""
    for parts in (
        [Part("x_raw", "json", b"1"), Part("x", "json", b"2")],
        [Part("x", "json", b"2"), Part("x_raw", "json", b"1")],
    ):
        found = said(*parts)
        assert (found["context.x"], found["context.x_raw"]) == ("2", "1")
