"""Hearing from Redis: events on a channel, and invalidations of what somebody wrote.

Each is on a connection of its own, which is read as it comes, without the client's pub/sub: a half-open
connection must be noticed (DESIGN §8), one foreign byte must end nothing, and an event's way is one `recv`.
Nothing here is retried; a lost connection is StoreAway, and the caller listens again.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import hiredis
import redis
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError, NoPermissionError, RedisError, ResponseError, TimeoutError

from ..errors import StoreAway, StoreError
from ..events import CHANNEL, agent_channel
from ..state import SHARED, is_agent_name
from .cluster import masters, primaries, refresh
from .failures import of_the_state, said, translate
from .layout import AGENTS, agent_of, keys_of

SILENCE = 3.0
"""Seconds after which a silent connection is asked whether it lives."""
PATIENCE = 1.0
"""Seconds in which it must answer."""
EVENTS = "notify-keyspace-events"
_BUFFER = 1 << 18
_NOTHING = object()
_EMPTY = (BlockingIOError, socket.timeout, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def pools(client: Any) -> list[Any]:
    """Where connections come from: one pool for each server that takes writes. A cluster has several."""
    if not isinstance(client, redis.RedisCluster):
        return [client.connection_pool]
    refresh(client)
    return [server.connection_pool for server in primaries(client)]


def _any_line(client: Any) -> Line:
    """A line to the first server that takes one."""
    *others, last = pools(client)
    for pool in others:
        with suppress(RedisError):
            return Line(pool)
    return Line(last)


class Line:
    """One connection that is read as it comes. Every method raises RedisError; `close` may come from anywhere."""

    def __init__(self, pool: Any) -> None:
        # RESP2 whatever the client speaks: HELLO is sent by those who need it, after the client's own AUTH.
        self._connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 2})
        self.database = pool.connection_kwargs.get("db") or 0
        self._connection.connect()
        self._socket: Any = self._connection._sock
        self._reader: Any = hiredis.Reader(
            protocolError=ConnectionError, replyError=DefaultParser.parse_error, notEnoughData=_NOTHING
        )
        self._buffer = bytearray(_BUFFER)
        self._pid = os.getpid()
        self._pending: Callable[[], int] | None = getattr(self._socket, "pending", None)  # TLS reads ahead
        self._heard = time.monotonic()
        self._asked: list[float] = []
        self._lost: tuple[type[RedisError], str] | None = None
        """Why, as a kind and its text: an error that is kept would keep all that its traceback went through."""

    def send(self, *words: str) -> None:
        try:
            self._socket.settimeout(1.0)
            self._socket.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]  # its stub says one word
        except (OSError, ValueError) as error:
            raise self._end(f"the connection is lost: {error}") from None

    def ask(self) -> None:
        """PING; `answers` collects."""
        self._asked.append(time.monotonic())
        self.send("PING")

    def receive(self, timeout: float) -> list[Any]:
        """What the server sent, answers to PING left out, waiting at most `timeout` seconds for the first.

        Asks a connection that is silent for too long, and gives up one that does not answer.
        """
        until, wait = time.monotonic() + timeout, 0.0
        while True:
            found = self._read(wait)
            if found:
                return found
            now = time.monotonic()
            if not self._asked and now - self._heard >= SILENCE:
                self.ask()
            alarm = self._asked[0] + PATIENCE if self._asked else self._heard + SILENCE
            if self._asked and now >= alarm:
                raise self._silent()
            if now >= until:
                return []
            wait = min(until, alarm) - now

    def answers(self) -> list[Any]:
        """All that the server sent before its answer to every PING."""
        found: list[Any] = []
        while True:
            left = self._asked[0] + PATIENCE - time.monotonic() if self._asked else 0.0
            found += self._read(max(left, 0.0))
            if not self._asked:
                return found
            if left <= 0:
                raise self._silent()

    def answer(self, *words: str) -> Any:
        """One command's answer. Only for a line on which nothing else is said yet."""
        self.send(*words)
        until = time.monotonic() + 1.0
        while not (found := self.receive(max(until - time.monotonic(), 0))):
            if time.monotonic() >= until:
                raise self._end(f"no answer to {words[0]}", TimeoutError)
        if isinstance(found[0], RedisError):
            raise found[0]
        return found[0]

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def close(self) -> None:
        self._end("it was closed here")

    def _read(self, wait: float) -> list[Any]:
        """Everything at hand, but no more than the buffer holds, waiting so long for the first; a lost connection
        is told only when all is given."""
        self._check()
        found: list[Any] = []
        try:
            self._socket.settimeout(wait)
            size = self._socket.recv_into(self._buffer)
            while size:
                self._reader.feed(self._buffer, 0, size)
                if not (self._pending and self._pending()):
                    break
                size = self._socket.recv_into(self._buffer)
            else:
                self._end("the server closed the connection")
        except _EMPTY:
            pass
        except (OSError, ValueError) as error:
            self._end(f"the connection is lost: {error}")
        else:
            self._heard = time.monotonic()
        self._parse(found)
        if not found:
            self._check()
        return found

    def _parse(self, found: list[Any]) -> None:
        try:
            while (message := self._reader.gets()) is not _NOTHING:
                if _is_pong(message):
                    self._asked = self._asked[1:]
                else:
                    found.append(message)
        except RedisError as error:  # not RESP: whoever speaks there is no Redis any more
            self._end(str(error))

    def _silent(self) -> RedisError:
        return self._end(f"no answer to PING within {PATIENCE} s")

    def _end(self, reason: str, kind: type[RedisError] = ConnectionError) -> RedisError:
        self._lost = kind, reason = self._lost or (kind, reason)
        with suppress(OSError, ValueError):
            if os.getpid() == self._pid:  # a child's copy must not end its parent's
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits there
        with suppress(OSError, RedisError):
            self._connection.disconnect()
        return kind(reason)

    def _check(self) -> None:
        if self._lost is not None:
            kind, reason = self._lost
            raise kind(reason)


