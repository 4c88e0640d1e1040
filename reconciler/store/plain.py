"""What a hash alone tells of an agent, for those who want values and no stamps: a quarter of what `read_agent` costs.

Most hashes tell it. Where only the sidecar knows (whether `5` is a number or a text, whether a context was taken
apart by somebody else) the answer is None, and the agent is read in full.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from sys import intern
from typing import Any

from ..stamp import format_time
from ..state import CONTEXT, LAST_UPDATE, NotJson, decode
from .layout import decode_framed

_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_KNOWN = re.compile(rb"([0-9]{1,16})(?: s .*)?", re.S)
_JSON = frozenset(b'{["-0123456789tfn')
"""What JSON begins with: any other text is a string, however it was written."""


def plain_record(flat: Sequence[bytes], time: bytes | None, now: str) -> dict[str, Any] | None:
    """An agent's record, in the shape of `context.json`, from its hash as the server gives it; None where that does
    not tell. `time`: what the sidecar notes of `last_update`; `now`: the latest time that is believed."""
    record: dict[str, Any] = {}
    if not flat:
        return None
    try:
        for key, text in zip(flat[::2], flat[1::2], strict=True):
            name = _name(key)
            if name == "context":
                context = decode_framed(text.decode())
                if context is None:
                    return None
                if context:
                    record[name] = {intern(member): value for member, value in context.items()}
            elif name == LAST_UPDATE:
                if not _TIME.fullmatch(text) or not _is_latest(text.decode(), time, now):
                    return None
                record[name] = text.decode()
            elif name.startswith(CONTEXT) or (text[:1] and text[0] in _JSON and _is_json(text.decode())):
                return None
            else:
                record[name] = text.decode()
    except (UnicodeDecodeError, NotJson):
        return None
    return record


@lru_cache(maxsize=20_000)
def _name(key: bytes) -> str:
    return intern(key.decode())


def _is_latest(text: str, time: bytes | None, now: str) -> bool:
    """Whether nobody set the time back or too far forward, which the sidecar would put right."""
    known = _KNOWN.fullmatch(time) if time is not None else None
    return text <= now and (time is None or (known is not None and format_time(int(known[1])) <= text))


def _is_json(text: str) -> bool:
    try:
        decode(text)
    except NotJson:
        return False
    return True


def tells_all(plain: dict[str, Any], record: Any) -> bool:
    """Whether nothing in a record of `context.json` is missing here: what is may have been deleted."""
    if record is None:
        return True
    context = record.get("context", {}) if isinstance(record, dict) else None
    return (
        isinstance(context, dict)
        and record.keys() - plain.keys() <= {"context"}
        and context.keys() <= plain.get("context", {}).keys()
    )
