"""Live memory in Redis or Valkey. Only this package knows the client.

Nobody blocks: connecting takes at most 0.25 s, a command 1 s, nothing is retried inside the client (DESIGN §8); only
what a reading asks is asked once more where its connection is cut. What is temporary becomes StoreAway, what is not
StoreError; the caller decides.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from redis.exceptions import ConnectionError, NoPermissionError, RedisError

from ..errors import Place, Problem
from ..events import CHANNEL, CONTEXT_UPDATE, PRIORITIES, Event, Foreign, agent_channel, read_event
from ..failpoints import around
from ..stamp import format_time
from ..state import CONTEXT, LAST_UPDATE, SHARED, State, is_agent_name
from . import AGAIN, Channel, Live, LiveAgent, Now, Tracking, Write, Written
from .failures import of_the_state, of_the_store, refusal, said, translate, unwritable
from .layout import AGENTS, agent_of, arguments, is_plain, keys_of, live_arguments, read_agent, register
from .listening import RedisChannel, track
from .plain import plain_record
from .wire import NOT_AFTER, Client, Command, Wire

SCRIPT = "".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("usual.lua", "write.lua"))
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
READ = (Path(__file__).parent / "read.lua").read_text(encoding="utf-8")
READ_SHA = hashlib.sha1(READ.encode(), usedforsecurity=False).hexdigest()
MARK = (Path(__file__).parent / "mark.lua").read_text(encoding="utf-8")
MARK_SHA = hashlib.sha1(MARK.encode(), usedforsecurity=False).hexdigest()
CHUNK = 500
TRIES = 3
"""How often something is read that a cut connection brings no answer to."""
HUB = "memory:hub"
SCHEMA_VERSION = 1
MOMENT: tuple[Command, ...] = (("TIME",), ("HGET", HUB, "epoch"))
"""Asks the server for its time, and for its mark."""
LAST_UPDATES = (register(LAST_UPDATE), f".{LAST_UPDATE}")
"""Where a sidecar notes `last_update`; second, as a former version did."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the write script needs to know: max skew in µs, history length, seconds tombstones are kept."""

    max_skew: int = 60_000_000
    history: int = 1_000
    tombstones: int = 30 * 86_400


