"""Points at which the program can be made to end at once, as if it were killed there; for trials.

    RECONCILER_FAILPOINT=swap.after reconciler apply        # exit code 137 when it first comes there
    RECONCILER_FAILPOINT=commit.before:3 reconciler apply   # at the third time

Nothing is closed, flushed or undone on the way out. The environment is read once, at import; where it names no point,
`around` does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from typing import Final, Literal, get_args

from .errors import UsageError

Point = Literal[
    "fsync",  # of a file, before it gets its name
    "swap",  # of `context.json`
    "fsync-folder",
    "unlink",  # of the version that a swap has displaced
    "rename",  # of any other file
    "commit",  # of `state.db`, whatever is written there
    "journal",  # appending writes to it
    "answer",  # to those who wrote while Redis is away
    "script",  # a write to Redis, and its event
    "publish",  # of an event that is no version
]
NAMES: Final = tuple(f"{point}.{side}" for point in get_args(Point) for side in ("before", "after"))
VARIABLE: Final = "RECONCILER_FAILPOINT"
EXIT_CODE: Final = 137


class _Free:
    """Nothing happens there."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        pass


class _Armed(_Free):
    """Ends the process on one side at the n-th time. What fails has no after."""

    def __init__(self, side: str, time: int) -> None:
        self._side, self._time, self._times = side, time, count(1)

    def __enter__(self) -> None:
        if self._side == "before":
            self._come()

    def __exit__(self, kind: object, *_: object) -> None:
        if self._side == "after" and kind is None:
            self._come()

    def _come(self) -> None:
        if next(self._times) == self._time:
            os._exit(EXIT_CODE)


_FREE: Final = _Free()


def armed(text: str) -> Callable[[Point], _Free]:
    """The `around` for what the variable says: `NAME` or `NAME:n`, or nothing. Raises UsageError."""
    if not text:
        return lambda point: _FREE
    name, _, number = text.partition(":")
    if name not in NAMES:
        raise UsageError(f"{VARIABLE}: no point {name!r}", hint="there are " + ", ".join(NAMES))
    time = int(number) if number.isdecimal() else 0 if ":" in text else 1
    if not time:
        raise UsageError(f"{VARIABLE}: {number!r} is not a number from 1 on", hint=f"{name}:2 is the second time")
    chosen, _, side = name.partition(".")
    there = _Armed(side, time)
    return lambda point: there if point == chosen else _FREE


def _at_import() -> Callable[[Point], _Free]:
    """What is wrong with the variable is said where a point is reached; the command line says it before."""
    try:
        return armed(os.environ.get(VARIABLE, ""))
    except UsageError as error:
        wrong = error

    def refuse(point: Point) -> _Free:
        raise wrong

    return refuse


around: Final = _at_import()
"""`with around("swap"): ...`: before and after are points."""
