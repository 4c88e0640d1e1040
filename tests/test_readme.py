"""What the documents say is held against the program: commands and their output, tables, examples, links."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler import errors, schema, settings
from reconciler.cli import VERBS
from reconciler.errors import Place, ReconcilerError
from reconciler.sources import manifests
from reconciler.store.embedded import server_binary
from tests.waiting import wait_until

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*.md")])
WORDS = ("source", "desired", "live", "base", "field", "stamp", "merge", "change", "plan", "policy", "tombstone",
         "journal", "spool", "reconcile")  # fmt: skip
ASKS = re.compile(r"cat |tail |grep |redis-cli .* H?GET|reconciler (diff|get|history|status|explain)")
"""Commands that only look: repeated until they say what is shown, because the reconciler works meanwhile."""


class Step(NamedTuple):
    """One command of a document, the output shown for it, and its exit code."""

    command: str
    shown: list[str]
    code: int = 0


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


def steps() -> Iterator[Step]:
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *shown = part.rstrip("\n").split("\n")
            code = re.fullmatch(r"\[exit code (\d+)\]", shown[-1]) if shown else None
            yield Step(command, shown[:-1] if code else shown, int(code[1]) if code else 0)


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The rows of the tables under a title, without their heads."""
    found = []
    for is_table, lines in groupby(section(title).splitlines(), key=lambda line: line.startswith("|")):
        if is_table:
            found += [[cell.strip() for cell in line.strip("|").split("|")] for line in list(lines)[2:]]
    return found


def plain(line: str, folder: str) -> str:
    """A line without what differs from run to run: times, spans, pids, this folder's name, column widths."""
    line = line.replace(folder + "/", "")
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", line)
    line = re.sub(r"\b\d+ (µs|ms|s|min|h|days?)\b", "SPAN", line)
    line = re.sub(r"\b(pid |hook-)\d+", r"\1N", line)
    return re.sub(r"\s+", " ", re.sub(r"─+", "─", line)).strip()


def matches(said: list[str], shown: list[str], folder: str) -> bool:
    """Whether the output is what is shown; a line `...` stands for any lines, blank lines do not count."""
    here, there = ([text for line in lines if (text := plain(line, folder))] for lines in (said, shown))
    pattern = "".join("(.*\n)*" if line == "..." else re.escape(line) + "\n" for line in there)
    return re.fullmatch(pattern, "".join(line + "\n" for line in here)) is not None


