"""What the client's errors mean: temporary or permanent, of the whole store or of one write, and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from ..errors import StoreAway, StoreError
from .layout import keys_of

T = TypeVar("T")


class WrongAddress(RedisError):
    """Somebody answers, but not who the address says. `hint` is the way out."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def translate(work: Callable[[], T], name: str) -> T:
    """Run some client calls and say their failures in this program's words: temporary or permanent."""
    try:
        return work()
    except RedisError as error:
        raise said(error, name) from None


def said(error: RedisError, name: str) -> StoreAway | StoreError:
    what = _first(error)
    if isinstance(error, WrongAddress):
        return StoreError(f"{name} {what}", hint=error.hint)
    if isinstance(error, AskError) or "not allowed in cluster mode" in what:  # MOVED is a kind of ASK
        return StoreError(f"{name} is one node of a cluster", hint="write redis+cluster:// in place of redis://")
    if asks(error):
        return StoreError(f"{name} asks for a password", hint="set REDIS_PASSWORD or put it into REDIS_URL")
    if isinstance(error, AuthenticationError | AuthenticationWrongNumberOfArgsError):
        hint = "set REDIS_PASSWORD or put it into REDIS_URL"
        return StoreError(f"{name} refuses the password: {what}", hint=hint)
    if isinstance(error, NoPermissionError):
        hint = "ACL SETUSER must allow it, the keys memory:* and the channels memory:*"
        return StoreError(f"{name} forbids it: {what}", hint=hint)
    if isinstance(error, ReadOnlyError):
        return StoreError(f"{name} is a read-only replica", hint="give the address of its master")
    if isinstance(error, InvalidResponse) or "Protocol" in f"{error} {error.__cause__}":
        return StoreError(f"{name} answers, but not as Redis does", hint="is the address and the port right?")
    if isinstance(error, ConnectionError | TimeoutError):
        return StoreAway(f"{name} is away: {what}", hint="is the server running?")
    if _passes(error):
        return StoreAway(f"{name} is busy: {what}", hint="try again")
    return StoreError(f"{name} refuses: {what}")


def _passes(error: RedisError) -> bool:
    """Whether a server that refuses now will not do so for long."""
    kinds = (MasterDownError, ClusterDownError, TryAgainError)
    return isinstance(error, kinds) or str(error).startswith("BUSY ")


def needs_none(error: RedisError) -> bool:
    return "without any password configured" in str(error) or "no password is set" in str(error)


def asks(error: RedisError) -> bool:
    """Whether a server wants a password and got none; the client strips the code NOAUTH from most answers."""
    return any(words in str(error) for words in ("NOAUTH", "Authentication required", "HELLO must be called"))


def locked_out(error: StoreError) -> bool:
    """Whether a call failed at the password: a client that is made anew may be let in."""
    cause = error.__context__
    kinds = (AuthenticationError, AuthenticationWrongNumberOfArgsError)
    return isinstance(cause, kinds) or (isinstance(cause, RedisError) and asks(cause))


_STATE = re.compile(r"\b(OOM|READONLY|MISCONF|NOREPLICAS)\b")
"""A server that takes no writes at the moment, and says so before any: memory, a replica, a disk, too few replicas."""


def of_the_state(error: RedisError) -> bool:
    """Whether a write was refused for what the server is at the moment; reading goes on, and the write may later."""
    return isinstance(error, ReadOnlyError | OutOfMemoryError) or bool(_STATE.search(str(error)))


def unwritable(error: RedisError) -> str:
    """That refusal in words."""
    if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
        return "the server is a read-only replica; its master takes writes"
    return f"the server takes no writes: {_plain(error)}"


_WHOLE_STORE = (
    AskError, AuthenticationError, AuthenticationWrongNumberOfArgsError, BusyLoadingError, ClusterDownError,
    ConnectionError, MasterDownError, NoPermissionError, TimeoutError, TryAgainError,
)  # fmt: skip


def of_the_store(error: RedisError) -> bool:
    """Whether an answer to one write is one that every other write would get too."""
    return isinstance(error, _WHOLE_STORE) or _passes(error)


def refusal(agent: str, answer: RedisError) -> str:
    """What the script failed at for one agent."""
    error = _plain(answer)
    if "WRONGTYPE" in error:
        return f"one of {', '.join(keys_of(agent))} is of another type; TYPE tells which, RENAME it to keep it"
    if "XADD" in error:
        return f"{keys_of(agent).history} holds entries of somebody else; DEL it, or RENAME it to keep it"
    return error


def _plain(error: RedisError) -> str:
    """What the server said, without the script's name and line."""
    return re.sub(r"^ERR Error running script.*?: -?|,? script: \w+, on @\w+:\d+", "", _first(error)).rstrip(".")


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
