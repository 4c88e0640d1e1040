"""Manifests: what is taken quickly is what the schema accepts; files are read once, and stand in when broken."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import schema
from reconciler.errors import InputError, Place
from reconciler.sources import manifests, yaml_text
from reconciler.sources.manifests import Known, Loaded, build, load, parse, to_yaml_plain
from reconciler.sources.text import Document
from reconciler.sources.yaml_text import write_document
from reconciler.stamp import parse_time
from reconciler.state import SHARED
from tests.story.desk import set_age

AGENT: dict[str, Any] = {
    "apiVersion": "reconciler/v1",
    "kind": "Agent",
    "metadata": {"name": "mary", "updated": "2025-11-12T08:00:00Z", "labels": {"team": "dispatch"}},
    "spec": {"status": "active", "context": {"role": "dispatcher", "n": [1, None]}, "fields": {"insight": "none"}},
    "policy": {"context.role": "pin", "status": "seed"},
    "contextSchema": "mary.context.schema.json",
}
TOGETHER: dict[str, Any] = {
    "apiVersion": "reconciler/v1",
    "kind": "Shared",
    "metadata": {"name": "shared"},
    "spec": {"fields": {"limits": {"tokens": 5}}},
}
NOW = 2_000_000_000_000_000
ODD: list[Any] = [
    None, True, 0, -1, 5, 1.5, "", " ", "x", "active", "../x", "a:b", "mary\n", "x" * 65, "Agent", "Shared", "pin",
    "follow", "reconciler/v1", "2025-11-12T08:00:00Z", "yesterday", "1762934400", 1e300, [], ["x"], {}, {"x": 1},
    {"name": "gc"}, {"status": "x"}, {"context": {}}, {"fields": {"status": 1}}, {"fields": {"context.a": 1}},
    {"fields": {"agents": {}}}, {"context": {"": 1}}, {"fields": {"": 1}}, {"context.role": "pin"}, {"context": "pin"},
    {"last_update": "seed"}, {"": "pin"}, {"team": 5}, "http://example.org/x.json", "file.json\n", {"a\nb": 1},
]  # fmt: skip
KEYS = ["apiVersion", "kind", "metadata", "spec", "policy", "contextSchema", "name", "updated", "labels", "status",
        "context", "fields", "stauts", "last_update", "version", "agents", "context.x", "insight", ""]  # fmt: skip


def places(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, part in value.items():
            found += places(part, (*path, key))
    return found


def mutate(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """One part taken out, replaced, or added."""
    path = draw(st.sampled_from(places(document)))
    if not path:
        return draw(st.sampled_from(ODD))
    parent: Any = document
    for key in path[:-1]:
        parent = parent[key]
    how = draw(st.sampled_from(["drop", "replace", "add", "add"]))
    if how == "drop":
        del parent[path[-1]]
    elif how == "replace":
        parent[path[-1]] = draw(st.sampled_from(ODD))
    else:
        inside = parent[path[-1]] if isinstance(parent[path[-1]], dict) else parent
        inside[draw(st.sampled_from(KEYS))] = draw(st.sampled_from(ODD))
    return document


@st.composite
def documents(draw: st.DrawFn) -> Any:
    document: Any = copy.deepcopy(draw(st.sampled_from([AGENT, TOGETHER])))
    for _ in range(draw(st.integers(0, 3))):
        if isinstance(document, dict) and document:
            document = mutate(draw, copy.deepcopy(document))
    return document


@settings(derandomize=True, database=None, deadline=None, max_examples=2000)
@given(documents())
def test_build_accepts_exactly_what_the_schema_accepts(document: Any) -> None:
    """The quick way and the slow one agree on every document."""
    found = build(Document(document, 1), "m.yaml")
    problems = schema.validate("manifest", document, lambda path: (Place("m.yaml", 1, 1), ""), source="m.yaml")
    if not problems and (updated := document.get("metadata", {}).get("updated")) is not None:
        assert (found is not None) == (parse_time(updated) is not None)
    else:
        assert (found is not None) == (problems == []), [str(problem) for problem in problems]


def test_a_time_that_only_looks_like_one_is_named() -> None:
    """The schema knows the shape of a time; whether there is such a day, only the clock does."""
    good, problems = parse(
        write_document({**AGENT, "metadata": {"name": "mary", "updated": "2025-02-30"}}).encode(), "m"
    )
    assert good == []
    assert str(problems[0]) == ("m:5:3: metadata.updated: not a time between 1970 and 9999; write 2025-11-12T08:00:00Z")


def test_a_manifest_says_fields() -> None:
    """`spec` taken apart into registers, as JSON texts."""
    found = build(Document(AGENT, 7), "m.yaml")
    assert found is not None
    assert found.values == {
        "status": '"active"', "context.role": '"dispatcher"', "context.n": "[1,null]", "insight": '"none"',
    }  # fmt: skip
    assert (found.agent, found.line, found.updated) == ("mary", 7, 1_762_934_400_000_000)
    shared = build(Document(TOGETHER, 1), "m.yaml")
    assert shared is not None
    assert (shared.agent, shared.values) == (SHARED, {"limits": '{"tokens":5}'})


def test_every_problem_of_a_file_is_named_at_once() -> None:
    """In all of its documents, each with its own line."""
    text = (
        "apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: ../x}\nspec: {contxt: {}}\n---\n"
        "apiVersion: reconciler/v2\nkind: Agent\nmetadata: {name: gc}\nspec: {}\n---\n"
        "apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: rnd}\nspec: {status: x}\n"
    )
    good, problems = parse(text.encode(), "m.yaml")
    assert [manifest.agent for manifest in good] == ["rnd"]
    assert sorted({problem.place.line for problem in problems}) == [3, 4, 6]


def test_an_exported_manifest_reads_back_the_same() -> None:
    """What `export` writes declares what was live, for agents and for the shared sections."""
    values = {"status": '"no"', "context.when": '"2025-11-12"', "insight": "[1,2]", "last_update": '"x"'}
    text = write_document(to_yaml_plain("mary", values))
    [manifest], problems = parse(text.encode(), "m.yaml")
    assert problems == []
    assert manifest.values == {name: text for name, text in values.items() if name != "last_update"}
    [shared], problems = parse(write_document(to_yaml_plain(SHARED, {"limits": "5"})).encode(), "s.yaml")
    assert (problems, shared.agent, shared.values) == ([], SHARED, {"limits": "5"})


def write(folder: Path, name: str, status: str, agent: str = "", age: float = 60) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write_document({**AGENT, "metadata": {"name": agent or path.stem}, "spec": {"status": status}}))
    set_age(path, age)
    return path


def read(folder: Path, before: Loaded | None = None) -> Loaded:
    return load(folder, folder.parent, Known(before.files if before else {}, {}), NOW)


def test_manifests_are_found_in_folders_of_folders(tmp_path: Path) -> None:
    """`.yaml` and `.yml`, at any depth; hidden ones and others are left out."""
    folder = tmp_path / "manifests"
    for name in ("a.yaml", "deep/er/b.yml", ".hidden.yaml", ".git/c.yaml", "notes.txt"):
        write(folder, name, "x", agent=Path(name).stem.lstrip(".") or "x")
    found = read(folder)
    assert sorted(found.files) == ["manifests/a.yaml", "manifests/deep/er/b.yml"]
    assert sorted(found.manifests) == ["a", "b"]
    assert manifests.manifest_files(tmp_path / "nowhere") == []


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its identity tells; one that was written just now is read once more, because clocks are coarse."""
    folder = tmp_path / "manifests"
    write(folder, "a.yaml", "x")
    before = read(folder)
    monkeypatch.setattr(manifests, "parse", None)
    assert read(folder, before).manifests == before.manifests


