"""Many agents beside few: rounds, one change, and the daemon's memory; the tables of cost against size.

`crowd`: rounds of a warm daemon, called one by one in this process, at every size. `change`: daemons that run, one with
few agents and one with many, and how long one change is on its way. `growth`: what is measured only for the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count

from reconciler import UnifiedMemoryHub

from . import listening
from .arrival import Paths
from .filling import agent, filled, filled_server
from .group import Group, Measures, Row, Scale, timed
from .listening import Listener
from .memory import used
from .reading import hashes
from .rig import Server, daemon, resident
from .warm import Warm
from .ways import blocks

FEW = 10


def sizes(most: int) -> tuple[int, ...]:
    """Ten, and ten times as many until it is the most."""
    size, found = FEW, []
    while size < most:
        found.append(size)
        size *= 10
    return (*found, most)


@contextmanager
def _crowd(scale: Scale) -> Iterator[Measures]:
    with ExitStack() as opened:
        measures: dict[str, Callable[[], float]] = {}
        for size in sizes(scale.crowd):
            at = opened.enter_context(filled_server(size))
            warm = opened.enter_context(Warm(at.root, at.url))
            hub = opened.enter_context(UnifiedMemoryHub(str(at.root), redis=at.url))
            label = name_of(size, scale)
            measures[f"nothing, {label}"] = partial(_again, warm)
            measures[f"change, {label}"] = _change(warm, hub, size)
            if size == scale.crowd:
                measures["bare"] = partial(timed, partial(_read, at))
        yield measures


def _again(warm: Warm) -> float:
    """A round after one that already looked at what was written before: the file of a moment ago is read once more."""
    warm.round()
    return warm.round()


def _read(at: Server) -> int:
    return sum(1 for _ in hashes(at.client))


def name_of(size: int, scale: Scale) -> str:
    return "crowd" if size == scale.crowd else str(size)


def _change(warm: Warm, hub: UnifiedMemoryHub, agents: int) -> Callable[[], float]:
    """A round after one agent was written."""
    numbers = count()

    def change() -> float:
        number = next(numbers)
        name = agent(number * 7 % agents)
        hub.update_agent_context(name, {"task": f"another {number}"})
        return warm.round({name})

    return change


@contextmanager
def _arrival(scale: Scale) -> Iterator[Measures]:
    with ExitStack() as opened:
        measures: dict[str, Callable[[], float]] = {}
        for size in (FEW, scale.crowd):
            at = opened.enter_context(filled_server(size))
            process = opened.enter_context(daemon(at.root, at.url))
            ours = opened.enter_context(Listener(listening.hub, str(at.root), at.url))
            hub = opened.enter_context(UnifiedMemoryHub(str(at.root), redis=at.url))
            paths, label = Paths(at, hub, ours), name_of(size, scale)
            measures[f"manifest, {label}"] = blocks(paths.rested(paths.declare), 3, 0.05)
            measures[f"raw, {label}"] = blocks(paths.rested(paths.raw), 3, 0.05)
            measures[f"file, {label}"] = blocks(paths.mirror, 3, 0.05)
            measures[f"memory, {label}"] = partial(_share, process.pid, size)
        yield measures


def _share(process: int, agents: int) -> float:
    """Bytes of a process for each agent."""
    return resident(process) / agents


@contextmanager
def _growth(scale: Scale) -> Iterator[Measures]:
    with ExitStack() as opened:
        measures: dict[str, Callable[[], float]] = {}
        for size in sizes(scale.crowd):
            at = opened.enter_context(filled_server(size))
            label = name_of(size, scale)
            hub = opened.enter_context(UnifiedMemoryHub(str(at.root), redis=at.url))
            hub.get_unified_context()
            measures[f"first, {label}"] = partial(_first, at)
            measures[f"second, {label}"] = partial(timed, hub.get_unified_context)
            measures[f"daemon, {label}"] = partial(float, _daemon(at))
            measures[f"redis, {label}"] = partial(used, at)
            measures[f"write, {label}"] = partial(float, filled(size).write)
            measures[f"apply, {label}"] = partial(float, filled(size).apply)
        yield measures


def _first(at: Server) -> float:
    with UnifiedMemoryHub(str(at.root), redis=at.url) as hub:
        return timed(hub.get_unified_context)


def _daemon(at: Server) -> float:
    """Bytes of a daemon that has just begun to watch."""
    with daemon(at.root, at.url) as process:
        return resident(process.pid)


@contextmanager
def _keys(scale: Scale) -> Iterator[Measures]:
    """One agent whose context has many keys, of which one changes."""
    with ExitStack() as opened:
        measures: dict[str, Callable[[], float]] = {}
        for keys in sizes(scale.agents):
            at = opened.enter_context(filled_server(1))
            hub = opened.enter_context(UnifiedMemoryHub(str(at.root), redis=at.url))
            before = used(at)
            hub.update_agent_context(agent(0), {f"key-{number:05}": f"value of {number}" for number in range(keys)})
            warm = opened.enter_context(Warm(at.root, at.url))
            numbers = count()

            def write(hub: UnifiedMemoryHub = hub, numbers: Iterator[int] = numbers) -> float:
                return timed(lambda: hub.update_agent_context(agent(0), {"key-00000": f"another {next(numbers)}"}))

            def round_(write: Callable[[], float] = write, warm: Warm = warm) -> float:
                write()
                return warm.round({agent(0)})

            measures[f"write, {keys}"] = write
            measures[f"round, {keys}"] = round_
            measures[f"read, {keys}"] = partial(timed, partial(hub.get_agent, agent(0)))
            measures[f"redis, {keys}"] = partial(float, used(at) - before)
        yield measures


GROUPS = (
    Group("crowd", _crowd, (
        Row("round over {crowd} agents, nothing changed : SCAN + pipelined HGETALL", "nothing, crowd", "bare", 0.01),
        Row("round after one change at {crowd} agents, context.json written : at 10", "change, crowd", "change, 10"),
    )),
    Group("change", _arrival, (
        Row("one change at {crowd} agents, edited manifest -> event : at 10", "manifest, crowd", "manifest, 10", 1.5),
        Row("one change at {crowd} agents, raw HSET -> event less quiet : at 10", "raw, crowd", "raw, 10", 1.5),
        Row("one change at {crowd} agents, update -> context.json : at 10", "file, crowd", "file, 10"),
        Row("daemon's resident memory per agent at {crowd}", "memory, crowd", "", 1536, "B"),
    )),
    Group("growth", _growth, (), warm=0, most=3),
    Group("keys", _keys, ()),
)  # fmt: skip
