"""`context.json` taken apart and put together: positions, messages, and edits at every level."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import state
from reconciler.errors import InputError
from reconciler.plan import Change
from reconciler.sources import context_file
from reconciler.sources.context_file import NEW, Context, json_locator, parse, render
from reconciler.state import Field, State, canonical, encode

TIME = '"2025-11-12T08:00:00.000000Z"'


def read(text: str | bytes) -> Context:
    return parse(text if isinstance(text, bytes) else text.encode(), "c.json", ("paths",))


def agents(body: str) -> str:
    return f'{{"agents": {{{body}}}}}'


def test_a_file_says_fields() -> None:
    """Values as the text that stands there, minified; strings in one spelling; sections and header apart."""
    found = read(
        '{"version": "1.0", "last_update": "x", "agents": {"mary": {"status": "\\u00e9", "n": 1.10,'
        ' "context": {"a": {"b": [1, 2]}, "c": "\\u00e9"}}}, "work": {"x": 1}, "paths": {"a": 1}}'
    )
    assert found.values == {
        "mary": {"status": '"é"', "n": "1.10", "context.a": '{"b":[1,2]}', "context.c": '"\\u00e9"'},
        "@shared": {"work": '{"x":1}'},
        "@file": {"version": '"1.0"', "last_update": '"x"'},
    }
    assert found.problems == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "c.json:1:1: the file is empty"),
        ('{\n  "agents": {},\n}', "c.json:3:1: not JSON: "),
        ('{"agents": {}}\n\n x', "c.json:3:2: not JSON: extra text behind the end"),
        ('{"agents": {}, "a": 1, "a": 2}', 'c.json:1:24: not JSON: the section "a" is there twice'),
        (agents('"a": {}, "b": {},\n "a": {}'), 'c.json:2:2: not JSON: the agent "a" is there twice'),
        ("[]", "c.json:1:1: "),
        ('{"agents": 5}', "c.json:1:2: agents: "),
        ('{"agent": {}}', "c.json:1:1: missing 'agents'"),
        (agents('"mary": {"n": ' + "9" * 5000 + "}"), "c.json:1:27: not JSON: a number of more than 4,300 digits"),
        ('{"agents": {"m": {"n": Infinity}}}', "c.json:1:1: not JSON: Infinity is not JSON"),
        ("{" * 100_000, "c.json:1:2: not JSON: expecting property name"),
        ("[" * 100_000, "c.json:1:1: not JSON: nested deeper than 64 levels"),
        ('{"a":' * 100_000, "c.json:1:1: not JSON: nested deeper than 64 levels"),
        (b"\xef\xbb\xbf{", "c.json:1:2: not JSON"),
        (b'{\n"a": "\xc3("}', "c.json:2:7: not UTF-8: byte 0xc3"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_cannot_be_read_is_named_with_its_place(text: str | bytes, said: str) -> None:
    """Line and column, and the reason."""
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value).startswith(said)


DEEP = "[" * 65 + "]" * 65


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ('"mary": 5', "c.json:1:21: expected an object, found 5"),
        ('"mary": {"status": 5}', "c.json:1:22: status: "),
        ('"mary": {"a": 1, "a": 2}', 'c.json:1:21: the key "a" is given twice'),
        ('"mary": {"context": {"a": 1, "a": 2}}', 'c.json:1:21: the key "a" is given twice'),
        ('"mary": {"context": []}', "c.json:1:21: context: expected an object, found []"),
        ('"mary": {"context": "nonsense"}', "c.json:1:21: "),
        ('"mary": {"context.a": 1}', "c.json:1:22: "),
        (f'"mary": {{"a": {DEEP}}}', "c.json:1:21: nested deeper than 64 levels"),
        ('"a:b": {}', 'c.json:1:13: "a:b" is not a legal agent name'),
        ('"gc": {}, "GC": {}', "c.json:1:23: agent GC differs from agent gc only in its letters' case"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_record_that_cannot_be_read_is_named_and_left_out(record: str, said: str) -> None:
    """The others are read."""
    found = read(agents(record + ', "rnd": {"status": "x"}'))
    errors = [problem for problem in found.problems if problem.severity == "error"]
    assert str(errors[0]).startswith(said)
    assert errors[0].agent in found.broken
    assert found.values["rnd"] == {"status": '"x"'}
    assert "mary" not in found.values


@pytest.mark.parametrize(
    ("record", "values"),
    [
        ('"busy"', {"status": '"busy"'}),
        ('{"context": "{\\"a\\": 1}"}', {"context.a": "1"}),
        ('{"context": "\\"{\\\\\\"a\\\\\\": 1}\\""}', {"context.a": "1"}),
        ('{"context": null, "status": "x"}', {"status": '"x"'}),
        ('{"context": "null", "status": "x"}', {"status": '"x"'}),
        ('{"last_seen": "2025-11-12T08:00:00"}', {"last_seen": '"2025-11-12T08:00:00"'}),
    ],
)
def test_older_shapes_are_read_with_a_warning(record: str, values: dict[str, str]) -> None:
    """And known as such, so that they are written anew as a whole."""
    found = read(agents(f'"mary": {record}'))
    assert found.values["mary"] == values
    assert all(problem.severity == "warning" and problem.agent == "mary" for problem in found.problems)
    assert found.broken == frozenset()


def test_sections_whose_names_redis_keeps_for_itself_stay_in_the_file() -> None:
    """A warning each; the others are shared, but for the local ones."""
    found = read('{"agents": {}, "context": 1, "context.x": 2, "work": 3, "paths": 4}')
    assert found.values["@shared"] == {"work": "3"}
    assert len(found.problems) == 2


def change(agent: str, field: str, new: str | None) -> tuple[str, str, Change]:
    return agent, field, Change(agent, field, "file", None, new, 1, "x")


def edited(text: str, *changes: tuple[str, str, Change], merged: State | None = None) -> str:
    """The text with the changes; `merged` is what it held and they say, unless given."""
    wanted: dict[str, dict[str, Change]] = {}
    whole = {agent: {name: Field(value, 1, "x") for name, value in fields.items()}
             for agent, fields in read(text).values.items()}  # fmt: skip
    for agent, field, one in changes:
        wanted.setdefault(agent, {})[field] = one
        whole.setdefault(agent, {})[field] = Field(one.new, 1, "x")
    return render(read(text), wanted, merged or whole, TIME)


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        pytest.param('{"agents":{"m":{"status":"a"}},"last_update":1}', [("m", "status", '"b"')],
                     '{"agents":{"m":{"status":"b"}},"last_update":T}', id="a value"),
        pytest.param('{ "agents" : { "m" : { "status" : "a" } } , "last_update" : 1 }\n', [("m", "status", '"b"')],
                     '{ "agents" : { "m" : { "status" : "b" } } , "last_update" : T }\n', id="blanks stay"),
        pytest.param('{"agents":{"m":{"a":1,"b":2,"c":3}},"last_update":1}', [("m", "a", None), ("m", "d", "4")],
                     '{"agents":{"m":{"b":2,"c":3,"d":4}},"last_update":T}', id="the first out, one more in"),
        pytest.param('{"agents":{"m":{"a":1,"b":2}},"last_update":1}', [("m", "b", None)],
                     '{"agents":{"m":{"a":1}},"last_update":T}', id="the last out"),
        pytest.param('{"agents":{"m":{"context":{"a":1}}},"last_update":1}', [("m", "context.b", "[1,2]")],
                     '{"agents":{"m":{"context":{"a":1,"b":[1,2]}}},"last_update":T}', id="into a context"),
        pytest.param('{"agents":{"m":{"status":"a"}},"last_update":1}', [("m", "context.b", "1")],
                     '{"agents":{"m":{"status":"a","context":{"b":1}}},"last_update":T}', id="a context anew"),
        pytest.param('{"agents":{"m":{"context":null}},"last_update":1}', [("m", "context.b", "1")],
                     '{"agents":{"m":{"context":{"b":1}}},"last_update":T}', id="in the place of null"),
        pytest.param('{"agents":{"m":{"context":"{\\"a\\":1}"}},"last_update":1}', [("m", "status", '"b"')],
                     '{"agents":{"m":{"status":"b","context":{"a":1}}},"last_update":T}', id="an older shape, whole"),
        pytest.param('{"agents":{},"last_update":1}', [("m", "context.b", "1"), ("m", "status", '"b"')],
                     '{"agents":{"m":{"status":"b","context":{"b":1}}},"last_update":T}', id="a new agent"),
        pytest.param('{"agents":{"m":{"a":1},"n":{"a":2}},"last_update":1}', [("m", "a", None)],
                     '{"agents":{"n":{"a":2}},"last_update":T}', id="an agent out"),
        pytest.param('{"agents":{"m":{"a":1}},"last_update":1}', [("m", "a", None)],
                     '{"agents":{},"last_update":T}', id="the only agent out"),
        pytest.param('{"agents":{"m":{"a":1}}}', [("m", "a", "2")],
                     '{"agents":{"m":{"a":2}},"last_update":T}', id="without a header's time"),
        pytest.param('{"work":1,"agents":{},"last_update":1}', [("@shared", "work", '{"x":2}'), ("@shared", "y", "1")],
                     '{"work":{"x":2},"agents":{},"last_update":T,"y":1}', id="shared sections"),
        pytest.param('{"last_update":1,"agents":{"m":{"\\u0061":1}}}', [("m", "a", "2")],
                     '{"last_update":T,"agents":{"m":{"\\u0061":2}}}', id="a key spelt with an escape"),
        pytest.param('{"agents": {"m": {"a": 1}}, "last_update": 1}', [("m", "b", '{"c":[1,2]}')],
                     '{"agents": {"m": {"a": 1, "b": {"c":[1,2]}}}, "last_update": T}', id="on one line, with blanks"),
        pytest.param('{\n "agents": {\n  "m": {}\n },\n "last_update": 1\n}', [("m", "a", '{"c":[1,{}]}')],
                     '{\n "agents": {\n  "m": {\n   "a": {\n    "c": [\n     1,\n     {}\n    ]\n   }\n  }\n },\n'
                     ' "last_update": T\n}', id="indented"),
        pytest.param('{\r\n\t"agents": {\r\n\t\t"m": {\r\n\t\t\t"a": 1\r\n\t\t}\r\n\t},\r\n\t"last_update": 1\r\n}',
                     [("m", "b", "[1]")],
                     '{\r\n\t"agents": {\r\n\t\t"m": {\r\n\t\t\t"a": 1,\r\n\t\t\t"b": [\r\n\t\t\t\t1\r\n\t\t\t]'
                     '\r\n\t\t}\r\n\t},\r\n\t"last_update": T\r\n}', id="CRLF and tabs"),
    ],
)  # fmt: skip
def test_edits_change_what_they_mean_and_nothing_else(
    text: str, changes: list[tuple[str, str, str | None]], expected: str
) -> None:
    """At every level, in the file's own style."""
    assert edited(text, *(change(*one) for one in changes)) == expected.replace("T", TIME)


