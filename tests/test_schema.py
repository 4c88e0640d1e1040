"""The schemas say what they mean, and `reconciler.schema` says what is wrong in words for a person."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from reconciler.errors import InputError, NotFound, Place, Problem
from reconciler.schema import (
    ContextCheck,
    Steps,
    caret,
    dotted,
    schema_names,
    schema_text,
    validate,
)

MANIFEST: dict[str, Any] = {
    "apiVersion": "reconciler/v1",
    "kind": "Agent",
    "metadata": {"name": "mary"},
    "spec": {"status": "active"},
}
LOST = "leads nowhere; only references inside the file are followed, such as '#/$defs/name'"
EVENT: dict[str, Any] = {"agent": "mary", "event": "note", "timestamp": "2025-11-12T08:00:00Z", "data": {}}


def nowhere(steps: Steps) -> tuple[Place, str]:
    return Place("memory:agents:mary"), ""


def messages(name: str, value: object) -> list[str]:
    """What `validate` says, without the place."""
    found = validate(name, value, nowhere, source="memory:agents:mary")
    return [str(problem).removeprefix("memory:agents:mary: ") for problem in found]


def manifest(**changed: Any) -> dict[str, Any]:
    return {**MANIFEST, **changed}


def examples(schema: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every example in a schema with the JSON pointer of the part that it belongs to."""
    for example in schema.get("examples", ()):
        yield pointer, example
    for word in ("properties", "$defs"):
        for key, part in schema.get(word, {}).items():
            yield from examples(part, f"{pointer}/{word}/{key}")
    for word in ("items", "additionalProperties", "then", "else"):
        if isinstance(schema.get(word), dict):
            yield from examples(schema[word], f"{pointer}/{word}")


