"""`init`: a workspace with everything in it, or one that lacks nothing and keeps every byte."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest
import redis

from reconciler import schema
from reconciler.errors import Place
from reconciler.settings import TABLE, build
from reconciler.sources.yaml_text import read_documents
from tests.cli.shell import COMMAND, PROJECT, Shell, contents, listing

NEVER_SHOWN = {"redis", "redis_password_file", "redis_password_keychain", "cron", "writer"}
"""Settings that have no default to show: an example stands there."""


@pytest.fixture
def person(tmp_path: Path) -> Shell:
    """Somebody in their HOME, in which there is no workspace yet."""
    return Shell(tmp_path, "redis://localhost:1")


def init(person: Shell, *words: str) -> tuple[int, str, str]:
    """`init` alone, without --root and --redis."""
    return person.plain(*COMMAND, "init", *words)


def test_a_new_workspace_is_valid_and_has_the_samples(shell: Shell, client: redis.Redis) -> None:
    """Everything that a round and an editor need; the next command is told, and works."""
    made = shell("init")
    assert made.code == 0, made
    assert all(line.startswith("made  ") for line in made.out.splitlines())
    assert made.err.startswith("Next: reconciler --root ")
    names = {str(path.relative_to(shell.root)) for path in shell.root.rglob("*") if path.is_file()}
    samples = {f"manifests/{path.name}" for path in (PROJECT / "manifests").iterdir()}
    schemas = {f"schemas/{path.name}" for path in (PROJECT / "schemas").iterdir()}
    assert names == {"reconciler.yaml", "shared_memory/context.json", *samples, *schemas}
    assert (shell.root / "logs").is_dir()
    assert stat.S_IMODE((shell.root / ".reconciler").stat().st_mode) == 0o700
    for path in [shell.root / "reconciler.yaml", *sorted((shell.root / "manifests").iterdir())]:
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
        assert found and (path.parent / found[1]).is_file()
    valid = shell("validate")
    assert (valid.code, valid.err) == (0, "")
    named = shell("validate", "reconciler.yaml")  # nothing but comments
    assert (named.code, named.err) == (0, "")
    assert shell("apply").code == 0
    assert client.hget("memory:agents:mary", "status") == b"active"


def test_a_second_time_nothing_is_made(shell: Shell) -> None:
    """Nor is what somebody changed or took away of their own put right."""
    shell("init")
    (shell.root / "reconciler.yaml").write_text("interval: 5\n")
    (shell.root / "manifests" / "gpt.yaml").unlink()
    before = listing(shell.root)
    again = shell("init")
    assert (again.code, "made" in again.out) == (0, False)
    assert "kept  reconciler.yaml" in again.out.splitlines()
    assert listing(shell.root) == before


def test_an_adopted_workspace_keeps_every_byte_and_nothing_is_declared_in_it(shell: Shell) -> None:
    """Samples that said `status: active` now would be the newest write; so they are there to be looked at only."""
    shell.write_context({"mary": {"status": "busy", "last_seen": "2025-11-12T08:26:25+07:00"}}, current_work={})
    (shell.root / "schemas").mkdir()
    (shell.root / "schemas" / "manifest.schema.json").write_text("{}")
    before = contents(shell.root)
    made = shell("init")
    assert made.code == 0, made
    after = contents(shell.root)
    assert {name: after[name] for name in before} == before
    assert (shell.root / "manifests" / "mary.yaml.sample").is_file()
    shell("apply")
    assert list(shell.context()["agents"]) == ["mary"]
    assert shell.context()["agents"]["mary"]["status"] == "busy"


def test_manifests_that_are_there_need_no_samples(six: Shell) -> None:
    """Nor is an empty context.json put in the place of one that was lost: the next round writes what it knows."""
    assert six("apply").code == 0
    six.context_file.unlink()
    before = listing(six.root / "manifests")
    assert six("init").code == 0
    assert listing(six.root / "manifests") == before
    assert not six.context_file.exists()
    six("apply")
    assert len(six.context()["agents"]) == 6


def test_the_settings_of_a_new_workspace_are_the_defaults(shell: Shell) -> None:
    """With every # taken away the file is valid, and changes nothing where a default is shown."""
    shell("init")
    text = re.sub(r"^#(?! )", "", (shell.root / "reconciler.yaml").read_text(), flags=re.M)
    value = read_documents(text.encode(), "it")[0].value
    assert schema.validate("settings", value, lambda steps: (Place("it"), ""), source="it") == []
    assert list(value) == [row.name for row in TABLE]
    shown = {name: each for name, each in value.items() if name not in NEVER_SHOWN}
    assert build(shell.root, shown, {}, {}) == build(shell.root, {}, {}, {})


@pytest.mark.parametrize("words", [["new place"], ["--root", "new place"], ["./new place/"]])
def test_the_folder_is_named_as_people_do(person: Shell, words: list[str]) -> None:
    """Relative to where one stands, with or without --root; what is told next works there."""
    done = init(person, *words)
    assert done[0] == 0, done
    assert json.loads((person.root / "new place" / "shared_memory" / "context.json").read_text())["agents"] == {}
    assert "--root 'new place" in done[2] or "--root './new place" in done[2]


def test_without_a_name_it_is_the_workspace_that_all_verbs_mean(person: Shell) -> None:
    """LUKA_SOT, else ~/02luka."""
    person.env = {"HOME": str(person.root)}
    done = init(person)
    assert (done[0], done[2].split("  ")[0]) == (0, "Next: reconciler diff"), done
    assert (person.root / "02luka" / "reconciler.yaml").is_file()
    person.env["LUKA_SOT"] = str(person.root / "elsewhere")
    assert init(person)[0] == 0
    assert (person.root / "elsewhere" / "reconciler.yaml").is_file()


def test_what_cannot_be_a_workspace_gives_one_line(person: Shell) -> None:
    """A file, a folder in a file, nobody's home, two names, no name."""
    (person.root / "file").write_text("")
    before = listing(person.root)
    for words, code, text in [
        (["file"], 3, "is not a folder"),
        (["file/in it"], 3, "Not a directory"),
        (["~nobody-of-this-name/x"], 2, "names no folder"),
        (["one", "--root", "two"], 2, "give one of the two"),
        ([""], 2, "DIR is empty"),
    ]:
        done = init(person, *words)
        assert (done[0], done[1], done[2].count("\n")) == (code, "", 1), (words, done)
        assert text in done[2], done
    assert listing(person.root) == before


def test_a_folder_without_rights_gives_one_line(stranger: Shell) -> None:
    """As everywhere; nothing else is made."""
    stranger.root.chmod(0o555)
    try:
        done = stranger("init")
    finally:
        stranger.root.chmod(0o755)
    assert (done.code, done.err.count("\n")) == (3, 1), done
    assert "Permission denied" in done.err
    assert not os.path.exists(stranger.root / "logs")
