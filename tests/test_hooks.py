"""The zsh hooks: every byte that a caller hands over is in the spool, whatever the caller's shell is like."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.service import carry_out, find, installing
from reconciler.spool import Drop, parse
from reconciler.state import decode
from reconciler.workspace import read_settings

ZSH = shutil.which("zsh")
pytestmark = pytest.mark.skipif(ZSH is None, reason="the hooks are zsh scripts, and there is no zsh on PATH")

EVERY_BYTE = bytes(range(1, 256))
NASTY = """{"note":"it's $(touch pwned) `id` \\" ; rm -rf","lines":"a\\nb","face":"😀"}"""
STRANGE = """\
alias local=false print=false setopt=false zmodload=false
readonly name=x fd=x root=x
setopt ksh_arrays sh_word_split no_clobber no_unset err_exit err_return glob_subst all_export warn_create_global
setopt no_function_argzero posix_builtins posix_identifiers ignore_braces csh_junkie_quotes rc_quotes sh_glob
TRAPZERR() { builtin print the trap was run }
umask 777
"""


class Tools(NamedTuple):
    """A workspace into which the hooks were installed."""

    root: Path

    def run(
        self, *words: str | bytes, input: bytes = b"", fails: bool = False, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        """A command in the workspace; unless it may fail it says nothing, and ends with 0."""
        minimal = {"PATH": os.environ["PATH"], "HOME": str(self.root), **env}
        done = subprocess.run(words, cwd=self.root, env=minimal, input=input, capture_output=True, check=False)
        assert done.returncode == 0, done
        assert fails or (done.stdout, done.stderr) == (b"", b"")
        return done

    def zsh(self, script: str, *words: str) -> None:
        """A script of a caller, with arguments."""
        self.run(str(ZSH), "-f", "-c", script, "caller", *words)

    def drops(self) -> list[Drop]:
        """What is in the spool, in order, as the program reads it; nothing half written is there."""
        found = sorted((self.root / ".reconciler" / "spool").iterdir())
        assert [path.suffix for path in found] == [".drop"] * len(found)
        return [parse(path.stem, path.read_bytes()) for path in found]

    def values(self) -> list[dict[str, object]]:
        """The context keys that each drop sets, an agent's name with them."""
        return [
            {"agent": drop.agent}
            | {name.removeprefix("context."): decode(field.text) for name, field in drop.fields.items() if field.text}
            for drop in self.drops()
        ]


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """A workspace whose name has a space, quotes and more than ASCII in it; the locale is C unless a test says so."""
    root = tmp_path / 'it\'s "my" wörk'
    root.mkdir()
    settings = read_settings(str(root), {}, {})
    carry_out(settings, installing(settings, find("hooks")))
    return Tools(root)


def test_a_hook_drops_what_it_is_told(tools: Tools) -> None:
    """The names and arguments that callers use; one drop for each call, private, in order."""
    tools.run("tools/mary_memory_hook.zsh", "WO-1", "completed", '{"a": [1.50]}')
    tools.run("tools/rnd_memory_hook.zsh", "P-1", "accepted", '{"score": 9}')
    assert tools.values() == [
        {"agent": "mary", "last_task": "WO-1", "task_status": "completed", "result": {"a": [1.5]}},
        {"agent": "rnd", "last_proposal": "P-1", "outcome": "accepted", "result": {"score": 9}},
    ]
    folder = tools.root / ".reconciler"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "spool")}
    files = {stat.S_IMODE(path.stat().st_mode) for path in (folder / "spool").iterdir()}
    assert (modes, files) == ({0o700}, {0o600})


def test_arguments_that_are_left_out_leave_no_stray_brace(tools: Tools) -> None:
    """The defaults of the old hooks, and no result is null: `${3:-{}}` added a brace to every result."""
    tools.run("tools/mary_memory_hook.zsh")
    tools.run("tools/rnd_memory_hook.zsh", "", "", "")
    tools.run("tools/mary_memory_hook.zsh", "WO-1", "completed", "{}")
    assert tools.values() == [
        {"agent": "mary", "last_task": "unknown", "task_status": "completed", "result": None},
        {"agent": "rnd", "last_proposal": "unknown", "outcome": "processed", "result": None},
        {"agent": "mary", "last_task": "WO-1", "task_status": "completed", "result": {}},
    ]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_every_byte_is_kept_and_none_is_run(tools: Tools, locale: str) -> None:
    """Quotes, newlines, emoji, commands in a result; and bytes that are no text, in an argument and from stdin."""
    for words, given in (((NASTY,), b""), ((EVERY_BYTE,), b""), (("-",), EVERY_BYTE), (("-",), b"")):
        tools.run("tools/mary_memory_hook.zsh", "$(touch pwned)", "*", *words, input=given, LC_ALL=locale)
    contents = [path.read_bytes() for path in sorted((tools.root / ".reconciler" / "spool").iterdir())]
    head = b"reconciler-drop 1\0mary\0last_task\0text\0$(touch pwned)\0task_status\0text\0*\0result\0json\0"
    expected = [NASTY.encode(), EVERY_BYTE, EVERY_BYTE, b"null"]
    assert contents == [head + value + b"\0end\0" for value in expected]
    assert not (tools.root / "pwned").exists()