def parts(schema: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every member that an editor can show."""
    for word in ("properties", "$defs"):
        for key, part in schema.get(word, {}).items():
            yield f"{pointer}/{key}", part
            yield from parts(part, f"{pointer}/{key}")


@pytest.mark.parametrize("name", schema_names())
def test_every_schema_is_valid_draft_2020_12(name: str) -> None:
    """A schema is itself right, names its draft, and has the identifier that its file name says."""
    schema = json.loads(schema_text(name))
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].endswith(f"/{name}.schema.json")


@pytest.mark.parametrize("name", schema_names())
def test_every_example_in_a_schema_satisfies_it(name: str) -> None:
    """What an editor offers as an example is accepted, at every level."""
    schema = json.loads(schema_text(name))
    registry: Registry[Any] = Registry().with_resource(schema["$id"], DRAFT202012.create_resource(schema))
    found = list(examples(schema))
    assert found
    for pointer, example in found:
        part = Draft202012Validator({"$ref": f"{schema['$id']}#{pointer}"}, registry=registry)
        assert not [error.message for error in part.iter_errors(example)], pointer


@pytest.mark.parametrize("name", schema_names())
def test_every_member_is_described_and_has_an_example(name: str) -> None:
    """An editor has something to show wherever the cursor stands."""
    schema = json.loads(schema_text(name))
    assert schema["title"] and schema["description"] and schema["examples"]
    shown = [(pointer, part) for pointer, part in parts(schema) if pointer]
    assert [pointer for pointer, part in shown if not {"description", "examples"} <= part.keys()] == []


def test_an_unknown_schema_is_not_found_and_a_near_one_is_named() -> None:
    """`schema manifst` asks back; a name like nothing lists what there is."""
    with pytest.raises(NotFound, match="no schema 'manifst'; did you mean 'manifest'"):
        schema_text("manifst")
    with pytest.raises(NotFound, match="there are manifest, context, event, settings, plan"):
        schema_text("../../etc/passwd")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "manifest",
            manifest(spec={"contxt": {}}),
            "spec: unknown key 'contxt'; did you mean 'context'?",
        ),
        (
            "manifest",
            manifest(spec={"insight": "x"}),
            "spec: unknown key 'insight'; other hash fields go under 'fields'",
        ),
        (
            "manifest",
            manifest(spec={"status": 5}),
            'spec.status: expected a string, found a number (5); write it in quotes: "5"',
        ),
        (
            "manifest",
            manifest(spec={"context": "{}"}),
            "spec.context: expected an object, found a string ('{}')",
        ),
        ("manifest", manifest(spec=None), "spec: expected an object, found null"),
        ("manifest", manifest(kind="agent"), "kind: unknown value 'agent'; did you mean 'Agent'?"),
        ("manifest", manifest(kind="Pod"), "kind: unknown value 'Pod'; one of 'Agent', 'Shared'"),
        ("manifest", manifest(apiVersion=2), "apiVersion: unknown value 2; write 'reconciler/v1'"),
        ("manifest", manifest(metadata={}), "metadata: missing 'name'"),
        (
            "manifest",
            manifest(metadata={"name": "../x"}),
            "metadata.name: '../x' is not valid; a name has 1 to 64 letters, digits, '.', '_' or '-' and "
            "starts with a letter or digit",
        ),
        (
            "manifest",
            manifest(metadata={"name": "mary", "updated": "yesterday"}),
            "metadata.updated: 'yesterday' is not valid; a time is written 2025-11-12T08:00:00Z",
        ),
        (
            "manifest",
            manifest(policy={"status": "folow"}),
            "policy.status: unknown value 'folow'; did you mean 'follow'?",
        ),
        (
            "manifest",
            manifest(policy={"context": "pin"}),
            "policy: the key 'context' is not allowed; a policy is for 'status', one 'context.<key>', or one "
            "name under 'fields'",
        ),
        (
            "manifest",
            manifest(spec={"fields": {"context.role": 1}}),
            "spec.fields: the key 'context.role' is not allowed; 'status' and 'context' stand beside "
            "'fields', and 'last_update' is metadata.updated",
        ),
        (
            "manifest",
            manifest(kind="Shared", spec={"fields": {"agents": {}}}),
            "spec.fields: the key 'agents' is not allowed; 'version', 'last_update', 'agents' and "
            "'context' are not shared sections; an agent has its own manifest",
        ),
        (
            "manifest",
            manifest(kind="Shared", spec={"status": "x"}),
            "spec: unknown key 'status'; sections go under 'fields'",
        ),
        (
            "manifest",
            manifest(kind="Shared", spec={}, contextSchema="a.json"),
            "contextSchema: 'a.json' is not allowed; only a manifest of kind Agent has one",
        ),
        (
            "manifest",
            manifest(contextSchema="https://x/y"),
            "contextSchema: 'https://x/y' is not valid; name a file beside the manifest; nothing is fetched "
            "from the network",
        ),
        ("context", {"agent": {}}, "missing 'agents'"),
        ("context", [], "expected an object, found a list"),
        ("context", {"agents": {"a.b": 3}}, "agents['a.b']: expected an object, found a number (3)"),
        (
            "record",
            {"context.role": "x"},
            "the key 'context.role' is not allowed; put it inside the object 'context'",
        ),
        ("record", {"last_seen": None}, "last_seen: expected a string or a number, found null"),
        ("record", {"status": True}, 'status: expected a string, found true; write it in quotes: "true"'),
        (
            "event",
            {**EVENT, "timestamp": "2025-11-12 08:00"},
            "timestamp: '2025-11-12 08:00' is not valid; a time is written 2025-11-12T08:00:00.123456Z",
        ),
        ("event", {**EVENT, "event": ""}, "event: must not be empty"),
        ("event", {**EVENT, "priority": "hihg"}, "priority: unknown value 'hihg'; did you mean 'high'?"),
        (
            "event",
            {**EVENT, "v": 1, "id": "mary:1", "version": 1, "origin": "x"},
            "missing 'changes', which 'version' needs",
        ),
        ("settings", {"interval": 0}, "interval: 0 is not more than 0"),
        ("settings", {"history": 1.5}, "history: expected a whole number, found a number (1.5)"),
        ("settings", {"max_deletes": "lots"}, "max_deletes: 'lots' is not valid; say 30% or 5"),
        ("settings", {"first_run": "file"}, "first_run: unknown value 'file'; did you mean 'files'?"),
        ("settings", {"redis_port": 70000}, "redis_port: 70000 is more than 65535"),
    ],
)
def test_one_mistake_gives_one_message_with_the_way_out(name: str, value: object, said: str) -> None:
    """Each wrong input: what is wrong, where inside, and what to write instead."""
    assert messages(name, value) == [said]


@pytest.mark.parametrize("name", ["a:b", "", "{a}", "a/b", "mary\n", "-x", "x" * 65])
def test_an_illegal_agent_name_is_refused_in_files_and_manifests(name: str) -> None:
    """Also one with a line break behind it, which a `$` alone would let pass."""
    assert len(messages("context", {"agents": {name: {}}})) == 1
    assert len(messages("manifest", manifest(metadata={"name": name}))) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("manifest", {"apiVersion": "reconciler/v1", "kind": "Shared", "spec": {"fields": {"work": []}}}),
        ("manifest", manifest(spec={})),
        ("manifest", manifest(metadata={"name": "mary", "updated": 1762934400.5})),
        ("context", {"agents": {}, "anything": [1, {"else": None}]}),
        ("record", {"insight": 10**30, "context": {"": None}}),
        ("event", {**EVENT, "agent": "@shared", "replayed": True, "ticket": 7}),
        ("settings", {}),
        ("settings", {"redis": "rediss://h:6380/0", "max_deletes": 0}),
    ],
)
def test_what_the_design_allows_is_valid(name: str, value: object) -> None:
    """Legal at the edges: nothing declared, unknown sections, big integers, a publisher's own members."""
    assert messages(name, value) == []


def test_every_problem_is_told_at_once_sorted_by_place() -> None:
    """One round of reading is enough to mend a file; an unknown key is shown where the key stands."""
    places: dict[Steps, tuple[int, int]] = {
        ("metadata", "name"): (3, 5),
        ("spec", "contxt"): (7, 3),
        ("spec", "status"): (6, 3),
        ("stauts",): (9, 1),
    }

    def locate(steps: Steps) -> tuple[Place, str]:
        return Place("mary.yaml", *places[steps]), ""

    value = manifest(metadata={"name": "a b"}, spec={"contxt": {}, "status": 1}, stauts=1)
    found = validate("manifest", value, locate, source="mary.yaml", agent="mary")
    assert [(problem.place.line, problem.place.column) for problem in found] == [
        (3, 5),
        (6, 3),
        (7, 3),
        (9, 1),
    ]
    assert str(found[2]) == "mary.yaml:7:3: spec: unknown key 'contxt'; did you mean 'context'?"
    assert {problem.agent for problem in found} == {"mary"}


def test_a_problem_inside_context_json_names_the_agent_it_concerns() -> None:
    """So that one bad record keeps out one agent; what concerns the whole file names none."""
    value = {"last_update": [], "agents": {"mary": {"status": 1}, "rnd": {}, "a:b": {}}}
    found = validate("context", value, nowhere, source="context.json")
    assert {problem.agent: problem.path for problem in found} == {
        None: "last_update", "mary": "agents.mary.status", "a:b": "agents",
    }  # fmt: skip


@pytest.mark.parametrize(("wrong", "last"), [(150, "and 50 more problems"), (5000, "and at least 900 more problems")])
def test_a_hopeless_input_gives_a_bounded_number_of_problems(wrong: int, last: str) -> None:
    """A hundred problems, then how many more there are."""
    found = validate("context", {"agents": {f"a{n}": 1 for n in range(wrong)}}, nowhere, source="context.json")
    assert len(found) == 101
    assert str(found[-1]) == f"context.json: {last}"


def test_a_line_of_megabytes_is_not_kept_with_each_problem() -> None:
    """A minified file costs bounded memory and time, and shows no caret."""
    line = '{"a":"://x:' + ":" * 5_000_000
    found = validate("record", [], lambda steps: (Place("a.json", 1, 1), line), source="a.json")
    assert [(problem.text, caret(problem)) for problem in found] == [("", "")]


def test_a_message_never_holds_a_whole_value() -> None:
    """Ten megabytes in the wrong place still give one short line."""
    long, big = "x" * 10_000_000, 10**4000
    assert messages("record", {"context": long}) == [f"context: expected an object, found a string ('{'x' * 39}…')"]
    assert messages("record", {"context": big}) == ["context: expected an object, found a number (a huge number)"]
    assert messages("record", {"status": [long]}) == ["status: expected a string, found a list"]
    assert all(len(said) < 300 for said in messages("settings", {long: 1, "first_run": long}))


def test_a_password_is_in_no_message_and_in_no_quoted_line() -> None:
    """A wrong `redis` setting is not shown, and its source line hides what looks like a password."""
    lines: dict[Steps, str] = {
        ("redis",): "redis: http://:s3cret@host  # mine",
        ("redis_password",): "redis_password: s3cret",
    }

    def locate(steps: Steps) -> tuple[Place, str]:
        return Place("reconciler.yaml", 1, 1), lines[steps]

    value = {"redis": "http://:s3cret@host", "redis_password": "s3cret"}
    found = validate("settings", value, locate, source="reconciler.yaml")
    assert len(found) == 2
    assert "s3cret" not in repr(found)
    assert {problem.text for problem in found} == {
        "redis: http://:******@host  # mine",
        "redis_password: ******",
    }


def test_validating_nothing_does_not_pay_for_jsonschema() -> None:
    """Importing the module and printing a schema leave the expensive library alone."""
    code = "import sys, reconciler.schema as s; s.schema_text('plan'); print('jsonschema' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_context_is_checked_against_its_own_schema() -> None:
    """All that breaks it, with the way into the context; what satisfies it gives nothing."""
    check = ContextCheck(
        json.dumps({
            "properties": {"role": {"enum": ["dispatcher"]}, "load": {"$ref": "#/$defs/load"}},
            "required": ["role", "team"],
            "$defs": {"load": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}},
        }),
        "mary.context.schema.json",
    )  # fmt: skip
    assert check.check({"role": "dispatcher", "team": "x", "load": None}) == []
    assert check.check({"role": "dispatchr", "load": -1}) == [
        (("role",), "unknown value 'dispatchr'; did you mean 'dispatcher'?"),
        (("load",), "-1 is less than 0"),
        ((), "missing 'team'"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a":\n  [1,}', "my.json:2:6: expecting value"),
        ("[]", "my.json: a schema is an object, not a list"),
        ('{"type": "strng"}', "my.json: type: 'strng' fits none of the allowed forms"),
        ('{"pattern": "("}', "my.json: pattern: '(' does not have the format 'regex'"),
        (
            '{"properties": {"a": {"minLength": "1"}}}',
            "my.json: properties.a.minLength: expected a whole number, found a string ('1')",
        ),
        ('{"$ref": "https://example.org/x"}', f"my.json: $ref 'https://example.org/x' {LOST}"),
        ('{"items": {"$ref": "#/$defs/a"}}', f"my.json: $ref '#/$defs/a' {LOST}"),
        (
            '{"$schema": "http://json-schema.org/draft-07/schema#"}',
            "my.json: 'http://json-schema.org/draft-07/schema#' is not read; "
            'write "$schema": "https://json-schema.org/draft/2020-12/schema"',
        ),
    ],
)
def test_a_broken_context_schema_is_an_input_error_that_names_the_file(text: str, said: str) -> None:
    """The author of the schema reads what is wrong with it; nothing is fetched to find out."""
    with pytest.raises(InputError) as caught:
        ContextCheck(text, "my.json")
    assert str(caught.value) == said


