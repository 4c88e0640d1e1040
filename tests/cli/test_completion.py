"""Completion in the shells that people have: verbs, options, agents, fields."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.shell import Shell

zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not on PATH")
bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on PATH")
Complete = Callable[..., list[str]]


@pytest.fixture
def script(shell: Shell) -> str:
    """A command `reconciler` on PATH, in a workspace whose Redis nobody can reach."""
    program = shell.root.parent / "bin" / "reconciler"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reconciler "$@"\n')
    program.chmod(0o755)
    (shell.root / "shared_memory").mkdir(exist_ok=True)
    record = '{"status": "active", "context": {"last_task": "x", "role": "y"}}'
    agents = f'{{"agents": {{"mary": {record}, "mark": {{}}, "rnd": {{}}, "it\'s `id`": {{}}}}}}'
    (shell.root / "shared_memory" / "context.json").write_text(agents)
    shell.env |= {"LUKA_SOT": str(shell.root), "REDIS_URL": "redis://127.0.0.1:1"}
    return f'export PATH="{program.parent}:$PATH"\n'


def in_bash(shell: Shell, script: str, *words: str) -> list[str]:
    """What bash offers behind these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    text = f'{script}eval "$(reconciler completion bash)"\nCOMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}\n'
    done = shell.plain(
        "bash", "--norc", "-c", text + '_reconciler_completion reconciler\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    assert done.err == ""
    return done.out.split()


CASES: list[tuple[tuple[str, ...], set[str]]] = [
    (("reconciler", "do"), {"doctor"}),
    (("reconciler", "get", "ma"), {"mary", "mark"}),
    (("reconciler", "diff", "mary", "r"), {"rnd"}),
    (("reconciler", "explain", "mary", "context."), {"context.last_task", "context.role"}),
    (("reconciler", "doctor", "--fi"), {"--fix"}),
    (("reconciler", "install", "sh"), {"shim"}),
    (("reconciler", "completion", "z"), {"zsh"}),
]


@bash
@pytest.mark.parametrize(("words", "offered"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_bash_offers(shell: Shell, script: str, words: tuple[str, ...], offered: set[str]) -> None:
    """Verbs, options, agents, fields and targets, without Redis."""
    assert set(in_bash(shell, script, *words)) == offered


@zsh
@pytest.mark.parametrize(("words", "offered"), CASES[:4], ids=[" ".join(words) for words, _ in CASES[:4]])
def test_zsh_offers(shell: Shell, script: str, words: tuple[str, ...], offered: set[str]) -> None:
    """The function that zsh calls hands the same to its completion."""
    text = f"""{script}
autoload -Uz compinit && compinit -u -D
eval "$(reconciler completion zsh)"
print -r -- "for ${{_comps[reconciler]}}"
compadd() {{ print -rl -- $completions }}
_describe() {{ print -rl -- ${{completions_with_descriptions%%:*}} }}
words=({" ".join(words)}) CURRENT={len(words)}
_reconciler_completion
"""
    done = shell.plain("zsh", "-f", "-c", text)
    assert done.err == ""
    assert "for _reconciler_completion" in done.out
    assert offered <= set(done.out.split())


def test_names_are_offered_for_the_root_that_is_on_the_line(shell: Shell, script: str, tmp_path: Path) -> None:
    """`--root` before the verb or behind it counts; a workspace without a file offers nothing."""
    shell.env |= {"_RECONCILER_COMPLETE": "bash_complete", "COMP_WORDS": "reconciler get ", "COMP_CWORD": "2"}
    assert "plain,mary" in shell.plain(sys.executable, "-m", "reconciler").out
    shell.env |= {"COMP_WORDS": f"reconciler --root {tmp_path} get ", "COMP_CWORD": "4"}
    done = shell.plain(sys.executable, "-m", "reconciler")
    assert (done.out.strip(), done.err) == ("", "")


def test_another_shell_is_refused(shell: Shell) -> None:
    """Only zsh and bash are there."""
    done = shell.plain(sys.executable, "-m", "reconciler", "completion", "fish")
    assert done.code == 2 and "zsh" in done.err
