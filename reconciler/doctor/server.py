"""Checks of Redis: is it there, does it keep what it is told, may this program work, who else knows the password."""

from __future__ import annotations

from collections.abc import Iterator

from ..render import clip
from ..store.inspect import Facts
from . import Chart, Finding, NotLooked

OLDEST = (6, 2)
"""The first version that has all the commands of this program."""
A_SECOND = 1_000_000


def reachable(chart: Chart) -> Iterator[Finding]:
    if chart.away:
        yield Finding("redis", chart.store, chart.away, "start the server, or correct REDIS_URL or reconciler.yaml")
    for text in chart.said:
        if "published default" not in text:
            yield Finding("redis", chart.store, text, "set requirepass there, or take the password out", "warning")


def version(chart: Chart) -> Iterator[Finding]:
    facts = _facts(chart)
    if not facts.version:
        raise NotLooked("the server refuses INFO")
    numbers = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdecimal())
    if numbers < OLDEST:
        what = f"version {facts.version} is older than {'.'.join(map(str, OLDEST))}"
        yield Finding("version", chart.store, what, "install a newer Redis or Valkey", "warning")


def persistence(chart: Chart) -> Iterator[Finding]:
    facts = _facts(chart)
    if facts.failing:
        what = f"the server cannot write to its disk: {facts.failing}"
        yield Finding("persistence", chart.store, what, "see the server's log, and its disk")
    if facts.keeps is None:
        raise NotLooked("the server refuses CONFIG")
    if not facts.keeps:
        what = "persistence is off: a restart empties it (it is filled again from base, but without history)"
        yield Finding("persistence", chart.store, what, "redis-cli CONFIG SET appendonly yes, then CONFIG REWRITE")


def default_password(chart: Chart) -> Iterator[Finding]:
    _facts(chart)
    if chart.published:
        what = "the default password that everybody can read in the specification is still accepted"
        way = "redis-cli CONFIG SET requirepass NEW, then CONFIG REWRITE; put NEW into redis_password_file (mode 0600)"
        yield Finding("default-password", chart.store, what, way)


def rights(chart: Chart) -> Iterator[Finding]:
    facts = _facts(chart)
    if facts.refused is None:
        raise NotLooked("the server is too old to tell")
    if facts.refused:
        what = f"the ACL refuses {len(facts.refused)} things the program needs: {clip('; '.join(facts.refused), 300)}"
        way = "redis-cli ACL SETUSER <user> '~memory:*' '&memory:*' +@read +@write +@scripting +@pubsub +time +ping"
        yield Finding("rights", chart.store, what, way)
    if len(facts.noticing) > 1:
        what = "neither CLIENT TRACKING nor keyspace events are allowed: raw writes are found by a look every second"
        way = "redis-cli ACL SETUSER <user> '+client|tracking' +hello"
        yield Finding("rights", chart.store, what, way, "warning")


def clock(chart: Chart) -> Iterator[Finding]:
    ahead = _facts(chart).ahead
    if abs(ahead) <= A_SECOND:
        return
    skew = int(chart.settings.max_skew.total_seconds() * 1_000_000)
    what = f"its clock is {abs(ahead) / A_SECOND:.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    way = "let both ask a time server: sntp -sS time.apple.com, or timedatectl set-ntp true"
    yield Finding("clock", chart.store, what, way, "error" if abs(ahead) > skew else "warning")


def _facts(chart: Chart) -> Facts:
    if chart.facts is None:
        raise NotLooked("there is no server to ask")
    return chart.facts
