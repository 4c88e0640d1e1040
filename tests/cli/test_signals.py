"""One reconciler at a time, signals, killed processes, a server that goes away: nothing is lost or left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from reconciler.files import Lock
from reconciler.store.embedded import server_binary
from tests.cli.shell import PROJECT, Shell, read_until, say
from tests.waiting import wait_until

READY = "Watching for changes"


def test_a_second_reconciler_is_refused_with_the_pid_of_the_first(six: Shell) -> None:
    """Exit code 6 for what would write; looking and setting go on."""
    six.env = {"RECONCILER_INTERVAL": "0.2"}
    with six.start("run") as first:
        read_until(first, READY)
        for words in (("apply",), ("run",), ("run", "--once")):
            refused = six(*words)
            assert (refused.code, refused.out) == (6, "")
            assert f"(pid {first.pid})" in refused.err
            assert len(refused.err.splitlines()) == 1
        assert six("diff").code == 0
        assert f"running, pid {first.pid}" in six("status").out
        done = six("set", "mary", "task=x")
        assert (done.code, done.err) == (0, "")
        wait_until(lambda: six.context()["agents"]["mary"]["context"].get("task") == "x", 20)
        assert say(first, signal.SIGINT).code == 0
    assert six("apply").code == 0


def test_the_lock_of_a_killed_reconciler_is_taken_over(six: Shell) -> None:
    """Whatever its file says: the kernel knows who lives."""
    with six.start("run") as first:
        read_until(first, READY)
        say(first, signal.SIGKILL)
    assert (six.root / ".reconciler" / "lock").read_text() == f"{first.pid} run\n"
    assert "not running" in six("status").out
    assert six("apply").code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_with_0_on_the_first_signal(six: Shell, number: signal.Signals) -> None:
    """It finishes its round and says goodbye."""
    with six.start("run") as process:
        read_until(process, READY)
        done = say(process, number)
    assert done.code == 0
    assert done.out.endswith("Stopped.\n")


TWO_SIGNALS = """
import os, signal, sys, threading, time
from pathlib import Path
from reconciler.controller import Options
from reconciler.daemon import Daemon
from reconciler.files import Lock, private_folder
from reconciler.settings import build

settings = build(Path(sys.argv[1]), {}, {}, {"redis": "unix:///nowhere/s"})
private_folder(settings.folder)

def tell(notice):
    while not daemon._stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()

daemon = Daemon(settings, Options(), tell, lambda: settings)
lock = Lock(settings.folder / "lock")
try:
    with lock:
        daemon.run(lock)
except KeyboardInterrupt:
    print(Lock.holder(lock.path) == os.getpid(), Lock.signed(lock.path, os.getpid()))
"""


def test_the_second_signal_frees_the_workspace_only_when_the_process_is_gone(tmp_path: Path) -> None:
    """Its worker may be in the middle of a round; meanwhile nobody may ask it how it stands."""
    words = [sys.executable, "-c", TWO_SIGNALS, str(tmp_path)]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "starting"], done.stderr
    assert Lock.holder(tmp_path / ".reconciler" / "lock") is None


def test_run_mirrors_what_changes_in_a_file_or_a_manifest(six: Shell, client: redis.Redis) -> None:
    """Until it is stopped, also in a folder that it made itself."""
    with six.start("--redis", six.redis, "run") as process:
        read_until(process, READY)
        six.write_manifest("mary", "busy", role="dispatcher")
        wait_until(lambda: client.hget("memory:agents:mary", "status") == b"busy", 20)
        agents = six.context()["agents"]
        agents["gc"]["status"] = "away"
        six.write_context(agents)
        wait_until(lambda: client.hget("memory:agents:gc", "status") == b"away", 20)
        assert say(process, signal.SIGTERM).code == 0


@contextmanager
def stopped_server(client: redis.Redis) -> Iterator[int]:
    """The server takes no command for a while, as if it hung: its pid."""
    pid = int(str(client.info("server")["process_id"]))
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_second_signal_ends_run_at_once(six: Shell, client: redis.Redis) -> None:
    """The first asks, the second insists: exit code 130, and the next apply works."""
    with six.start("run") as process:
        read_until(process, READY)
        with stopped_server(client):
            six.write_manifest("mary", "busy", role="dispatcher")
            process.send_signal(signal.SIGTERM)
            done = say(process, signal.SIGTERM)
    assert done.code in (0, 130)
    assert six("apply").code == 0


def test_a_server_that_hangs_makes_nobody_wait(applied: Shell, client: redis.Redis) -> None:
    """A command takes at most a second, then files serve."""
    with stopped_server(client):
        assert applied("get", "mary", timeout=10).code == 5
        assert applied("set", "mary", "task=x", timeout=10).code == 5
    assert applied("apply").code == 0
    assert applied("get", "mary").json["context"]["task"] == "x"


def test_sigterm_and_ctrl_c_end_a_command_that_waits(six: Shell, tmp_path: Path) -> None:
    """One line, the shell's exit code for the signal, nothing left running."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.mkfifo(tmp_path / number.name)
        with six.start("apply", "--plan", tmp_path / number.name) as process:
            writer = os.open(tmp_path / number.name, os.O_WRONLY)  # returns when the command reads
            done = say(process, number)
            os.close(writer)
        assert (done.code, done.out.strip()) == (128 + number, "reconciler: interrupted")
    assert not (six.root / ".reconciler").exists()


