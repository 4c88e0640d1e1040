"""The bridge's inbox: files that other programs leave for an agent become drops in the spool.

    bridge/memory/inbox/mary_result_1762910748.json    {"result": "success", "test": true}: keys of mary's context
    bridge/memory/inbox/processed/                     what is in the spool, or was
    bridge/memory/inbox/rejected/                      what nobody can take in, each with its reason beside it

A drop is made from the file's name and its time alone, and is on disk before the file is moved: who is interrupted
makes the same one again. Other files than `*.json` are left alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from . import files
from .drops import NotADrop, Part, pack, parse
from .errors import InputError, Place, Problem, ReconcilerError
from .files import Identity
from .merge import merge
from .settings import Settings
from .spool import MAX_BYTES, PATIENCE, REJECTED, Rejected, Waiting, names_in, put, refusal, set_aside
from .stamp import parse_time, refine
from .state import LAST_UPDATE, NotJson, decode, encode, is_agent_name, is_text, split_object

PROCESSED = "processed"
MOST = 500
"""What one round takes in; the next one goes on."""
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity", "-")


class HalfWritten(Exception):
    """A file whose end is missing: whoever writes it has not finished."""


class Letter(NamedTuple):
    """A file that can be taken in: the drop that it becomes."""

    path: Path
    name: str
    data: bytes
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """What the inbox holds, as one look found it. `unfinished`: the files that are not whole yet."""

    letters: tuple[Letter, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    unfinished: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    more: bool = False


class _Stuck(NamedTuple):
    """A file that could not be moved: trying that in every round would take it in in every round."""

    identity: Identity | None
    problem: Problem
    since: int


class Inbox:
    """The inbox of one workspace. `known` tells the agents that there are: their names may hold an underscore."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.folder = settings, settings.inbox_folder
        self._stuck: dict[str, _Stuck] = {}

    def look(self, known: Callable[[], Collection[str]], now: int) -> Post:
        """What is there; moves nothing. `now` in µs."""
        names = sorted(name for name in names_in(self.folder) if name.endswith(".json") and name[0] != ".")
        agents = known() if names else ()
        letters, rejected, unfinished, problems = list[Letter](), list[Rejected](), list[str](), list[Problem]()
        for name in names:
            if len(letters) == MOST:
                break
            path = self.folder / name
            try:
                found = files.read(path, MAX_BYTES)
                if found is None:
                    continue
                stuck = self._stuck.get(name)
                if stuck is not None and stuck.identity == found[1] and now - stuck.since < PATIENCE:
                    problems.append(stuck.problem)
                else:
                    letter = read_letter(path, found[0], agents, min(found[1].mtime_ns // 1000, now))
                    letters.append(letter._replace(identity=found[1]))
            except HalfWritten:
                unfinished.append(name)
            except NotADrop as error:
                rejected.append(Rejected(name, error.message))
                problems.append(refusal(path, error.message))
            except InputError as error:
                problems += error.problems
        return Post(tuple(letters), tuple(rejected), tuple(unfinished), tuple(problems), len(letters) == MOST)

    def deliver(self, post: Post, now: int) -> list[Problem]:
        """Put into the spool what can be, and every file where it belongs; what could not be done. `now` in µs."""
        jobs = [(letter.path, partial(self._take, letter)) for letter in post.letters]
        jobs += [(self.folder / name, partial(self._refuse, name, reason)) for name, reason in post.rejected]
        problems = []
        for path, job in jobs:
            try:
                job()
            except ReconcilerError as error:
                problem = Problem(Place(str(path)), error.message, error.hint)
                self._stuck[path.name] = _Stuck(files.identify(path), problem, now)
                problems.append(problem)
        return problems

    def _take(self, letter: Letter) -> None:
        files.make_folder(self.folder / PROCESSED)
        if letter.data:
            self._put(letter)
        if files.identify(letter.path) != letter.identity:
            return  # somebody wrote it anew since it was read: the next look finds that
        moved = files.move(letter.path, self.folder / PROCESSED / letter.path.name)
        if moved is not None and files.identify(moved) != letter.identity:
            files.move(moved, letter.path)

    def _put(self, letter: Letter) -> None:
        """Once; and behind another of the same name and time that says something else."""
        for at in count(int(letter.name[:16])):
            name = f"{at:016}{letter.name[16:]}"
            paths = [self.settings.spool / f"{name}.{ending}" for ending in ("drop", "kept")]
            held = [found[0] for path in paths if (found := files.read(path, MAX_BYTES))]
            if letter.data not in held and not held:
                put(self.settings, name, letter.data)
            if letter.data in held or not held:
                return

    def _refuse(self, name: str, reason: str) -> None:
        files.make_folder(self.folder / REJECTED)
        set_aside(self.folder / name, self.folder / REJECTED, reason)


def announced(waiting: Waiting, post: Post) -> Waiting:
    """What the spool would hold with the letters in it, for those who only look."""
    drops = tuple(parse(letter.name, letter.data) for letter in post.letters if letter.data)
    state = merge(waiting.state, *({drop.agent: drop.fields} for drop in drops))
    problems = (*waiting.problems, *post.problems)
    return replace(waiting, state=state, new=(*waiting.new, *drops), problems=problems)


def read_letter(path: Path, data: bytes, known: Collection[str], saved: int) -> Letter:
    """The drop that a file becomes. `saved`: its time in µs, unless the record declares an earlier one (DESIGN §5.1).

    Raises NotADrop, HalfWritten.
    """
    agent = _agent_of(path.name, known)
    text = _text(data)
    members = _members(text)
    declared = [moment for key in (LAST_UPDATE, "last_seen") if (moment := parse_time(_plain(members.get(key))))]
    newest = max(declared, default=None)
    at = refine(newest, saved) if newest and newest.at <= saved else saved
    for key in members:
        if not key or "\0" in key or not is_text(key):
            raise NotADrop(f"{encode(key)[:70]} is no key of a context")
    parts = [Part(key, "json", value.encode("utf-8", "surrogatepass")) for key, value in members.items()]
    return Letter(path, f"{at:016}-inbox-{_short(path.stem)}", pack(agent, parts) if parts else b"")


def _agent_of(name: str, known: Collection[str]) -> str:
    """The agent before an underscore: the longest known one, else what is before the first. Raises NotADrop."""
    stem = name.removesuffix(".json")
    cuts = [stem[:at] for at, char in enumerate(stem) if char == "_"]
    for agent in reversed(cuts):
        if agent in known:
            return agent
    if not cuts or not is_agent_name(cuts[0]):
        raise NotADrop("its name has no agent: <agent>_<anything>.json")
    return cuts[0]


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.end == len(data) and "unexpected end" in error.reason:
            raise HalfWritten from None
        raise NotADrop(f"not UTF-8 at byte {error.start + 1}") from None


def _members(text: str) -> dict[str, str]:
    """The members of the object, as JSON texts. Raises NotADrop, HalfWritten."""
    try:
        if not isinstance(decode(text), dict):
            raise NotADrop("its content is not an object")
        return split_object(text.strip(" \t\r\n"))
    except NotJson as error:
        if _breaks_off(text.rstrip(" \t\r\n"), error):
            raise HalfWritten from None
        raise NotADrop(f"not JSON: {error.message} at character {error.position + 1}") from None


def _breaks_off(text: str, error: NotJson) -> bool:
    """Whether what is wrong with a text is its end: more of it may come."""
    rest = text[error.position :]
    return (
        not rest
        or error.message.startswith("unterminated string")
        or any(word.startswith(rest) for word in _WORDS)
        or bool(re.fullmatch(r"\.|[eE][+-]?", rest))  # of a number
        or (error.message.startswith("invalid \\u") and len(rest) < 6)
        or (error.message.startswith("invalid \\escape") and len(rest) < 2)
    )


def _plain(text: str | None) -> object:
    return None if text is None else decode(text)


def _short(stem: str) -> str:
    """A file's name as part of a drop's: where it cannot be that, what it looks like with its digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:40]
    return plain if plain == stem else f"{plain}.{hashlib.sha1(stem.encode('utf-8', 'replace')).hexdigest()[:12]}"


def unfinished(settings: Settings) -> tuple[str, ...]:
    """The files that wait because they are not whole, for those who tell how it stands."""
    return Inbox(settings).look(tuple, 1 << 62).unfinished if settings.inbox else ()
