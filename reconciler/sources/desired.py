"""The desired state: what `context.json` and the manifests say, and which of it somebody wrote since last time.

Reads files and stamps what changed; writes nothing. A source that cannot be read is never an empty source: it
is named in the problems, and what it said last stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .. import files
from ..base import Clean, Memory, newest_written, part
from ..edits import FILE, UNSEEN, Edits, Reference, Seen, Values, Version, find_edits, undo_of
from ..errors import InputError, Place, Problem
from ..settings import Settings
from ..state import Field, State, same_text
from . import context_file, manifests
from .context_file import Context
from .pieces import Draft

BY = "context.json"
OLD_COPY = "an old copy"
"""The writer's name of a value in the file that nobody wrote: it came back with a stale copy."""


@dataclass(frozen=True, slots=True)
class ContextSource:
    """`context.json` as it is now. `context` is None when it cannot be read, or need not be, because it is the
    very file that base remembers; `identity` None when it is missing.

    `edits` are the writes in it; `state` is what it holds, each value with the stamp it has there;
    `partial`: only of the agents that may have changed; the others are as base remembers them until `desire` adds
    them. `versions` what this reading adds to the known versions of the file. `clean`: its identity, if the next round
    need not read it while that stays the same.
    """

    context: Context | None
    identity: files.Identity | None
    edits: Edits
    state: State
    versions: tuple[Version, ...] = ()
    emptied: bool = False
    clean: Clean | None = None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything the sources hold now.

    `unreadable`: agents, or "" for all, that are not written to the file now. `touched`: the agents that a source
    said something new about, None when it may be any. `paths`: the manifest files that may have changed, None
    for all of them.
    """

    context: ContextSource
    loaded: manifests.Loaded
    problems: tuple[Problem, ...]
    unreadable: frozenset[str]
    touched: frozenset[str] | None = None
    paths: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """What the sources say of the agents that a round is about; `dropped`: what waits in the spool."""

    context: ContextSource
    loaded: manifests.Loaded
    declared: manifests.Declared
    problems: tuple[Problem, ...]
    unreadable: frozenset[str]
    dropped: State


def desire(reading: Reading, memory: Memory, now: int) -> Desired:
    """What the sources say of the agents that `memory` is about, their new values stamped."""
    context, loaded, names = reading.context, reading.loaded, memory.names
    if context.partial:
        context = replace(context, state={**memory.file, **context.state}, partial=False)
    if names is not None:
        context = replace(context, state=part(context.state, {*names, FILE}))
        paths = loaded.files if reading.paths is None else reading.paths
        loaded = loaded._replace(files=part(loaded.files, paths), manifests=part(loaded.manifests, names))
    declared = manifests.declare(loaded, reading.loaded.files, memory.manifests, now)
    return Desired(context, loaded, declared, reading.problems, reading.unreadable, {})


@dataclass(frozen=True, slots=True)
class _Kept:
    """The `context.json` that is there. `racy`: it must be compared once more, for its time may hide a later change."""

    draft: Draft
    identity: files.Identity
    racy: bool


class Sources:
    """The sources as one process reads them, round after round: what did not change is not read again.

    A reading is believed when a round has remembered it (`settle`, `wrote`), never before.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None
        self._found: _Kept | None = None
        self._loaded: manifests.Loaded | None = None
        self._problems: tuple[Problem, ...] | None = None

    def read(
        self, settings: Settings, memory: Memory, clock: Callable[[], int], paths: frozenset[str] | None = None
    ) -> Reading:
        """Observe the sources; `paths`: the only manifest files that may have changed since the last time.

        `clock` tells when it is, in µs: a file may be saved while others are read, and is in the future only if it
        lies behind the moment at which it was read.
        """
        problems: list[Problem] = []
        unreadable: set[str] = set()
        try:
            context = self._read_context(settings, memory, clock)
            if context.context is not None:
                problems += context.context.problems
                unreadable |= context.context.broken
        except InputError as error:
            problems += error.problems
            unreadable.add("")
            context = ContextSource(None, None, Edits(), {}, partial=True)
        declared, paths = self._load(settings, memory, clock(), paths)
        assert self._loaded is not None
        touched = _touched(context, memory, declared)
        before, self._problems = self._problems, (*problems, *self._loaded.problems)
        if before != self._problems:
            touched = None
        return Reading(context, self._loaded, self._problems, frozenset(unreadable), touched, paths)

    def _load(
        self, settings: Settings, memory: Memory, now: int, paths: frozenset[str] | None
    ) -> tuple[frozenset[str] | None, frozenset[str] | None]:
        """Bring the manifests up to date; the agents they say something new about, and the files looked at."""
        before = self._loaded
        if before is not None and paths is not None:
            some = manifests.load_some(before, settings.manifests_base, paths, now) if paths else before
            if some is not None:
                self._loaded = some
                return _declaring(before, some, paths), paths
        self._loaded = loaded = _load_all(settings, memory, now)
        if before is None:
            return None, None
        return _declaring(before, loaded, before.files.keys() | loaded.files.keys()), None

    def _read_context(self, settings: Settings, memory: Memory, clock: Callable[[], int]) -> ContextSource:
        path, now, self._found = settings.context_file, clock(), None
        if newest_written(memory.file_versions) == UNSEEN:
            self._kept = None  # it was compared with the version before; the newest perhaps never got there
        if self._is_still(settings, memory, now):
            identity = self._kept.identity if self._kept else memory.clean and memory.clean.identity
            return ContextSource(None, identity, Edits(), {}, clean=memory.clean, partial=True)
        kept, self._kept = self._kept, None
        found = files.read(path, context_file.MAX_BYTES)
        if found is None:
            if not path.parent.is_dir() and path.parent.exists():
                place = Place(str(path.parent))
                raise InputError(Problem(place, "not a folder", "context.json belongs into a folder of this name"))
            new = context_file.parse(context_file.NEW.encode(), BY, ())
            return ContextSource(new, None, Edits(), {}, emptied=bool(memory.file))
        data, identity = found
        text = _text(data) if kept is not None else None
        changed = kept.draft.follow(text) if kept is not None and text is not None else None
        draft = kept.draft if kept is not None and changed is not None else Draft(parse(settings, data))
        context = draft.context
        source = read_version(context, identity, memory, clock(), changed)
        racy = identity.mtime_ns // 1000 >= now - manifests.RACY
        if not context.problems and not source.emptied:
            self._found = _Kept(draft, identity, racy)
            return source if racy else replace(source, clean=Clean(identity, settings.local_sections))
        return source

    def _is_still(self, settings: Settings, memory: Memory, now: int) -> bool:
        """Whether the file is the one that need not be read; one that cannot be looked at is left to the reading."""
        kept, clean = self._kept, memory.clean
        try:
            identity = files.identify(settings.context_file)
            if kept is None or identity != kept.identity:
                same = clean is not None and clean.local_sections == settings.local_sections
                return same and clean is not None and identity == clean.identity
            if not kept.racy:
                return True
            found = files.read(settings.context_file, context_file.MAX_BYTES)
            if found is None or found[1] != kept.identity or not kept.draft.says(found[0]):
                return False
        except (OSError, InputError):
            return False
        if kept.identity.mtime_ns // 1000 < now - manifests.RACY:
            self._kept = replace(kept, racy=False)
        return True

    def draft(self, settings: Settings, source: ContextSource) -> Draft:
        """The file as it was read last, to be edited; it is believed again when it is in place (`wrote`)."""
        known = next((k for k in (self._found, self._kept) if k and k.identity == source.identity), None)
        self._found = self._kept = None
        if known is not None:
            return known.draft
        if source.context is not None:
            return Draft(source.context)
        # it was not read because it had not changed; if it has by now, the swap will find out
        found = files.read(settings.context_file, context_file.MAX_BYTES)
        return Draft(parse(settings, found[0] if found else context_file.NEW.encode()))

    def settle(self) -> None:
        """What was read last is remembered."""
        if self._found is not None:
            self._kept, self._found = self._found, None

    def wrote(self, draft: Draft, done: files.Replaced) -> None:
        """This program's own version is in place. A large one takes so long to get there that it need not be compared:
        nobody else can have given it that time. One with something that cannot be read is read in each round, to
        tell."""
        kept = _Kept(draft, done.identity, racy=done.aged <= manifests.RACY * 1000)
        self._kept, self._found = None if draft.broken else kept, None

    def rest(self) -> None:
        """Keep as little as is needed to go on: nothing is to do for a while."""
        if self._kept is not None:
            self._kept.draft.rest()


