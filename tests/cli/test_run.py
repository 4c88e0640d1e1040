"""`run` as those see it who keep it running: its log, its settings, what it says when it is asked how it stands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import redis

from reconciler.base import Base
from reconciler.health import Health, write_health
from reconciler.settings import build
from reconciler.store.embedded import server_binary
from reconciler.store.layout import keys_of
from tests.cli.shell import PROJECT, Shell, listing, read_until, say
from tests.waiting import wait_until

READY = "Watching for changes"
SECRET = "hunter2-not-to-be-seen"


def lines(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


def test_a_json_log_has_one_document_for_each_change_of_state(six: Shell, client: redis.Redis) -> None:
    """Started, a round, something wrong, good again, stopped: each once, with its time and its level."""
    with six.start("run", "--log-format", "json") as process:
        said = read_until(process, '"started"')
        path = six.write_manifest("mary", "busy")
        said += read_until(process, '"round"')
        path.write_text(path.read_text().replace("spec:", "spce:"))
        said += read_until(process, '"quarantined"')
        path.unlink()
        said += read_until(process, '"mended"')
        said += say(process, signal.SIGTERM).out
    found = lines(said)
    states = [state for state, _ in groupby((line["event"], line["level"]) for line in found)]
    assert states == [
        ("started", "info"), ("round", "info"), ("quarantined", "error"), ("mended", "info"), ("stopped", "info"),
    ]  # fmt: skip
    assert found[1]["agents"] == ["mary"]
    assert any("manifests/mary.yaml:4:1: unknown key 'spce'; did you mean 'spec'?" in line["message"] for line in found)
    assert all(line["time"].endswith("Z") and line["message"] for line in found)


def test_status_asks_the_run_how_it_stands(applied: Shell) -> None:
    """An idle run writes nothing by itself; asked, it tells the age of its last good round."""
    with applied.start("run") as process:
        read_until(process, READY)
        health = applied.root / ".reconciler" / "health.json"
        old = json.loads(health.read_text()) | {"succeeded_us": 1}
        health.write_text(json.dumps(old))
        found = applied("status", "-o", "json").json
        assert (found["healthy"], found["reconciler_pid"]) == (True, process.pid)
        assert found["last_good_round_age_s"] < 40
        assert json.loads(health.read_text())["pid"] == process.pid
        say(process, signal.SIGTERM)
    assert applied("status", "-o", "json").json["reconciler_pid"] is None


def test_a_run_that_does_not_answer_is_not_healthy(applied: Shell) -> None:
    """Stopped in the middle of whatever it did."""
    with applied.start("run") as process:
        read_until(process, READY)
        process.send_signal(signal.SIGSTOP)
        try:
            found = applied("status")
        finally:
            process.send_signal(signal.SIGCONT)
        assert found.code == 1
        assert f"wrong: the reconciler (pid {process.pid}) does not answer" in found.out


def test_only_a_run_is_asked(applied: Shell) -> None:
    """Another program that holds the lock would die of the signal, also one with the pid of a `run` that was killed."""
    folder = applied.root / ".reconciler"
    program = (
        f"from reconciler.files import *\nwith Lock(Path({str(folder / 'lock')!r})): print('held', flush=True); input()"
    )
    words = [*applied.words()[:1], "-c", program]
    with subprocess.Popen(words, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        read_until(holder, "held")
        write_health(build(applied.root, {}, {}, {}), Health(at=1, pid=holder.pid))
        assert applied("status").code == 0
        assert holder.poll() is None
        holder.communicate("\n")


def test_a_run_shortens_histories_and_settles_what_was_owed(applied: Shell, client: redis.Redis) -> None:
    """When it begins, with the settings as they are then."""
    for number in range(5):
        client.hset("memory:agents:mary", "status", str(number))
        applied("apply")
    base = Base(applied.root / ".reconciler")
    base.owe(True)
    applied.env = {"RECONCILER_HISTORY": "2"}
    with applied.start("run") as process:
        wait_until(lambda: client.xlen(keys_of("mary").history) == 2, 20)
        wait_until(lambda: not base.owes(), 20)
        assert say(process, signal.SIGTERM).code == 0


def test_sighup_reads_the_settings_again(applied: Shell, client: redis.Redis) -> None:
    """Good ones are used from then on; with bad ones it goes on as before, and says so."""
    path = applied.root / "reconciler.yaml"
    with applied.start("run") as process:
        read_until(process, READY)
        other = applied.root / "declared"
        other.mkdir()
        path.write_text("manifests: declared\n")
        process.send_signal(signal.SIGHUP)
        read_until(process, "the settings were read again")
        (other / "zed.yaml").write_text(
            "apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: zed}\nspec: {status: new}\n"
        )
        wait_until(lambda: client.hget("memory:agents:zed", "status") == b"new", 20)
        path.write_text("manifests: [\n")
        process.send_signal(signal.SIGHUP)
        assert "the settings stay as they were: reconciler.yaml:" in read_until(process, "settings stay")
        path.write_text("manifests: declared\ncron: 99 * * * *\n")
        process.send_signal(signal.SIGHUP)
        assert "the settings stay as they were: cron" in read_until(process, "settings stay")
        assert say(process, signal.SIGTERM).code == 0


@contextmanager
def server(folder: Path, *options: str) -> Iterator[redis.Redis]:
    """A server whose password may be changed without harm to other tests."""
    path = folder / "s"
    words = [str(server_binary()), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([*words, *options], stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists)
        yield redis.Redis(unix_socket_path=str(path), password=SECRET)
    finally:
        process.kill()
        process.wait()


def test_a_wrong_password_is_waited_out(six: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It goes on with files; with the right one in its file, everything reaches Redis. No log tells any of them."""
    folder = Path(os.path.realpath(tmp_path_factory.mktemp("s")))
    secret = six.root / "secret"
    secret.write_text("wrong-" + SECRET)
    six.redis, six.env = f"unix://{folder}/s", {"REDIS_PASSWORD_FILE": str(secret)}
    with server(folder, "--requirepass", SECRET) as client:
        assert six("apply").code == 3
        with six.start("run") as process:
            said = read_until(process, READY)
            assert "going on with files" in said
            assert six.context()["agents"]["mary"]["status"] == "active"
            status = six("status")
            assert (status.code, SECRET in status.out + status.err) == (3, False)
            client.config_set("requirepass", "wrong-" + SECRET)
            wait_until(lambda: _status(client, "wrong-" + SECRET) == b"active", 20)
            said += read_until(process, "is back after")
            said += say(process, signal.SIGTERM).out
    assert SECRET not in said
    assert SECRET not in "".join(str(entry) for entry in listing(six.root / ".reconciler"))


