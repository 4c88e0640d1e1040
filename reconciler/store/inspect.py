"""What a doctor asks of a server: how it is set up, and whether it lets this program do its work. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoPermissionError, RedisError

from ..address import without_password
from ..errors import ReconcilerError
from . import LiveStore
from .connect import PUBLISHED_PASSWORD, connect
from .failures import translate
from .layout import keys_of
from .redis_store import RedisStore

_AGENT = "memory:agents:doctor"
_META, _HISTORY = f"memory:meta:{{{_AGENT}}}", f"memory:history:{{{_AGENT}}}"
NEEDED: Sequence[tuple[str, ...]] = (
    ("TIME",), ("SCAN", "0"), ("EVALSHA", "0", "0"), ("SCRIPT", "LOAD", ""),
    *((command, key) for key in (_AGENT, _META, "memory:shared") for command in ("HGETALL", "HKEYS", "HLEN", "DEL")),
    *((command, key, "x") for key in (_AGENT, _META, "memory:hub") for command in ("HGET", "HMGET", "HDEL", "HEXISTS")),
    *(("HSET", key, "x", "x") for key in (_AGENT, _META, "memory:shared", "memory:meta:{memory:shared}")),
    ("HSTRLEN", _META, "x"), ("EXPIRE", _META, "1"), ("PERSIST", _META), ("HSETNX", "memory:hub", "x", "x"),
    ("XADD", _HISTORY, "*", "x", "x"), ("XINFO", "STREAM", _HISTORY), ("XRANGE", _HISTORY, "-", "+"),
    ("XREVRANGE", _HISTORY, "+", "-"), ("XTRIM", _HISTORY, "MAXLEN", "1"),
    ("PUBLISH", "memory:updates", ""), ("PUBLISH", "memory:updates:doctor", ""),
    ("SUBSCRIBE", "memory:updates"), ("SUBSCRIBE", "memory:updates:doctor"),
)  # fmt: skip
"""Every command of this program, with keys and channels such as it has."""
NOTICING = ("CLIENT", "TRACKING", "ON")
NOTICING_ELSE = ("PSUBSCRIBE", "__keyspace@0__:memory:agents:*")

_ASK = """
if not redis.acl_check_cmd then return '?' end
local refused, at = {}, 2
while at <= #ARGV do
  local count = tonumber(ARGV[at - 1])
  local known, may = pcall(redis.acl_check_cmd, unpack(ARGV, at, at + count - 1))
  if known and not may then refused[#refused + 1] = table.concat(ARGV, ' ', at, at + count - 1) end
  at = at + count + 1
end
return refused
"""
"""Asks about each command: its number of words, then the words. A server before version 7 cannot tell."""


class Facts(NamedTuple):
    """What a server says of itself. `ahead`: its clock minus this machine's, in µs. `keeps`: whether it writes to disk,
    None: it does not tell. `failing`: its last writing to disk failed, in words. `refused`: commands that this user may
    not, None: it cannot tell. `noticing`: the two ways to notice a raw write that it refuses."""

    version: str = ""
    ahead: int = 0
    keeps: bool | None = None
    failing: str = ""
    refused: tuple[str, ...] | None = None
    noticing: tuple[str, ...] = ()


def inspect(store: LiveStore) -> Facts | None:
    """What a server says; None when there is none to ask. Raises StoreAway, StoreError."""
    if not isinstance(store, RedisStore):
        return None
    return translate(lambda: _inspect(store.wire.exchange), store.name)


def _inspect(ask: Callable[[Sequence[Any]], list[Any]]) -> Facts:
    before = time.time_ns() // 1000
    answer = ask([("TIME",)])[0]
    after = time.time_ns() // 1000
    ahead = 0
    if not isinstance(answer, RedisError):
        ahead = int(answer[0]) * 1_000_000 + int(answer[1]) - (before + after) // 2
    told, saving = ask([("INFO",), ("CONFIG", "GET", "save")])
    info = _info(told)
    refused = _refused(ask, NEEDED)
    ways = _refused(ask, (NOTICING, NOTICING_ELSE)) or ()
    version = info.get("valkey_version") or info.get("redis_version", "")
    return Facts(version, ahead, _keeps(info, saving), _failing(info), refused, ways)


def _info(answer: Any) -> dict[str, str]:
    if isinstance(answer, RedisError):
        return {}
    pairs = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in pairs}


def _keeps(info: dict[str, str], saving: Any) -> bool | None:
    if info.get("aof_enabled") == "1":
        return True
    return None if isinstance(saving, RedisError) or len(saving) < 2 else bool(saving[1])


def _failing(info: dict[str, str]) -> str:
    bad = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
           if info.get(name, "ok") != "ok"]  # fmt: skip
    return ", ".join(f"{name} is {info[name]}" for name in bad)


def _refused(ask: Callable[[Sequence[Any]], list[Any]], commands: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Those commands that this user may not, None: the server cannot tell. None of them is run."""
    words = [word for command in commands for word in (str(len(command)), *command)]
    answer = ask([("EVAL", _ASK, "0", *words)])[0]
    if isinstance(answer, RedisError):
        return ("EVAL",) if isinstance(answer, NoPermissionError) else None
    return None if answer == b"?" else tuple(word.decode() for word in answer)


def accepts_published(url: str) -> bool:
    """Whether a server that wants a password is content with the one everybody knows. By a connection of its own."""
    said: list[str] = []
    try:
        client = connect(without_password(url), PUBLISHED_PASSWORD, said.append)
    except ReconcilerError:
        return False
    client.close()
    return not said  # a server without any password was taken without one, and that is said


def declared_times(store: LiveStore, agents: Iterable[str]) -> dict[str, str]:
    """What `last_update` says in each hash, as it is there. Raises StoreAway, StoreError."""
    names = sorted(agents)
    if not isinstance(store, RedisStore) or not names:
        return {}
    commands = [("HGET", keys_of(name).hash, "last_update") for name in names]
    answers = translate(lambda: store.wire.exchange(commands), store.name)
    return {name: text.decode("utf-8", "replace")
            for name, text in zip(names, answers, strict=True) if isinstance(text, bytes)}  # fmt: skip