def _load_all(settings: Settings, memory: Memory, now: int) -> manifests.Loaded:
    try:
        return manifests.load(settings.manifests, settings.manifests_base, memory.manifests, now)
    except InputError as error:
        known = memory.manifests
        said = {manifest.agent: manifest for file in known.files.values() for manifest in file.manifests}
        return manifests.Loaded(dict(known.files), said, list(error.problems), frozenset(said))


def _text(data: bytes) -> str | None:
    """As the parser reads it; None for bytes that are no text: they are left to it, who says where."""
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None


def _touched(context: ContextSource, memory: Memory, declared: frozenset[str] | None) -> frozenset[str] | None:
    """The agents that the sources say something new about; None when it may be any."""
    if declared is None or memory.empty:
        return None
    names = {entry.agent for entry in memory.journal} | declared
    if context.context is not None:
        if context.emptied or context.identity is None:
            return None
        names |= {*context.edits.state, *context.edits.gone, *context.edits.stale}
        for agent in context.state if context.partial else context.state.keys() | memory.file.keys():
            here, known = context.state.get(agent), memory.file.get(agent)
            if here is not known and here != known:
                names.add(agent)
    return frozenset(names - {FILE})


def _declaring(before: manifests.Loaded, after: manifests.Loaded, paths: Iterable[str]) -> frozenset[str]:
    """The agents of the manifest files that are not what they were."""
    names: set[str] = set()
    for path in paths:
        old, new = before.files.get(path), after.files.get(path)
        if old != new:
            names.update(manifest.agent for file in (old, new) if file for manifest in file.manifests)
    return frozenset(names)


