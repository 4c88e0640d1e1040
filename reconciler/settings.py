"""The settings: one table, one frozen value. Precedence: defaults < reconciler.yaml < environment < flags.

Pure: the file is read by whoever opens the workspace, the environment comes in as a mapping. README holds
the same table, and a test compares the two.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from .address import CLUSTER, SENTINEL, read_hosts
from .errors import UsageError
from .plan import Limit
from .render import clip

FILE = "reconciler.yaml"
EMBEDDED = "embedded:"
PUBLIC_SCHEMES = ("redis", "rediss", "unix", SENTINEL, CLUSTER)


class Row(NamedTuple):
    """One setting: its name in the file, default, unit, environment name, and what it does."""

    name: str
    default: str
    unit: str
    env: str
    what: str


TABLE = (
    Row(
        "redis",
        "",
        "URL",
        "REDIS_URL",
        "redis://, rediss://, unix://, redis+sentinel://, redis+cluster:// or embedded: (a private Valkey)",
    ),
    Row("redis_host", "localhost", "host", "REDIS_HOST", "used when there is no URL"),
    Row("redis_port", "6379", "port", "REDIS_PORT", "used when there is no URL"),
    Row("redis_password_file", "", "path", "REDIS_PASSWORD_FILE", "a file whose first line is the password"),
    Row(
        "redis_password_keychain",
        "",
        "name",
        "REDIS_PASSWORD_KEYCHAIN",
        "the item of the macOS keychain that holds the password",
    ),
    Row("manifests", "manifests", "path", "RECONCILER_MANIFESTS", "the folder of manifests"),
    Row(
        "local_sections",
        "paths",
        "names",
        "RECONCILER_LOCAL_SECTIONS",
        "sections that never leave context.json",
    ),
    Row("max_skew", "60", "s", "RECONCILER_MAX_SKEW", "a stamp further in the future than this is clamped"),
    Row("history", "1000", "versions", "RECONCILER_HISTORY", "kept in Redis for each agent; 0 for none"),
    Row("interval", "60", "s", "RECONCILER_INTERVAL", "between two looks of `run` at everything; changes do not wait"),
    Row("cron", "", "crontab", "RECONCILER_CRON", "when `run` looks at everything, instead of interval: */5 * * * *"),
    Row("quiet", "0.1", "s", "RECONCILER_QUIET", "how long a raw write must rest before it is adopted"),
    Row("tombstones", "30", "days", "RECONCILER_TOMBSTONES", "how long a deletion is remembered"),
    Row("backups", "14", "days", "RECONCILER_BACKUPS", "daily copies of context.json that are kept"),
    Row("max_deletes", "30%", "agents", "RECONCILER_MAX_DELETES", "one round deletes no more (and at least 3)"),
    Row("first_run", "newer", "", "RECONCILER_FIRST_RUN", "who wins when there is no base: newer, files, live"),
    Row("inbox", "false", "", "RECONCILER_INBOX", "take in bridge/memory/inbox/<agent>_*.json"),
    Row(
        "writer",
        "user@host",
        "name",
        "RECONCILER_WRITER",
        "the name this machine's own writes are stamped with",
    ),
)
FIRST_RUN = ("newer", "files", "live")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a workspace is run with. Durations are timedeltas; paths are absolute.

    `password` is used where `redis` names none; where it is not given, it is in `password_file`, else in the keychain.
    It is never shown, which is why `repr` leaves it out.
    """

    root: Path
    redis: str
    password: str | None
    manifests: Path
    writer: str
    password_file: Path | None = None
    password_keychain: str = ""
    local_sections: tuple[str, ...] = ("paths",)
    max_skew: timedelta = timedelta(seconds=60)
    history: int = 1000
    interval: timedelta = timedelta(seconds=60)
    cron: str = ""
    quiet: timedelta = timedelta(milliseconds=100)
    tombstones: timedelta = timedelta(days=30)
    backups: int = 14
    max_deletes: str = "30%"
    first_run: str = "newer"
    inbox: bool = False

    def __repr__(self) -> str:
        return f"Settings(root={str(self.root)!r})"

    @property
    def context_file(self) -> Path:
        return self.root / "shared_memory" / "context.json"

    @property
    def manifests_base(self) -> Path:
        """What the names of manifests are relative to: they are writers' names, so no machine's path is in them."""
        return self.root if self.manifests.is_relative_to(self.root) else self.manifests.parent

    @property
    def folder(self) -> Path:
        """Where this program keeps what is its own."""
        return self.root / ".reconciler"

    @property
    def spool(self) -> Path:
        """Where hooks drop what a round takes in."""
        return self.folder / "spool"

    @property
    def inbox_folder(self) -> Path:
        """Where other programs leave files for an agent."""
        return self.root / "bridge" / "memory" / "inbox"


