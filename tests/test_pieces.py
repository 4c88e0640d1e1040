"""The short way to edit and to read `context.json`: whatever it gives is what the long way gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import files
from reconciler.base import Memory
from reconciler.plan import Change
from reconciler.settings import build
from reconciler.sources import pieces
from reconciler.sources.context_file import NEW, parse, render
from reconciler.sources.desired import Sources
from reconciler.sources.pieces import Draft
from reconciler.state import SHARED, Field, State, encode

TIME = '"2025-11-12T08:00:00.000000Z"'
LOCAL = ("paths",)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
AGENTS = st.sampled_from(["mary", "gc", "rnd"])
CONTEXTS = st.dictionaries(st.sampled_from(["a", "é", '"', ""]), JSON, max_size=3)
RECORDS = st.fixed_dictionaries(
    {}, optional={"status": st.text(max_size=5), "insight": JSON, "context": CONTEXTS, "last_seen": st.just(TIME[1:-1])}
)
FILES = st.fixed_dictionaries(
    {"agents": st.dictionaries(AGENTS, RECORDS)},
    optional={"version": st.just("1.0"), "last_update": st.just("x"), "work": JSON, "paths": JSON},
)
INDENTS: st.SearchStrategy[int | str | None] = st.sampled_from([None, 0, 2, "\t"])
EDITS = st.dictionaries(st.tuples(AGENTS | st.just(SHARED), st.sampled_from(["status", "context.a", "work"])), JSON)
law = settings(derandomize=True, database=None, deadline=None, max_examples=300)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """So that three agents are more than one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "BLOCK", 2)
        yield


def draft_of(text: str, *, rested: bool = False) -> Draft:
    draft = Draft(parse(text.encode(), "c.json", LOCAL))
    if rested:
        draft.rest()
    return draft


def changes_of(wanted: Mapping[tuple[str, str], object]) -> tuple[dict[str, dict[str, Change]], State]:
    """Changes as a plan groups them, and a merged state that holds their values."""
    changes: dict[str, dict[str, Change]] = {}
    for (agent, field), value in wanted.items():
        new = encode(value) if value is not None else None
        changes.setdefault(agent, {})[field] = Change(agent, field, "file", "1", new, 1, "x")
    merged = {
        agent: {name: Field(one.new, 1, "x") for name, one in fields.items()} for agent, fields in changes.items()
    }
    return changes, {agent: {**fields, "kept": Field("1", 1, "x")} for agent, fields in merged.items()}


@law
@given(FILES, INDENTS, EDITS, st.booleans())
def test_an_edit_in_place_gives_the_same_text_and_the_same_values(
    data: dict[str, Any], indent: int | str | None, wanted: dict[tuple[str, str], object], rested: bool
) -> None:
    """Where it gives anything: what is more than new values in known places is left to the long way."""
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    changes, merged = changes_of(wanted)
    before = parse(text.encode(), "c.json", LOCAL)
    expected = render(before, changes, merged, TIME)
    draft = draft_of(text, rested=rested)
    if draft.edited(changes, merged, TIME):
        found, again = draft.context, parse(expected.encode(), "c.json", LOCAL)
        assert found.text == expected
        assert (found.values, found.problems) == (again.values, again.problems)
        assert draft.says(expected.encode()) and draft.says(text.encode()) == (text == expected)


def test_one_new_value_is_edited_in_place_again_and_again() -> None:
    """The usual case takes the short way, also after a first edit."""
    text = json.dumps({"agents": {"mary": {"status": "idle", "context": {"a": 1}}}, "last_update": "x"}, indent=2)
    draft = draft_of(text)
    for value in ("busy", "away"):
        changes, merged = changes_of({("mary", "status"): value, ("mary", "context.a"): [value]})
        assert draft.edited(changes, merged, TIME)
        assert json.loads(draft.context.text)["agents"]["mary"] == {"status": value, "context": {"a": [value]}}