def parse(settings: Settings, data: bytes) -> Context:
    """The bytes of a `context.json`. Raises InputError when nothing in it can be used."""
    return context_file.parse(data, manifests.shown(settings.context_file, settings.root), settings.local_sections)


def read_version(
    context: Context, identity: files.Identity, memory: Memory, now: int, changed: frozenset[str] | None = None
) -> ContextSource:
    """What one version of the file means, held against the versions that are known. `changed`: the agents whose
    values are not the latest version's, None when any may be."""
    saved, partial = min(identity.mtime_ns // 1000, now), changed is not None
    memory = memory if partial else memory.unpacked()
    if _lost_all(context.values, memory.file):
        return ContextSource(context, identity, Edits(), file_state(context.values, {}), emptied=True)
    reference = Reference(memory.file, memory.file_versions, changed)
    edits = find_edits(context.values, reference, Seen(saved, now), by=BY, skip=context.broken)
    values = context.values if changed is None else part(context.values, changed)
    state = file_state(values, edits.state, memory.file) | standing_in(context.broken, memory)
    undo = undo_of(part(memory.file, state) if partial else memory.file, state) if memory.file else {}
    versions = (Version(saved, False, undo),) if undo else ()
    return ContextSource(context, identity, edits, state, versions, partial=partial)


def standing_in(broken: Iterable[str], memory: Memory) -> dict[str, dict[str, Field]]:
    """What the agents said last whose record cannot be read now."""
    return {agent: dict(memory.file[agent]) for agent in broken if agent in memory.file}


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
