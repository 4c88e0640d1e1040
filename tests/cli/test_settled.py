"""`diff` after an `apply`: a digest tells that nothing changed; whatever does change is seen all the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from reconciler.settled import is_settled, note_settled
from reconciler.workspace import open_workspace, read_settings
from tests.cli.shell import Shell
from tests.waiting import wait_until

AGENT = "memory:agents:mary"
SIDECAR = f"memory:meta:{{{AGENT}}}"


def settled(shell: Shell, **more: str) -> bool:
    """Whether a dry run would believe that everything is as it was."""
    settings = read_settings(str(shell.root), {"redis": shell.redis, **more}, {})
    with open_workspace(settings, print, reading=True) as workspace:
        return is_settled(workspace)


@pytest.fixture
def quiet(applied: Shell) -> Shell:
    """Six agents at rest, whose digest is noted."""
    with open_workspace(read_settings(str(applied.root), {"redis": applied.redis}, {}), print) as workspace:

        def noted() -> bool:
            note_settled(workspace)
            return is_settled(workspace)

        wait_until(noted)  # not while the manifests were saved a moment ago
    return applied


@pytest.mark.parametrize("name", ["100%.yaml", "50% done.yaml", "a%20b.yaml", "%s.yaml"])
def test_a_percent_sign_in_a_path_is_a_letter_like_any_other(quiet: Shell, name: str) -> None:
    """In the name of a manifest as in that of a folder."""
    assert settled(quiet)
    _manifest(quiet).rename(quiet.root / "manifests" / name)
    assert not settled(quiet)


def _manifest(shell: Shell) -> Path:
    return sorted((shell.root / "manifests").glob("*.yaml"))[0]


def _edit_context(shell: Shell, client: redis.Redis) -> None:
    """In place, with the same size and the same times."""
    path = shell.context_file
    before, data = path.stat(), path.read_bytes()
    changed = data.replace(b'"status": "a', b'"status": "b', 1)
    assert changed != data
    with path.open("r+b") as file:
        file.write(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _edit_manifest(shell: Shell, client: redis.Redis) -> None:
    path = _manifest(shell)
    path.write_text(path.read_text().replace("context:", "context:\n    fresh: 1", 1))


def _add_manifest(shell: Shell, client: redis.Redis) -> None:
    shell.write_manifest("newcomer", "here")


def _remove_manifest(shell: Shell, client: redis.Redis) -> None:
    _manifest(shell).unlink()


def _drop(shell: Shell, client: redis.Redis) -> None:
    (shell.root / ".reconciler" / "spool").mkdir(exist_ok=True)
    (shell.root / ".reconciler" / "spool" / "1762934400123456-4711.drop").write_text("anything")


CHANGES: dict[str, Callable[[Shell, redis.Redis], object]] = {
    "a raw HSET": lambda shell, client: client.hset(AGENT, "status", "busy"),
    "a raw HSET into the context": lambda shell, client: client.hset(AGENT, "context", '{"a":1}'),
    "an agent of somebody": lambda shell, client: client.hset("memory:agents:new", "status", "busy"),
    "a raw shared section": lambda shell, client: client.hset("memory:shared", "section", "x"),
    "an agent that is gone": lambda shell, client: client.delete(AGENT, SIDECAR),
    "a hash that is gone": lambda shell, client: client.delete(AGENT),
    "a key of another type": lambda shell, client: client.set("memory:agents:odd", "text"),
    "an emptied server": lambda shell, client: client.flushall(),
    "a write": lambda shell, client: shell("set", "mary", "task=2"),
    "an edit in context.json": _edit_context,
    "context.json gone": lambda shell, client: shell.context_file.unlink(),
    "an edited manifest": _edit_manifest,
    "a new manifest": _add_manifest,
    "a broken manifest": lambda shell, client: _manifest(shell).write_text("["),
    "a manifest that is gone": _remove_manifest,
    "a drop": _drop,
    "base gone": lambda shell, client: (shell.root / ".reconciler" / "state.db").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen(quiet: Shell, client: redis.Redis, change: Callable[[Shell, redis.Redis], object]) -> None:
    """Whatever it is: the digest is another one, so `diff` looks at everything."""
    change(quiet, client)
    assert not settled(quiet)


def test_diff_says_the_same_with_and_without_the_digest(quiet: Shell) -> None:
    """An empty plan."""
    first = [quiet("diff", "-o", form) for form in ("text", "json")]
    (quiet.root / ".reconciler" / "settled").unlink()
    assert [quiet("diff", "-o", form) for form in ("text", "json")] == first
    assert first[0].code == 0
    assert first[1].json["changes"] == []


def test_one_apply_is_enough(six: Shell) -> None:
    """The round that made everything agree is followed by a look, which notes it."""
    for path in (six.root / "manifests").rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))  # not saved a moment ago
    assert six("apply").code == 0
    assert settled(six)


def test_what_goes_on_being_said_is_never_settled(quiet: Shell) -> None:
    """A manifest that is gone is told by every `diff`, and so is a warning."""
    _manifest(quiet).unlink()
    assert quiet("apply").code == 0
    assert not settled(quiet)
    assert "gone from the manifests" in quiet("diff").out


def test_other_settings_are_another_question(quiet: Shell) -> None:
    """What was noted under other settings tells nothing."""
    (quiet.root / "reconciler.yaml").write_text("local_sections: [paths, other]\n")
    assert not settled(quiet)


def test_a_server_that_digests_nothing_is_read(quiet: Shell, client: redis.Redis) -> None:
    """A user who may not DUMP gets the same answer, by the long way."""
    client.acl_setuser("reader", enabled=True, nopass=True, keys=["*"], channels=["*"],
                       categories=["+@all"], commands=["-dump"])  # fmt: skip
    try:
        quiet.redis = quiet.redis.replace("unix://", "unix://reader:x@")
        assert not settled(quiet)
        assert quiet("diff").code == 0
    finally:
        client.acl_deluser("reader")


def test_a_damaged_note_is_no_note(quiet: Shell) -> None:
    """Empty, torn, a folder: everything is looked at."""
    path = quiet.root / ".reconciler" / "settled"
    for data in (b"", b"\xff\xfe", b"0" * 64, b"x" * 10_000):
        path.write_bytes(data)
        assert not settled(quiet)
    path.unlink()
    path.mkdir()
    assert not settled(quiet)
    assert quiet("apply").code == 0
