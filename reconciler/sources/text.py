"""The text of a file that people write: its size, its encoding, and where in it something stands.

Apart from yaml_text, so that a verb that reads no YAML does not pay for the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import InputError, Place, Problem

MAX_BYTES = 1 << 20
Path = tuple[str | int, ...]
Locate = Callable[[Path], tuple[Place, str]]


class Document(NamedTuple):
    """One document of a file: plain JSON data, and the line it begins on."""

    value: Any
    line: int


def decode_text(data: bytes, source: str) -> str:
    """UTF-8, a byte order mark taken off. Raises InputError for size and encoding."""
    if len(data) > MAX_BYTES:
        message = f"{len(data) / MAX_BYTES:.1f} MiB is too large for a manifest"
        raise InputError(Problem(Place(source), message, "at most 1 MiB; split it into several files"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(utf8_problem(data, error, source)) from None


def utf8_problem(data: bytes, error: UnicodeDecodeError, source: str) -> Problem:
    line = data.count(b"\n", 0, error.start) + 1
    column = len(data[data.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8", "replace")) + 1
    return Problem(Place(source, line, column), f"not UTF-8: byte 0x{data[error.start]:02x}", "save it as UTF-8")


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Line and column, both from 1, of an offset in a text."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
