"""Installing: shown before it is done, nothing to do the second time, and taken back byte for byte."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import ReconcilerError
from reconciler.service import Target, Wanted, carry_out, find, hooks, installing, read_record, uninstalling, whole
from reconciler.settings import Settings
from reconciler.workspace import read_settings
from tests.cli.shell import Shell, contents, listing

SCRIPTS = {
    "mary_dispatcher.zsh": b"#!/usr/bin/env zsh\n# Dispatches.\n\nset -euo pipefail\nprint -r -- $0 $1 $#\n",
    "rnd_consumer.zsh": b"#!/bin/zsh\r\nprint carriage returns\r\n",
    "rnd_apply.zsh": b"#!/bin/zsh",
    "mary_dispatcher_health_check.zsh": b"print no comment, no last newline \xff",
    "mary_memory_hook.zsh": b'#!/usr/bin/env zsh\nresult_json="${3:-{}}"\n',
    "another.zsh": b"#!/bin/zsh\n",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Settings:
    """One with dispatcher scripts, of which some are executable, and an old hook."""
    root = tmp_path / "work space"
    (root / "tools").mkdir(parents=True)
    for number, (name, data) in enumerate(SCRIPTS.items()):
        (root / "tools" / name).write_bytes(data)
        (root / "tools" / name).chmod((0o755, 0o640)[number % 2])
    return read_settings(str(root), {}, {})


@pytest.fixture
def shell(workspace: Settings) -> Shell:
    """Somebody at a shell in that workspace; nothing listens at the address."""
    return Shell(workspace.root, "redis://localhost:1")


def there(root: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file and folder but those of the program's own folder."""
    found = [path for path in root.rglob("*") if ".reconciler" not in path.parts]
    return {str(path): (stat.S_IMODE(path.stat().st_mode), b"" if path.is_dir() else path.read_bytes())
            for path in found}  # fmt: skip