def test_an_older_record_is_written_whole() -> None:
    """It gets the values that everybody agreed upon, not only the one that changed."""
    merged = {"m": {"status": Field('"b"', 2, "x"), "context.a": Field("1", 1, "x"), "gone": Field(None, 1, "x")}}
    found = edited(agents('"m": "a"'), change("m", "status", '"b"'), merged=merged)
    assert json.loads(found)["agents"] == {"m": {"status": "b", "context": {"a": 1}}}


def test_a_new_file_has_a_version_and_agents() -> None:
    """What is written where there was none."""
    found = edited(NEW, change("m", "status", '"b"'))
    assert found == (
        '{\n  "version": "1.0",\n  "agents": {\n    "m": {\n      "status": "b"\n    }\n  },\n'
        f'  "last_update": {TIME}\n}}\n'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["mary", "gc", "rnd"])
RECORDS = st.dictionaries(st.sampled_from(["insight", "x", "é", '"', ""]), JSON, max_size=3)
FILES = st.fixed_dictionaries(
    {"agents": st.dictionaries(NAMES, RECORDS)}, optional={"work": JSON, "last_update": st.just("x")}
)
Indent = int | str | None
INDENTS: st.SearchStrategy[Indent] = st.sampled_from([None, 0, 1, 2, 4, "\t"])
EDITS = st.dictionaries(
    st.tuples(NAMES, st.sampled_from(["insight", "x", "context.a", "context.\n", "é"])), st.none() | JSON
)


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(FILES, INDENTS, st.booleans(), EDITS)
def test_what_is_rendered_is_what_was_meant(
    data: Mapping[str, Mapping[str, object]], indent: Indent, ascii_only: bool, wanted: dict[tuple[str, str], object]
) -> None:
    """Whatever the file and the edits: read again it holds exactly the edited values, all others as they were."""
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    before = read(text).values
    after = {agent: dict(fields) for agent, fields in before.items() if not agent.startswith("@")}
    changes = []
    for (agent, field), value in wanted.items():
        new = None if value is None else encode(value)
        changes.append(change(agent, field, new))
        after.setdefault(agent, {})[field] = new or ""
    after = {agent: {name: text for name, text in fields.items() if text} for agent, fields in after.items()}
    merged = {agent: {name: Field(text, 1, "x") for name, text in fields.items()} for agent, fields in after.items()}
    found = read(edited(text, *changes, merged=merged)).values
    assert plain(found) == plain(after)
    assert found.get("@shared") == before.get("@shared")