class RedisStore:
    """A LiveStore over one redis-py client. `origin` names this writer in events."""

    def __init__(self, client: Client, origin: str, limits: Limits | None = None, name: str = "redis") -> None:
        self.client, self.origin, self.limits, self.name = client, origin, limits or Limits(), name
        self.wire = Wire(client)
        self._read = "EVALSHA_RO"
        self._history, self._limits = str(self.limits.history), f"{self.limits.max_skew} {self.limits.tombstones} "
        self._is_plain = is_plain(origin)
        self._rights = ""
        """"1" once a write found that it may publish; the server need not look again."""

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        return self._call(lambda: self._observe(base, agents))

    def _observe(self, base: State, agents: Iterable[str] | None) -> Live:
        problems: list[Problem] = []
        names = sorted(self._all_names(base, problems) if agents is None else set(agents))
        found: dict[str, LiveAgent] = {}
        told, epoch, *answers = _whole(self._run_read(names[:CHUNK], *MOMENT))  # all in one round trip
        now = _micros(told)
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            answers = answers if not start else _whole(self._run_read(chunk))
            for name, raw_hash, sidecar in _hashes(chunk, answers, problems):
                if raw_hash or sidecar:
                    found[name], more = read_agent(name, raw_hash, sidecar, base.get(name, {}), now)
                    problems += more
        return Live(True, now, _text(epoch), found, tuple(problems))

    def plain(self) -> dict[str, dict[str, Any] | None]:
        return self._call(self._plain)

    def _plain(self) -> dict[str, dict[str, Any] | None]:
        now = format_time(self._moment()[0])
        keys = list(set(self.wire.keys_like(f"{AGENTS}*")))
        found: dict[str, dict[str, Any] | None] = {}
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            times = [("HMGET", b"memory:meta:{%b}" % key, *LAST_UPDATES) for key in chunk]
            # the hash after what is known of it: what is written in between is only newer
            answers = self.wire.exchange([*times, *(("HGETALL", key) for key in chunk)])
            for key, at, flat in zip(chunk, answers, answers[len(chunk) :], strict=False):
                name = _text(key).removeprefix(AGENTS)
                if is_agent_name(name):
                    known = isinstance(flat, list) and isinstance(at, list)
                    found[name] = plain_record(flat, at[0] or at[1], now) if known else None
        return found

    def _moment(self) -> tuple[int, str]:
        """The server's time, in µs since 1970 UTC, and its mark; of a cluster, the time of one of its nodes."""
        told, epoch = _whole(self.wire.exchange(MOMENT))
        return _micros(told), _text(epoch)

    def _all_names(self, base: State, problems: list[Problem]) -> set[str]:
        """Also those that nobody found in a cluster: a key that moves may be missed on both of its nodes."""
        return set(self._names(problems)) | (set(base) if self.wire.scattered else set())

    def _names(self, problems: list[Problem]) -> Iterable[str]:
        """The agents that have a hash or a sidecar; illegal names are reported and left alone."""
        for key in sorted(set(self.wire.keys_like("memory:*"))):
            text = key.decode("utf-8", "backslashreplace")
            name = agent_of(text)
            if name is None:
                continue
            if is_agent_name(name) or text in keys_of(SHARED):
                yield name
            elif text.startswith(AGENTS):
                hint = "names are letters, digits, dot, dash and underscore; RENAME or DEL the key"
                problems.append(Problem(Place(text), "not a legal agent name", hint))

    def _run_read(self, names: Sequence[str], *before: Command) -> list[Any]:
        """By the command that cannot write, which servers have from version 7 on; what else is asked `before`."""
        reads = [(self._read, READ_SHA, "2", *keys_of(name)[:2]) for name in names]
        answers = self.wire.run_script(READ, [*before, *reads])
        first = answers[len(before) : len(before) + 1]
        if self._read != "EVALSHA" and any(
            isinstance(a, RedisError) and "unknown command" in str(a).lower() for a in first
        ):
            self._read = "EVALSHA"
            return self._run_read(names, *before)
        return answers

    def write(self, writes: Sequence[Write | Now]) -> list[Written]:
        try:
            if len(writes) == 1:
                with around("script"):
                    return [self._write_one(writes[0])]
            found: list[Written] = []
            for start in range(0, len(writes), CHUNK):
                with around("script"):
                    found += self._write_chunk(writes[start : start + CHUNK])
            return found
        except RedisError as error:
            raise said(error, self.name) from None

    def _write_one(self, write: Write | Now) -> Written:
        """The usual call: nothing is made for it that only a batch needs."""
        command = self._command(write)
        if type(command) is str:
            return Written(refused=command)
        return self._written(write.agent, self.wire.run_script(SCRIPT, (cast(Command, command),))[0])

    def _write_chunk(self, writes: Sequence[Write | Now]) -> list[Written]:
        commands = [self._command(write) for write in writes]
        answers = iter(self.wire.run_script(SCRIPT, [command for command in commands if not isinstance(command, str)]))
        return [
            Written(refused=command) if type(command) is str else self._written(write.agent, next(answers))
            for write, command in zip(writes, commands, strict=True)
        ]

    def _written(self, agent: str, answer: Any) -> Written:
        if type(answer) is list and answer[0] >= 0:
            version, seconds, micros, flags, touched = answer
            if not self._rights and b"w" in flags.lower():
                self._rights = "1"
            return Written(version, int(seconds) * 1_000_000 + int(micros), flags.decode(), int(touched))
        if isinstance(answer, NoPermissionError):
            self._rights = ""
        return _not_written(agent, answer)

    def _command(self, write: Write | Now) -> Command | str:
        """What is sent for a write; why it cannot be, for one that is unfit."""
        if type(write) is Now:
            agent, values, priority = write
            live = live_arguments(values)
            if live is not None and self._is_plain and _is_usual(agent) and priority in PRIORITIES:
                return (
                    "EVALSHA", SCRIPT_SHA, "3", *keys_of(agent), CHANNEL, agent, CONTEXT_UPDATE, self.origin, priority,
                    self._history, self._rights, self._limits, "", *live, NOT_AFTER,
                )  # fmt: skip
            write = write.in_full(self.origin)
        assert isinstance(write, Write)
        return _unfit(write) or self._full_command(write)

    def _full_command(self, write: Write) -> Command:
        head = (
            "EVALSHA", SCRIPT_SHA, "3", *keys_of(write.agent),
            CHANNEL, write.agent, write.event, self.origin, write.priority, self._history, self._rights,
        )  # fmt: skip
        limits = self._limits if write.floor is None else f"{self._limits}{write.floor}"
        seen = [part for name, text in write.seen.items() for part in (name, *text)]
        full = ("", "a", "", "", self.origin, "") if write.everything else arguments(write.puts)
        # A dated write may come late: whatever is newer by then stays.
        live = write.everything or write.seen or any(put.at is None for put in write.puts)
        return (*head, limits, str(len(write.seen)), *seen, *full, NOT_AFTER if live else "")

    def history(self, agent: str, count: int) -> list[Event]:
        return [event for _, message in self.messages(agent, count) if (event := _event(message))]

    def messages(self, agent: str, count: int, before: int = 0) -> list[tuple[int, bytes]]:
        last = str(before - 1) if before else "+"
        return self._entries(("XREVRANGE", keys_of(agent).history, last, "-", "COUNT", str(count)))

    def since(self, agent: str, version: int) -> list[Event]:
        found: list[Event] = []
        while True:
            command = ("XRANGE", keys_of(agent).history, str(version + 1), "+", "COUNT", str(CHUNK))
            entries = self._entries(command)
            found += (event for _, message in entries if (event := _event(message)))
            if len(entries) < CHUNK:
                return found
            version = entries[-1][0]

    def _entries(self, command: Command) -> list[tuple[int, bytes]]:
        """Entries of a history: the version each stands for, and its message."""
        answer = self._call(lambda: _whole(self.wire.exchange([command])))[0]
        return [(int(entry.partition(b"-")[0]), _message(fields)) for entry, fields in answer]

    def versions(self, agents: Iterable[str] | None = None) -> dict[str, int]:
        return self._call(lambda: self._versions(self._names([]) if agents is None else agents))

    def _versions(self, agents: Iterable[str]) -> dict[str, int]:
        names, found = sorted(set(agents)), {}
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            answers = self.wire.exchange([("HGET", keys_of(name).sidecar, "version") for name in chunk])
            for name, answer in zip(chunk, answers, strict=True):
                if isinstance(answer, RedisError) and "WRONGTYPE" not in str(answer):
                    raise answer
                found[name] = int(answer) if isinstance(answer, bytes) and answer.isdigit() else 0
        return found

    def trim(self) -> int:
        """A write shortens the history of its own agent only; a setting that was lowered concerns all."""
        return self._call(self._trim)

    def _trim(self) -> int:
        names, gone = sorted(self._names([])), 0
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            answers = self.wire.exchange([("XTRIM", keys_of(name).history, "MAXLEN", self._history) for name in chunk])
            for answer in answers:
                if isinstance(answer, RedisError) and "WRONGTYPE" not in str(answer):
                    raise answer
                gone += answer if isinstance(answer, int) else 0
        return gone

    def publish(self, event: Event) -> int:
        text = event.text
        commands: list[Command] = [("PUBLISH", agent_channel(event.agent), text), ("PUBLISH", CHANNEL, text)]
        with around("publish"):
            return int(translate(lambda: _whole(self.wire.exchange(commands)), self.name)[-1])

    def listen(self, agents: Sequence[str] = ()) -> Channel:
        return RedisChannel(self.client, self.name, agents)

    def track(self) -> Tracking:
        return self._call(lambda: track(self.client, self.name, lambda: self._call(self._moment)[1]))

    def start_epoch(self, epoch: str) -> str:
        def mark() -> str:
            commands: list[Command] = [
                ("HSETNX", HUB, "epoch", epoch), ("HSETNX", HUB, "schema", str(SCHEMA_VERSION)),
                ("HGET", HUB, "epoch"),
            ]  # fmt: skip
            return _text(_whole(self.wire.exchange(commands), of_the_state)[-1])

        return self._call(mark)

    def mark(self) -> str:
        return "" if self.wire.scattered else self._call(self._mark)

    def _mark(self) -> str:
        """By the server itself, which takes a fifth of the time of reading all of it."""
        epoch, found, cursor = self._moment()[1], set[bytes](), "0"
        while True:
            command = ("EVALSHA_RO", MARK_SHA, "0", cursor, str(2 * CHUNK))
            answer = self.wire.run_script(MARK, [command])[0]
            if isinstance(answer, RedisError):  # an old server, or one that does not allow it: `observe` says why
                return ""
            found.update(answer[1])
            cursor = answer[0].decode()
            if cursor == "0":
                return hashlib.sha256(b"\0".join([epoch.encode(), *sorted(found)])).hexdigest()

    def close(self) -> None:
        self.client.close()

    def _call(self, work: Callable[[], T]) -> T:
        """`work`, which may be done several times: a connection that was cut is no server that is away."""
        begun, tries = time.monotonic(), 1
        while True:
            try:
                return work()
            except RedisError as error:
                if tries == TRIES or type(error) is not ConnectionError or time.monotonic() - begun > AGAIN:
                    raise said(error, self.name) from None
                tries += 1