def test_the_dry_run_shows_the_diff_and_writes_nothing(shell: Shell) -> None:
    """New files, changed scripts with their last lines and carriage returns, and nothing on disk."""
    before = listing(shell.root)
    shown = shell("install", "hooks", "shim", "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    assert listing(shell.root) == before
    for line in (
        "--- /dev/null\n+++ b/tools/reconciler.zsh",
        "mode 755 tools/rnd_memory_hook.zsh",
        '-result_json="${3:-{}}"',
        " #!/bin/zsh\\r\n+# >>> reconciler hooks >>>",
        "-#!/bin/zsh\n\\ No newline at end of file\n+#!/bin/zsh\n+# >>> reconciler hooks >>>",
        " print no comment, no last newline \\xff",
        "+++ b/agents/memory_hub/memory_hub.py",
    ):
        assert line in shown.out
    assert "another.zsh" not in shown.out


def test_installing_twice_changes_nothing_and_uninstalling_restores_every_byte_and_mode(shell: Shell) -> None:
    """Scripts with every kind of ending, an old hook of the same name, and folders that were not there."""
    before = there(shell.root)
    first = shell("install", "hooks", "shim")
    assert (first.code, first.err) == (0, "")
    assert "hooks: ~ tools/mary_memory_hook.zsh  (what was there: .reconciler/installed/" in first.out
    kept = {path.read_bytes() for path in (shell.root / ".reconciler" / "installed").iterdir()}
    assert kept == {data for name, data in SCRIPTS.items() if name != "another.zsh"}
    installed = contents(shell.root)
    second = shell("install", "shim", "hooks")
    assert (second.code, second.out) == (0, "shim: nothing to do\nhooks: nothing to do\n")
    assert contents(shell.root) == installed
    for name in ("mary_memory_hook.zsh", "rnd_memory_hook.zsh", "memory_sync.sh"):
        assert (shell.root / "tools" / name).stat().st_mode & 0o111
    last = shell("uninstall", "hooks", "shim")
    assert (last.code, last.err) == (0, "")
    assert there(shell.root) == before
    assert contents(shell.root / ".reconciler") == {}
    assert shell("uninstall", "hooks")[:2] == (0, "hooks: nothing to do\n")


def test_what_was_edited_since_is_kept(shell: Shell) -> None:
    """Only our lines leave an edited script; another edited file stays, exit code 4, until it is forced."""
    before = there(shell.root)
    shell("install", "hooks")
    script, hook = shell.root / "tools" / "mary_dispatcher.zsh", shell.root / "tools" / "mary_memory_hook.zsh"
    script.write_bytes(script.read_bytes().replace(b"set -euo pipefail\n", b""))
    hook.write_bytes(hook.read_bytes() + b"# mine\n")
    done = shell("uninstall", "hooks")
    assert done.code == 4
    assert done.err == (
        "reconciler: tools/mary_memory_hook.zsh: was edited since it was installed; "
        "--force puts back what was there before; the edits are then lost\n"
    )
    assert script.read_bytes() == SCRIPTS["mary_dispatcher.zsh"].replace(b"set -euo pipefail\n", b"")
    assert hook.read_bytes().endswith(b"# mine\n")
    assert not (shell.root / "tools" / "reconciler.zsh").exists()
    assert shell("uninstall", "hooks", "--force").code == 0
    script.write_bytes(SCRIPTS["mary_dispatcher.zsh"])
    assert there(shell.root) == before


def test_a_newer_version_of_a_script_is_what_uninstalling_keeps(workspace: Settings) -> None:
    """A checkout took the block away and brought new lines; it is put in again, and the old backup is not restored."""
    target = find("hooks")
    script = workspace.root / "tools" / "mary_dispatcher.zsh"
    carry_out(workspace, installing(workspace, target))
    script.write_bytes(b"#!/bin/zsh\nprint newer\n")
    carry_out(workspace, installing(workspace, target))
    assert b"reconciler hooks" in script.read_bytes()
    carry_out(workspace, uninstalling(workspace, target))
    assert script.read_bytes() == b"#!/bin/zsh\nprint newer\n"


def test_a_lost_record_is_made_again(workspace: Settings) -> None:
    """Files that are ours to the byte are known as ours, so they can be taken away again."""
    target, before = find("hooks"), there(workspace.root)
    carry_out(workspace, installing(workspace, target))
    hook = workspace.root / "tools" / "mary_memory_hook.zsh"
    shutil.rmtree(workspace.folder)
    work = installing(workspace, target)
    assert work.changes == ()
    carry_out(workspace, work)
    carry_out(workspace, uninstalling(workspace, target))
    assert not hook.exists()
    hook.write_bytes(SCRIPTS[hook.name])  # this one went with the record
    hook.chmod(0o755)
    assert there(workspace.root).keys() == before.keys()


def test_a_block_that_was_moved_stays_where_it_is_and_an_older_one_is_renewed() -> None:
    """There is one, wherever somebody wants it."""
    moved = b"#!/bin/zsh\nprint first\n" + hooks.BLOCK + b"print last\n"
    assert hooks.insert(moved) == moved
    old = b"# >>> reconciler hooks >>>\nsource old\n# <<< reconciler hooks <<<\nprint last\n"
    assert hooks.insert(old) == hooks.BLOCK + b"print last\n"
    assert hooks.take_out(moved) == b"#!/bin/zsh\nprint first\nprint last\n"


def test_a_file_that_changes_meanwhile_is_not_overwritten(workspace: Settings) -> None:
    """What was looked at must be what is replaced; what was not reached is as it was, and can be undone."""
    mine = workspace.root / "mine"
    mine.write_bytes(b"old")
    work = installing(workspace, Target("test", lambda settings: [whole(mine, b"ours")]))
    mine.write_bytes(b"newer")
    with pytest.raises(ReconcilerError, match="changed meanwhile"):
        carry_out(workspace, work)
    assert mine.read_bytes() == b"newer"


def test_an_interrupted_install_is_taken_back(workspace: Settings) -> None:
    """The record comes first: of a file that was not reached nothing is taken away."""
    first, second = workspace.root / "first", workspace.root / "in" / "second"
    target = Target("test", lambda settings: [whole(first, b"ours"), whole(second, b"ours")])
    work = installing(workspace, target)
    second.parent.mkdir()
    second.write_bytes(b"somebody's")
    with pytest.raises(ReconcilerError):
        carry_out(workspace, work)
    assert first.read_bytes() == b"ours"
    undo = uninstalling(workspace, target)
    assert undo.refused == ("in/second: was edited since it was installed",)
    carry_out(workspace, undo)
    assert (first.exists(), second.read_bytes()) == (False, b"somebody's")


def test_a_file_of_somebody_that_will_do_is_left_alone(workspace: Settings) -> None:
    """It is not recorded, so that it is not taken away either."""
    mine = workspace.root / "mine"
    mine.write_bytes(b"# my own\n")
    target = Target("test", lambda settings: [Wanted(mine, lambda there: b"" if there is None else there)])
    carry_out(workspace, installing(workspace, target))
    assert read_record(workspace) == {}
    carry_out(workspace, uninstalling(workspace, target))
    assert mine.exists()


def test_wrong_words_and_a_broken_record_each_give_one_line(shell: Shell) -> None:
    """No target, an unknown one, a record that is no JSON, tools that is a file."""
    assert shell("install").code == 2
    assert "'hook' is not one of" in shell("install", "hook").err
    (shell.root / ".reconciler").mkdir()
    (shell.root / ".reconciler" / "installed.json").write_text("{")
    broken = shell("install", "hooks")
    assert (broken.code, broken.out) == (3, "")
    assert broken.err.endswith("is not a record of what was installed; move it away and install again\n")
    (shell.root / ".reconciler" / "installed.json").unlink()
    shutil.rmtree(shell.root / "tools")
    (shell.root / "tools").write_text("")
    blocked = shell("install", "hooks")
    assert (blocked.code, blocked.err.count("\n")) == (3, 1)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="dispatcher scripts are zsh scripts, and there is no zsh")