def find_root(flag: str | None, env: Mapping[str, str]) -> Path:
    """The workspace: `--root`, else LUKA_SOT, else ~/02luka. Raises UsageError when it is no folder."""
    chosen = flag if flag is not None else env.get("LUKA_SOT") or "~/02luka"
    named = "--root" if flag is not None else "LUKA_SOT" if env.get("LUKA_SOT") else "the default"
    what = "does not exist"
    try:
        root = Path(os.path.abspath(Path(chosen).expanduser()))
        mode = root.stat().st_mode if chosen else 0
        if stat.S_ISDIR(mode) and os.access(root, os.X_OK):
            return root
        what = "cannot be entered: permission denied" if stat.S_ISDIR(mode) else "is not a folder" if mode else what
    except FileNotFoundError:
        pass
    except OSError as error:
        what = f"cannot be entered: {(error.strerror or str(error)).lower()}"
    except RuntimeError:  # ~somebody, who is not there
        pass
    shown = clip(chosen, 200) if chosen else "''"
    raise UsageError(f"the workspace {shown} (from {named}) {what}", hint="give one with --root DIR or LUKA_SOT")


def build(root: Path, file: Mapping[str, Any], env: Mapping[str, str], flags: Mapping[str, str | None]) -> Settings:
    """The settings of a workspace. `file` is reconciler.yaml as plain data, already validated by its schema.

    Raises UsageError naming the setting and where it came from.
    """
    given: dict[str, tuple[str, Any]] = {}
    for row in TABLE:
        if file.get(row.name) is not None:
            given[row.name] = (FILE, file[row.name])
        if env.get(row.env):
            given[row.name] = (row.env, env[row.env])
        if flags.get(row.name) is not None:
            given[row.name] = ("--" + row.name.replace("_", "-"), flags[row.name])
    found = {name: _convert(name, value, origin, root) for name, (origin, value) in given.items()}
    host, port = found.pop("redis_host", "localhost"), found.pop("redis_port", 6379)
    shown = f"[{host}]" if ":" in host else quote(host, safe="")
    url = found.pop("redis", None)
    if url is None:
        url = f"redis://{shown}:{port}/0"
        try:
            _url(url, root)
        except ValueError:
            origin = given["redis_host"][0] if "redis_host" in given else FILE
            raise UsageError(f"{origin}: {clip(repr(host), 60)} is not a good redis_host") from None
    secret = env.get("REDIS_PASSWORD") or None
    settings = Settings(root, url, secret, root / "manifests", default_writer())
    return replace(settings, **{field_of(name): value for name, value in found.items()})


def field_of(name: str) -> str:
    """The field of Settings that holds a setting; host and port have none: they become a part of `redis`."""
    return name.removeprefix("redis_")


def environment(settings: Settings, other: Settings) -> dict[str, str]:
    """The environment that makes `settings` out of `other` where they differ, but for `password`."""
    found = {}
    for row in TABLE:
        value, before = (getattr(each, field_of(row.name), None) for each in (settings, other))
        if value != before:
            found[row.env] = _text(row, value)
    return found


def _text(row: Row, value: Any) -> str:
    """A value as an environment variable gives it."""
    if isinstance(value, timedelta):
        return str(value / (timedelta(days=1) if row.unit == "days" else timedelta(seconds=1)))
    if isinstance(value, tuple):
        return ",".join(value) or ","  # an empty variable is none
    return str(value).lower() if isinstance(value, bool) else str(value)


