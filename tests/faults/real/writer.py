"""A process that writes the shared memory at random, one way of several, until SIGTERM or `kill -9`.

    python -m tests.faults.real.writer '{"kind": "hub", "root": ..., "redis": ..., "log": ..., "name": "w1", "seed": 1}'

Kinds: hub (`UnifiedMemoryHub`), raw (a plain client that knows nothing of this program), edit (reads, changes and
replaces `context.json`), manifest. Every value is written once only, so that whatever is found can be traced to the
operation that wrote it. `record.Log` has each operation before and after it was done.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from reconciler import UnifiedMemoryHub
from reconciler.errors import ReconcilerError
from reconciler.stamp import format_time
from reconciler.state import encode
from reconciler.store import AGAIN
from tests.faults.record import AGENT, CONTEXT, Log, now
from tests.registers import registers

AGENTS = ("a0", "a1", "a2", "a3", "a4", "raw")
DELETED = ("a3", "a4")
"""The agents that are deleted now and then."""
READ = ("a0", "a1", "a2")
"""The agents in which a writer may count on its own keys: nobody deletes them, nobody replaces their context."""
HOT = ("k0", "k1", "k2", "k3")
"""The keys that everybody writes."""
WAIT: dict[str, Any] = {
    "socket_timeout": 1.0, "socket_connect_timeout": 0.25, "retry": Retry(NoBackoff(), 0), "protocol": 2,
}  # fmt: skip
OWN = 40
"""How many keys each writer has for itself."""


class Writer:
    """What the kinds share: names, values, the log, and when to stop."""

    def __init__(self, chosen: dict[str, Any]) -> None:
        self.chosen, self.name = chosen, str(chosen["name"])
        self.random = random.Random(chosen["seed"])
        self.log = Log(Path(chosen["log"]))
        self.number = 0
        self.stopped = False
        self.root = Path(chosen["root"])
        self.durable = False
        self.agents: list[str] = list(chosen.get("agents", AGENTS))
        signal.signal(signal.SIGTERM, self.stop)

    def run(self) -> None:
        """Operations until SIGTERM, or as many as asked for; between two of them a random pause."""
        count, pause = self.chosen.get("count", 1 << 60), self.chosen.get("pause", 0.02)
        while self.number < count and not self.stopped:
            self.step()
            time.sleep(self.random.uniform(0, pause))
        self.close()

    def stop(self, number: int, frame: object) -> None:
        """A flag, not an Event: its lock may be held by the very thread that the signal interrupts."""
        self.stopped = True

    def step(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def next(self) -> str:
        self.number += 1
        return f"{self.name}:{self.chosen['seed']}:{self.number}"

    def value(self, mark: str) -> Any:
        """A value that nobody else writes, of some JSON type."""
        number = int.from_bytes(mark.encode(), "big")
        shapes: tuple[Any, ...] = (
            mark, f"{mark} é\n\"{{\\ \u2028 😀", number, {"id": mark, "big": 10**30, "f": 1.0, "e": [], "o": {}},
            [mark, None, True, -0.5], {mark: {"deep": [[[{}]]]}},
        )  # fmt: skip
        return self.random.choice(shapes)

    def key(self) -> str:
        if self.random.random() < 0.4:
            return self.random.choice(HOT)
        return f"{self.name}-{self.random.randrange(OWN)}"

    def do(
        self, agent: str, sets: dict[str, str | None], work: Callable[[], dict[str, Any]], clears: str = ""
    ) -> dict[str, Any]:
        """One operation, written down before and after. Only errors that a user may meet are taken."""
        mark = f"{self.name}:{self.chosen['seed']}:{self.number}"
        self.log.write(
            id=mark, kind=self.chosen["kind"], agent=agent, sets=sets, clears=clears, start=now(),
            durable=self.durable,
        )  # fmt: skip
        try:
            done = work()
        except ReconcilerError as error:
            done = {"outcome": "refused", "error": f"{type(error).__name__}: {error}"}
        except redis.RedisError as error:
            outcome = "unknown" if self.chosen["kind"] == "raw" else "fault"
            done = {"outcome": outcome, "error": f"{type(error).__name__}: {error}"}
        except Exception as error:
            done = {"outcome": "fault", "error": f"{type(error).__name__}: {error}"}
        self.log.write(id=mark, end=now(), **done)
        return done


class HubWriter(Writer):
    """Partial updates, and sometimes a whole agent deleted; and now and then a look at what it wrote itself.

    What was acknowledged is there for whoever wrote it, wherever it went; only it writes its own keys.
    """

    def __init__(self, chosen: dict[str, Any]) -> None:
        super().__init__(chosen)
        self.hub = UnifiedMemoryHub(chosen["root"], chosen["redis"])
        known = inspect.signature(self.hub.update_agent_context).parameters
        self.durable = bool(chosen.get("durable")) and "durable" in known
        self.more: dict[str, Any] = {"durable": True} if self.durable else {}
        self.mine: dict[tuple[str, str], str] = {}
        self.was_live, self.faults = False, 0

    def step(self) -> None:
        mark, agent = self.next(), self.random.choice(self.agents)
        if agent in DELETED and self.random.random() < 0.05:
            self.do(agent, {}, lambda: self.told(self.hub.delete_agent(agent)), AGENT)
            return
        if self.chosen.get("reads") and self.random.random() < 0.1:
            self.look_back()
        keys = {self.key() for _ in range(self.random.randint(1, 3))}
        context = {key: self.value(f"{mark}:{key}") for key in keys}
        status = f"{mark}:status" if self.random.random() < 0.2 else None
        fields = {"insight": f"{mark}:insight"} if self.random.random() < 0.1 else {}
        sets: dict[str, str | None] = {f"context.{key}": encode(value) for key, value in context.items()}
        sets |= {name: encode(value) for name, value in fields.items()}
        sets |= {"status": encode(status)} if status else {}
        update = self.hub.update_agent_context
        own = {(agent, key): encode(value) for key, value in context.items() if agent in READ and key not in HOT}
        self.mine = {place: text for place, text in self.mine.items() if place not in own}
        done = self.do(
            agent, sets, lambda: self.told(update(agent, context, status=status, fields=fields, **self.more))
        )
        self.was_live = done.get("outcome") == "redis"
        if self.was_live and not done["stale"]:
            self.mine |= own

    def look_back(self) -> None:
        """Read everything; what of its own is not there, and was not put there by a namesake before it, is told.

        Only while one and the same server was there, and answered at once: the files may not have yet what one that
        went away had, and a reader is answered from them who has waited for longer than `AGAIN`, or whose hub has
        just found the server away (DESIGN §8).
        """
        server, up, begun = self.server(), getattr(self.hub.workspace.store, "up", False), time.monotonic()
        try:
            agents = self.hub.get_unified_context()["agents"]
            if self.random.random() < 0.5:
                agents = {name: self.hub.get_agent(name) for name in READ}
        except ReconcilerError:
            return
        waited = time.monotonic() - begun > AGAIN
        if not (server and up and self.was_live) or waited or server != self.server():
            return
        for (agent, key), text in self.mine.items():
            found = agents.get(agent, {}).get("context", {}).get(key)
            if found is None or (encode(found) != text and f"{self.name}:{self.chosen['seed']}:" in encode(found)):
                self.faults += 1
                mark = f"{self.name}:{self.chosen['seed']}:read{self.faults}"
                error = f"{agent} {key} is {encode(found)[:50]}, but {text[:50]} was acknowledged"
                self.log.write(id=mark, kind="read", agent=agent, sets={}, clears="", start=now(), durable=False)
                self.log.write(id=mark, end=now(), outcome="fault", error=error)

    def server(self) -> object:
        """Which server serves now; None for none, and for one that loads yet, which would say its name too."""
        try:
            with redis.Redis.from_url(self.chosen["redis"], **WAIT) as client:
                client.ping()
                return client.info("server")["run_id"]
        except redis.RedisError:
            return None

    def told(self, done: Any) -> dict[str, Any]:
        facts = {"at": done.at, "version": done.version, "won": done.won, "stale": done.stale}
        return {"outcome": done.store, **facts}

    def close(self) -> None:
        self.hub.close()


class RawWriter(Writer):
    """`redis-cli` in the hands of somebody: HSET and HDEL of single fields, and the context of one agent as a whole."""

    def __init__(self, chosen: dict[str, Any]) -> None:
        super().__init__(chosen)
        self.client: Any = redis.Redis.from_url(chosen["redis"], **WAIT)

    def step(self) -> None:
        mark, agent = self.next(), self.random.choice(self.agents)
        key, client = f"memory:agents:{agent}", self.client
        chance = self.random.random()
        if agent == "raw" and chance < 0.3:
            self.replace_context(mark, key)
        elif chance < 0.9:
            name = self.random.choice(("status", "insight", "note"))
            text = f"{mark}:{name} é\n"
            self.do(agent, {name: encode(text)}, lambda: done(client.hset(key, name, text)))
        else:
            name = self.random.choice(("insight", "note"))
            self.do(agent, {name: None}, lambda: removed(self.remove(key, name)))

    def remove(self, key: str, name: str) -> int:
        """How many were removed. Not what was written by hand and seen by nobody, over nothing or over a tombstone: it
        would be gone without a trace, and an older write that comes from a file would stand there."""
        known = registers(self.client, key.removeprefix("memory:agents:")).get(name)
        return int(self.client.hdel(key, name)) if known and known.kind != "x" else 0

    def replace_context(self, mark: str, key: str) -> None:
        try:
            context = json.loads(self.client.hget(key, "context") or "{}")
        except redis.RedisError:
            return
        context[self.key()] = mark
        sets: dict[str, str | None] = {f"context.{name}": encode(value) for name, value in context.items()}
        text = json.dumps(context)
        self.do("raw", sets, lambda: done(self.client.hset(key, "context", text)), CONTEXT)


def done(_: object) -> dict[str, Any]:
    return {"outcome": "done"}


def removed(count: int) -> dict[str, Any]:
    """What was not there may be on its way from a file: nothing was deleted."""
    return {"outcome": "done" if count else "unknown"}


class Editor(Writer):
    """Reads `context.json`, changes a record or two, and puts the new file over the old one.

    Only one of these may work on a file: two would undo each other's edits before anybody has seen them.
    """

    def __init__(self, chosen: dict[str, Any]) -> None:
        super().__init__(chosen)
        self.path = self.root / "shared_memory" / "context.json"
        self.own: dict[tuple[str, str], tuple[str, Any]] = {}
        for path in sorted(
            Path(chosen["log"]).parent.glob(f"{self.name}-*.jsonl"), key=lambda path: path.stat().st_mtime
        ):
            self.inherit(path)

    def inherit(self, path: Path) -> None:
        """What a killed one left in the file, and perhaps nobody has seen yet, is saved again by this one."""
        for line in path.read_bytes().split(b"\n")[:-1]:
            facts = json.loads(line)
            for name, text in facts.get("sets", {}).items():
                self.own[(facts["agent"], name)] = (facts["id"], None if text is None else json.loads(text))

    def step(self) -> None:
        mark, agent = self.next(), self.random.choice(self.agents)
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        carried = self.carried(data)
        record = data["agents"].setdefault(agent, {})
        context = record.setdefault("context", {})
        sets: dict[str, str | None] = {}
        for key in {self.key() for _ in range(self.random.randint(1, 2))}:
            # What nobody saw come, nobody sees go: only what others wrote is deleted.
            if key in context and (agent, f"context.{key}") not in self.own and self.random.random() < 0.2:
                del context[key]
                sets[f"context.{key}"] = None
            else:
                context[key] = self.value(f"{mark}:{key}")
                sets[f"context.{key}"] = encode(context[key])
        if self.random.random() < 0.2:
            record["status"] = f"{mark}:status"
            sets["status"] = encode(record["status"])
        self.own |= {(agent, name): (mark, said(record, name)) for name in sets}
        if agent in ("a0", "a2"):  # these records say when; the others leave it to the file
            record["last_update"] = format_time(now())
        self.do(agent, sets, lambda: self.save(data, carried))

    def carried(self, data: Any) -> list[str]:
        """The earlier edits of this writer that the file still holds, and that are saved again with it."""
        agents = data["agents"]
        self.own = {
            (agent, name): found
            for (agent, name), found in self.own.items()
            if said(agents.get(agent, {}), name) == found[1]
        }
        return sorted({mark for mark, _ in self.own.values()})

    def save(self, data: Any, carried: list[str]) -> dict[str, Any]:
        put_over(self.path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        return {"outcome": "done", "carried": carried}


class ManifestEditor(Writer):
    """Replaces manifests, each of one field."""

    def step(self) -> None:
        mark, agent = self.next(), self.random.choice(self.agents[:2])
        path = self.root / "manifests" / f"{agent}.yaml"
        spec = json.dumps({"context": {"role": mark}})
        text = f"apiVersion: reconciler/v1\nkind: Agent\nmetadata: {{name: {agent}}}\nspec: {spec}\n"
        self.do(agent, {"context.role": encode(mark)}, lambda: saved(path, text))


def said(record: dict[str, Any], name: str) -> Any:
    """What a record holds for a field; None for nothing."""
    key = name.removeprefix("context.")
    return record.get(name) if key == name else record.get("context", {}).get(key)


def saved(path: Path, text: str) -> dict[str, Any]:
    put_over(path, text)
    return done(None)


def put_over(path: Path, text: str) -> None:
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    temp.write_text(text, encoding="utf-8")
    os.replace(temp, path)


KINDS = {"hub": HubWriter, "raw": RawWriter, "edit": Editor, "manifest": ManifestEditor}


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    KINDS[options["kind"]](options).run()
