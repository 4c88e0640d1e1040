"""Real Sentinel and Cluster processes on loopback ports, in a folder of their own, always stopped.

`KINDS` are the binaries: the one that is installed with the program, and a Redis of the system where there is one.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from reconciler.store.embedded import server_binary
from tests.waiting import wait_until

SYSTEM = "/usr/bin/redis-server"
SLOTS = 16_384
KINDS = ("bundled", "system")
Process = subprocess.Popen[bytes]


def binary(kind: str) -> str:
    """The path of a server; skips the test where this machine has none."""
    if kind == "bundled":
        return str(server_binary())
    if not shutil.which(SYSTEM):
        pytest.skip(f"there is no {SYSTEM} here")
    return SYSTEM


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, whose cluster bus (10,000 above) is a port too."""
    found: list[int] = []
    sockets = []
    for port in range(random.randrange(21_000, 40_000), 50_000):
        if len(found) == count:
            break
        try:
            for number in (port, port + 10_000):
                asking = socket.socket()
                sockets.append(asking)
                asking.bind(("127.0.0.1", number))
        except OSError:
            continue
        found.append(port)
    for asking in sockets:
        asking.close()
    return found


@dataclass
class Farm:
    """Server processes of one binary in one folder, by port."""

    program: str
    folder: Path
    processes: dict[int, Process] = field(default_factory=dict)

    def start(self, port: int, *options: str) -> None:
        """Start a server, and return when it answers."""
        home = self.folder / str(port)
        home.mkdir(exist_ok=True)
        with open(home / "log", "ab") as log:
            self.processes[port] = subprocess.Popen(
                [self.program, *options], stdout=log, stderr=log, cwd=home, env={"LC_ALL": "C"}
            )
        wait_until(lambda: ask(port, "PING") is not None, what=f"an answer from port {port}")

    def kill(self, port: int) -> None:
        process = self.processes.pop(port)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for port in list(self.processes):
            self.kill(port)


@contextmanager
def farm(kind: str) -> Iterator[Farm]:
    with tempfile.TemporaryDirectory(prefix="reconciler-test-", dir="/tmp") as name:
        found = Farm(binary(kind), Path(name))
        try:
            yield found
        finally:
            found.stop()


def client(port: int) -> Any:
    once = Retry(NoBackoff(), 0)
    return redis.Redis(host="127.0.0.1", port=port, socket_timeout=5, socket_connect_timeout=1, protocol=2, retry=once)


def ask(port: int, *words: Any) -> Any:
    """One command's answer; None where nobody answers, "" where a password is asked for."""
    with client(port) as asking:
        try:
            return asking.execute_command(*words)
        except redis.AuthenticationError:
            return ""
        except (redis.ConnectionError, redis.TimeoutError):
            return None


def _common(port: int) -> list[str]:
    return ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


SERVICE = "mymaster"