def default_writer() -> str:
    """`user@host`, cut to what keeps a sidecar entry small."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname().partition('.')[0]}"[:27]


def _convert(name: str, value: Any, origin: str, root: Path) -> Any:
    """A path in the file is relative to the workspace, in a flag or the environment to where one stands."""
    try:
        return _CONVERT[name](value, root if origin == FILE else Path.cwd())
    except (ValueError, OverflowError) as error:
        shown = "the address" if name == "redis" else repr(str(value)[:60])  # it may hold a password
        raise UsageError(f"{origin}: {shown} is not a good {name}: {error}") from None


def _seconds(least: float) -> Callable[[Any, Path], timedelta]:
    def convert(value: Any, _: Path) -> timedelta:
        seconds = float(value)
        if not least <= seconds <= 10**9:
            raise ValueError(f"a number of seconds from {least:g} on is needed")
        return timedelta(seconds=seconds)

    return convert


def _number(value: Any, _: Path) -> int:
    if not 0 <= int(value) <= 10**9:
        raise ValueError("a whole number from 0 on is needed")
    return int(value)


def _days(value: Any, _: Path) -> timedelta:
    if not 0 < float(value) <= 36_500:
        raise ValueError("a number of days is needed")
    return timedelta(days=float(value))


def _path(value: Any, root: Path) -> Path:
    try:
        return Path(os.path.abspath(root / Path(str(value)).expanduser()))
    except RuntimeError:
        raise ValueError("there is no such user") from None


def _cron(value: Any, _: Path) -> str:
    text = str(value).strip()
    if len(text.split()) != 5:
        raise ValueError("five fields are needed: minute, hour, day of month, month, day of week")
    return text


def _names(value: Any, _: Path) -> tuple[str, ...]:
    text = value if isinstance(value, str) else ",".join(value)
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _switch(value: Any, _: Path) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())
    if found is None:
        raise ValueError("it is true or false")
    return found


def _first_run(value: Any, _: Path) -> str:
    if value not in FIRST_RUN:
        raise ValueError("it is one of " + ", ".join(FIRST_RUN))
    return str(value)


def _url(value: Any, _: Path) -> str:
    """The address as it is. A fault in it is told without quoting any of it: it may hold a password."""
    text = str(value)
    if text == EMBEDDED:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(_URL_HINT) from None
    if parts.scheme not in PUBLIC_SCHEMES or not text.startswith(f"{parts.scheme}://") or not text.isprintable():
        raise ValueError(_URL_HINT)
    user = parts.netloc.rpartition("@")[0]
    misread = "" if parts.scheme == "unix" else parts.path + parts.query + parts.fragment
    if "@" in user + misread or "[" in user or "]" in user:
        raise ValueError("in a password, write / ? # @ [ and ] as %2F %3F %23 %40 %5B and %5D")
    if parts.scheme == "unix":
        if not parts.path or (parts.netloc and "@" not in parts.netloc):  # as where / in a password is not %2F
            raise ValueError("a unix:// address needs a path: unix:///run/redis.sock; in a password, write / as %2F")
        return text
    if parts.scheme in (SENTINEL, CLUSTER):
        read_hosts(text)
        return text
    try:
        _port(6379 if parts.port is None else parts.port, _)
    except ValueError:
        raise ValueError("what follows the host's colon is not a port from 1 to 65535") from None
    if not re.fullmatch(r"(/\d{0,5})?", parts.path):
        raise ValueError("what follows the host is the number of a database, such as /0")
    return text


_URL_HINT = (
    "it is redis://host:port/0, rediss://..., unix:///path, redis+sentinel://host:port,.../service, "
    "redis+cluster://host:port,... or embedded:"
)


def _max_deletes(value: Any, _: Path) -> str:
    try:
        Limit.parse(value)
    except UsageError as error:
        raise ValueError(error.hint) from None
    return str(value).strip()


def _port(value: Any, _: Path) -> int:
    if not 1 <= int(value) <= 65_535:
        raise ValueError("a port is 1 to 65535")
    return int(value)


def _writer(value: Any, _: Path) -> str:
    text = str(value)
    if not text or len(text) > 64 or not text.isprintable():
        raise ValueError("1 to 64 printable characters are needed")
    return text


_CONVERT: Mapping[str, Callable[[Any, Path], Any]] = {
    "redis": _url,
    "redis_host": lambda value, _: str(value),
    "redis_port": _port,
    "redis_password_file": _path,
    "redis_password_keychain": lambda value, _: str(value),
    "manifests": _path,
    "local_sections": _names,
    "max_skew": _seconds(0),
    "history": _number,
    "interval": _seconds(0.01),
    "cron": _cron,
    "quiet": _seconds(0),
    "tombstones": _days,
    "backups": _number,
    "max_deletes": _max_deletes,
    "first_run": _first_run,
    "inbox": _switch,
    "writer": _writer,
}
