"""What an address says: one server, or the servers that tell where the memory is. Pure; nothing connects here."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SENTINEL, CLUSTER = "redis+sentinel", "redis+cluster"
_PORTS = {SENTINEL: 26379, CLUSTER: 6379}


class Hosts(NamedTuple):
    """A `redis+sentinel://` or `redis+cluster://` address, taken apart.

    `user` and `password` are for the servers that hold the data; `sentinel_user` and `sentinel_password` for
    the sentinels, which have their own.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    user: str | None = None
    password: str | None = None
    service: str = ""
    db: int = 0
    sentinel_user: str | None = None
    sentinel_password: str | None = None


def read_hosts(url: str) -> Hosts | None:
    """None for the address of one server, which the client reads itself. Raises ValueError.

    A ValueError's words quote nothing of the address: it may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        return None
    user, _, places = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    sentinel = (options.pop("sentinel_username", None), options.pop("sentinel_password", None))
    if options or (parts.scheme == CLUSTER and any(sentinel)) or parts.fragment:
        raise ValueError("after ? only sentinel_username and sentinel_password are known, for redis+sentinel://")
    hosts = tuple(_host(place, _PORTS[parts.scheme]) for place in places.split(","))
    service, db = _path(parts.scheme, parts.path)
    return Hosts(parts.scheme, hosts, unquote(name) or None, unquote(password) or None, service, db, *sentinel)


def _host(place: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname or "", port if parts.port is None else parts.port
    except ValueError:
        host = ""
    if not host or parts.path or not 1 <= port <= 65_535:
        raise ValueError("it needs host:port,host:port with ports from 1 to 65535")
    return host, port


def _path(scheme: str, path: str) -> tuple[str, int]:
    """The service and the number of a database. A cluster has one database, and no service."""
    if scheme == CLUSTER:
        if path not in ("", "/", "/0"):
            raise ValueError("a cluster has no other database than 0, and no service")
        return "", 0
    service, _, db = path[1:].partition("/")
    if not service:
        raise ValueError("behind the hosts comes the service that the sentinels watch: /mymaster")
    if "/" in db or not (db or "0").isdecimal() or len(db) > 5:
        raise ValueError("behind the service comes the number of a database, such as /0")
    return unquote(service), int(db or 0)


def without_password(url: str) -> str:
    """The same servers, asked without user and password. A sentinel's own stay."""
    parts = urlsplit(url)
    query = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] not in ("username", "password")])
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}?{query}".removesuffix("?")


def take_password(url: str) -> tuple[str, str | None]:
    """The same address, user and all, without the server's password; and that password. A sentinel's own stays."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    name, _, secret = user.partition(":")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    secret = dict(pairs).get("password", unquote(secret))
    if not secret:
        return url, None
    query = urlencode([pair for pair in pairs if pair[0] != "password"])
    return f"{parts.scheme}://{name}{at * bool(name)}{place}{parts.path}?{query}".removesuffix("?"), secret


def public_name(url: str) -> str:
    """A URL as it may be shown: without user, password and query, also where they are not well written."""
    scheme, rest = url.split("://", 1) if "://" in url else ("redis", url)
    user = rest.partition("/")[0] if scheme == "unix" else rest
    return f"{scheme}://{rest[user.rfind('@') + 1 :].partition('?')[0]}"
