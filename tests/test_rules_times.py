"""Which texts are times, how exact they are, and how times are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.stamp import LAST, SECOND, Moment, format_time, parse_time, refine

BANGKOK = timezone(timedelta(hours=7))
EIGHT = 1_762_934_400 * SECOND
"""2025-11-12T08:00:00Z"""


@pytest.mark.parametrize(
    ("declared", "at", "whole_second", "naive"),
    [
        ("2025-11-12T08:00:00Z", EIGHT, True, False),
        ("2025-11-12T08:00:00z", EIGHT, True, False),
        ("2025-11-12 08:00:00Z", EIGHT, True, False),
        ("2025-11-12T08:00Z", EIGHT, True, False),
        ("2025-11-12T08:00:00.0Z", EIGHT, False, False),
        ("2025-11-12T08:00:00,25Z", EIGHT + 250_000, False, False),
        ("2025-11-12T08:00:00.123456789Z", EIGHT + 123_456, False, False),
        ("2025-11-12T15:00:00+07:00", EIGHT, True, False),
        ("2025-11-12T15:00:00.5+0700", EIGHT + 500_000, False, False),
        ("2025-11-12T15:00:00", EIGHT, True, True),
        ("2025-11-12T15:00:00.5", EIGHT + 500_000, False, True),
        ("20251112T080000Z", EIGHT, True, False),
        ("2025-W46-3T08:00:00Z", EIGHT, True, False),
        (" 2025-11-12T08:00:00Z ", EIGHT, True, False),
        (1_762_934_400, EIGHT, True, False),
        ("1762934400", EIGHT, True, False),
        (1_762_934_400.5, EIGHT + 500_000, False, False),
        (1_762_934_400_123, EIGHT + 123_000, False, False),
        (1_762_934_400_123_456, EIGHT + 123_456, False, False),
        (1_762_934_400_123_456_789, EIGHT + 123_456, False, False),
        (0, 0, True, False),
        ("9999-12-31T23:59:59.999999Z", LAST, False, False),
    ],
)
def test_a_time_is_read(declared: object, at: int, whole_second: bool, naive: bool) -> None:
    """ISO 8601 in its shapes, and epochs in four units."""
    assert parse_time(declared, BANGKOK) == Moment(at, whole_second, naive)


@pytest.mark.parametrize(
    "declared",
    ["", "soon", "2025-13-01T00:00:00Z", "2025-11-12T25:00:00Z", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z",
     -1, True, None, [], {}, float("nan"), float("inf"), 1e300, "9" * 65, "9" * 64, "10000-01-01T00:00:00Z", "١٢٣",
     "2025-11-12T08:00:00Z\x00", "12:00", "²", 10**5000],
    ids=lambda declared: repr(declared) if not isinstance(declared, int) or declared < 10**99 else "huge",
)  # fmt: skip
def test_what_is_no_time_is_none(declared: object) -> None:
    """A bad hint is no error, and nothing raises."""
    assert parse_time(declared) is None


@settings(derandomize=True, database=None)
@given(st.text(max_size=40) | st.integers() | st.floats())
def test_nothing_that_is_declared_raises(declared: object) -> None:
    """Whatever stands in a `last_seen`."""
    found = parse_time(declared)
    assert found is None or 0 <= found.at <= LAST


@settings(derandomize=True, database=None)
@given(st.integers(0, LAST), st.integers(0, LAST))
def test_written_times_sort_as_they_are_and_come_back(one: int, other: int) -> None:
    """`format_time` and `parse_time` are inverse, and text order is time order."""
    assert parse_time(format_time(one)) == Moment(one, False, False)
    assert (format_time(one) < format_time(other)) == (one < other)


@pytest.mark.parametrize(
    ("at", "text"), [(-5, "1970-01-01T00:00:00.000000Z"), (LAST + 5, "9999-12-31T23:59:59.999999Z")]
)
def test_times_outside_of_what_can_be_written_are_cut(at: int, text: str) -> None:
    """Never an error in the middle of a round."""
    assert format_time(at) == text


def test_a_naive_time_is_local() -> None:
    """Without a zone given it is this machine's."""
    local = datetime(2025, 11, 12, 8).astimezone()
    assert parse_time("2025-11-12T08:00:00") == Moment(int(local.timestamp()) * SECOND, True, True)


@pytest.mark.parametrize(
    ("moment", "seen", "at"),
    [
        (Moment(EIGHT, True, False), EIGHT + 999_999, EIGHT + 999_999),
        (Moment(EIGHT, True, False), EIGHT + SECOND, EIGHT),
        (Moment(EIGHT, True, False), EIGHT - 1, EIGHT),
        (Moment(EIGHT, False, False), EIGHT + 5, EIGHT),
    ],
)
def test_a_whole_second_is_refined_within_it(moment: Moment, seen: int, at: int) -> None:
    """Only by a moment that falls into the same second."""
    assert refine(moment, seen) == at


def test_utc_is_what_is_kept() -> None:
    """One instant, whatever zone it was told in."""
    there = datetime(2025, 11, 12, 15, tzinfo=BANGKOK)
    assert parse_time(there.isoformat()) == parse_time(there.astimezone(UTC).isoformat())
