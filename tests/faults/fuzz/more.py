"""What needs a folder to be read: the memory in `state.db`, and the command line."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from unittest import mock

import click

from reconciler.base import Base, Clean, Conflict, Entry, Memory
from reconciler.cli import VERBS, cli, main
from reconciler.edits import Version
from reconciler.errors import ReconcilerError
from reconciler.files import Identity
from reconciler.sources.manifests import File, Known, Manifest
from reconciler.state import Field
from tests.faults.fuzz.targets import TARGETS, Target

_ROWS = (
    "UPDATE agent SET merged = ?", "UPDATE file SET fields = ?", "UPDATE file_version SET written = ?",
    "UPDATE manifest_file SET said = ?",
    "UPDATE manifest_field SET fields = ?", "UPDATE journal SET text = ?", "UPDATE journal SET at = ?",
    "UPDATE conflict SET lost = ?", "UPDATE unlearnt SET was = ?", "UPDATE meta SET value = ?",
    "UPDATE file_version SET undo = ?", "UPDATE agent SET version = ?",
)  # fmt: skip


@cache
def _database() -> bytes:
    """A memory with something in each table."""
    with tempfile.TemporaryDirectory() as folder:
        base = Base(Path(folder))
        state = {"mary": {"status": Field('"busy"', 5, "a"), "context.x": Field(None, 6, "b")}}
        manifest = Manifest("mary", "m.yaml", 1, {"status": '"busy"'})
        identity = Identity(1, 2, 3, 4)
        base.append_journal(state)
        memory = Memory(
            merged=state, versions={"mary": 3}, file=state,
            manifests=Known({"m.yaml": File("m.yaml", identity, 5, (manifest,))}, state),
            epoch="e", clean=Clean(identity, ("paths",)), empty=False,
            unlearnt={("mary", "status"): Field('"idle"', 4, "a"), ("mary", "n"): None},
        )  # fmt: skip
        versions = [Version(7, True, {("mary", "status"): Field('"idle"', 4, "a"), ("mary", "n"): None})]
        conflicts = [Conflict("mary", "status", Field('"a"', 1, "x"), Field('"b"', 2, "y"))]
        base.save(Memory(), memory, now=10, new_versions=versions, conflicts=conflicts)
        assert len(base.load().journal) == 2 and isinstance(base.load().journal[0], Entry)
        return base.path.read_bytes()


def check_base(data: bytes) -> None:
    """`state.db` with one row changed to a text or a number; or, where the input begins with `@`, with bytes changed:
    `@<offset> <bytes>`."""
    with tempfile.TemporaryDirectory() as folder:
        base = Base(Path(folder))
        if data[:1] == b"@":
            place, _, new = data[1:].partition(b" ")
            at = int(place) % len(_database()) if place[:9].isdigit() and len(place) < 10 else 0
            whole = _database()
            base.path.write_bytes(whole[:at] + new + whole[at + len(new) :])
        else:
            base.path.write_bytes(_database())
            _change_row(base.path, data)
        with suppress(ReconcilerError):
            list(base.load().file_versions)
        with suppress(ReconcilerError):
            base.conflicts()
        with suppress(ReconcilerError):
            base.version("mary")


def _change_row(path: Path, data: bytes) -> None:
    which = data[0] % len(_ROWS) if data else 0
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA journal_mode = MEMORY")
        text = data[1:].decode("utf-8", "replace")
        db.execute(_ROWS[which], (text,))


ROW_SAMPLES = tuple(
    bytes([number]) + text
    for number, text in enumerate(
        (
            b'{"status":["\\"busy\\"",5,"a"]}', b'{"status":["1",5,"a"],"x":[null,6,"b"]}', b"7",
            b'[[1,2,3,4],5,[["mary","m.yaml",1,{"status":"1"},{},null,null]],false]', b'{"status":["1",5,"a"]}',
            b'"busy"', b"5", b'["1",1,"x"]', b'["1",1,"x"]', b"[[1,2,3,4],[]]",
            b'[["mary","status",null]]', b"3",
        )
    )
)  # fmt: skip
BASE_SAMPLES = (
    *ROW_SAMPLES,
    b"@0 SQLite format 3",
    b"@24 \0\0\0\1",
    b"@4096 \r\0\0\0\1",
    b"@8200 {}",
    b"@9000 \xff\xff",
)

PARSED_ONLY = frozenset({"run", "watch", "init", "install", "uninstall", "doctor", "completion"})
"""Verbs that wait, or that change more than their workspace: of these only the arguments are read."""

CLI_SAMPLES = (
    b"get\0mary\0-o\0yaml", b"set\0mary\0a=1\0--field\0insight=x\0status=busy", b"diff\0--prune\0-o\0json\0mary",
    b"apply\0--max-deletes\x0010%\0--first-run\0newer", b"history\0mary\0-n\x005", b"rollback\0mary\x003",
    b"explain\0mary\0status", b"conflicts\0mary\0-n\x003\0--restore\x001", b"export\0mary\0--to\0out\0--force",
    b"validate\0context.json", b"status\0-o\0json", b"record\0mary\0a=1\0--json\0-", b"schema\0manifest",
    b"delete\0mary",
    b"watch\0mary\0--count\x001\0--event\0x", b"run\0--once", b"install\0hooks\0--dry-run", b"--root\0w\0get",
    b"--help",
    b"doctor\0--fix", b"completion\0zsh", b"init\0x", b"--version", b"ge",
)  # fmt: skip
"""Words apart by NUL."""

_ENDS = frozenset(range(7))


def check_cli(data: bytes) -> None:
    """A command line, in this process and in a new workspace without Redis: one of the exit codes, never a fault."""
    words = [os.fsdecode(word).replace("/", "_").replace("~", "_") for word in data.split(b"\0")]
    words = ["_" if word in (".", "..") else word for word in words]
    with _elsewhere() as said:
        if PARSED_ONLY & set(words):
            _parse(words)
            return
        with mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))):
            code = main(["--redis", "redis://127.0.0.1:1/0", *words])
        assert code in _ENDS, f"exit code {code}"
        assert "fault of this program" not in said.getvalue() and "Traceback" not in said.getvalue()


def _parse(words: list[str]) -> None:
    for verb in sorted(PARSED_ONLY & set(words)):
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None and verb in VERBS
        with suppress(click.ClickException, click.exceptions.Exit), command.make_context(verb, words[1:]):
            pass


@contextmanager
def _elsewhere() -> Iterator[io.StringIO]:
    """A new workspace where one stands, and what is said there. RECONCILER_DEBUG lets faults through."""
    said, here = io.StringIO(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        env = {"HOME": folder, "LUKA_SOT": folder, "RECONCILER_DEBUG": "1", "PATH": os.defpath}
        os.chdir(folder)
        try:
            with mock.patch.dict(os.environ, env, clear=True):
                yield said
        finally:
            os.chdir(here)


ALL = (*TARGETS, Target("base", check_base, BASE_SAMPLES), Target("cli", check_cli, CLI_SAMPLES))
