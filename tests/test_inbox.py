"""The bridge's inbox: files of other programs become drops, once; others are put aside, or waited for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import files, inbox
from reconciler.drops import NotADrop, parse
from reconciler.inbox import HalfWritten, read_letter
from reconciler.stamp import parse_time
from reconciler.state import Field
from reconciler.workspace import read_settings
from tests.servers import Memory, Server
from tests.story.desk import Desk, set_age, shown, six_agents
from tests.story.test_drops import away, crash_with, die_at, versions
from tests.story.test_drops import dying_round as dying_drops

SAVED = 1_762_934_400_123_456
KNOWN = ("mary", "rnd", "my_agent")


def read(name: str, content: str | bytes) -> tuple[str, dict[str, Field]]:
    """The agent of a file and what it says."""
    letter = read_letter(Path(name), content if isinstance(content, bytes) else content.encode(), KNOWN, SAVED)
    drop = parse(letter.name, letter.data)
    return drop.agent, dict(drop.fields)


NAMES = [
    ("mary_result_1762910748.json", "mary"),
    ("gpt-4.1_x.json", "gpt-4.1"),
    ("my_agent_result.json", "my_agent"),
    ("my_other_result.json", "my"),
    ("mary_.json", "mary"),
]


@pytest.mark.parametrize(("name", "agent"), NAMES)
def test_the_agent_is_what_stands_before_an_underscore(name: str, agent: str) -> None:
    """The longest name that is known, else up to the first one."""
    assert read(name, '{"a": 1}')[0] == agent


@pytest.mark.parametrize("name", ["mary.json", "_mary_x.json", "@shared_x.json", "mär_y.json", "a b_c.json", ".json"])
def test_a_name_without_an_agent_is_none(name: str) -> None:
    """Nobody can be told from it."""
    with pytest.raises(NotADrop, match="its name has no agent"):
        read(name, '{"a": 1}')


HALF = ["", " \n", "{", '{"a', '{"a"', '{"a":', '{"a": tr', '{"a": -', '{"a": 1', '{"a": 1,', '{"a": [1, {"b": "x',
        '{"a": "\\', '{"a": "\\u12', '{"a": "b\\nc', '{"a": 1.', b'{"a": "caf\xc3']  # fmt: skip


@pytest.mark.parametrize("content", HALF)
def test_a_text_that_breaks_off_may_go_on(content: str | bytes) -> None:
    """Whoever writes it has not finished."""
    with pytest.raises(HalfWritten):
        read("mary_x.json", content)


NEVER = [
    ("[1]", "its content is not an object"),
    ('"text"', "its content is not an object"),
    ("12", "its content is not an object"),
    ("{]}", "not JSON: expecting property name enclosed in double quotes at character 2"),
    ('{"a": 1}}', "not JSON: extra text behind the value at character 9"),
    ('{"a": tree}', "not JSON: expecting value at character 7"),
    ('{"a": 1, "a": 2}', 'not JSON: the key "a" is given twice at character 10'),
    ('{"a": "b\nc"}', "not JSON: invalid control character at at character 9"),
    (b'{"a": "\xff"}', "not UTF-8 at byte 8"),
    ('{"\\ud800": 1}', '"\\ud800" is no key of a context'),
    ('{"": 1}', '"" is no key of a context'),
]


@pytest.mark.parametrize(("content", "reason"), NEVER)
def test_what_can_never_become_an_object_is_told_why(content: str | bytes, reason: str) -> None:
    """With the place."""
    with pytest.raises(NotADrop) as refused:
        read("mary_x.json", content)
    assert refused.value.message == reason


TIMES = [
    ({"a": 1}, SAVED),
    ({"a": 1, "last_update": "2025-11-12T07:00:00.5Z"}, 1_762_930_800_500_000),
    ({"last_seen": "2025-11-12T07:00:00.5Z", "last_update": "2025-11-12T06:00:00Z"}, 1_762_930_800_500_000),
    ({"last_update": "2025-11-12T08:00:00Z"}, SAVED),
    ({"last_update": "2030-01-01T00:00:00Z"}, SAVED),
    ({"last_update": "rubbish", "last_seen": None}, SAVED),
]


@pytest.mark.parametrize(("record", "at"), TIMES)
def test_a_file_is_dated_by_what_it_declares_else_by_when_it_was_saved(record: dict[str, Any], at: int) -> None:
    """Never later than that; a time exact to the second is made exact by it."""
    assert parse_time("2025-11-12T08:00:00Z") == (1_762_934_400_000_000, True, False)
    _, fields = read("mary_x.json", json.dumps(record))
    assert {(field.at, field.by) for field in fields.values()} == {(at, "inbox-mary_x")}


def test_values_are_kept_token_for_token() -> None:
    """Big numbers, order, Unicode; a byte order mark in front is none of it."""
    text = '\ufeff{ "n": 12345678901234567890.10,\n "b": {"z": 1, "a": [ ]}, "\U0001f680": "\\u00e9" }\r\n'
    _, fields = read("mary_x.json", text)
    said = {name: field.text for name, field in fields.items() if field.text is not None}
    assert said == {
        "context.n": "12345678901234567890.10",
        "context.b": '{"z":1,"a":[]}',
        "context.\U0001f680": '"\\u00e9"',
    }


def test_a_long_or_strange_name_has_a_stamp_of_its_own() -> None:
    """Two of them are told apart, and each is the same every time."""
    names = [f"mary_{'x' * 200}{n}.json" for n in (1, 2)] + ["mary_é x.json"]
    stamps = [read(name, '{"a": 1}')[1]["context.a"].by for name in names]
    assert stamps == [read(name, '{"a": 1}')[1]["context.a"].by for name in names]
    assert len(set(stamps)) == 3
    assert max(map(len, stamps)) < 64


@pytest.fixture
def desk(tmp_path: Path, valkey: Server, real: Memory) -> Iterator[Desk]:
    """The six agents in agreement, and an inbox."""
    root = tmp_path / "work space"
    (root / "bridge" / "memory" / "inbox").mkdir(parents=True)
    (root / "reconciler.yaml").write_text("inbox: true\n")
    found = Desk(root, valkey.url)
    found.save(six_agents(), age=900)
    found.apply()
    yield found
    found.redis.close()


def leave(desk: Desk, name: str, content: Any, age: float = 5.0) -> Path:
    path = desk.settings.inbox_folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    set_age(path, age)
    return path


def there(desk: Desk, folder: str = "") -> list[str]:
    """The files in a folder of the inbox."""
    found = (desk.settings.inbox_folder / folder).glob("*")
    return sorted(path.name for path in found if path.is_file())


def test_each_file_is_one_version_and_is_moved(desk: Desk) -> None:
    """In the order in which they were saved, whatever their names say."""
    leave(desk, "mary_b_1.json", {"n": 1, "test": True}, age=9)
    leave(desk, "mary_a_2.json", {"n": 2}, age=8)
    leave(desk, "new-one_x.json", {"hello": "\U0001f44b"})
    assert shown(desk.diff())["mary.context.n > redis"] == (None, "2")
    assert there(desk) == ["mary_a_2.json", "mary_b_1.json", "new-one_x.json"]
    assert desk.apply().exit_code == 0
    assert [event["data"] for event in versions(desk, "mary")[1:]] == [{"n": 1, "test": True}, {"n": 2}]
    assert desk.record("new-one")["context"] == desk.live("new-one")["context"] == {"hello": "\U0001f44b"}
    assert (there(desk), there(desk, "processed")) == ([], ["mary_a_2.json", "mary_b_1.json", "new-one_x.json"])
    desk.assert_agree()


def test_without_the_setting_nothing_is_touched(desk: Desk) -> None:
    """The folder may belong to another program."""
    (desk.root / "reconciler.yaml").unlink()
    leave(desk, "mary_x.json", {"n": 1})
    Desk(desk.root, desk.url).apply()
    assert there(desk) == ["mary_x.json"]


def test_a_half_written_file_waits_until_it_is_whole(desk: Desk) -> None:
    """However long that takes."""
    path = leave(desk, "mary_x.json", b'{"result": "succ', age=3600)
    assert desk.apply().exit_code == 0
    assert there(desk) == ["mary_x.json"]
    assert inbox.unfinished(desk.settings) == ("mary_x.json",)
    path.write_text('{"result": "success"}')
    desk.apply()
    assert desk.live("mary")["context"] == {"result": "success"}
    assert inbox.unfinished(desk.settings) == ()


def test_what_cannot_be_taken_in_is_put_aside_with_the_reason(desk: Desk) -> None:
    """Everything else is taken in; other kinds of files are left alone."""
    leave(desk, "noagent.json", {"n": 1})
    leave(desk, "mary_list.json", [1])
    leave(desk, "mary_good.json", {"n": 1})
    leave(desk, "mary_empty.json", {})
    leave(desk, "README.txt", b"hello")
    leave(desk, ".mary_hidden.json", {"n": 2})
    assert len(desk.diff().errors) == 2
    assert desk.apply().exit_code == 3
    assert there(desk) == [".mary_hidden.json", "README.txt"]
    assert there(desk, "processed") == ["mary_empty.json", "mary_good.json"]
    assert there(desk, "rejected") == ["mary_list.json", "mary_list.json.reason", "noagent.json", "noagent.json.reason"]
    reason = (desk.settings.inbox_folder / "rejected" / "noagent.json.reason").read_text()
    assert reason == "its name has no agent: <agent>_<anything>.json\n"
    assert desk.apply().exit_code == 0


def test_a_name_that_comes_again_is_kept_beside_the_first(desk: Desk) -> None:
    """Both are there afterwards, each with its content."""
    for number in (1, 2, 3):
        leave(desk, "mary_x.json", {"n": number}, age=10 - number)
        desk.apply()
    folder = desk.settings.inbox_folder / "processed"
    assert there(desk, "processed") == ["mary_x.2.json", "mary_x.3.json", "mary_x.json"]
    assert (folder / "mary_x.json").read_text() == '{"n": 1}'
    assert [event["data"] for event in versions(desk, "mary")[1:]] == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_file_that_cannot_be_moved_is_told_and_taken_in_once(desk: Desk) -> None:
    """Somebody made the place a file."""
    (desk.settings.inbox_folder / "processed").write_text("in the way")
    leave(desk, "mary_x.json", {"n": 1})
    done = desk.apply()
    assert done.exit_code == 3
    assert [str(problem.place).endswith("mary_x.json") for problem in done.plan.errors] == [True]
    (desk.settings.inbox_folder / "processed").unlink()
    desk.apply()
    desk.apply()
    assert len(versions(desk, "mary")) == 2
    assert there(desk, "processed") == ["mary_x.json"]


def test_files_wait_in_the_spool_while_redis_is_away(desk: Desk) -> None:
    """They are moved at once; each becomes a version when Redis is back."""
    leave(desk, "mary_a.json", {"n": 1}, age=9)
    leave(desk, "mary_b.json", {"n": 2}, age=8)
    desk.round(away)
    assert (there(desk), there(desk, "processed")) == ([], ["mary_a.json", "mary_b.json"])
    assert desk.record("mary")["context"] == {"n": 2}
    desk.apply()
    assert [event["data"] for event in versions(desk, "mary")[1:]] == [{"n": 1}, {"n": 2}]
    desk.assert_agree()


def test_more_than_one_round_takes_in_is_taken_in_all_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """`more` says that the next round goes on."""
    monkeypatch.setattr(inbox, "MOST", 2)
    for number in range(3):
        leave(desk, f"mary_{number}.json", {"n": number}, age=9 - number)
    assert (desk.apply().more, len(there(desk))) == (True, 1)
    assert (desk.apply().more, len(there(desk))) == (False, 0)


POINTS = ("before the drop", "between the drop and the move", "after the move", "before drops are removed")


@pytest.mark.parametrize("point", POINTS)
def test_a_round_that_is_killed_loses_and_doubles_nothing(desk: Desk, point: str) -> None:
    """Wherever it ended: every file becomes one version, in order."""
    for number in range(3):
        leave(desk, f"mary_{number}.json", {"n": number}, age=9 - number)
    code = "import sys; from tests.test_inbox import dying_round; dying_round(*sys.argv[1:])"
    crash_with(code, str(desk.root), desk.url, point)
    desk.apply()
    assert [event["data"] for event in versions(desk, "mary")[1:]] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert there(desk, "processed") == ["mary_0.json", "mary_1.json", "mary_2.json"]
    desk.assert_agree()


def dying_round(root: str, url: str, point: str) -> None:
    """What the other process does; it does not return."""
    write, move = files.write_private, files.move

    def dying_write(place: Path, data: bytes) -> None:
        die_at(point, "before the drop")
        write(place, data)

    def dying_move(path: Path, target: Path) -> Path | None:
        die_at(point, "between the drop and the move")
        moved = move(path, target)
        die_at(point, "after the move")
        return moved

    setattr(files, "write_private", dying_write)  # noqa: B010
    setattr(files, "move", dying_move)  # noqa: B010
    dying_drops(root, url, point, "up")


@pytest.fixture
def box(tmp_path: Path) -> inbox.Inbox:
    """An inbox without any server."""
    settings = read_settings(str(tmp_path), {}, {})
    settings.inbox_folder.mkdir(parents=True)
    return inbox.Inbox(settings)


def deliver(box: inbox.Inbox, post: inbox.Post | None = None) -> list[bytes]:
    """What lies in the spool after one delivery."""
    assert box.deliver(post or box.look(lambda: KNOWN, SAVED), SAVED) == []
    return [path.read_bytes() for path in sorted(box.settings.spool.iterdir())]


@pytest.mark.parametrize("ending", ["drop", "kept"])
def test_two_files_of_one_name_and_one_declared_time_are_two_drops(box: inbox.Inbox, ending: str) -> None:
    """Neither takes the other's place while both wait, and each is there once."""
    for said in ("1", "2", "1"):
        (box.folder / "mary_x.json").write_text(json.dumps({"last_update": "2025-11-12T08:00:00Z", "k": int(said)}))
        spooled = deliver(box)
        for path in box.settings.spool.glob("*.drop"):
            path.rename(path.with_suffix(f".{ending}"))
    assert [data.split(b"\0")[7] for data in spooled] == [b"1", b"2"]


def test_a_file_that_is_written_anew_while_it_is_taken_in_is_taken_in_again(box: inbox.Inbox) -> None:
    """What nobody has read is not put among the processed."""
    path = box.folder / "mary_x.json"
    path.write_text('{"v": 1}')
    post = box.look(lambda: KNOWN, SAVED)
    (box.folder / ".new").write_text('{"v": 22}')
    (box.folder / ".new").rename(path)
    deliver(box, post)
    assert path.read_text() == '{"v": 22}'
    set_age(path, 1)
    assert {data.split(b"\0")[4] for data in deliver(box)} == {b"1", b"22"}
