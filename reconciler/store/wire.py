"""Many commands, one round trip: on one connection to a server, or through the client of a cluster.

The client's own pipeline costs more than the server's work; here a command is packed once and sent. A connection
on which anything went wrong in between is closed, so that nobody ever reads an answer that was meant for another.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import redis
from hiredis import Reader, pack_command
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError, InvalidResponse, NoScriptError, RedisError, ResponseError

from ..stamp import format_time
from .cluster import Command, exchange_with_cluster, primaries, refresh

Client = redis.Redis | redis.RedisCluster
__all__ = ["Client", "Command", "Wire"]
_MORE = object()
NOT_AFTER: Final = b"the moment at which its caller will have given up"
"""As the last word of a command: that moment takes its place, by the server's clock, or "" if the caller waits for
ever. The script that takes it answers with the server's time in its second and third part, and does nothing when
it is past: a server that hung has the commands of callers who went elsewhere still before it.
"""
_pack = cast(Callable[[Command], bytes], pack_command)  # its own types know one argument only
LEAST = 4_096
"""Bytes of an answer in each second that its caller waits, or the server is as good as away: where they trickle, no
wait for the next ones ever ends, and the whole may take hours."""
_WITH_ITS_TEXT = {"EVALSHA": "EVAL", "EVALSHA_RO": "EVAL_RO"}


class Wire:
    """One client's connections. Safe to share between threads and with a forked child."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.scattered = isinstance(client, redis.RedisCluster)
        """Whether the keys are on several servers, and may move from one to another."""
        self._pool: Any = None if isinstance(client, redis.RedisCluster) else client.connection_pool
        self._nodes: dict[redis.Redis, Wire] = {}
        self._lines: list[_Line] = []
        self._slow: WeakKeyDictionary[Any, _Slow] = WeakKeyDictionary()
        self._pid = os.getpid()
        # With Sentinel each answer and each return to the pool asks whether the master is still the same.
        self._plain = type(self._pool) is redis.ConnectionPool

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The answer to each command, the server's errors included. Raises RedisError when the connection fails."""
        if not commands:
            return []
        if self.scattered:
            return exchange_with_cluster(cast(redis.RedisCluster, self.client), commands, self._with_node)
        line = self._take()
        try:
            answers = line.ask(commands)
        except BaseException:  # a timeout or Ctrl-C too: the rest of the answers is still on its way
            line.connection.disconnect()
            self._pool.release(line.connection)
            raise
        if type(line) is not _Line:
            self._pool.release(line.connection)
        elif self._pid == os.getpid():
            self._lines.append(line)
        return answers

    def _with_node(self, client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
        wire = self._nodes.get(client) or self._nodes.setdefault(client, Wire(client))
        return wire.exchange(commands)

    def _take(self) -> _Line | _Slow:
        if self._pid != os.getpid():  # forked: these connections are the parent's
            self._lines, self._pid = [], os.getpid()
        while self._lines:
            try:
                line = self._lines.pop()
            except IndexError:  # another thread took the last one
                break
            if line.quiet():
                return line
            line.connection.disconnect()
            self._pool.release(line.connection)
        connection = self._pool.get_connection()
        if self._plain and type(connection._sock) is socket.socket:  # TLS asks again where the kernel's wait is over
            return _Line(connection)
        slow = self._slow.get(connection)
        if slow is None or slow.socket is not getattr(connection, "_sock", None):
            slow = self._slow[connection] = _Slow(connection)
        return slow

    def run_script(self, script: str, commands: Sequence[Command]) -> list[Any]:
        """As `exchange`, for EVALSHA of one script; a server that does not know it is taught, and asked again."""
        answers = self.exchange(commands)
        if NoScriptError not in map(type, answers):
            return answers
        for server in self._servers():
            server.script_load(script)
        self._again(commands, answers, _unknown(answers))
        missing = _unknown(answers)
        if missing:  # a slot moved meanwhile, to a node that was not known: the script goes with the command
            whole = list(commands)
            for index in missing:
                name, _, *rest = commands[index]
                whole[index] = (_WITH_ITS_TEXT[str(name)], script, *rest)
            self._again(whole, answers, missing)
        return answers

    def _again(self, commands: Sequence[Command], answers: list[Any], missing: Sequence[int]) -> None:
        for index, answer in zip(missing, self.exchange([commands[index] for index in missing]), strict=True):
            answers[index] = answer

    def keys_like(self, pattern: str) -> Iterator[bytes]:
        """Every key of that pattern, some more than once."""
        ends: list[Callable[[Sequence[Command]], list[Any]]] = [self.exchange]
        if isinstance(self.client, redis.RedisCluster):
            refresh(self.client)  # a node that joined since holds keys too
            ends = [partial(self._with_node, server) for server in self._servers()]
        for exchange in ends:
            cursor = b"0"
            while True:
                cursor, keys = _whole(exchange([("SCAN", cursor, "MATCH", pattern, "COUNT", "2000")])[0])
                yield from keys
                if int(cursor) == 0:
                    break

    def _servers(self) -> list[redis.Redis]:
        """A client of each server that takes writes."""
        return primaries(self.client) if isinstance(self.client, redis.RedisCluster) else [self.client]


def _unknown(answers: Sequence[Any]) -> list[int]:
    """Which commands were refused because the server does not know the script."""
    return [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]


class _Asker(ABC):
    """A connection that knows the server's clock.

    The clock is taken to be where it was when an answer told it, which is a little behind: a write may be refused
    while its caller still waits, and is never made when he does not.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        wait = getattr(connection, "socket_timeout", None)
        self._wait = 0 if wait is None else int(wait * 1_000_000)
        self._ahead = self._told = 0
        """How far the server's clock is ahead of ours, and when it said so (0 for never), in µs."""
        self._minute, self._begins = 0, ""

    @abstractmethod
    def exchange(self, packed: bytes, count: int) -> list[Any]:
        """Send, and read so many answers."""

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answer to each command; those that end with NOT_AFTER are given that moment."""
        for command in commands:
            if command[-1] is NOT_AFTER:
                break
        else:
            return self._send(commands, "")
        if not self._wait:
            return self._send(commands, "")
        begun = time.monotonic_ns() // 1000
        if not self._told:
            self._hear(_whole(self._send([("TIME",)], "")[0]))
        answers = self._send(commands, self._moment(begun))
        last = answers[-1]
        if type(last) is list and len(last) > 2:
            if last[0] == -4 and time.monotonic_ns() // 1000 - begun < self._wait // 2:
                self._ask_again(commands, answers, begun)
            elif begun - self._told > 100_000:
                self._hear(last[1:3])
        return answers

    def _ask_again(self, commands: Sequence[Command], answers: list[Any], begun: int) -> None:
        """Nobody hung, and yet it was too late: one of the clocks was set, or this machine slept."""
        self._hear(answers[-1][1:3])
        late = [index for index, answer in enumerate(answers) if type(answer) is list and answer[0] == -4]
        again = self._send([commands[index] for index in late], self._moment(begun))
        for index, answer in zip(late, again, strict=True):
            answers[index] = answer

    def _moment(self, begun: int) -> str:
        """The moment, and the minute of the server's clock as the script takes it."""
        now = begun + self._ahead
        if not 0 <= now - self._minute < 60_000_000:
            self._minute = now - now % 60_000_000
            self._begins = f" {self._minute // 1_000_000} {format_time(self._minute)[:17]}"
        return f"{now + self._wait}{self._begins}"

    def _send(self, commands: Sequence[Command], moment: str) -> list[Any]:
        packed = [_pack((*command[:-1], moment) if command[-1] is NOT_AFTER else command) for command in commands]
        return self.exchange(b"".join(packed), len(commands))

    def _hear(self, answer: Sequence[Any]) -> None:
        """The server's time in an answer that arrived just now."""
        self._told = time.monotonic_ns() // 1000
        self._ahead = int(answer[0]) * 1_000_000 + int(answer[1]) - self._told


def _whole(answer: Any) -> Any:
    if isinstance(answer, RedisError):
        raise answer
    return answer


class _Line(_Asker):
    """A connection that stays out of the pool, and is read without the client: both cost more than a write."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._socket: socket.socket = connection._sock
        self._reader = Reader(protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_MORE)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        _wait_in_the_kernel(self._socket)

    def quiet(self) -> bool:
        """Whether it lies as it was left: one that can be read was closed by the server, or is out of step."""
        return self.connection._sock is self._socket and not self._poll.poll(0)

    def exchange(self, packed: bytes, count: int) -> list[Any]:
        answers: list[Any] = []
        gets = self._reader.gets
        try:
            self._socket.sendall(packed)
            came, until = 0, time.monotonic_ns() // 1000 + self._wait
            while len(answers) < count:
                data = self._socket.recv(65_536)
                if not data:
                    raise ConnectionError("Connection closed by server")
                self._reader.feed(data)
                while (answer := gets()) is not _MORE:
                    if isinstance(answer, ConnectionError):  # of the connection, not of a command: LOADING, NOAUTH
                        raise answer
                    answers.append(answer)
                if len(answers) < count and self._wait:
                    came += len(data)
                    if time.monotonic_ns() // 1000 > until and not self._poll.poll(0):
                        if came < LEAST:
                            raise redis.TimeoutError("Timeout: the server's answer only trickles")
                        came, until = 0, until + self._wait
            if len(answers) > count:
                raise ConnectionError("The server answered more than it was asked")
            return answers
        except (TimeoutError, BlockingIOError):
            raise redis.TimeoutError("Timeout reading from the server") from None
        except OSError as error:
            raise ConnectionError(str(error)) from None


def _wait_in_the_kernel(sock: socket.socket) -> None:
    """The same timeout without Python's poll() before each sending and receiving, which cost as much as the call."""
    timeout = sock.gettimeout()
    if timeout:
        seconds, micros = divmod(round(timeout * 1_000_000), 1_000_000)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", seconds, micros))
        sock.settimeout(None)


class _Slow(_Asker):
    """A connection of any other kind, through the client."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self.socket = getattr(connection, "_sock", None)

    def exchange(self, packed: bytes, count: int) -> list[Any]:
        self.connection.send_packed_command([packed])
        return [self._answer() for _ in range(count)]

    def _answer(self) -> Any:
        try:
            return self.connection.read_response()
        except ResponseError as error:
            return error