def test_a_dispatcher_does_what_it_did_and_knows_the_functions(shell: Shell) -> None:
    """With the block, without the file that it reads, and run by another shell."""
    script = shell.root / "tools" / "mary_dispatcher.zsh"
    plain = shell.plain(str(script), "WO 1")
    assert plain.code == 0
    shell("install", "hooks")
    assert shell.plain(str(script), "WO 1") == plain
    script.write_bytes(script.read_bytes() + b"reconciler_mary_task WO-1\n")
    assert shell.plain(str(script), "WO 1") == plain
    for option in ("csh_junkie_quotes", "ksh_arrays", "posix_builtins", "no_function_argzero"):
        assert shell.plain("zsh", "-o", option, str(script), "WO 1").code == 0
    assert len(list((shell.root / ".reconciler" / "spool").iterdir())) == 5
    link = shell.root.parent / "dispatch"
    link.symlink_to(script)
    assert shell.plain(str(link), "WO 1").code == 0
    assert len(list((shell.root / ".reconciler" / "spool").iterdir())) == 6
    bare = shell.root / "tools" / "mary_dispatcher_health_check.zsh"
    bare.write_bytes(hooks.insert(b"echo only words\n") or b"")
    words = shell.plain("bash", str(bare))
    (shell.root / "tools" / "reconciler.zsh").unlink()
    assert (
        words == shell.plain("zsh", "-eu", str(bare)) == shell.plain("sh", "-eu", str(bare)) == (0, "only words\n", "")
    )


def test_the_files_hold_no_path_of_a_workspace(workspace: Settings) -> None:
    """They are the same everywhere."""
    for wanted in find("hooks").wanted(workspace):
        data = wanted.edit(b"")
        assert data is not None
        assert bytes(workspace.root) not in data
        assert sys.prefix.encode() not in data
    if shutil.which("zsh"):
        for path in (Path(hooks.__file__).parent / "files").glob("*.zsh"):
            subprocess.run(["zsh", "-n", str(path)], check=True)


def test_uninstalling_brings_back_what_a_file_took_the_place_of_when_that_file_is_gone(shell: Shell) -> None:
    """The only copy of somebody's hook is not thrown away because ours was removed by hand."""
    before = there(shell.root)
    assert shell("install", "hooks").code == 0
    (shell.root / "tools" / "mary_memory_hook.zsh").unlink()
    assert shell("uninstall", "hooks").code == 0
    assert there(shell.root) == before


def test_what_somebody_edited_in_our_files_and_blocks_takes_no_original_away(shell: Shell) -> None:
    """Installing again keeps the edits as copies, and uninstalling still gives back what was there at first."""
    before = there(shell.root)
    assert shell("install", "hooks").code == 0
    hook, script = shell.root / "tools" / "mary_memory_hook.zsh", shell.root / "tools" / "mary_dispatcher.zsh"
    hook.write_bytes(hook.read_bytes() + b"# edited\n")
    script.write_bytes(script.read_bytes().replace(b"\nfi\n", b"\nfi\nexport MINE=1\n", 1))
    edited = {hook.read_bytes(), script.read_bytes()}
    assert shell("install", "hooks").code == 0
    assert shell("uninstall", "hooks").code == 0
    assert there(shell.root) == before
    assert {path.read_bytes() for path in (shell.root / ".reconciler" / "installed").iterdir()} == edited
