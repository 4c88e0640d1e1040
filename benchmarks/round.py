"""Time a round beside the limits it can be compared with: `make bench`, or `python benchmarks/round.py --help`.

Absolute times say little about another machine, so what counts is printed as ratios of medians. Everything is
measured in one interleaved run: each round times every row once, so that a slow minute hurts all of them. The
spread is the middle half of the ratios that the rounds gave one by one. Whole processes are compared with
whole processes (interpreter and imports included), and `inside` with the work alone.

A Valkey of its own runs in a temporary folder, with the settings of the embedded one; both are gone at the end.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import redis

from reconciler.store.embedded import server_binary

LIMITS = Path(__file__).with_name("limits.py")

MANIFEST = """\
# yaml-language-server: $schema=../schemas/manifest.schema.json
apiVersion: reconciler/v1
kind: Agent
metadata:
  name: agent-{number:05}
  labels:
    team: team-{team}
spec:
  status: active
  context:
    role: worker
    task: "item {number}"
    attempts: {attempts}
    tags: [alpha, beta]
    note: "what the agent was told, in a line of common length"
  fields:
    insight: none
"""

RATIOS = (
    ("cold apply", "yaml", "YAML C parse of the same files"),
    ("cold apply", "hset", "the same hashes as pipelined HSET"),
    ("no-op apply", "hgetall", "the same hashes by pipelined HGETALL"),
    ("no-op apply", "yaml", "YAML C parse of the same files"),
    ("diff, one change", "hgetall", "the same hashes by pipelined HGETALL"),
    ("diff, one change", "yaml", "YAML C parse of the same files"),
)
HELP, BARE = "reconciler --help", "python -c pass"


class Cost(NamedTuple):
    """One process: seconds by the clock, seconds of CPU, and the seconds it printed."""

    wall: float
    cpu: float
    inside: float


Costs = dict[str, list[Cost]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--agents", type=int, default=10_000, help="manifests, one agent each (%(default)s)")
    arguments.add_argument("--rounds", type=int, default=7, help="how often each row is timed (%(default)s)")
    chosen = arguments.parse_args()
    if chosen.agents < 1 or chosen.rounds < 1:
        arguments.error("at least one agent and one round are needed")
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with server(folder) as client:
            describe(chosen.agents, chosen.rounds, client)
            costs = Bench(folder, client, chosen.agents).measure(chosen.rounds)
        show(costs)
    finally:
        shutil.rmtree(folder)


@contextmanager
def server(folder: Path) -> Iterator[redis.Redis]:
    """A Valkey on a private socket, set up as the embedded one is; stopped at the end."""
    socket = folder / "valkey.sock"
    options = {"port": 0, "unixsocket": socket, "dir": folder, "appendonly": "yes", "appendfsync": "everysec",
               "save": "", "loglevel": "warning", "logfile": folder / "valkey.log"}  # fmt: skip
    command = [str(server_binary()), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket), decode_responses=True)
    try:
        deadline = time.monotonic() + 10
        while not _answers(client):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server does not answer: {' '.join(command)}")
            time.sleep(0.01)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=10)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


class Bench:
    """A workspace of many manifests, the server, and the rows that are timed on them."""

    def __init__(self, folder: Path, client: redis.Redis, agents: int) -> None:
        self.root, self.socket, self.data = folder / "workspace", str(folder / "valkey.sock"), str(folder / "data")
        self.client, self.agents = client, agents
        self.env = {
            **{name: text for name, text in os.environ.items() if not name.startswith(("RECONCILER_", "REDIS_"))},
            "PYTHONPATH": str(LIMITS.parent.parent),
        }

    def measure(self, rounds: int) -> Costs:
        self.prepare()
        costs: Costs = {}
        for number in range(rounds):
            for name, cost in self.round():
                costs.setdefault(name, []).append(cost)
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}", end="\n" if number + 1 == rounds else "", file=sys.stderr)
        return costs

    def prepare(self) -> None:
        """Write the manifests, run one round that is not timed, and keep its hashes for the limits."""
        folder = self.root / "manifests"
        folder.mkdir(parents=True)
        for number in range(self.agents):
            text = MANIFEST.format(number=number, team=number % 7, attempts=number % 100)
            (folder / f"agent-{number:05}.yaml").write_text(text)
        self.program("apply")
        keys = sorted(self.client.scan_iter(match="memory:agents:*", count=1_000))
        if len(keys) != self.agents:
            raise SystemExit(f"{self.agents} agents were applied and {len(keys)} are there")
        Path(self.data).write_text(json.dumps({key: self.client.hgetall(key) for key in keys}))

    def round(self) -> Iterator[tuple[str, Cost]]:
        """Every row once."""
        yield BARE, self.run("-c", "pass")
        yield HELP, self.run("-m", "reconciler", "--help")
        yield "yaml", self.limit("yaml", str(self.root / "manifests"))
        self.empty()
        yield "hset", self.limit("hset", self.socket, self.data)
        self.empty()
        yield "cold apply inside", self.inside("wet")
        self.empty()
        yield "cold apply", self.program("apply")
        yield "hgetall", self.limit("hgetall", self.socket, self.data)
        yield "no-op apply", self.program("apply")
        yield "no-op apply inside", self.inside("wet")
        self.edit()
        yield "diff, one change", self.program("diff", code=1)
        yield "diff, one change inside", self.inside("dry")

    def empty(self) -> None:
        """As before the first round: an empty server, no context.json, no base."""
        self.client.flushall()
        for name in (".reconciler", "shared_memory"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def edit(self) -> None:
        path = self.root / "manifests" / "agent-00000.yaml"
        text = path.read_text()
        path.write_text(text.replace("active", "busy") if "active" in text else text.replace("busy", "active"))

    def program(self, verb: str, code: int = 0) -> Cost:
        return self.run("-m", "reconciler", "--root", str(self.root), "--redis", f"unix://{self.socket}", verb,
                        code=code)  # fmt: skip

    def inside(self, dry: str) -> Cost:
        return self.limit("round", str(self.root), self.socket, dry)

    def limit(self, *words: str) -> Cost:
        return self.run(str(LIMITS), *words)

    def run(self, *words: str, code: int = 0) -> Cost:
        """Run Python with these arguments and wait for it; another exit code than `code` ends the benchmark."""
        start = time.perf_counter()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen([sys.executable, *words], stdout=out, stderr=err, env=self.env)
            _, status, used = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            said, wrong = out.read().decode(), err.read().decode()
        if process.returncode != code:
            raise SystemExit(f"python {' '.join(words)} ended with {process.returncode}, not {code}:\n{wrong[-2_000:]}")
        inside = float(said) if words[0] == str(LIMITS) else 0.0
        return Cost(wall, used.ru_utime + used.ru_stime, inside)


def describe(agents: int, rounds: int, client: redis.Redis) -> None:
    info = client.info("server")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("redis", "hiredis", "pyyaml")]
    print(f"{agents} agents, {rounds} rounds, interleaved")
    print(f"{_processor()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}")
    print(f"Python {platform.python_version()}, {', '.join(versions)}, "
          f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}")  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def show(costs: Costs) -> None:
    print(f"\n{'whole process':<24}{'median':>10}{'cpu':>10}{'inside':>10}")
    for name in ("cold apply", "no-op apply", "diff, one change", "yaml", "hset", "hgetall", HELP, BARE):
        timed = costs[name]
        inner = [cost.inside for cost in costs.get(f"{name} inside", timed)]
        print(
            f"{name:<24}{_median([c.wall for c in timed]):>8.3f} s{_median([c.cpu for c in timed]):>8.3f} s"
            + (f"{_median(inner):>8.3f} s" if any(inner) else "")
        )
    print(f"\n{'ratio':<62}{'process':>8}  {'spread':<13}{'inside':>8}  spread")
    for name, limit, what in RATIOS:
        whole = _ratio([c.wall for c in costs[name]], [c.wall for c in costs[limit]])
        inside = _ratio([c.inside for c in costs[f"{name} inside"]], [c.inside for c in costs[limit]])
        print(f"{name + ' : ' + what:<62}{whole}{inside}".rstrip())
    cpu = _ratio([c.cpu for c in costs[HELP]], [c.cpu for c in costs[BARE]])
    print(f"{HELP + ' : ' + BARE + ', CPU':<62}{cpu}".rstrip())


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The ratio of the medians, and the middle half of the ratios of the single rounds."""
    paired = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    low, _, high = statistics.quantiles(paired, n=4, method="inclusive") if len(paired) > 1 else paired * 3
    return f"{_median(ours) / _median(theirs):>8.2f}  {f'{low:.2f} - {high:.2f}':<13}"


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
