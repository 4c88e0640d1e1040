"""Many commands, one round trip: on one connection to a server, or through the client of a cluster.

The client's own pipeline costs more than the server's work; here a command is packed once and sent. A connection
on which anything went wrong in between is closed, so that nobody ever reads an answer that was meant for another.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import redis
from hiredis import Reader, pack_command
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError, InvalidResponse, NoScriptError, RedisError, ResponseError

from .cluster import Command, exchange_with_cluster, primaries, refresh

Client = redis.Redis | redis.RedisCluster
__all__ = ["Client", "Command", "Wire"]
_MORE = object()
NOT_AFTER: Final = b"the moment at which its caller will have given up"
"""As the last word of a command: that moment takes its place, in µs of the server's clock, or "" if the caller waits
for ever. The script that takes it answers with the server's time in its second and third part, and does nothing when
it is past: a server that hung has the commands of callers who went elsewhere still before it.
"""
_pack = cast(Callable[[Command], bytes], pack_command)  # its own types know one argument only
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
            if commands[0][-1] is NOT_AFTER or any(command[-1] is NOT_AFTER for command in commands):
                answers = _in_time(line, commands)
            else:
                answers = line.exchange(b"".join([_pack(command) for command in commands]), len(commands))
        except BaseException:  # a timeout or Ctrl-C too: the rest of the answers is still on its way
            line.connection.disconnect()
            self._pool.release(line.connection)
            raise
        if self._plain and type(line) is _Line and self._pid == os.getpid():
            self._lines.append(line)
        else:
            self._pool.release(line.connection)
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
        if self._plain and isinstance(connection._sock, socket.socket):
            return _Line(connection)
        slow = self._slow.get(connection)
        if slow is None or slow.socket is not getattr(connection, "_sock", None):
            slow = self._slow[connection] = _Slow(connection)
        return slow

    def run_script(self, script: str, commands: Sequence[Command]) -> list[Any]:
        """As `exchange`, for EVALSHA of one script; a server that does not know it is taught, and asked again."""
        answers = self.exchange(commands)
        missing = _unknown(answers)
        if missing:
            for server in self._servers():
                server.script_load(script)
            self._again(commands, answers, missing)
        missing = _unknown(answers)
        if missing:  # a slot moved meanwhile, to a node that was not known: the script goes with the command
            whole = [(_WITH_ITS_TEXT[str(name)], script, *rest) for name, _, *rest in commands]
            self._again(whole, answers, missing)
        return answers

    def _again(self, commands: Sequence[Command], answers: list[Any], missing: Sequence[int]) -> None:
        for index, answer in zip(missing, self.exchange([commands[index] for index in missing]), strict=True):
            answers[index] = answer

    def keys_like(self, pattern: str) -> Iterator[bytes]:
        """Every key of that pattern, some more than once."""
        if isinstance(self.client, redis.RedisCluster):
            refresh(self.client)  # a node that joined since holds keys too
        for server in self._servers():
            yield from server.scan_iter(match=pattern, count=2_000)

    def _servers(self) -> list[redis.Redis]:
        """A client of each server that takes writes."""
        return primaries(self.client) if isinstance(self.client, redis.RedisCluster) else [self.client]


def _unknown(answers: Sequence[Any]) -> list[int]:
    """Which commands were refused because the server does not know the script."""
    return [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]


def _in_time(line: _Line | _Slow, commands: Sequence[Command]) -> list[Any]:
    """As `line.exchange`, with the moment in its place.

    The server's clock is taken to be where it was when its last answer arrived, which is a little behind: a write may
    be refused while its caller still waits, and is never made when he does not.
    """
    wait, moment = getattr(line.connection, "socket_timeout", None), ""
    if wait is not None:
        if line.clock is None:
            line.clock = _ahead(line.exchange(_pack(("TIME",)), 1)[0])
        moment = str(_now() + line.clock + int(wait * 1_000_000))
    packed = [_pack((*command[:-1], moment) if command[-1] is NOT_AFTER else command) for command in commands]
    answers = line.exchange(b"".join(packed), len(commands))
    last = answers[-1]
    if isinstance(last, list) and len(last) > 2:
        line.clock = _ahead(last[1:3])
    return answers


def _now() -> int:
    return time.monotonic_ns() // 1000


def _ahead(answer: Any) -> int:
    """How far the server's clock is ahead of ours, in µs, by its time in an answer that arrived just now."""
    if isinstance(answer, RedisError):
        raise answer
    seconds, micros = answer
    return int(seconds) * 1_000_000 + int(micros) - _now()


class _Line:
    """A connection that stays out of the pool, and is read without the client: both cost more than a write."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.clock: int | None = None
        self._socket: socket.socket = connection._sock
        self._reader = Reader(protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_MORE)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def quiet(self) -> bool:
        """Whether it lies as it was left: one that can be read was closed by the server, or is out of step."""
        return self.connection._sock is self._socket and not self._poll.poll(0)

    def exchange(self, packed: bytes, count: int) -> list[Any]:
        answers: list[Any] = []
        gets, receive = self._reader.gets, self._socket.recv
        try:
            self._socket.sendall(packed)
            while True:
                answer = gets()
                if answer is _MORE:
                    data = receive(65_536)
                    if not data:
                        raise ConnectionError("Connection closed by server")
                    self._reader.feed(data)
                elif isinstance(answer, ConnectionError):  # of the connection, not of a command: LOADING, NOAUTH
                    raise answer
                else:
                    answers.append(answer)
                    if len(answers) == count:
                        return answers
        except TimeoutError:
            raise redis.TimeoutError("Timeout reading from the server") from None
        except OSError as error:
            raise ConnectionError(str(error)) from None


class _Slow:
    """A connection of any other kind, through the client."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.socket = connection, getattr(connection, "_sock", None)
        self.clock: int | None = None

    def exchange(self, packed: bytes, count: int) -> list[Any]:
        self.connection.send_packed_command([packed])
        return [self._answer() for _ in range(count)]

    def _answer(self) -> Any:
        try:
            return self.connection.read_response()
        except ResponseError as error:
            return error
