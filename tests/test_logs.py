"""The logs of a service: bounded, whole, and nobody else's touched."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import files
from reconciler.daemon import logs
from reconciler.errors import ReconcilerError
from reconciler.workspace import read_settings
from tests.waiting import wait_until

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log in a workspace."""
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs" / "memory_hub.err.log"


def numbered(log: Path) -> dict[str, bytes]:
    return {path.name.removeprefix(log.name): path.read_bytes() for path in log.parent.iterdir()}


def test_a_log_that_grows_is_kept_in_parts_of_which_the_oldest_go(log: Path) -> None:
    """Every line is in one of the parts, in order; the writer goes on at the start of the file, whatever it had."""
    with log.open("wb", buffering=0) as file:  # not for appending: its place in the file stays behind
        log.chmod(0o640)
        for number in range(6):
            file.write(b"%d" % number * 11)
            assert files.rotate(file.fileno(), log, 10, 3)
            assert not files.rotate(file.fileno(), log, 10, 3)
        file.write(b"now")
    assert numbered(log) == {"": b"now", ".1": b"5" * 11, ".2": b"4" * 11, ".3": b"3" * 11}
    assert stat.S_IMODE(log.with_name(log.name + ".1").stat().st_mode) == 0o640


def test_a_log_that_cannot_be_copied_is_as_it_was(log: Path) -> None:
    """So are its older parts, and nothing is left behind."""
    log.write_bytes(b"0" * 11)
    log.with_name(log.name + ".1").write_bytes(b"older")
    before = numbered(log)
    with log.open("ab") as file:
        gone = log.rename(log.with_name("moved"))
        with pytest.raises(ReconcilerError):
            files.rotate(file.fileno(), log, 10, 3)
        gone.rename(log)
    assert numbered(log) == before


def test_only_what_this_process_writes_into_the_workspaces_logs_is_cut(log: Path) -> None:
    """A log of that name that somebody else writes, and an output that goes elsewhere, stay as they are."""
    other = log.with_name("memory_hub.out.log")
    other.write_bytes(b"x" * 20)
    program = (
        "import sys; from reconciler.daemon import logs; from reconciler.workspace import read_settings\n"
        f"logs.LIMIT = 10; found = logs.own_logs(read_settings({str(log.parent.parent)!r}, {{}}, {{}}))\n"
        "sys.stderr.write('e' * 20); sys.stderr.flush(); logs.bound(found)\n"
        "print(sorted(path.name for path in found.values()))"
    )
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=PROJECT, stdout=subprocess.PIPE, stderr=file, text=True, check=True
        )
    assert done.stdout == "['memory_hub.err.log']\n"
    assert (log.read_bytes(), other.read_bytes()) == (b"", b"x" * 20)
    assert log.with_name(log.name + ".1").read_bytes() == b"e" * 20


def test_run_cuts_its_log_when_it_starts(log: Path) -> None:
    """And goes on in it."""
    log.write_bytes(b"x" * (logs.LIMIT + 1))
    words = [
        sys.executable,
        "-m",
        "reconciler",
        "--root",
        str(log.parent.parent),
        "--redis",
        "redis://localhost:1",
        "run",
    ]
    with log.open("ab") as file:
        process = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=file)
    try:
        wait_until(lambda: b"Watching" in log.read_bytes()[: 1 << 16], 20, "a log that begins anew")
        assert log.with_name(log.name + ".1").stat().st_size > logs.LIMIT
    finally:
        process.terminate()
        process.wait(20)


def test_one_log_for_both_outputs_is_one_and_none_is_none(log: Path) -> None:
    """As after `2>&1`; and in a terminal, where there is nothing to do."""
    settings = read_settings(str(log.parent.parent), {}, {})
    assert logs.own_logs(settings) == {}
    program = (
        "from reconciler.daemon import logs; from reconciler.workspace import read_settings\n"
        f"print(len(logs.own_logs(read_settings({str(settings.root)!r}, {{}}, {{}}))))"
    )
    with log.open("ab") as file:
        subprocess.run([sys.executable, "-c", program], cwd=PROJECT, stdout=file, stderr=file, check=True)
    assert log.read_text() == "1\n"
    logs.bound({os.open(os.devnull, os.O_WRONLY): log.with_name("gone")})
