"""Everything this program refuses or fails at, and what a person reads then.

    ReconcilerError            3  failed
    ├── UsageError             2  the command line or a setting is wrong
    ├── NotFound               1  the answer is no: no such agent, no such version
    ├── InputError             3  an input cannot be read; carries every Problem found in it
    ├── Refused                4  a guard says no; the message names the numbers and the flag
    ├── StoreAway              5  Redis cannot be reached now; trying again later may work
    ├── StoreError             3  Redis answers, and will go on refusing (password, rights, not Redis)
    └── WorkspaceHeld          6  another reconciler holds the workspace

An error says what happened, where, and in `hint` the way out. The number is the exit code. Here are no
prints and no logging: whoever catches decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is: a file with line and column (both from 1), or a Redis key (both 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one input.

    `path` is the field's dotted path inside the input ("" for the whole of it), `agent` the one agent
    it concerns, if one; `text` the source line the place points at, for the caret line on a terminal. `once`: what is
    wrong was moved out of the way, so the next round does not find it.
    An error quarantines what it concerns; a warning was put right in passing.
    """

    place: Place
    message: str
    hint: str = ""
    path: str = ""
    agent: str | None = None
    severity: Severity = "error"
    text: str = ""
    once: bool = False

    def __str__(self) -> str:
        where = f"{self.place}: " + (f"{self.path}: " if self.path else "")
        return where + self.message + (f"; {self.hint}" if self.hint else "")

    def about(self, agent: str) -> Problem:
        """The same problem, known to concern one agent."""
        return replace(self, agent=agent)


class ReconcilerError(Exception):
    """Root of the tree; the exit code is that of its class."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message + (f"; {self.hint}" if self.hint else "")


class UsageError(ReconcilerError):
    exit_code = 2


class NotFound(ReconcilerError):
    exit_code = 1


class InputError(ReconcilerError):
    """An input that cannot be read at all. `problems` says everything that is wrong with it."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Refused(ReconcilerError):
    exit_code = 4


class StoreAway(ReconcilerError):
    exit_code = 5


class StoreError(ReconcilerError):
    """Redis answers but refuses, and will do so until somebody changes something."""


class WorkspaceHeld(ReconcilerError):
    exit_code = 6