@lru_cache(maxsize=20_000)
def _is_usual(agent: str) -> bool:
    return agent != SHARED and is_plain(agent)


def _unfit(write: Write) -> str:
    """Why a write cannot even be sent; "" if it can."""
    if write.priority not in PRIORITIES:
        return f"the priority is {', '.join(PRIORITIES[:-1])} or {PRIORITIES[-1]}"
    for put in write.puts:
        if put.field == "context" or (write.agent == SHARED and put.field.startswith(CONTEXT)):
            return f"{put.field}: this name is reserved"
        try:
            for text in (put.field, put.text or "", put.by, put.old):
                text.isascii() or text.encode()
        except UnicodeEncodeError:
            return f"{put.field.encode('utf-8', 'backslashreplace').decode()}: not Unicode text"
    return ""


def _not_written(agent: str, answer: Any) -> Written:
    if isinstance(answer, RedisError):
        if of_the_store(answer):
            raise answer
        if of_the_state(answer):
            return Written(refused=unwritable(answer), later=True)
        return Written(refused=refusal(agent, answer))
    if answer[0] == -1:
        return Written(refused=f"{_text(answer[1])} was written by somebody else just now", foreign=True)
    if answer[0] == -2:
        return Written(refused=f"{_text(answer[1])}: a raw newline in a value")
    if answer[0] == -3:
        return Written(refused="it has no version, and the last one was not given", unknown_floor=True)
    return Written(refused="the server was too slow to take it in time", later=True)