def test_a_broken_file_is_stood_in_for_by_what_it_said(tmp_path: Path) -> None:
    """Until it can be read again, and named every time."""
    folder = tmp_path / "manifests"
    path = write(folder, "a.yaml", "x")
    good = read(folder)
    path.write_text("spec: [")
    set_age(path, 60)
    broken = read(folder, good)
    again = read(folder, broken)
    assert broken.manifests == again.manifests == good.manifests
    assert [len(found.problems) for found in (good, broken, again)] == [0, 1, 1]
    assert broken.broken == again.broken == {"a"}


def test_a_bad_document_is_stood_in_for_beside_good_ones(tmp_path: Path) -> None:
    """One agent of a file is kept as it was, the other moves on."""
    folder = tmp_path / "manifests"
    path = folder / "all.yaml"
    folder.mkdir()
    text = "apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: %s}\nspec: {status: %s}\n"
    path.write_text(text % ("a", "one") + "---\n" + text % ("b", "one"))
    set_age(path, 60)
    before = read(folder)
    path.write_text(text % ("a", "[two]") + "---\n" + text % ("b", "two"))
    set_age(path, 50)
    found = read(folder, before)
    assert {agent: manifest.values["status"] for agent, manifest in found.manifests.items()} == {
        "a": '"one"', "b": '"two"',
    }  # fmt: skip
    assert found.broken == {"a"}


def test_two_for_one_agent_names_both(tmp_path: Path) -> None:
    """The first by path stands; case makes no difference between agents."""
    folder = tmp_path / "manifests"
    write(folder, "a.yaml", "one", agent="Mary")
    write(folder, "b.yaml", "two", agent="mary")
    found = read(folder)
    assert {agent: manifest.path for agent, manifest in found.manifests.items()} == {"Mary": "manifests/a.yaml"}
    [problem] = found.problems
    assert str(problem).startswith(
        "manifests/b.yaml:1:1: agent mary is declared twice: first as Mary in manifests/a.yaml:1"
    )


def test_a_file_in_the_folders_place_is_an_error(tmp_path: Path) -> None:
    """Not an empty set of manifests."""
    (tmp_path / "manifests").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        read(tmp_path / "manifests")


def test_a_file_of_bad_documents_is_explained_in_one_more_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred of them by their places, the rest by their number; once each of them cost a reading of the file."""
    readings = []
    real = yaml_text.locators

    def locators(data: bytes, path: str) -> Any:
        readings.append(path)
        return real(data, path)

    monkeypatch.setattr(yaml_text, "locators", locators)
    good, problems = manifests.parse(b"---\na: 1\n" * 150, "a.yaml")
    assert (good, readings) == ([], ["a.yaml"])
    assert problems[-1].message == "and 50 more documents that are no manifests"
    assert {problem.place.line for problem in problems[:-1]} == set(range(2, 202, 2))
