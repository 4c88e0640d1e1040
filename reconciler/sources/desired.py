"""The desired state: what `context.json` and the manifests say, and which of it somebody wrote since last time.

Reads files and stamps what changed; writes nothing. A source that cannot be read is never an empty source: it
is named in the problems, and what it said last stands in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .. import files
from ..base import Clean, Memory
from ..edits import FILE, Edits, Reference, Seen, Values, Version, find_edits, undo_of
from ..errors import InputError, Place, Problem
from ..settings import Settings
from ..state import Field, State, same_text
from . import context_file, manifests
from .context_file import Context

BY = "context.json"
OLD_COPY = "an old copy"
"""The writer's name of a value in the file that nobody wrote: it came back with a stale copy."""


@dataclass(frozen=True, slots=True)
class ContextSource:
    """`context.json` as it is now. `context` is None when it cannot be read, or need not be, because it is the
    very file that base remembers; `identity` None when it is missing.

    `edits` are the writes in it; `state` is what it holds, each value with the stamp it has there;
    `versions` what this reading adds to the known versions of the file. `clean`: its identity, if the next
    round need not read it while that stays the same.
    """

    context: Context | None
    identity: files.Identity | None
    edits: Edits
    state: State
    versions: tuple[Version, ...] = ()
    emptied: bool = False
    clean: Clean | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything the sources say. `unreadable`: agents, or "" for all, that are not written to the file now."""

    context: ContextSource
    loaded: manifests.Loaded
    declared: manifests.Declared
    problems: tuple[Problem, ...]
    unreadable: frozenset[str]


def read(settings: Settings, memory: Memory, now: int) -> Desired:
    """Observe the sources. `now` in µs; a file saved later than that counts as saved now."""
    problems: list[Problem] = []
    unreadable: set[str] = set()
    try:
        context = _read_context(settings, memory, now)
        if context.context is not None:
            problems += context.context.problems
            unreadable |= context.context.broken
    except InputError as error:
        problems += error.problems
        unreadable.add("")
        context = ContextSource(None, None, Edits(), memory.file)
    try:
        loaded = manifests.load(settings.manifests, settings.manifests_base, memory.manifests, now)
    except InputError as error:
        known = memory.manifests
        said = {manifest.agent: manifest for file in known.files.values() for manifest in file.manifests}
        loaded = manifests.Loaded(dict(known.files), said, list(error.problems), frozenset(said))
    declared = manifests.declare(loaded, memory.manifests, now)
    return Desired(context, loaded, declared, (*problems, *loaded.problems), frozenset(unreadable))


def _read_context(settings: Settings, memory: Memory, now: int) -> ContextSource:
    path = settings.context_file
    if memory.clean is not None and _is_still(path, memory.clean, settings):
        return ContextSource(None, memory.clean.identity, Edits(), memory.file, clean=memory.clean)
    found = files.read(path, context_file.MAX_BYTES)
    if found is None:
        if not path.parent.is_dir() and path.parent.exists():
            place = Place(str(path.parent))
            raise InputError(Problem(place, "not a folder", "context.json belongs into a folder of this name"))
        new = context_file.parse(context_file.NEW.encode(), BY, ())
        return ContextSource(new, None, Edits(), {}, emptied=bool(memory.file))
    data, identity = found
    context = parse(settings, data)
    source = read_version(context, identity, memory, now)
    quiet = identity.mtime_ns // 1000 < now - manifests.RACY and not context.problems and not source.emptied
    return replace(source, clean=Clean(identity, settings.local_sections) if quiet else None)


def _is_still(path: Path, clean: Clean, settings: Settings) -> bool:
    """Whether the file is the one that need not be read; one that cannot be looked at is left to the reading."""
    try:
        return files.identify(path) == clean.identity and clean.local_sections == settings.local_sections
    except OSError:
        return False


def parse(settings: Settings, data: bytes) -> Context:
    """The bytes of a `context.json`. Raises InputError when nothing in it can be used."""
    return context_file.parse(data, manifests.shown(settings.context_file, settings.root), settings.local_sections)


def read_version(context: Context, identity: files.Identity, memory: Memory, now: int) -> ContextSource:
    """What one version of the file means, held against the versions that are known."""
    saved = min(identity.mtime_ns // 1000, now)
    if _lost_all(context.values, memory.file):
        return ContextSource(context, identity, Edits(), file_state(context.values, {}), emptied=True)
    reference = Reference(memory.file, memory.file_versions)
    edits = find_edits(context.values, reference, Seen(saved, now), by=BY, skip=context.broken)
    state = file_state(context.values, edits.state, memory.file)
    state |= standing_in(context, memory)
    undo = undo_of(memory.file, state) if memory.file else {}
    versions = (Version(saved, False, undo),) if undo else ()
    return ContextSource(context, identity, edits, state, versions)


def standing_in(context: Context, memory: Memory) -> dict[str, dict[str, Field]]:
    """What the agents said last whose record cannot be read now."""
    return {agent: dict(memory.file[agent]) for agent in context.broken if agent in memory.file}


def _lost_all(values: Values, known: State) -> bool:
    """A file without a single agent where base knows some has lost them; nothing in it is taken for an edit."""
    return not any(_is_agent(name) for name in values) and any(_is_agent(name) for name in known)


def _is_agent(name: str) -> bool:
    return not name.startswith("@")


def file_state(values: Values, *replicas: State) -> dict[str, dict[str, Field]]:
    """What a file holds as a replica: each value with its stamp in the first replica that has the same."""
    return {
        agent: {name: _stamped(agent, name, text, replicas) for name, text in fields.items()}
        for agent, fields in values.items()
    }


def _stamped(agent: str, name: str, text: str, replicas: tuple[State, ...]) -> Field:
    for replica in replicas:
        field = replica.get(agent, {}).get(name)
        if field is not None and same_text(field.text, text):
            return field if field.text == text else field._replace(text=text)
    return Field(text, 0, "" if agent == FILE else OLD_COPY)


def first_run_edits(edits: State, undated: frozenset[tuple[str, str]], live: State, mode: str) -> State:
    """Edits of a first run (DESIGN §5.4). `newer`: an undated value loses to any live one; `live`: every value
    does; `files`: every value wins, with a stamp just behind the live one it beats."""
    kept: dict[str, dict[str, Field]] = {}
    for agent, fields in edits.items():
        there = live.get(agent, {})
        for name, field in fields.items():
            known = there.get(name)
            if known is not None and known.text is not None and mode != "files":
                if mode == "live" or (agent, name) in undated:
                    continue
            elif known is not None:  # beaten in any case: files win, or a tombstone, and nothing is deleted now
                field = field._replace(at=max(field.at, known.at + 1))
            kept.setdefault(agent, {})[name] = field
    return kept
