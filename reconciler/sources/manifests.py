"""Manifests: YAML files under `manifests/`, one agent (or the shared sections) a document.

`build` takes a document apart strictly and quickly; only when it finds anything unexpected is the JSON Schema
asked, which then names every problem with its place. tests/test_manifests.py holds the two together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

from .. import files, schema
from ..errors import InputError, Place, Problem
from ..merge import Policy
from ..stamp import parse_time
from ..state import CONTEXT, LAST_UPDATE, SHARED, Field, NotJson, decode, encode, is_agent_name, is_text, same_text
from .text import MAX_BYTES, Document, Locate

RACY = 20_000
"""µs. Some file systems stamp files only every 10 ms."""

API_VERSION = "reconciler/v1"
_POLICIES = frozenset(get_args(Policy))
# as in the schema, letter by letter
_FIELD = {
    "Agent": re.compile(r"(?!(status|context|last_update)$)(?!context\.)[\s\S]"),
    "Shared": re.compile(r"(?!(version|agents|last_update|context)$)(?!context\.)[\s\S]"),
}
_POLICY_FOR = re.compile(r"(?!(context|context\.|last_update)$)[\s\S]")
_LOCAL = re.compile(r"(?!.*://)[\s\S]")


class Manifest(NamedTuple):
    """One document. `values`: field to JSON text; `updated`: µs, when `metadata.updated` is given."""

    agent: str
    path: str
    line: int
    values: Mapping[str, str]
    policy: Mapping[str, Policy] = {}
    updated: int | None = None
    context_schema: str | None = None

    def to_plain(self) -> dict[str, Any]:
        return self._asdict()


class File(NamedTuple):
    """One manifest file as it was last read: what it said then stands in while it cannot be read.

    `saved` is its mtime in µs. `racy`: it was read within the clock's granularity of being written, so it
    may have changed again without its times telling (git's rule), and is read again next time.
    """

    path: str
    identity: files.Identity
    saved: int
    manifests: tuple[Manifest, ...]
    racy: bool = False


class Known(NamedTuple):
    """What base remembers of the manifests: the files, and each declared field with the stamp it was given."""

    files: Mapping[str, File]
    fields: Mapping[str, Mapping[str, Field]]


def build(document: Document, path: str) -> Manifest | None:
    """The manifest in a document, or None when anything in it is not as the schema wants it."""
    match document.value:
        case {"apiVersion": "reconciler/v1", "kind": "Agent" | "Shared" as kind, "spec": dict()}:
            value = document.value
        case _:
            return None
    if not value.keys() <= {"apiVersion", "kind", "metadata", "spec", "policy", "contextSchema"}:
        return None
    metadata = value.get("metadata", {} if kind == "Shared" else None)
    agent = _agent(kind, metadata) if isinstance(metadata, dict) else None
    values = _values(kind, value["spec"])
    policy, wanted = value.get("policy", {}), value.get("contextSchema", "-")
    if agent is None or values is None or not isinstance(policy, dict):
        return None
    if not all(_POLICY_FOR.match(key) and isinstance(p, str) and p in _POLICIES for key, p in policy.items()):
        return None
    if not isinstance(wanted, str) or not _LOCAL.match(wanted) or (kind == "Shared" and "contextSchema" in value):
        return None
    updated = parse_time(metadata["updated"]) if "updated" in metadata else None
    return Manifest(
        agent, path, document.line, values, policy, updated.at if updated else None, value.get("contextSchema")
    )


def _agent(kind: str, metadata: dict[str, Any]) -> str | None:
    if not metadata.keys() <= {"name", "updated", "labels"}:
        return None
    labels = metadata.get("labels", {})
    if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
        return None
    if "updated" in metadata and parse_time(metadata["updated"]) is None:
        return None
    name = metadata.get("name", "shared" if kind == "Shared" else None)
    if not isinstance(name, str) or not is_agent_name(name):
        return None
    return SHARED if kind == "Shared" else name


def _values(kind: str, spec: dict[str, Any]) -> dict[str, str] | None:
    allowed = {"fields"} if kind == "Shared" else {"status", "context", "fields"}
    fields, context = spec.get("fields", {}), spec.get("context", {})
    if not spec.keys() <= allowed or not isinstance(fields, dict) or not isinstance(context, dict):
        return None
    if not isinstance(spec.get("status", ""), str):
        return None
    if not all(_FIELD[kind].match(name) for name in fields):
        return None
    try:
        values = {"status": encode(spec["status"])} if "status" in spec else {}
        values |= {CONTEXT + key: encode(value) for key, value in context.items()}
        return values | {name: encode(value) for name, value in fields.items()}
    except NotJson:
        return None


def parse(data: bytes, path: str) -> tuple[list[Manifest], list[Problem]]:
    """All manifests of one file and every problem in it. Raises InputError when it is no YAML at all.

    Where more than 100 documents are bad, the rest of them are counted."""
    from .yaml_text import read_documents  # only who reads manifests pays for the library

    good: list[Manifest] = []
    bad: dict[int, Document] = {}
    for index, document in enumerate(read_documents(data, path)):
        found = build(document, path) if document.value is not None else None
        if found is not None:
            good.append(found)
        elif document.value is not None:
            bad[index] = document
    return good, _explain_all(data, path, bad) if bad else []


def _explain_all(data: bytes, path: str, bad: Mapping[int, Document]) -> list[Problem]:
    from .yaml_text import locators

    problems: list[Problem] = []
    chosen = dict(islice(bad.items(), schema.MAX_PROBLEMS))
    for index, locate in enumerate(islice(locators(data, path), max(chosen) + 1)):
        if index in chosen:
            problems += _explain(chosen[index], path, locate)
    if len(bad) > len(chosen):
        place = Place(path, bad[max(bad)].line, 1)
        problems.append(Problem(place, f"and {len(bad) - len(chosen)} more documents that are no manifests"))
    return problems


def _explain(document: Document, path: str, locate: Locate) -> list[Problem]:
    name = _name_in(document.value)
    problems = schema.validate("manifest", document.value, locate, source=path, agent=name)
    if not problems:  # all else is in the schema
        place, text = locate(("metadata", "updated"))
        message = "not a time between 1970 and 9999"
        problems = [Problem(place, message, "write 2025-11-12T08:00:00Z", "metadata.updated", name, text=text)]
    return problems


def _name_in(value: object) -> str | None:
    match value:
        case {"metadata": {"name": str(name)}} if is_agent_name(name):
            return name
    return None


class Loaded(NamedTuple):
    """All manifest files as they are now: readable ones, what stood in for the others, and what is wrong."""

    files: dict[str, File]
    manifests: dict[str, Manifest]
    problems: list[Problem]
    broken: frozenset[str]


def load(folder: Path, base: Path, known: Known, now: int) -> Loaded:
    """Read every manifest whose file changed since base saw it; unreadable files are named, never empty."""
    found: dict[str, File] = {}
    problems: list[Problem] = []
    broken: set[str] = set()
    above = f"{base}{os.sep}"
    for path, identity in identities(folder).items():
        name = path.removeprefix(above)
        if not is_text(name):
            readable = name.encode("utf-8", "backslashreplace").decode()
            problems.append(Problem(Place(readable), "the file's name is not UTF-8", "rename it"))
            continue
        before = known.files.get(name)
        try:
            file, more = _load_file(path, name, before, now, identity)
            problems += more
            broken.update(problem.agent for problem in more if problem.agent and problem.severity == "error")
        except InputError as error:
            problems += error.problems
            file = before
            broken.update(manifest.agent for manifest in (before.manifests if before else ()))
        if file is not None:
            found[name] = file
    manifests, clashes = one_each(manifest for file in found.values() for manifest in file.manifests)
    return Loaded(found, manifests, problems + clashes, frozenset(broken))


def load_some(before: Loaded, base: Path, paths: Iterable[str], now: int) -> Loaded | None:
    """The manifests after some files, named as in `Loaded.files`, may have changed; None when all must be read:
    where anything is wrong, or one agent is declared in several places."""
    if before.problems:
        return None
    found, gone = before.files | {}, set[str]()
    try:
        for name in paths:
            if not is_text(name):
                return None
            old = found.pop(name, None)
            gone.update(manifest.agent for manifest in (old.manifests if old else ()))
            if not (base / name).is_file():
                continue
            file, problems = _load_file(base / name, name, old, now, files.identify(base / name))
            if problems or file is None:
                return None
            found[name] = file
    except InputError:
        return None
    new = [manifest for name in paths if name in found for manifest in found[name].manifests]
    said = {manifest.agent: manifest for manifest in new}
    lowered = {agent.lower() for agent in said}
    if len(lowered) < len(new):
        return None
    if lowered - {agent.lower() for agent in gone}:  # a name that is new may be another agent's in other letters
        others = {agent.lower() for agent in before.manifests.keys() - gone}
        if others & lowered:
            return None
    agents = before.manifests | said
    for agent in gone - said.keys():
        del agents[agent]
    return Loaded(found, agents, [], frozenset())


def manifest_files(folder: Path) -> list[Path]:
    """`**/*.yaml` and `*.yml`, sorted, hidden ones left out. Raises InputError for a file in its place."""
    return [Path(name) for name in identities(folder)]


def identities(folder: Path) -> dict[str, files.Identity | None]:
    """The same as texts, each with its identity; None for a link that leads nowhere."""
    if folder.exists() and not folder.is_dir():
        raise InputError(Problem(Place(str(folder)), "not a folder", "manifests are files in a folder"))
    found: dict[str, files.Identity | None] = {}
    if folder.exists():
        _walk(str(folder), found)
    return {path: found[path] for path in sorted(found)}


def _walk(folder: str, found: dict[str, files.Identity | None]) -> None:
    try:
        with os.scandir(folder) as listed:
            entries = list(listed)
    except OSError as error:  # a folder that cannot be listed is not an empty one
        hint = "give this user the right to read it"
        raise InputError(Problem(Place(folder), f"cannot be read: {error.strerror}", hint)) from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            _walk(entry.path, found)
        elif entry.name.endswith((".yaml", ".yml")) and not (entry.is_symlink() and os.path.isdir(entry)):
            found[entry.path] = files.identify_entry(entry)


def shown(path: Path | str, base: Path) -> str:
    """A path as everybody reads it, on every machine: relative to the folder that the settings name as its base."""
    return str(path).removeprefix(f"{base}{os.sep}")


def _load_file(
    path: Path | str, name: str, before: File | None, now: int, identity: files.Identity | None
) -> tuple[File | None, list[Problem]]:
    if before is not None and not before.racy and identity == before.identity:
        return before, []
    read = files.read(path, MAX_BYTES + 1)
    if read is None:
        return before, []
    data, identity = read
    good, problems = parse(data, name)
    if problems:  # the documents that cannot be read are stood in for by what they last said
        bad = {problem.agent for problem in problems}
        good += [old for old in (before.manifests if before else ()) if old.agent in bad]
    saved = identity.mtime_ns // 1000
    # a file with problems is read again every time, so that they are reported every time
    return File(name, identity, saved, tuple(good), bool(problems) or saved > now - RACY), problems


def one_each(found: Iterable[Manifest]) -> tuple[dict[str, Manifest], list[Problem]]:
    """One manifest per agent; two that claim one agent are an error that names both, and the first stands."""
    chosen: dict[str, Manifest] = {}
    problems = []
    for manifest in found:
        first = chosen.setdefault(manifest.agent.lower(), manifest)
        if first is not manifest:
            name = "" if first.agent == manifest.agent else f" as {first.agent}"
            message = f"agent {manifest.agent} is declared twice: first{name} in {first.path}:{first.line}"
            hint = "delete one of the two, or merge them"
            problems.append(Problem(Place(manifest.path, manifest.line, 1), message, hint, agent=manifest.agent))
    return {manifest.agent: manifest for manifest in chosen.values()}, problems


class Declared(NamedTuple):
    """What the manifests ask for. `edits`, `seeds`: fields to merge, stamped; `pins`: fields that always win;
    `fields`: every declared field with its stamp, for base to remember; `undated`: edits without a time."""

    edits: dict[str, dict[str, Field]]
    seeds: dict[str, dict[str, Field]]
    pins: dict[str, dict[str, Field]]
    fields: dict[str, dict[str, Field]]
    undated: frozenset[tuple[str, str]]


def declare(loaded: Loaded, all_files: Mapping[str, File], known: Known, now: int) -> Declared:
    """Stamp what changed in the manifests since base saw them (DESIGN §5.5); unchanged fields are no write."""
    result = Declared({}, {}, {}, {}, frozenset())
    undated: set[tuple[str, str]] = set()
    for agent, manifest in sorted(loaded.manifests.items()):
        before = known.fields.get(agent, {})
        at = _time_of(manifest, all_files[manifest.path], known, now)
        stamp = partial(_stamped, before, at, manifest.path)
        now_fields = {name: stamp(name, text) for name, text in manifest.values.items()}
        result.fields[agent] = now_fields
        changed = {name: field for name, field in now_fields.items() if before.get(name) is not field}
        dropped = {
            name: Field(None, max(at, field.at + 1), manifest.path)
            for name, field in before.items()
            if name not in now_fields and agent not in loaded.broken
        }
        if manifest.updated is None:
            undated.update((agent, name) for name in changed)
        _sort_by_policy(result, agent, manifest, now_fields, {**changed, **dropped})
    for agent in known.fields.keys() - loaded.manifests.keys():
        # remembered, so that a manifest that is taken away and comes back unchanged is no write
        result.fields[agent] = dict(known.fields[agent])
    return result._replace(undated=frozenset(undated))


def _sort_by_policy(
    result: Declared,
    agent: str,
    manifest: Manifest,
    fields: Mapping[str, Field],
    changed: Mapping[str, Field],
) -> None:
    if not manifest.policy:
        if changed:
            result.edits[agent] = dict(changed)
        return
    for name, field in {**fields, **changed}.items():
        policy = manifest.policy.get(name, "follow")
        if policy == "pin" and field.text is not None:
            result.pins.setdefault(agent, {})[name] = field
        elif policy == "seed" and field.text is not None:
            result.seeds.setdefault(agent, {})[name] = field
        elif name in changed:
            result.edits.setdefault(agent, {})[name] = field


def _time_of(manifest: Manifest, file: File, known: Known, now: int) -> int:
    old = known.files.get(manifest.path)
    before = next((m.updated for m in old.manifests if m.agent == manifest.agent), None) if old else None
    if manifest.updated is not None and (before is None or manifest.updated > before):
        return min(manifest.updated, now)
    return min(file.saved, now)


def _stamped(before: Mapping[str, Field], at: int, by: str, name: str, text: str) -> Field:
    was = before.get(name)
    if was is not None and same_text(was.text, text):
        return was
    return Field(text, max(at, was.at + 1) if was else at, by)


def to_yaml_plain(agent: str, values: Mapping[str, str]) -> dict[str, Any]:
    """An agent's live values as a manifest, plain data, for `export`. Raises NotJson for what Python cannot hold."""
    spec: dict[str, Any] = {}
    if "status" in values and agent != SHARED:
        spec["status"] = decode(values["status"])
    context = {name.removeprefix(CONTEXT): decode(text) for name, text in values.items() if name.startswith(CONTEXT)}
    fields = {
        name: decode(text)
        for name, text in values.items()
        if name != LAST_UPDATE and not name.startswith(CONTEXT) and (name != "status" or agent == SHARED)
    }
    if context and agent != SHARED:
        spec["context"] = context
    if fields:
        spec["fields"] = fields
    if agent == SHARED:
        return {"apiVersion": API_VERSION, "kind": "Shared", "metadata": {"name": "shared"}, "spec": spec}
    return {"apiVersion": API_VERSION, "kind": "Agent", "metadata": {"name": agent}, "spec": spec}