def _whole(answers: list[Any], passes: Callable[[RedisError], bool] = lambda _: False) -> list[Any]:
    """The answers, if none is an error; those that `passes` are no answer at all."""
    for answer in answers:
        if isinstance(answer, RedisError) and not passes(answer):
            raise answer
    return answers


def _micros(told: Sequence[bytes]) -> int:
    """The answer to TIME, in µs."""
    return int(told[0]) * 1_000_000 + int(told[1])


def _hashes(
    names: Sequence[str], answers: Sequence[Any], problems: list[Problem]
) -> Iterable[tuple[str, dict[bytes, bytes], dict[bytes, bytes]]]:
    """Hash and sidecar of each agent, which belong together: one script reads both."""
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, int):
            key = keys_of(name)[answer - 1]
            hint = f"TYPE {key} tells what it is; RENAME it to keep it"
            problems.append(Problem(Place(key), "not a hash", hint, agent=name))
        else:
            yield name, _pairs(answer[0]), _pairs(answer[1])


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _message(fields: Any) -> bytes:
    """The message in an entry of a history; empty for somebody else's entry."""
    packed = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=False))
    return bytes(packed.get(b"event", b""))


def _event(message: bytes) -> Event | None:
    try:
        return read_event(message)
    except Foreign:
        return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
