"""Live memory in Redis or Valkey: with `failures`, the only module that knows the client.

Nobody blocks: connecting takes at most 0.25 s, a command 1 s, nothing is retried inside the client
(DESIGN §8). What is temporary becomes StoreAway, what is not StoreError; the caller decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError
from redis.retry import Retry

from ..errors import Place, Problem, StoreError
from ..events import CHANNEL, Event, Foreign, agent_channel, read_event
from ..state import CONTEXT, SHARED, State, is_agent_name
from . import Live, LiveAgent, Write, Written
from .failures import asks, needs_none, of_the_store, refusal, said, translate
from .layout import AGENTS, agent_of, arguments, keys_of, read_agent

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
        for key in sorted(set(self.client.scan_iter(match="memory:*", count=2_000))):
            text = key.decode("utf-8", "backslashreplace")
            name = agent_of(text)
            if name is None:
                continue
            if is_agent_name(name) or text in keys_of(SHARED):
                yield name
            elif text.startswith(AGENTS):
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
        unfit = {index: reason for index, write in enumerate(writes) if (reason := _unfit(write))}
        commands = {index: self._command(write) for index, write in enumerate(writes) if index not in unfit}
        answers = self._send(commands)
        missing = {index: commands[index] for index, answer in answers.items() if isinstance(answer, NoScriptError)}
        if missing:
            self.client.script_load(SCRIPT)
            answers |= self._send(missing)
        return [
            Written(refused=unfit[index]) if index in unfit else _written(write.agent, answers[index])
            for index, write in enumerate(writes)
        ]

    def _send(self, commands: Mapping[int, tuple[str, ...]]) -> dict[int, Any]:
        """Each command's answer, errors included, from one round trip."""
        pipe: Any = self.client.pipeline(transaction=False)
        for command in commands.values():
            pipe.execute_command(*command)
        return dict(zip(commands, pipe.execute(raise_on_error=False), strict=True))

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
        found = []
        for _, fields in entries:
            with suppress(Foreign):  # somebody else's entry
                found.append(read_event(fields.get(b"event", b"")))
        return found

    def publish(self, event: Event) -> int:
        text = event.text

        def say() -> int:
            pipe = self.client.pipeline(transaction=False)
            pipe.publish(agent_channel(event.agent), text)
            pipe.publish(CHANNEL, text)
            return int(pipe.execute()[-1])

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


def _unfit(write: Write) -> str:
    """Why a write cannot even be sent; "" if it can."""
    for put in write.puts:
        if put.field == "context" or (write.agent == SHARED and put.field.startswith(CONTEXT)):
            return f"{put.field}: this name is reserved"
        try:
            f"{put.field}{put.text}{put.by}{put.old}".encode()
        except UnicodeEncodeError:
            return f"{put.field.encode('utf-8', 'backslashreplace').decode()}: not Unicode text"
    return ""


def _written(agent: str, answer: Any) -> Written:
    if isinstance(answer, RedisError):
        if of_the_store(answer):
            raise answer
        return Written(refused=refusal(agent, answer))
    if answer[0] == -1:
        return Written(refused=f"{_text(answer[1])} was written by somebody else just now", foreign=True)
    if answer[0] == -2:
        return Written(refused=f"{_text(answer[1])}: a raw newline in a value")
    return Written(int(answer[0]), int(answer[1]), _text(answer[2]), int(answer[3]))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def connect(url: str, password: str | None, warn: Callable[[str], None]) -> redis.Redis:
    """A client for a URL, with its password found out (DESIGN §3). Raises StoreAway, StoreError.

    `password` is used when the URL has none. A server that has no password is accepted although one is
    configured; one that asks, with none configured, is offered the published one, with a warning.
    """
    name = public_name(url)
    client = _client(url, password)
    first = _ping(client)
    if first is None:
        return client
    client.close()
    if needs_none(first):
        client = _client(_without_password(url), None)
        warning = f"{name} has no password although one is configured; it was used without"
    elif asks(first):
        client = _client(url, PUBLISHED_PASSWORD)
        warning = f"{name} accepts the published default password; set another one (requirepass)"
    else:
        raise said(first, name)
    second = _ping(client)
    if second is not None:
        client.close()
        raise said(first if isinstance(second, AuthenticationError) else second, name)
    warn(warning)
    return client


def _ping(client: redis.Redis) -> RedisError | None:
    try:
        client.ping()
    except RedisError as error:
        return error
    return None


def _client(url: str, password: str | None) -> redis.Redis:
    try:
        return redis.Redis.from_url(
            url,
            password=password,  # one in the URL is stronger
            protocol=2,  # HELLO takes any password where none is needed: nobody would notice
            socket_connect_timeout=0.25,
            socket_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
    except ValueError:  # its own words may quote a password with an unescaped slash in it
        hint = "redis://:password@host:6379/0, rediss://..., unix:///path; write a / in a password as %2F"
        raise StoreError(f"{public_name(url)} is not an address of Redis", hint=hint) from None


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] not in ("username", "password")])
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}?{query}"


def public_name(url: str) -> str:
    """A URL as it may be shown: without user, password and query, also where they are not well written."""
    scheme, rest = url.split("://", 1) if "://" in url else ("redis", url)
    user = rest.partition("/")[0] if scheme == "unix" else rest
    return f"{scheme}://{rest[user.rfind('@') + 1 :].partition('?')[0]}"