def test_after_kill_9_at_any_moment_the_next_apply_heals(shell: Shell, client: redis.Redis) -> None:
    """Killed ever later in its round; whatever was done by then, one apply makes both sides agree."""
    agents = {f"a{i:03}": {"status": "idle", "context": {"n": i, "text": "x" * 200}} for i in range(300)}
    for step in range(8):
        for record in agents.values():
            record["status"] = f"s{step}"
        shell.write_context(agents)
        with shell.start("apply") as process:
            try:
                process.wait(timeout=0.05 + step * 0.07)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
        assert shell("apply").code == 0
        assert shell("diff").out == "In sync.\n"
        assert {record["status"] for record in shell.context()["agents"].values()} == {f"s{step}"}
        assert client.hget("memory:agents:a299", "status") == f"s{step}".encode()
    assert [path.name for path in shell.context_file.parent.iterdir()] == ["context.json"]


def test_a_killed_command_with_the_embedded_store_leaves_it_usable(six: Shell) -> None:
    """Its server is taken over by the next command and ends with that."""
    six.redis = "embedded:"
    with six.start("run") as process:
        read_until(process, READY)
        say(process, signal.SIGKILL)
    pid = int((six.root / ".reconciler" / "valkey" / "valkey.pid").read_text())
    assert six("get", "mary").json["context"] == {"role": "dispatcher"}
    wait_until(lambda: not Path(f"/proc/{pid}").exists() if Path("/proc").exists() else True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_embedded_server_ends_with_the_command_that_a_signal_ends(six: Shell, number: signal.Signals) -> None:
    """Nothing stays behind."""
    six.redis = "embedded:"
    with six.start("run") as process:
        read_until(process, READY)
        assert say(process, number).code == 0
    assert not (six.root / ".reconciler" / "valkey" / "valkey.sock").exists()


@contextmanager
def own_server(folder: Path, port: int) -> Iterator[redis.Redis]:
    """A server that a test may kill; what it holds is gone with it."""
    words = [str(server_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    try:
        wait_until(lambda: _answers(client))
        yield client
    finally:
        process.kill()
        process.wait()
        client.close()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_run_outlives_its_server_and_refills_the_next_one(six: Shell, tmp_path: Path) -> None:
    """Killed and started again empty: rounds go on with files, then everything is back in Redis."""
    port = free_port()
    six.redis = f"redis://127.0.0.1:{port}/0"
    six.env = {"RECONCILER_INTERVAL": "0.2"}
    with ExitStack() as stack:
        with own_server(tmp_path, port) as client:
            process = stack.enter_context(six.start("run"))
            read_until(process, READY)
            assert client.hget("memory:agents:mary", "status") == b"active"
        read_until(process, "going on with files")
        six.write_manifest("mary", "busy", role="dispatcher")
        wait_until(lambda: six.context()["agents"]["mary"]["status"] == "busy", 20)
        with own_server(tmp_path, port) as client:
            wait_until(lambda: client.hget("memory:agents:mary", "status") == b"busy", 30)
            wait_until(lambda: len(list(client.scan_iter("memory:agents:*"))) == 6, 30)
            assert say(process, signal.SIGTERM).code == 0
