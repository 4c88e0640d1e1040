"""The drop-ins do for old callers what was there before: the module, the service, and memory_sync.sh."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import redis

from reconciler.service import carry_out, find, installing
from reconciler.workspace import read_settings
from tests.cli.shell import Result, Shell, read_until, say
from tests.waiting import wait_until

HUB = "agents/memory_hub/memory_hub.py"
IMPORT = "from agents.memory_hub.memory_hub import UnifiedMemoryHub\n"


@pytest.fixture
def old(shell: Shell) -> Shell:
    """A workspace with the hooks and the drop-ins; callers know the server."""
    settings = read_settings(str(shell.root), {}, {})
    for name in ("hooks", "shim"):
        carry_out(settings, installing(settings, find(name)))
    shell.env["REDIS_URL"] = shell.redis
    return shell


def arrived(shell: Shell, client: redis.Redis, agent: str, values: dict[str, object]) -> bool:
    """Whether Redis and context.json both have these context keys of an agent."""
    live: dict[str, object] = json.loads(client.hget(f"memory:agents:{agent}", "context") or b"{}")
    said = shell.context()["agents"][agent].get("context", {})
    return values.items() <= live.items() and values.items() <= said.items()


def sync(shell: Shell, *words: str) -> Result:
    return shell.plain("sh", "tools/memory_sync.sh", *words)


def test_an_old_import_gets_the_hub_of_this_workspace(old: Shell, client: redis.Redis) -> None:
    """Writing one key keeps the others; what was edited in the file comes back as the old method gave it."""
    old.write_context({"mary": {"status": "active", "context": {"role": "dispatcher"}}})
    program = IMPORT + (
        "hub = UnifiedMemoryHub()\n"
        "print(hub.sync_from_file()['agents']['mary']['context']['role'])\n"
        "hub.update_agent_context('mary', {'last_task': 'deploy'})\n"
        "print(hub.get_unified_context()['agents']['mary']['context'])\n"
    )
    done = old.plain(sys.executable, "-c", program)
    assert done == (0, "dispatcher\n{'role': 'dispatcher', 'last_task': 'deploy'}\n", "")
    assert b"deploy" in (client.hget("memory:agents:mary", "context") or b"")


def test_a_python_without_the_reconciler_finds_it_or_says_in_one_line_where_it_is(old: Shell) -> None:
    """The same Python by another name has it from where it was installed; one that cannot have it is told."""
    words = (sys.executable, "-S", "-E", "-c", IMPORT + "print(UnifiedMemoryHub.__name__)")
    assert old.plain(*words) == (0, "UnifiedMemoryHub\n", "")
    path = old.root / HUB
    path.write_text(path.read_text().replace(f"VERSION = {sys.version_info[:2]}", "VERSION = (3, 2)"))
    program = IMPORT.replace("from", "try:\n  from") + "except ImportError as error: print(error)"
    told = old.plain(sys.executable, "-S", "-E", "-c", program)
    assert told.out.startswith("this Python has no reconciler (No module named 'reconciler'); use ")
    assert sys.executable in told.out and told.out.count("\n") == 1


def test_run_as_a_program_it_is_the_service(old: Shell, client: redis.Redis) -> None:
    """The old acceptance: a hook is called, and Redis and context.json both hold the task and the result."""
    old.write_context({"mary": {"status": "active"}, "rnd": {"status": "active"}})
    result = {"note": "it's $(touch pwned) `id` \" ; rm -rf", "n": 1.50}
    service = subprocess.Popen(
        [sys.executable, str(old.root / HUB)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=old.environment(),
    )
    try:
        read_until(service, "Watching")
        for agent, key in (("mary", "last_task"), ("rnd", "last_proposal")) if shutil.which("zsh") else ():
            words = (f"tools/{agent}_memory_hook.zsh", "ID-1", "completed", json.dumps(result))
            assert old.plain(*words) == (0, "", "")
            wait_until(partial(arrived, old, client, agent, {key: "ID-1", "result": result}))
        assert say(service, signal.SIGTERM).code == 0
    finally:
        service.kill()
        service.wait()


def test_memory_sync_updates_and_gets(old: Shell) -> None:
    """`update AGENT STATUS`, also four at once, and `get [AGENT]` for jq."""
    started = [
        subprocess.Popen(
            ["sh", "tools/memory_sync.sh", "update", f"agent{number}", "busy"],
            cwd=old.root, env=old.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in range(4)
    ]  # fmt: skip
    assert [process.wait() for process in started] == [0] * 4
    agents = sync(old, "get").json["agents"]
    assert {name: agent["status"] for name, agent in agents.items()} == {
        f"agent{number}": "busy" for number in range(4)
    }
    assert sync(old, "update", "agent1").out == "agent1: status, last_seen (version 2)\n"
    assert sync(old, "get", "agent1").json["status"] == "active"
    assert [sync(old, *words).code for words in ((), ("update",), ("drop", "x"), ("get", "nobody"))] == [2, 2, 2, 1]


def test_memory_sync_goes_on_while_redis_is_away(old: Shell) -> None:
    """Files are used, which is no failure for scripts that stop at one."""
    old.env["REDIS_URL"] = "redis://localhost:1"
    assert sync(old, "update", "mary", "resting").code == 0
    assert sync(old, "get", "mary").json["status"] == "resting"
    assert old.context()["agents"]["mary"]["status"] == "resting"


def test_without_the_interpreter_that_installed_them_they_say_so(old: Shell) -> None:
    """In one line, with the way out."""
    for name in (HUB, "tools/memory_sync.sh"):
        path = old.root / name
        path.write_text(path.read_text().replace(sys.executable, "/gone/python"))
    old.env |= {"PATH": "/usr/bin:/bin", "PYTHONPATH": ""}
    hub = old.root / HUB
    hub.write_text(hub.read_text().replace(f"VERSION = {sys.version_info[:2]}", "VERSION = ()"))
    lost, service = sync(old, "get"), old.plain(sys.executable, "-S", "-E", HUB)
    assert (lost.code, service.code) == (3, 3)
    for told in (lost, service):
        assert (told.out, told.err.count("\n")) == ("", 1)
        assert "/gone/python" in told.err and told.err.endswith("then: reconciler install shim\n")


def test_uninstalling_leaves_nothing_that_python_made_of_it(old: Shell) -> None:
    """Compiled modules in the folders that were made go with them."""
    old.env["PYTHONDONTWRITEBYTECODE"] = ""
    old.plain(sys.executable, "-c", IMPORT)
    assert list((old.root / "agents").rglob("*.pyc"))
    assert old("uninstall", "shim", "hooks").code == 0
    assert [path.name for path in Path(old.root).iterdir()] == [".reconciler"]
