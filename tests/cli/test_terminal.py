"""On a terminal: colour, its width, the line that a problem points at, and something that moves while one waits."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pytest
import redis

from tests.cli.shell import PROJECT, Shell

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def typed(shell: Shell, *words: str, columns: int = 80, until: str = "") -> str:
    """What a terminal of this width receives, stdout and stderr together; Ctrl-C is typed at `until`."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        shell.words(*words), stdin=theirs, stdout=theirs, stderr=theirs, env={"TERM": "xterm", **shell.environment()}
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # the terminal is gone with the last process that has it
        while part := os.read(ours, 65_536):
            said += part
            if until and until.encode() in said:
                process.send_signal(signal.SIGINT)
                until = ""
    os.close(ours)
    process.wait(30)
    return said.decode()


def test_a_terminal_gets_colour_and_a_pipe_none(six: Shell) -> None:
    """The same words in both."""
    shown = typed(six, "diff", columns=200)
    assert "\x1b[32m" in shown
    assert ESCAPE.sub("", shown).replace("\r\n", "\n") == six("diff").out


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "dumb"])
def test_colour_can_be_switched_off(six: Shell, env: dict[str, str]) -> None:
    """For every verb, tables included."""
    six.env = env
    (six.root / "manifests" / "bad.yaml").write_text("[")
    for words in (("diff",), ("run", "--once"), ("status",), ("history", "mary"), ("validate",)):
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", typed(six, *words)), words
        if "NO_COLOR" not in env:
            assert "\x1b" not in typed(six, *words), words
    shown = typed(six, "run", until="Watching for changes")
    assert "bad.yaml" in shown and not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)
    (six.root / "reconciler.yaml").write_text("bogus: 1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", typed(six, "get"))


@pytest.mark.parametrize("columns", [80, 120])
def test_what_is_shown_fits_the_terminal(applied: Shell, client: redis.Redis, columns: int) -> None:
    """Plans and tables, also with long names and values."""
    applied("set", "mary", "task=" + "long " * 50, "a-rather-long-name-of-a-key-in-a-context=1")
    client.hset("memory:agents:mary", "status", "busy " * 30)
    for words in (("diff",), ("run", "--once"), ("status",)):
        for line in ESCAPE.sub("", typed(applied, *words, columns=columns)).split("\r\n"):
            assert len(line) <= columns or str(applied.root) in line, (words, line)


def test_a_problem_points_at_its_line(six: Shell) -> None:
    """A caret below what is wrong."""
    path = six.write_manifest("mary")
    path.write_text(path.read_text().replace("spec:", "spek:"))
    lines = ESCAPE.sub("", typed(six, "validate", columns=200)).split("\r\n")
    at = next(i for i, line in enumerate(lines) if "unknown key 'spek'" in line)
    assert lines[at + 1].strip().startswith("spek:")
    assert lines[at + 2].strip() == "^"


def test_something_moves_while_a_command_takes_long() -> None:
    """On a terminal only, and it is gone when the work is done."""
    program = "import sys; from reconciler.cli.common import busy\nwith busy('Reconciling'): sys.stdin.read()"
    ours, theirs = os.openpty()
    words = [sys.executable, "-c", program]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stderr=theirs, cwd=PROJECT, env={"TERM": "xterm", "PATH": os.environ["PATH"]}
    )
    os.close(theirs)
    said = b""
    while b"Reconciling" not in said:
        said += os.read(ours, 4096)
    process.communicate(timeout=20)
    os.close(ours)
    assert process.returncode == 0
    assert subprocess.run(words, input=b"", capture_output=True, cwd=PROJECT, check=True).stderr == b""


def test_a_table_in_a_pipe_has_no_blanks_at_the_end_of_its_lines(six: Shell) -> None:
    """So that what is kept of it differs only where the state does."""
    for words in (("run", "--once"), ("status",)):
        found = six(*words).out.splitlines()
        assert any("mary" in line for line in found)
        assert [line for line in found if line != line.rstrip()] == []