def test_a_recursive_schema_checks_deep_contexts_and_an_endless_one_says_so() -> None:
    """As deep as a value may be is checked; a schema that is only itself is told, not followed for ever."""
    deep: list[Any] = []
    for _ in range(60):
        deep = [deep]
    tree = '{"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}'
    assert ContextCheck(tree, "t.json").check(deep) == []
    assert ContextCheck('{"$ref": "#"}', "t.json").check({}) == [((), "t.json refers to itself without end")]


@pytest.mark.parametrize(
    ("column", "text", "shown"),
    [
        (3, "  contxt: {}", "  contxt: {}\n  ^"),
        (1, "a: 1", "a: 1\n^"),
        (2, "\tx: 1", " x: 1\n ^"),
        (3, "日本: 1", "日本: 1\n    ^"),
        (3, "e\u0301x", "e\u0301x\n ^"),
        (99, "a: 1", "a: 1\n    ^"),
        (1, "a\x1b[31m: 1", "a [31m: 1\n^"),
        (1, "", ""),
    ],
)
def test_the_caret_stands_under_the_column(column: int, text: str, shown: str) -> None:
    """Also behind tabs, wide and combining characters; a control character never reaches the terminal."""
    assert caret(Problem(Place("f", 1, column), "wrong", text=text)) == shown


def test_a_long_line_is_clipped_around_the_caret() -> None:
    """A hundred columns of a minified file, with the fault in the middle."""
    line, mark = caret(Problem(Place("f", 1, 501), "wrong", text="a" * 500 + "!" + "b" * 500)).split("\n")
    assert line[0] == line[-1] == "…" and len(line) == 102
    assert line[len(mark) - 1] == "!"


def test_steps_are_written_as_a_person_writes_a_path() -> None:
    """Plain keys with dots, positions in brackets, and odd keys quoted."""
    assert dotted(()) == ""
    assert dotted(("changes", 0, "by")) == "changes[0].by"
    assert dotted(("agents", "a.b", "x\n")) == "agents['a.b']['x\\n']"