def _is_pong(message: Any) -> bool:
    """Also where a server that cannot write to its disk refuses PING."""
    if isinstance(message, RedisError):
        return of_the_state(message)
    return message == b"PONG" or (isinstance(message, list) and message[:1] == [b"pong"])


class RedisChannel:
    """`Channel`: SUBSCRIBE on one line. Where the client is a cluster any node will do: it hears of all."""

    def __init__(self, client: Any, name: str, agents: Sequence[str] = ()) -> None:
        self._name = name
        self._waiting: list[bytes] = []
        self._line = translate(lambda: _any_line(client), name)
        try:
            translate(lambda: self._subscribe([agent_channel(agent) for agent in agents] or [CHANNEL]), name)
        except BaseException:
            self.close()
            raise

    def _subscribe(self, channels: Sequence[str]) -> None:
        """Until every channel is confirmed; what comes meanwhile is kept."""
        self._line.send("SUBSCRIBE", *channels)
        missing = {channel.encode() for channel in channels}
        until = time.monotonic() + 1.0
        while missing:
            for message in self._line.receive(max(until - time.monotonic(), 0)):
                if isinstance(message, RedisError):
                    raise message
                if message[0] == b"subscribe":
                    missing.discard(message[1])
                else:
                    self._waiting += _payload(message)
            if missing and time.monotonic() >= until:
                raise TimeoutError("SUBSCRIBE was not answered")

    def receive(self, timeout: float) -> list[bytes]:
        if self._waiting:
            found, self._waiting = self._waiting, []
            return found
        try:
            return [text for message in self._line.receive(timeout) for text in _payload(message)]
        except RedisError as error:
            raise said(error, self._name) from None

    def close(self) -> None:
        self._line.close()


def _payload(message: Any) -> Iterable[bytes]:
    if isinstance(message, RedisError):
        raise message
    return message[2:] if message[0] == b"message" else ()


