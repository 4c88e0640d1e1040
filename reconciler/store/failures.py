"""What the client's errors mean: temporary or permanent, of the whole store or of one write, and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from ..errors import StoreAway, StoreError
from .layout import keys_of

T = TypeVar("T")


def translate(work: Callable[[], T], name: str) -> T:
    """Run some client calls and say their failures in this program's words: temporary or permanent."""
    try:
        return work()
    except RedisError as error:
        raise said(error, name) from None


def said(error: RedisError, name: str) -> StoreAway | StoreError:
    what = _first(error)
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


_WHOLE_STORE = (
    AuthenticationError, AuthenticationWrongNumberOfArgsError, BusyLoadingError, ClusterDownError, ConnectionError,
    MasterDownError, NoPermissionError, ReadOnlyError, TimeoutError, TryAgainError,
)  # fmt: skip


def of_the_store(error: RedisError) -> bool:
    """Whether an answer to one write is one that every other write would get too."""
    return isinstance(error, _WHOLE_STORE) or _passes(error)


def refusal(agent: str, answer: RedisError) -> str:
    """What the script failed at for one agent, without the script's own name and line in it."""
    error = re.sub(r"^ERR Error running script.*?: -?|,? script: \w+, on @\w+:\d+", "", _first(answer)).rstrip(".")
    if "WRONGTYPE" in error:
        return f"one of {', '.join(keys_of(agent))} is of another type; TYPE tells which, RENAME it to keep it"
    if "XADD" in error:
        return f"{keys_of(agent).history} holds entries of somebody else; DEL it, or RENAME it to keep it"
    return error


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
