"""When a field was written and by whom: reading, ordering and writing times.

A stamp is `(at, by)`: `at` in whole microseconds since 1970 UTC, `by` the writer's name. Pure: no clock is
read here, and the only thing taken from outside is the local time zone, which naive times mean (DESIGN §5.1).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

SECOND = 1_000_000
LAST = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z: the latest time that can be written as ISO 8601 with four digits of year."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_FRACTION = re.compile(r"\d\d:\d\d:\d\d[.,]\d")


class Moment(NamedTuple):
    """A time somebody declared: microseconds since 1970 UTC, whether only the second is known, and
    whether it named no zone (then it was read as local time, which is worth a warning)."""

    at: int
    whole_second: bool
    naive: bool


def parse_time(value: object, zone: timezone | None = None) -> Moment | None:
    """Read a declared time: ISO 8601 with `Z`, an offset or none, or an epoch in s, ms, µs or ns.

    `zone` is what a time without an offset means; None is this machine's local zone. Anything that is not a
    time between 1970 and 9999 gives None: a declared time is a hint, and a bad hint is no error.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, int) and value.bit_length() > 256:  # `str` refuses what is far longer
        return None
    text = str(value).strip().upper()
    if len(text) > 64 or not (text.isascii() and text.isprintable()):
        return None
    if _NUMBER.fullmatch(text):
        return _parse_epoch(text)
    try:
        moment = datetime.fromisoformat(text)
        naive = moment.tzinfo is None
        at = _micros(moment.replace(tzinfo=zone) if naive and zone else moment.astimezone(UTC))
    except (ValueError, OverflowError, OSError):
        return None
    return Moment(at, not _FRACTION.search(text), naive) if 0 <= at <= LAST else None


def _parse_epoch(text: str) -> Moment | None:
    """The unit is told by the size: 11 digits of seconds last until the year 5138."""
    digits = len(text.lstrip("-").partition(".")[0])
    per_second = 1 if digits <= 11 else 10**3 if digits <= 14 else 10**6 if digits <= 17 else 10**9
    at = int(Decimal(text) * SECOND / per_second)
    return Moment(at, per_second == 1 and "." not in text, False) if 0 <= at <= LAST else None


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def format_time(at: int) -> str:
    """`2025-11-12T08:00:00.123456Z`: always six digits, so that text order is time order."""
    seconds, micros = divmod(min(max(at, 0), LAST), SECOND)
    minute, second = divmod(seconds, 60)
    return f"{_minute(minute)}{second:02}.{micros:06}Z"


@lru_cache(maxsize=1_000)
def _minute(minute: int) -> str:
    """Minutes since 1970 as a time begins; stamps lie close together, and this is most of the work."""
    return (_EPOCH + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:")


def refine(moment: Moment, seen: int) -> int:
    """A time exact only to the second, made exact by another that falls into the same second."""
    if moment.whole_second and moment.at <= seen < moment.at + SECOND:
        return seen
    return moment.at
