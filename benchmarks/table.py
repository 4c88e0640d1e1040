"""The table of goals as text for a terminal, and what it was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator, Sequence

from . import peers
from .group import Result, Scale
from .rig import processor, server


def machine(scale: Scale) -> str:
    """What it was measured on, in a few lines."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("redis", "hiredis", "pyyaml", "jsonschema")]
    with server() as at:
        info = at.client.info("server")
    versions.insert(0, f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "\n".join((
        f"{processor()}, {os.cpu_count()} processors, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, {', '.join(versions)}",
        f"peers: {', '.join(peers.versions(scale.peers)) or 'none'}",
        f"load of the last 15 minutes, this run included: {os.getloadavg()[2]:.1f}",
    ))  # fmt: skip


def line(result: Result) -> str:
    """A row: the ratio, its spread, the goal, and both sides."""
    if result.missing:
        return f"{_text(result)}{result.missing}"
    goal = "" if result.row.goal is None else f"at most {number(result.row.goal):<7}{verdict(result)}"
    return f"{_text(result)}{number(result.value):>8}  {spread(result):<16} {goal:<31} {sides(result)}".rstrip()


def _text(result: Result) -> str:
    return f"{'' if result.row.goal else '  '}{result.row.text}".ljust(92)


def verdict(result: Result) -> str:
    """Of a row that has a goal and was measured: met, or missed by how much."""
    return "met" if result.met else f"MISSED: {number(result.over)} x"


def summary(results: Sequence[Result]) -> Iterator[str]:
    """The misses again, the worst first, and how many goals were met."""
    judged = [result for result in results if result.row.goal is not None]
    missed = sorted((one for one in judged if one.met is False), key=lambda one: -one.over)
    for one in missed:
        yield f"missed by {number(one.over)} x: {one.row.text}"
    met = sum(one.met is True for one in judged)
    yield f"{met} of {len(judged)} goals met, {len(missed)} missed, {len(judged) - met - len(missed)} not measured"


def spread(result: Result) -> str:
    return f"{number(result.low)} - {number(result.high)}"


def sides(result: Result) -> str:
    return f"{_amount(result, result.ours)} : {_amount(result, result.theirs)}" if result.theirs else ""


def number(value: float) -> str:
    """As many digits as say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _amount(result: Result, value: float) -> str:
    return f"{value:,.0f} {result.row.unit}" if result.row.unit else seconds(value)


def seconds(value: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{value / size:.{2 if value < 100 * size else 0}f} {unit}"
    return f"{value * 1e6:.2f} µs" if value < 1e-5 else f"{value * 1e6:.0f} µs"