def plain(values: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {agent: {name: canonical(text) for name, text in fields.items()}
            for agent, fields in values.items() if fields and not agent.startswith("@")}  # fmt: skip


def test_the_parts_of_a_json_text_are_found_again() -> None:
    """A member where its key begins, an element where it stands; what is not there at its nearest parent."""
    text = '{\n  "a": [1,\n    {"b": 2}],\n  "c": {}\n}'
    locate = json_locator(text, "c.json")
    for path, place in [
        (("a",), "2:3"), (("a", 0), "2:9"), (("a", 1, "b"), "3:6"), (("c",), "4:3"), (("c", "x"), "4:3"), ((), "1:1"),
    ]:  # fmt: skip
        assert str(locate(path)[0]) == f"c.json:{place}"


def test_a_file_on_one_line_is_not_kept_once_for_each_problem_in_it() -> None:
    """Ten thousand naive times in a minified file once held ten thousand copies of it."""
    agents = ",".join(f'"!{number}":1' for number in range(3_000))
    problems = parse(f'{{"agents":{{{agents}}}}}'.encode(), "context.json", ()).problems
    assert len(problems) >= 3_000
    assert sum(len(problem.text) for problem in problems) < 1_000_000
    assert problems[0].text and problems[-1].place.column > 20_000


def test_many_faults_in_one_record_are_found_in_one_reading_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them once read the record from its beginning."""
    read: list[int] = []
    real = state.members

    def members(text: str, start: int = 0) -> Any:
        read.append(start)
        return real(text, start)

    monkeypatch.setattr(context_file, "members", members)
    fields = ",".join(f'"context.{number}":1' for number in range(500))
    problems = parse(f'{{"agents":{{"mary":{{"status":1,{fields}}}}}}}'.encode(), "context.json", ()).problems
    assert len(problems) == 101
    assert len(read) < 20
