"""Redis has a password, and one is configured, right or wrong: it is in no output, log, health or database."""

from __future__ import annotations

from pathlib import Path

from tests.cli.shell import Shell
from tests.faults.scenarios.kit import six_on
from tests.servers import running
from tests.story.desk import Desk

SECRET, WRONG = "planted-pa55word", "another-pa55word"


def test_password_anywhere(tmp_path: Path) -> None:
    """In the environment, where it belongs; and not in base, health, log, lock or backup."""
    with running("--requirepass", SECRET) as server, six_on(tmp_path, with_password(server.url)) as desk:
        said = [run(desk, server.url, SECRET, "run", "--once"), run(desk, server.url, SECRET, "status"),
                run(desk, server.url, WRONG, "apply"), run(desk, server.url, WRONG, "doctor")]  # fmt: skip
        left = [path for path in desk.root.rglob("*") if path.is_file() and b"pa55word" in path.read_bytes()]
    assert [text for text in said if "pa55word" in text] == []
    assert left == []


def with_password(url: str) -> str:
    return url.replace("unix://", f"unix://:{SECRET}@")


def run(desk: Desk, url: str, password: str, *words: str) -> str:
    done = Shell(desk.root, url, {"REDIS_PASSWORD": password})(*words)
    return done.out + done.err
