"""Whole processes that people and hooks wait for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from reconciler.service import carry_out, find, installing
from reconciler.workspace import read_settings

from . import peers
from .filling import filled_server
from .group import Group, Measures, Row, Scale
from .rig import python, reconciler, run, server

CALLS = """\
zmodload zsh/datetime; source $1/tools/reconciler.zsh
typeset -a taken
for n in {1..$2}; do
  since=$EPOCHREALTIME; %s; taken+=($(( EPOCHREALTIME - since )))
done
print -l $taken
"""
HOOK = "reconciler_mary_task WO-1 completed $3"
CLI = "$4 -s $5 HSET memory:plain last_task WO-1 task_status completed result $3 >/dev/null"
RESULT = json.dumps({"exit": 0, "files": ["a.py", "b.py"], "note": "it's done"})


@contextmanager
def _processes(scale: Scale) -> Iterator[Measures]:
    with filled_server(10) as at:
        root = at.root

        def get(what: str) -> Callable[[], float]:
            return lambda: getattr(reconciler(root, at.url, "get", "agent-00001"), what)

        def bare(what: str) -> Callable[[], float]:
            return lambda: getattr(python("-c", "import redis, click"), what)

        yield {
            "pass": lambda: python("-c", "pass").cpu,
            "--help": lambda: reconciler(root, at.url, "--help").cpu,
            "get": get("wall"),
            "import": bare("wall"),
            "get, CPU": get("cpu"),
            "import, CPU": bare("cpu"),
        }


@contextmanager
def _hooks(scale: Scale) -> Iterator[Measures]:
    tools, zsh = peers.redis_tools(scale.peers), shutil.which("zsh")
    if not zsh:
        yield {}
        return
    with server() as at:
        root = at.root
        settings = read_settings(str(root), {}, {})
        carry_out(settings, installing(settings, find("hooks")))

        def shell(call: str, *words: str) -> Callable[[], float]:
            command = [zsh, "-f", "-c", CALLS % call, "caller", str(root), str(scale.calls), RESULT, *words]
            return lambda: _middle(run(*command).said)

        def script(name: str) -> Callable[[], float]:
            return lambda: run(str(root / "tools" / name), "WO-1", "completed", RESULT).wall

        measures = {
            "hook": shell(HOOK),
            "hook script": script("mary_memory_hook.zsh"),
            "zsh": lambda: run(zsh, "-f", "-c", "true").wall,
        }
        if tools:
            measures["redis-cli"] = shell(CLI, str(tools / "redis-cli"), at.socket)
        yield measures


def _middle(lines: str) -> float:
    taken = sorted(float(line) for line in lines.split())
    return taken[len(taken) // 2]


GROUPS = (
    Group("start", _processes, (
        Row("reconciler --help : python -c pass, CPU", "--help", "pass", 5),
        Row("reconciler get AGENT : python -c 'import redis, click'", "get", "import", 1.3),
        Row("reconciler get AGENT : python -c 'import redis, click', CPU", "get, CPU", "import, CPU"),
    ), often=2),
    Group("hook", _hooks, (
        Row("hook call in a live shell : redis-cli HSET", "hook", "redis-cli", 1 / 50),
        Row("hook as a script of its own : zsh -f -c true", "hook script", "zsh"),
    )),
)  # fmt: skip