def test_a_megabyte_comes_through_a_function_and_through_stdin(tools: Tools) -> None:
    """More than a command line may hold."""
    big = "{" + ",".join(f'"key {number}":"é{"x" * 100}"' for number in range(10_000)) + "}"
    tools.run("tools/mary_memory_hook.zsh", "WO-1", "done", "-", input=big.encode())
    file = tools.root / "big"
    file.write_text(big)
    tools.zsh('. tools/reconciler.zsh; reconciler_mary_task WO-2 done "$(<big)"')
    assert [value["result"] for value in tools.values()] == [decode(big)] * 2


def test_each_function_sets_its_keys(tools: Tools) -> None:
    """What the dispatcher and R&D have to tell, one drop for each call."""
    calls: dict[str, dict[str, object]] = {
        "mary_task WO-1 failed '[1]'": {"last_task": "WO-1", "task_status": "failed", "result": [1]},
        "mary_work_order WO-2 merged": {
            "work_order": "WO-2", "work_order_outcome": "merged", "work_order_result": None
        },
        "mary_error 'no disk' WO-3": {"error": "no disk", "error_task": "WO-3"},
        "mary_error 'no net'": {"error": "no net", "error_task": None},
        """mary_metrics '{"n":1}'""": {"metrics": {"n": 1}},
        "mary_health degraded": {"health": "degraded", "health_detail": None},
        "rnd_proposal P-1 open": {"last_proposal": "P-1", "proposal_status": "open"},
        "rnd_improvement P-1 applied '{}'": {"last_proposal": "P-1", "outcome": "applied", "result": {}},
        "rnd_score P-1 90 +2.5": {"last_proposal": "P-1", "score": 90, "score_delta": 2.5},
        "rnd_score P-2 7": {"last_proposal": "P-2", "score": 7, "score_delta": None},
        "rnd_learning 'small steps'": {"learning": "small steps"},
        "rnd_learning 'and tests' 'P 1'": {"learning": "and tests", "last_proposal": "P 1"},
        "drop cls note text - empty json ''": {"note": "-", "empty": None},
    }  # fmt: skip
    tools.zsh("\n".join([". tools/reconciler.zsh", *(f"reconciler_{call}" for call in calls)]))
    agents = {"mary_": "mary", "rnd_": "rnd", "drop": "cls"}
    expected = [{"agent": next(agents[start] for start in agents if call.startswith(start)), **value}
                for call, value in calls.items()]  # fmt: skip
    assert tools.values() == expected


def test_the_caller_may_have_any_options_and_keeps_them(tools: Tools) -> None:
    """Arrays from 0, errexit, nounset, noclobber, aliases on everything, a trap, a umask: none matters or changes."""
    tools.zsh(
        STRANGE
        + """
        before=$(builtin setopt; builtin umask)
        source tools/reconciler.zsh
        reconciler_mary_task "$1" done "$2"
        [[ "$before" == "$(builtin setopt; builtin umask)" ]] || builtin print options have changed
        """,
        "WO *",
        NASTY,
    )
    assert tools.values() == [
        {"agent": "mary", "last_task": "WO *", "task_status": "done", "result": decode(NASTY)},
    ]


def test_a_caller_may_unload_what_a_hook_needs(tools: Tools) -> None:
    """Or have loaded only some of it, before or between two calls."""
    tools.zsh(
        """
        zmodload -F zsh/datetime b:strftime; zmodload -F zsh/files b:zf_ln
        source tools/reconciler.zsh
        reconciler_mary_task 1
        zmodload -u zsh/files zsh/datetime zsh/system
        reconciler_mary_task 2
        zmodload -u zsh/system
        reconciler_mary_task 3
        """
    )
    assert [value["last_task"] for value in tools.values()] == ["1", "2", "3"]


def test_a_tilde_in_luka_sot_is_the_home_also_beside_a_folder_of_that_name(tools: Tools) -> None:
    """And a path from the current folder is one, at each call."""
    (tools.root / "~" / ".reconciler" / "spool").mkdir(parents=True)
    (tools.root / "inner" / "tools").mkdir(parents=True)
    tools.zsh(
        """
        source tools/reconciler.zsh
        export LUKA_SOT='~'; reconciler_mary_task 1
        LUKA_SOT=inner; reconciler_mary_task 2
        cd inner; LUKA_SOT=..; reconciler_mary_task 3
        unset LUKA_SOT; reconciler_mary_task 4
        """
    )
    assert [value["last_task"] for value in tools.values()] == ["1", "3", "4"]
    assert [value["last_task"] for value in Tools(tools.root / "inner").values()] == ["2"]


def test_what_zshenv_sets_matters_to_no_hook(tools: Tools) -> None:
    """It is read where a caller says `zsh tools/...`."""
    (tools.root / ".zshenv").write_text(STRANGE + "alias source=false reconciler_mary_task=false exit=false")
    tools.run(str(ZSH), "tools/mary_memory_hook.zsh", "WO *", "done", NASTY)
    assert [value["last_task"] for value in tools.values()] == ["WO *"]