def _status(client: redis.Redis, password: str) -> bytes | None:
    with redis.Redis(unix_socket_path=client.connection_pool.connection_kwargs["path"], password=password) as now:
        found: bytes | None = now.hget("memory:agents:mary", "status")
        return found


def test_a_log_that_nobody_reads_any_more_ends_nothing(applied: Shell, client: redis.Redis) -> None:
    """The work goes on, and the end is as it should be."""
    with applied.start("run") as process:
        read_until(process, READY)
        assert process.stdout
        process.stdout.close()
        applied.write_manifest("mary", "busy")
        wait_until(lambda: client.hget("memory:agents:mary", "status") == b"busy", 20)
        applied.write_manifest("mary", "away")
        wait_until(lambda: client.hget("memory:agents:mary", "status") == b"away", 20)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_health_json_tells_how_it_stands(applied: Shell) -> None:
    """Whoever watches from outside finds what it needs in it."""
    with applied.start("run") as process:
        read_until(process, READY)
        found = json.loads((applied.root / ".reconciler" / "health.json").read_text())
        assert found["healthy"] and found["redis"] == "up" and found["pid"] == process.pid
        assert found["agents"] == 6 and found["journal"] == 0 and found["wrong"] == [] and found["failures"] == 0
        say(process, signal.SIGTERM)
    assert json.loads((applied.root / ".reconciler" / "health.json").read_text())["pid"] is None