@dataclass
class Watched:
    """One master with replicas, watched by sentinels."""

    farm: Farm
    servers: list[int]
    sentinels: list[int]

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE}"

    @property
    def master(self) -> int:
        """What the first sentinel believes."""
        found: Any = ask(self.sentinels[0], "SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(found[1])

    def in_step(self) -> bool:
        """Whether every replica that runs has what the master has."""
        found: list[Any] = [ask(port, "INFO", "replication") for port in self.servers if port in self.farm.processes]
        masters = [info for info in found if info["role"] == "master"]
        return len(masters) == 1 and all(
            info["role"] == "master"
            or (info["master_link_status"] == "up" and info["slave_repl_offset"] == masters[0]["master_repl_offset"])
            for info in found
        )

    def start_all(self) -> None:
        """Start again what was killed, as a replica, and empty the master."""
        for port in self.servers:
            if port not in self.farm.processes:
                self.start(port, self.master)
        wait_until(lambda: all(_sees(port) for port in self.sentinels), seconds=20, what="sentinels that know all")
        ask(self.master, "FLUSHALL")
        wait_until(self.in_step, seconds=20, what="replicas in step")

    def start(self, port: int, master: int | None = None) -> None:
        follow = ["--replicaof", f"127.0.0.1 {master}"] if master else []
        self.farm.start(port, *_common(port), "--repl-diskless-sync-delay", "0", *follow)

    def fail_over(self) -> int:
        """kill -9 of the master; the new one's port, once the sentinels have agreed on it."""
        self.farm.kill(self.master)
        return self.new_master()

    def new_master(self, old: int = 0) -> int:
        """The new master's port, once all sentinels have agreed on it and it takes writes."""
        agreed = partial(_agree, self.sentinels, self.farm.processes.keys() - {old})
        wait_until(agreed, seconds=20, what="another master")
        new = self.master
        wait_until(lambda: (ask(new, "ROLE") or [b""])[0] == b"master", seconds=10, what="a master that says so")
        return new

    @contextmanager
    def cut_off_replicas(self) -> Iterator[None]:
        """They stand still, and the master sends them nothing meanwhile."""
        replicas = [self.farm.processes[port] for port in self.servers if port != self.master]
        try:
            for process in replicas:
                process.send_signal(signal.SIGSTOP)
            ask(self.master, "CLIENT", "KILL", "TYPE", "replica")
            yield
        finally:
            for process in replicas:
                process.send_signal(signal.SIGCONT)


@contextmanager
def watched(kind: str) -> Iterator[Watched]:
    """One master, two replicas, three sentinels that need 500 ms to see a death."""
    with farm(kind) as servers:
        ports = free_ports(6)
        found = Watched(servers, ports[:3], ports[3:])
        found.start(found.servers[0])
        for port in found.servers[1:]:
            found.start(port, found.servers[0])
        wait_until(found.in_step, what="replicas in step")
        for port in found.sentinels:
            path = servers.folder / f"{port}.conf"
            path.write_text(
                f"port {port}\nbind 127.0.0.1\nsentinel monitor {SERVICE} 127.0.0.1 {found.servers[0]} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 3000\n"
            )
            servers.start(port, str(path), "--sentinel")
        wait_until(lambda: all(_sees(port) for port in found.sentinels), seconds=20, what="sentinels that know all")
        yield found


def _agree(sentinels: Sequence[int], servers: Container[int]) -> bool:
    """Whether all name the same master, which runs and answers them."""
    states: list[Any] = [ask(port, "SENTINEL MASTERS").get(SERVICE, {}) for port in sentinels]
    return len({state["port"] for state in states}) == 1 and all(
        state["port"] in servers and state["flags"] == "master" for state in states
    )


def _sees(sentinel: int) -> bool:
    said: Any = ask(sentinel, "SENTINEL MASTERS")
    state = said.get(SERVICE, {})
    replicas = ask(sentinel, "SENTINEL SLAVES", SERVICE)
    up = [one for one in replicas if not one["is_disconnected"] and not one["is_sdown"]]
    return state.get("num-other-sentinels") == 2 and len(up) == 2


@dataclass
class Sharded:
    """A cluster of masters."""

    farm: Farm
    ports: list[int]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def empty(self) -> None:
        for port in self.ports:
            ask(port, "FLUSHALL")

    def start(self, port: int) -> None:
        self.farm.start(port, *_common(port), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")

    def join(self) -> int:
        """One more master, without slots."""
        port = free_ports(1)[0]
        self.start(port)
        ask(self.ports[0], "CLUSTER", "MEET", "127.0.0.1", port)
        self.ports.append(port)
        wait_until(lambda: all(_whole(each, len(self.ports)) for each in self.ports), 20, "a node that all know")
        return port

    def owner(self, slot: int) -> int:
        """The port of the node that serves a slot."""
        for first, last, place, *_ in _shares(self.ports[0]):
            if first <= slot <= last:
                return int(place[1])
        raise AssertionError(f"nobody serves slot {slot}")

    def move(self, slot: int, count: int = 100) -> None:
        """Move a slot to the next master, `count` keys at a time."""
        with self.moving(slot, count) as finish:
            finish()

    @contextmanager
    def moving(self, slot: int, count: int = 100) -> Iterator[Callable[[], None]]:
        """A slot on its way to the next master, with its keys there already; the function given decides it.

        As `redis-cli --cluster reshard` does it: announced to both, the keys, decided.
        """
        source = self.owner(slot)
        target = self.ports[(self.ports.index(source) + 1) % len(self.ports)]
        there, here = (ask(port, "CLUSTER", "MYID") for port in (target, source))
        ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", there)

        def migrate() -> None:
            while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, count):
                ask(source, "MIGRATE", "127.0.0.1", target, "", 0, 5_000, "KEYS", *keys)

        def finish() -> None:
            migrate()
            for port in (target, source, *self.ports):
                ask(port, "CLUSTER", "SETSLOT", slot, "NODE", there)
            wait_until(lambda: self.owner(slot) == target, what=f"slot {slot} on {target}")

        migrate()
        yield finish


def slot_of(agent: str) -> int:
    return int(key_slot(f"memory:agents:{agent}".encode()))


def _shares(port: int) -> Sequence[Any]:
    """What CLUSTER SLOTS says: first, last, and who serves them."""
    with client(port) as asking:
        asking.set_response_callback("CLUSTER SLOTS", lambda answer, **_: answer)
        found: Sequence[Any] = asking.execute_command("CLUSTER SLOTS")
        return found


@contextmanager
def sharded(kind: str) -> Iterator[Sharded]:
    """Three masters that know each other and serve all slots."""
    with farm(kind) as servers:
        found = Sharded(servers, free_ports(3))
        for port in found.ports:
            found.start(port)
        for index, port in enumerate(found.ports):
            first, last = SLOTS * index // 3, SLOTS * (index + 1) // 3
            ask(port, "CLUSTER", "ADDSLOTS", *range(first, last))
            ask(port, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            ask(found.ports[0], "CLUSTER", "MEET", "127.0.0.1", port)
        wait_until(lambda: all(_whole(port, 3) for port in found.ports), seconds=20, what="a cluster that is whole")
        yield found


def _whole(port: int, nodes: int) -> bool:
    info = str(ask(port, "CLUSTER", "INFO"))
    return "cluster_state:ok" in info and f"cluster_known_nodes:{nodes}" in info and len(_shares(port)) >= 3