@pytest.mark.parametrize("shell", ["sh", "ksh", "csh"])
def test_a_caller_may_emulate_another_shell(tools: Tools, shell: str) -> None:
    """Also when its script is strict."""
    tools.zsh(f"emulate {shell}; set -eu; . ./tools/reconciler.zsh; reconciler_mary_health ok")
    assert tools.values() == [{"agent": "mary", "health": "ok", "health_detail": None}]


def test_fifty_processes_at_once_lose_nothing(tools: Tools) -> None:
    """Every call is there once, under a name of its own, and those of one process are in order; also the first calls
    of all, which make the spool."""
    loop = 'for n in 1 2; do tools/mary_memory_hook.zsh "$1" done $n; tools/rnd_memory_hook.zsh "$1" ok $n; done'
    script = f"for p in {{1..50}}; do zsh -f -c '{loop}' caller $p & done; wait"
    tools.zsh(script)
    drops = tools.values()
    assert len(drops) == 200
    told = {(value["agent"], value.get("last_task", value.get("last_proposal")), value["result"]) for value in drops}
    assert len(told) == 200
    for number in range(1, 51):
        results = [value["result"] for value in drops if value.get("last_task") == str(number)]
        assert results == [1, 2]


def test_forks_of_one_shell_have_names_of_their_own(tools: Tools) -> None:
    """A background job has the same $$ as its parent."""
    tools.zsh(
        "unsetopt monitor; . tools/reconciler.zsh; for p in {1..20}; do"
        " { for n in {1..5}; do reconciler_mary_task $p done $n; done } & done; wait"
    )
    assert len(tools.drops()) == 100


def test_tools_may_be_a_link_and_a_hook_may_be_reached_through_one(tools: Tools) -> None:
    """The workspace is the folder above `tools`, where that stands or where it leads; LUKA_SOT names another."""
    real = tools.root.parent / "somewhere" / "scripts"
    real.parent.mkdir()
    (tools.root / "tools").rename(real)
    (tools.root / "tools").symlink_to(real)
    (tools.root / "tools" / "mary.zsh").symlink_to("mary_memory_hook.zsh")
    tools.run("tools/mary.zsh", "WO-1")
    other = tools.root.parent / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "mary").symlink_to(tools.root / "tools" / "mary_memory_hook.zsh")
    (real.parent / "scripts").rename(other / "tools")
    (tools.root / "tools").unlink()
    (other / "tools").rename(tools.root / "tools")
    tools.run(str(other / "bin" / "mary"), "WO-2")
    tools.run("tools/mary.zsh", "WO-3", LUKA_SOT=str(other))
    tools.run("tools/mary.zsh", "WO-4", LUKA_SOT="~/", HOME=str(other))
    assert [value["last_task"] for value in tools.values()] == ["WO-1", "WO-2"]
    assert [value["last_task"] for value in Tools(other).values()] == ["WO-3", "WO-4"]


def test_what_cannot_be_recorded_is_told_in_one_line_and_ends_nobody(tools: Tools) -> None:
    """No workspace, no spool, no functions, a wrong call: exit code 0, and a line that says why."""
    gone = tools.run("tools/mary_memory_hook.zsh", "WO-1", fails=True, LUKA_SOT="/does/not/exist")
    (tools.root / ".reconciler" / "spool").write_text("")
    blocked = tools.run("tools/mary_memory_hook.zsh", "WO-1", fails=True)
    wrong = tools.run(str(ZSH), "-fec", ". tools/reconciler.zsh; reconciler_drop mary key", fails=True)
    (tools.root / "tools" / "reconciler.zsh").unlink()
    alone = tools.run("tools/rnd_memory_hook.zsh", fails=True)
    prefix = "reconciler: what mary did was not recorded: "
    assert [done.stderr.decode() for done in (gone, blocked, wrong, alone)] == [
        f"{prefix}there is no workspace /does/not/exist (from LUKA_SOT)\n",
        f"{prefix}{tools.root}/.reconciler/spool cannot be made\n",
        f"{prefix}each key needs its type, text or json, and its value\n",
        f"reconciler: what rnd did was not recorded: there is no reconciler.zsh in {tools.root}/tools\n",
    ]


def test_a_hook_works_with_every_stream_closed(tools: Tools) -> None:
    """As a job that nobody watches may be started."""
    for words in ("", "LUKA_SOT=/does/not/exist "):
        tools.run("sh", "-c", f"{words}tools/mary_memory_hook.zsh WO-1 done - <&- >&- 2>&-")
    assert [value["result"] for value in tools.values()] == [None]


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace to look with")
def test_a_hook_starts_no_process(tools: Tools) -> None:
    """One process from the first to the last moment, and no network."""
    trace = tools.root / "trace"
    words = ["strace", "-f", "-o", str(trace), "-e", "trace=process,network", "tools/mary_memory_hook.zsh", "WO-1"]
    tools.run(*words, fails=True)
    calls = trace.read_text()
    assert calls.count("execve(") == 1
    assert not any(word in calls for word in ("fork(", "clone(", "clone3(", "AF_INET"))