class Terminal:
    """A shell in a copy of the project whose `.venv` stands for the environment of these tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = self._environment()
        self.others: list[subprocess.Popen[bytes]] = []
        self.shell = self._start(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _environment(self) -> dict[str, str]:
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copyfile(PROJECT / name, self.folder / name)
        shutil.copytree(PROJECT / "manifests", self.folder / "manifests")
        python = f"PYTHONPATH={shlex.quote(str(PROJECT))} exec {shlex.quote(sys.executable)}"
        self._script(".venv/bin/python", f'{python} "$@"')
        self._script(".venv/bin/reconciler", f'{python} -m reconciler "$@"')
        (self.folder / ".venv/.embedded").write_text(f"{self.folder}\n")
        self._script("bin/redis-cli", f'case " $* " in *" SUBSCRIBE "*) exec {_client()} "$@"; esac\n'
                                      f'exec {_client()} --no-raw "$@"')  # fmt: skip
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith(("REDIS", "RECONCILER", "LUKA", "MAKE", "MFLAGS", "PYTHON"))}  # fmt: skip
        return kept | {
            "PATH": f"{self.folder}/bin:{kept['PATH']}",
            "RECONCILER_INTERVAL": "0.2",
            "RECONCILER_WRITER": "ann@laptop",
            "PYTHONUTF8": "1",
        }

    def _script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def _start(self, command: list[str], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[list[str], int]:
        """Type one command into the shell; what it said and its exit code."""
        assert self.shell.stdin and self.shell.stdout
        self.shell.stdin.write(f'{command}\nprintf "\\n=== %s\\n" $?\n'.encode())
        self.shell.stdin.flush()
        said = []
        for line in iter(self.shell.stdout.readline, b""):
            said.append(line.decode().rstrip("\n"))
            if said[-1].startswith("=== "):
                return said[:-1], int(said[-1][4:])
        raise AssertionError(f"the shell ended: {said}")

    def leave_running(self, command: str, until: str) -> list[str]:
        """Type a command into another terminal and wait for a line; what it said so far."""
        log = self.folder / f"terminal-{len(self.others)}.log"
        with log.open("wb") as out:
            self.others.append(self._start(shlex.split(command), stdin=subprocess.DEVNULL, stdout=out.fileno()))
        wait_until(lambda: until in log.read_text(), 30, f"{until!r} from {command}")
        return log.read_text().splitlines()

    def close(self) -> None:
        for other in self.others:
            os.killpg(other.pid, signal.SIGINT)
            other.wait(timeout=30)
        os.killpg(self.shell.pid, signal.SIGKILL)
        for stream in (self.shell.stdin, self.shell.stdout):
            assert stream
            stream.close()
        self.shell.wait(timeout=30)


def _client() -> str:
    """A command line client: one on PATH, else the one beside the embedded server."""
    for path in (shutil.which("redis-cli"), shutil.which("valkey-cli"), server_binary().with_name("valkey-cli")):
        if path and os.access(path, os.X_OK):
            return shlex.quote(str(path))
    pytest.skip("there is no redis-cli on this machine")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """In a short path of its own, because the README names the socket inside it."""
    with tempfile.TemporaryDirectory(prefix="readme-", dir=Path("/tmp").resolve()) as folder:
        opened = Terminal(Path(folder))
        try:
            yield opened
        finally:
            opened.close()


def test_the_commands_of_the_readme_do_what_it_shows(terminal: Terminal) -> None:
    """Every command of every console block, in order, says what stands below it and exits as it says there."""
    folder = str(terminal.folder)
    for step in steps():
        if step.command == "make run":
            said, code = terminal.leave_running(step.command, step.shown[-1]), 0
            assert matches(said, step.shown, folder), said
            continue
        said, code = terminal.run(step.command)

        def repeated(step: Step = step) -> bool:
            nonlocal said, code
            if ASKS.match(step.command) and not matches(said, step.shown, folder):
                said, code = terminal.run(step.command)
            return matches(said, step.shown, folder) and code == step.code

        try:
            wait_until(repeated, 20 if ASKS.match(step.command) else 0)
        except AssertionError:
            raise AssertionError(f"$ {step.command}\n" + "\n".join([*said, f"[exit code {code}]"])) from None
    (terminal.folder / "example.py").write_text(blocks("python")[0])
    said, code = terminal.run(".venv/bin/python example.py")
    assert code == 0, said


def test_the_settings_table_is_the_programs_own() -> None:
    """Name, default, unit, environment and meaning of every setting stand in the README as in settings.TABLE."""
    told = [settings.Row(*(re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in row)) for row in rows("Settings")]
    assert told == list(settings.TABLE)


def test_every_verb_is_in_the_verbs_table() -> None:
    """The table has the verbs in the order of --help, each beginning with the help's own words."""
    told = [row for row in rows("Verbs") if row[0].startswith("`")]
    assert [row[0].strip("`").split()[0] for row in told] == list(VERBS)
    for row, (_, help_text) in zip(told, VERBS.values(), strict=True):
        assert row[1].startswith(help_text)


def test_every_exit_code_is_in_the_table() -> None:
    """The codes of the error classes, and 0, are explained."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ReconcilerError)]
    told = {int(row[0]) for row in rows("Verbs") if row[0].isdecimal()}
    assert told == {0, *(kind.exit_code for kind in kinds)}


def test_the_word_list_is_there() -> None:
    """Each word that code, events and documents share is explained."""
    assert [row[0] for row in rows("Words")] == list(WORDS)


def test_the_examples_are_valid() -> None:
    """The event and the manifest that the README shows satisfy their schemas."""
    event = json.loads(blocks("json")[0])
    assert schema.validate("event", event, lambda steps: (Place("README.md"), ""), source="README.md") == []
    found, problems = manifests.parse(blocks("yaml")[0].encode(), "README.md")
    assert ([manifest.agent for manifest in found], problems) == (["mary"], [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_in_the_documents_has_a_verb(page: Path) -> None:
    """In blocks and in the text, with options before the verb or without."""
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M), *re.findall(r"`([^`\n]+)`", text)])
    told = re.findall(r"^(?:\$ )?reconciler (?:--[a-z]+ \S+ )*([a-z]+)", code, re.M)
    assert set(told) <= set(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_and_targets_in_the_documents_exist(page: Path) -> None:
    """A relative link leads to a file, and `make WORD` is a target of the Makefile."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
