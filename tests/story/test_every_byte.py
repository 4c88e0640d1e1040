"""`context.json` belongs to those who write it: every byte that nobody changed stays as it was."""

from __future__ import annotations

import json
import os
import stat

import pytest

from tests.story.desk import Desk, six_agents

SIX = six_agents()
ODD = (
    '{"version":"1.0",\n\n  "agents" : {"mary":{"status":"active" , "n":1.10,"big":123456789012345678901234567890,\n'
    '     "e":1e5,"neg":-0.0,"s":"\\u00e9\\/x \\ud83d\\ude00","list":[1,2 ,\t3],"empty":{},"none":null}},\n'
    '"unknown":[{"a":1.50}],"last_update":"x"}'
)
STYLES = {
    "indent 2": json.dumps(SIX, indent=2) + "\n",
    "indent 4": json.dumps(SIX, indent=4),
    "tabs": json.dumps(SIX, indent="\t") + "\n\n",
    "compact": json.dumps(SIX, separators=(",", ":")),
    "one line": json.dumps(SIX),
    "CRLF": json.dumps(SIX, indent=2).replace("\n", "\r\n") + "\r\n",
    "escapes": json.dumps({**SIX, "note": "ไทย é"}, indent=2),
    "odd": ODD,
}


@pytest.mark.parametrize("style", STYLES)
def test_a_round_without_changes_for_it_leaves_a_file_alone(desk: Desk, style: str) -> None:
    """However it is laid out, and although Redis learns all of it."""
    desk.save(STYLES[style])
    desk.apply()
    desk.apply()
    assert desk.path.read_bytes() == STYLES[style].encode()
    assert desk.live("mary")["status"] == "active"


@pytest.mark.parametrize("style", STYLES)
def test_one_change_changes_one_value(desk: Desk, style: str) -> None:
    """A live update replaces its own value, and the times that say so; all other bytes stay, in the file's style."""
    desk.save(STYLES[style])
    desk.apply()
    desk.hset("mary", status="busy")
    desk.apply()
    found = desk.path.read_bytes().decode()
    written = json.loads(found)
    expected = json.loads(STYLES[style])
    time = written["agents"]["mary"]["last_update"]
    expected["agents"]["mary"] |= {"status": "busy", "last_update": time}
    expected["last_update"] = written["last_update"]
    assert written == expected
    assert list(written) == list(expected)
    back = found.replace(json.dumps(written["last_update"]), json.dumps(json.loads(STYLES[style])["last_update"]))
    assert without_line(back, time).replace('"busy"', '"active"') == STYLES[style]
    desk.assert_agree()


def without_line(text: str, time: str) -> str:
    """The text less the member that says this time, and the comma before it."""
    start = text.index(json.dumps("last_update"), text.index('"mary"'))
    end = text.index(json.dumps(time)) + len(json.dumps(time))
    return text[: text.rindex(",", 0, start)] + text[end:]


@pytest.mark.parametrize("style", ["indent 4", "tabs", "CRLF", "compact"])
def test_a_new_agent_is_written_in_the_files_own_style(desk: Desk, style: str) -> None:
    """Indentation, line ends and colons as around it."""
    text = STYLES[style]
    desk.save(text)
    desk.apply()
    desk.redis.hset("memory:agents:zoe", mapping={"status": "new", "context": '{"a":[1,2],"b":{}}'})
    desk.apply()
    found = desk.path.read_bytes().decode()
    written = json.loads(found)
    kwargs: dict[str, object] = {"indent 4": {"indent": 4}, "tabs": {"indent": "\t"}, "CRLF": {"indent": 2}}.get(
        style, {"separators": (",", ":")}
    )  # type: ignore[assignment]
    expected = json.dumps(written, **kwargs)  # type: ignore[arg-type]
    if style == "CRLF":
        expected = expected.replace("\n", "\r\n")
    assert found.rstrip() == expected


def test_numbers_arrive_as_they_were_written(desk: Desk) -> None:
    """1.10, 1e5, thirty digits: their text reaches Redis, and comes back from there."""
    desk.save(ODD)
    desk.apply()
    mary = desk.live("mary")
    assert (mary["n"], mary["big"], mary["e"], mary["neg"]) == ("1.10", "123456789012345678901234567890", "1e5", "-0.0")
    assert mary["s"] == "é/x 😀"
    desk.save('{"agents": {"gc": {"status": "x"}}}')
    desk.apply()
    assert '"big": 123456789012345678901234567890' in desk.text() and '"n": 1.10' in desk.text()


def test_a_byte_order_mark_is_read_over(desk: Desk) -> None:
    """Some editors put one in front; the file is read all the same and stays as it is until it is written."""
    content = b"\xef\xbb\xbf" + STYLES["indent 2"].encode()
    desk.save(content)
    assert desk.apply().exit_code == 0
    assert desk.path.read_bytes() == content
    desk.hset("mary", status="busy")
    desk.apply()
    assert json.loads(desk.path.read_bytes().decode("utf-8-sig"))["agents"]["mary"]["status"] == "busy"
    desk.assert_agree()


def test_unknown_keys_stay_where_they_are(desk: Desk) -> None:
    """At every level: in the file, in a record, in a context; in their order."""
    desk.save('{"zeta": 1, "agents": {"mary": {"x-mine": {"b": 1, "a": 2}, "status": "a"}}, "alpha": {"deep": [null]}}')
    desk.apply()
    desk.hset("mary", status="b")
    desk.apply()
    assert list(desk.file())[:3] == ["zeta", "agents", "alpha"]
    assert list(desk.record("mary"))[:2] == ["x-mine", "status"]
    assert '{"b": 1, "a": 2}' in desk.text()


def test_mode_and_owner_stay(desk: Desk) -> None:
    """A file that others may read stays readable; one that all the world could write no longer is."""
    desk.save(STYLES["indent 2"])
    os.chmod(desk.path, 0o666)
    desk.apply()
    desk.hset("mary", status="busy")
    desk.apply()
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o664
