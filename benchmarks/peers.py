"""The programs that this one is compared with: installed here, by pip and apt, into a folder of their own.

Nothing is installed into the system and nothing needs to be root: pip installs into a folder, a Debian package is
downloaded and unpacked into one. What cannot be had is left out, and said so. A folder that is complete has a mark.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from .group import timed

PIP = {
    "octodns": ("octodns",),
    "nats": ("nats-py",),
    "etcd": ("etcd-sdk-python", "protobuf"),
}
"""By peer: what pip installs."""
APT = {"etcd-server": "etcd", "nats-server": "nats-server", "redis-tools": "redis-cli"}
"""By Debian package: the program that is wanted of it."""
_MARK = ".complete"


def _installed(folder: Path, install: Callable[[], None]) -> bool:
    """Whether the folder is complete, now at the latest; one that could not be is tried again by the next run."""
    if (folder / _MARK).exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        install()
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or str(error)
        print(f"{folder.name} is left out: it could not be installed: {why.strip()[-300:]}", file=sys.stderr)
        return False
    (folder / _MARK).touch()
    return True


def _quietly(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL, timeout=300)


@cache
def library(name: str, peers: Path | None) -> Path | None:
    """The folder that makes a peer's Python packages importable; None where it cannot be had."""
    if peers is None:
        return None
    folder = peers / name
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--target", str(folder)]
    return folder if _installed(folder, lambda: _quietly(*pip, *PIP[name])) else None


@cache
def program(package: str, peers: Path | None) -> Path | None:
    """A Debian package's program: on PATH, or unpacked here; None where it cannot be had."""
    name = APT[package]
    there = shutil.which(name)
    if there:
        return Path(there)
    if peers is None:
        return None
    folder = peers / package

    def install() -> None:
        _quietly("apt-get", "download", package, cwd=folder)
        for path in folder.glob("*.deb"):
            _quietly("dpkg", "-x", str(path), str(folder))

    if not _installed(folder, install):
        return None
    return next(folder.glob(f"usr/*bin/{name}"), None)


def redis_tools(peers: Path | None) -> Path | None:
    """The folder of redis-cli and redis-benchmark."""
    found = program("redis-tools", peers)
    return found.parent if found else None


def versions(peers: Path | None) -> list[str]:
    """The peers that are here, as they name themselves."""
    found = []
    for package, name in APT.items():
        path = program(package, peers)
        if path:
            said = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False).stdout
            number = re.search(r"\d+(\.\d+)+", said)
            found.append(f"{name} {number[0] if number else ''}".strip())
    for name in PIP:
        folder = library(name, peers)
        for info in folder.glob(f"{PIP[name][0].replace('-', '_')}-*.dist-info") if folder else ():
            found.append(info.name.removesuffix(".dist-info").replace("-", " "))
    return found


def protocol(written: tuple[dict[str, str], str], name: str) -> bytes:
    """An HSET and a PUBLISH in the words of the protocol."""
    fields = [part for pair in written[0].items() for part in pair]
    return _command("HSET", f"bench:{name}", *fields) + _command("PUBLISH", "bench:updates", written[1])


def _command(*words: str) -> bytes:
    parts = (word.encode() for word in words)
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def pipe(tools: Path, socket: str, commands: bytes) -> float:
    """Seconds of `redis-cli --pipe`, the process included."""
    with tempfile.TemporaryFile() as given:
        given.write(commands)
        given.seek(0)
        command = [str(tools / "redis-cli"), "-s", socket, "--pipe"]
        return timed(lambda: subprocess.run(command, stdin=given, stdout=subprocess.DEVNULL, check=True))


def benchmark(tools: Path, socket: str, count: int) -> float:
    """Seconds that redis-benchmark says as many HSETs of 200 bytes took, in pipelines of 100 on one connection."""
    command = [str(tools / "redis-benchmark"), "-s", socket, "-n", str(count), "-P", "100", "-c", "1", "--csv"]
    words = ["HSET", "bench:__rand_int__", "context", "x" * 180]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    return count / float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))