class RedisTracking:
    """`Tracking`: the server says which keys were written, on one line for each server that takes writes.

    To begin raises RedisError, and StoreError for what the server does not allow.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name = client, name
        self._lines: list[Line] = []
        self._looked, self._masters = time.monotonic(), self._who_serves()
        self._begin()

    def _begin(self) -> None:
        try:
            for pool in pools(self._client):
                self._lines.append(Line(pool))
                self._start(self._lines[-1])
        except BaseException:
            self.close()
            raise

    def _start(self, line: Line) -> None:
        try:
            line.answer("HELLO", "3")
            # Not NOLOOP, and no matter: this process writes on other connections, and must hear of that too.
            line.answer("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", AGENTS, "PREFIX", keys_of(SHARED).hash)
        except ResponseError as error:
            raise _cannot("CLIENT TRACKING", error, self._name) from None

    def receive(self, timeout: float) -> frozenset[str] | None:
        try:
            found = self._barrier() if timeout <= 0 else self._listen(timeout)
            keys = [key for message in found for key in self._keys(message)]
        except RedisError as error:
            raise said(error, self._name) from None
        return None if None in keys else frozenset(agent for key in keys if (agent := _agent(key)))

    def _who_serves(self) -> frozenset[tuple[str, int]]:
        """The masters of a cluster. A new one has no line: then all must begin again."""
        if not isinstance(self._client, redis.RedisCluster):
            return frozenset()
        return masters(self._client)

    def _look(self) -> None:
        now = time.monotonic()
        if self._masters and now - self._looked >= 1:
            self._looked = now
            if self._who_serves() != self._masters:
                raise ConnectionError("other nodes of the cluster serve its slots now")

    def _barrier(self) -> list[Any]:
        """All that had happened when the servers were asked; they are asked together."""
        self._look()
        for line in self._lines:
            line.ask()
        return [message for line in self._lines for message in line.answers()]

    def _listen(self, timeout: float) -> list[Any]:
        if len(self._lines) == 1:
            return self._lines[0].receive(timeout)
        until = time.monotonic() + timeout
        while True:
            self._look()
            found = [message for line in self._lines for message in line.receive(0)]
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            _wait_for_any(self._lines, min(left, PATIENCE / 2))

    def _keys(self, message: Any) -> Iterator[bytes | None]:
        """The keys of one message, None for all of them."""
        if isinstance(message, RedisError):
            raise message
        if isinstance(message, list) and message[0] == b"invalidate":
            yield from message[1] if message[1] is not None else (None,)

    def close(self) -> None:
        for line in self._lines:
            line.close()


class RedisKeyspace(RedisTracking):
    """`Tracking` from keyspace events, where the server's rights do not allow tracking.

    A flush makes no such event: `epoch`, which a flush takes away, is compared each time.
    """

    def __init__(self, client: Any, name: str, epoch: Callable[[], str]) -> None:
        self._epoch, self._known = epoch, epoch()
        super().__init__(client, name)

    def _start(self, line: Line) -> None:
        try:
            flags = "".join(part.decode() for part in line.answer("CONFIG", "GET", EVENTS)[1:])
        except ResponseError as error:
            raise _cannot("CONFIG GET", error, self._name) from None
        if "K" not in flags or not ("A" in flags or {"h", "g", "x"} <= set(flags)):
            raise _cannot(EVENTS, ResponseError("it lacks KA"), self._name)
        start = f"__keyspace@{line.database}__:"
        line.answer("PSUBSCRIBE", f"{start}{AGENTS}*")
        line.answer("PSUBSCRIBE", start + keys_of(SHARED).hash)

    def _keys(self, message: Any) -> Iterator[bytes | None]:
        if isinstance(message, RedisError):
            raise message
        if message[0] == b"pmessage":
            yield message[2].partition(b"__:")[2]

    def receive(self, timeout: float) -> frozenset[str] | None:
        found = super().receive(timeout)
        now = self._epoch()
        same = now and now == self._known
        self._known = now
        return found if same else None


def track(client: Any, name: str, epoch: Callable[[], str]) -> RedisTracking:
    """Hear of writes by the best means that the server allows. Raises RedisError, StoreError.

    The server's configuration is never changed. `epoch` reads the mark that a flush takes away.
    """
    try:
        return RedisTracking(client, name)
    except StoreError as first:
        try:
            return RedisKeyspace(client, name, epoch)
        except StoreAway:
            raise
        except StoreError as second:
            raise StoreError(f"{first.message}, {second.message.partition(': ')[2]}", hint=first.hint) from None


def _cannot(what: str, reason: RedisError, name: str) -> StoreError:
    why = "is forbidden" if isinstance(reason, NoPermissionError) else f"fails: {reason}".strip().rstrip(".")
    hint = "ACL SETUSER must allow CLIENT|TRACKING, or CONFIG GET and CONFIG SET notify-keyspace-events KA"
    return StoreError(f"{name} does not tell of writes: {what} {why}", hint=hint)


def _agent(key: bytes | None) -> str | None:
    """The agent of a key; None where nobody can be called so."""
    name = agent_of((key or b"").decode("utf-8", "replace"))
    return name if name == SHARED or (name is not None and is_agent_name(name)) else None


def _wait_for_any(lines: Iterable[Line], seconds: float) -> None:
    poll = select.poll()
    for line in lines:
        with suppress(OSError, ValueError):
            poll.register(line, select.POLLIN)
    poll.poll(seconds * 1_000)
