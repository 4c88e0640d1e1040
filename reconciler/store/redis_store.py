"""Live memory in Redis or Valkey: the only module that knows the client.

Nobody blocks: connecting takes at most 0.25 s, a command 1 s, nothing is retried inside the client
(DESIGN §8). What is temporary becomes StoreAway, what is not StoreError; the caller decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from ..errors import Place, Problem, StoreAway, StoreError
from ..events import CHANNEL, Event, read_event
from ..state import SHARED, State, is_agent_name
from . import Live, LiveAgent, Write, Written
from .layout import agent_of, arguments, keys_of, read_agent

SCRIPT = (Path(__file__).parent / "write.lua").read_text(encoding="utf-8")
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
PUBLISHED_PASSWORD = "changeme-02luka"
CHUNK = 500
HUB = "memory:hub"
SCHEMA_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the write script needs to know: max skew in µs, history length, seconds tombstones are kept."""

    max_skew: int = 60_000_000
    history: int = 1_000
    tombstones: int = 30 * 86_400


class RedisStore:
    """A LiveStore over one redis-py client. `origin` names this writer in events."""

    def __init__(self, client: redis.Redis, origin: str, limits: Limits | None = None, name: str = "redis") -> None:
        self.client, self.origin, self.limits, self.name = client, origin, limits or Limits(), name

    def observe(self, base: State, agents: Iterable[str] | None = None) -> Live:
        return self._call(lambda: self._observe(base, agents))

    def _observe(self, base: State, agents: Iterable[str] | None) -> Live:
        seconds, micros = self.client.time()
        now = int(seconds) * 1_000_000 + int(micros)
        epoch = self.client.hget(HUB, "epoch")
        problems: list[Problem] = []
        names = sorted(set(self._names(problems)) if agents is None else set(agents))
        found: dict[str, LiveAgent] = {}
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            for name, raw_hash, sidecar in self._read_chunk(chunk, problems):
                if raw_hash or sidecar:
                    found[name], more = read_agent(name, raw_hash, sidecar, base.get(name, {}), now)
                    problems += more
        return Live(True, now, _text(epoch), found, tuple(problems))

    def _names(self, problems: list[Problem]) -> Iterable[str]:
        """The agents that have a hash or a sidecar; illegal names are reported and left alone."""
        for key in self.client.scan_iter(match="memory:*", count=2_000):
            text = key.decode("utf-8", "backslashreplace")
            name = agent_of(text)
            if name is None:
                continue
            if name == SHARED or is_agent_name(name):
                yield name
            elif text.startswith("memory:agents:"):
                hint = "names are letters, digits, dot, dash and underscore; RENAME or DEL the key"
                problems.append(Problem(Place(text), "not a legal agent name", hint))

    def _read_chunk(
        self, names: Sequence[str], problems: list[Problem]
    ) -> Iterable[tuple[str, dict[bytes, bytes], dict[bytes, bytes]]]:
        """Hash and sidecar of each agent, read in one transaction so that they belong together."""
        pipe = self.client.pipeline(transaction=True)
        for name in names:
            pipe.hgetall(keys_of(name).hash)
            pipe.hgetall(keys_of(name).sidecar)
        answers = pipe.execute(raise_on_error=False)
        for index, name in enumerate(names):
            pair = answers[2 * index : 2 * index + 2]
            wrong = next((answer for answer in pair if isinstance(answer, RedisError)), None)
            if wrong is None:
                yield name, pair[0], pair[1]
            elif "WRONGTYPE" in str(wrong):
                key = keys_of(name).hash if wrong is pair[0] else keys_of(name).sidecar
                hint = f"TYPE {key} tells what it is; RENAME it to keep it"
                problems.append(Problem(Place(key), "not a hash", hint, agent=name))
            else:
                raise wrong

    def write(self, writes: Sequence[Write]) -> list[Written]:
        found: list[Written] = []
        for start in range(0, len(writes), CHUNK):
            chunk = writes[start : start + CHUNK]
            found += self._call(partial(self._write_chunk, chunk))
        return found

    def _write_chunk(self, writes: Sequence[Write]) -> list[Written]:
        commands = [self._command(write) for write in writes]
        answers = self._send(commands)
        missing = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missing:
            self.client.script_load(SCRIPT)
            for index, answer in zip(missing, self._send([commands[i] for i in missing]), strict=True):
                answers[index] = answer
        return [_written(answer) for answer in answers]

    def _send(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        pipe: Any = self.client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(pipe.execute(raise_on_error=False))

    def _command(self, write: Write) -> tuple[str, ...]:
        keys, limits = keys_of(write.agent), self.limits
        seen = [part for name, text in write.seen.items() for part in (name, *text)]
        every = ("", "a", "", "", self.origin, "") if write.everything else ()
        return (
            "EVALSHA", SCRIPT_SHA, "3", keys.hash, keys.sidecar, keys.history,
            CHANNEL, write.agent, write.event, self.origin,
            str(limits.max_skew), str(limits.history), str(write.floor), str(limits.tombstones),
            str(len(write.seen)), *seen, *every, *arguments(write.puts),
        )  # fmt: skip

    def history(self, agent: str, count: int) -> list[Event]:
        client: Any = self.client
        entries = self._call(lambda: client.xrevrange(keys_of(agent).history, count=count))
        return [read_event(fields[b"event"]) for _, fields in entries if b"event" in fields]

    def publish(self, event: Event) -> int:
        def say() -> int:
            self.client.publish(f"{CHANNEL}:{event.agent}", event.text)
            return int(self.client.publish(CHANNEL, event.text))

        return self._call(say)

    def start_epoch(self, epoch: str) -> str:
        def mark() -> str:
            pipe = self.client.pipeline(transaction=True)
            pipe.hsetnx(HUB, "epoch", epoch)
            pipe.hsetnx(HUB, "schema", SCHEMA_VERSION)
            pipe.hget(HUB, "epoch")
            return _text(pipe.execute()[-1])

        return self._call(mark)

    def close(self) -> None:
        self.client.close()

    def _call(self, work: Callable[[], T]) -> T:
        return translate(work, self.name)


def translate(work: Callable[[], T], name: str) -> T:
    """Run some client calls and say their failures in this program's words: temporary or permanent."""
    try:
        return work()
    except AuthenticationError as error:
        raise StoreError(
            f"{name} refuses the password: {_first(error)}",
            hint="set REDIS_PASSWORD or put it into REDIS_URL",
        ) from None
    except NoPermissionError as error:
        raise StoreError(
            f"{name} forbids a command: {_first(error)}",
            hint="ACL SETUSER must allow it and the keys memory:*",
        ) from None
    except (BusyLoadingError, TimeoutError, ConnectionError) as error:
        if isinstance(error, InvalidResponse) or _is_foreign(error):
            raise _not_redis(name) from None
        raise StoreAway(f"{name} is away: {_first(error)}", hint="is the server running?") from None
    except InvalidResponse:
        raise _not_redis(name) from None
    except ReadOnlyError:
        raise StoreError(f"{name} is a read-only replica", hint="give the address of its master") from None
    except ResponseError as error:
        if "NOAUTH" in str(error):
            raise StoreError(f"{name} asks for a password", hint="set REDIS_PASSWORD") from None
        raise StoreError(f"{name} refuses: {_first(error)}") from None
    except RedisError as error:
        raise StoreError(f"{name}: {_first(error)}") from None


def _is_foreign(error: Exception) -> bool:
    return "Protocol" in str(error) or "Protocol" in str(error.__cause__ or "")


def _not_redis(name: str) -> StoreError:
    return StoreError(f"{name} answers, but not as Redis does", hint="is the address and the port right?")


def _written(answer: Any) -> Written:
    if isinstance(answer, TimeoutError | ConnectionError):
        raise answer
    if isinstance(answer, Exception):
        return Written(refused=_first(answer))
    if answer[0] == -1:
        return Written(refused=f"{_text(answer[1])} was written by somebody else just now", foreign=True)
    if answer[0] == -2:
        return Written(refused=f"{_text(answer[1])}: a raw newline in a value")
    return Written(int(answer[0]), int(answer[1]), _text(answer[2]), int(answer[3]))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def connect(url: str, password: str | None, warn: Callable[[str], None]) -> redis.Redis:
    """A client for a URL, with its password found out (DESIGN §3). Raises StoreAway, StoreError.

    `password` is used when the URL has none. A server that has no password is accepted although one is
    configured; one that asks, with none configured, is offered the published one, with a warning.
    """
    name = public_name(url)
    client = _client(url, password)
    try:
        translate_auth(client, name)
    except _NoPasswordNeeded:
        client.close()
        client = _client(_without_password(url), None)
        translate(client.ping, name)
        warn(f"{name} has no password although one is configured; it was used without")
    except _PasswordMissing:
        client.close()
        client = _client(url, PUBLISHED_PASSWORD)
        translate(client.ping, name)
        warn(f"{name} accepts the published default password; set another one (requirepass)")
    return client


class _NoPasswordNeeded(Exception):
    pass


class _PasswordMissing(Exception):
    pass


def translate_auth(client: redis.Redis, name: str) -> None:
    """PING, telling apart the two password cases that `connect` mends."""
    try:
        client.ping()
    except RedisError as error:
        text = str(error)
        if "without any password configured" in text or "no password is set" in text:
            raise _NoPasswordNeeded from None
        if "NOAUTH" in text or "Authentication required" in text:
            raise _PasswordMissing from None
        translate(_raiser(error), name)


def _raiser(error: Exception) -> Callable[[], None]:
    def again() -> None:
        raise error

    return again


def _client(url: str, password: str | None) -> redis.Redis:
    options: dict[str, Any] = {"password": password} if password and not urlsplit(url).password else {}
    try:
        return redis.Redis.from_url(
            url,
            socket_connect_timeout=0.25,
            socket_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
            **options,
        )
    except ValueError as error:
        raise StoreError(f"{public_name(url)}: {_first(error)}", hint="redis://host:port/0") from None


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def public_name(url: str) -> str:
    """A URL as it may be shown: without user and password, also in its query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