@pytest.mark.parametrize("rested", [False, True])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_new_agent_comes_behind_the_last_one(indent: int | None, rested: bool) -> None:
    """Without parsing the file again; what stands behind the agents stays where it is."""
    agents = {"mary": {"status": "idle"}, "cls": {"status": "idle"}}
    draft = draft_of(json.dumps({"agents": agents, "work": 1, "last_update": "x"}, indent=indent), rested=rested)
    for name in ("gc", "rnd"):
        assert draft.edited(*changes_of({(name, "status"): "new", (SHARED, "work"): name}), TIME)
    found = draft.context
    data = json.loads(found.text)
    assert list(data["agents"]) == ["mary", "cls", "gc", "rnd"] and data["work"] == "rnd"
    assert found.text == json.dumps(data, indent=indent)
    assert found.values == parse(found.text.encode(), "c.json", LOCAL).values


@law
@given(FILES, FILES, INDENTS, INDENTS, st.booleans())
def test_a_version_that_is_followed_says_what_it_says_when_parsed(
    one: dict[str, Any], other: dict[str, Any], indent: int | str | None, other_indent: int | str | None, rested: bool
) -> None:
    """And the agents that are named are all that changed."""
    before, after = json.dumps(one, indent=indent), json.dumps(other, indent=other_indent)
    draft, known = draft_of(before, rested=rested), parse(before.encode(), "c.json", LOCAL)
    changed = draft.follow(after)
    if changed is not None:
        found = parse(after.encode(), "c.json", LOCAL)
        assert (draft.context.text, draft.context.values, draft.context.problems) == (after, found.values, ())
        assert {name for name in found.values if found.values[name] != known.values.get(name)} <= changed


@law
@given(FILES, st.tuples(INDENTS, st.booleans()), AGENTS, CONTEXTS, JSON)
def test_somebodys_edit_of_a_value_is_followed(
    data: dict[str, Any], how: tuple[int | str | None, bool], agent: str, context: dict[str, Any], paths: Any
) -> None:
    """One agent's record changed, and a section of the machine's own, in the same layout."""
    data = {**data, "agents": {**data["agents"], agent: {"status": "idle"}}, "paths": 1}
    indent, rested = how
    draft = draft_of(json.dumps(data, indent=indent), rested=rested)
    data["agents"][agent] = {"status": "busy", "context": context}
    text = json.dumps({**data, "paths": paths}, indent=indent)
    assert draft.follow(text) == frozenset({agent})
    assert draft.context.values == parse(text.encode(), "c.json", LOCAL).values


def test_what_is_no_json_is_not_followed() -> None:
    """The parser is left to name the place."""
    text = json.dumps({"agents": {"mary": {"status": "idle"}}})
    for broken in ("", text[:-1], text + "x", text.replace('"idle"', "idle"), text.replace('"idle"', "NaN")):
        assert draft_of(text).follow(broken) is None
        assert not draft_of(text, rested=True).says(broken.encode())


@pytest.mark.parametrize(("aged", "read"), [(0, True), (1_000_000_000, False)])
def test_our_own_version_is_read_once_more_only_where_somebody_may_have_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aged: int, read: bool
) -> None:
    """One that was long on its way has a time of its own, and 30 MB are not read to see that nobody was there."""
    chosen, sources = build(tmp_path, {}, {}, {}), Sources()
    chosen.context_file.parent.mkdir()
    done = files.replace(chosen.context_file, NEW.encode(), None)
    sources.wrote(draft_of(NEW), done._replace(aged=aged))
    seen, reading = list[Path](), files.read

    def noted(path: Path, limit: int) -> tuple[bytes, files.Identity] | None:
        seen.append(path)
        return reading(path, limit)

    monkeypatch.setattr(files, "read", noted)
    assert sources.read(chosen, Memory(), lambda: 0).context.context is None
    assert (chosen.context_file in seen) == read
