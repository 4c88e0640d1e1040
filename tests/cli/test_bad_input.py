"""Whatever is wrong, for every verb: one clear line with the way out, the right exit code, and nothing changed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from tests.cli.shell import COMMAND, Shell, contents, stored

READS = (("diff",), ("validate",), ("status",), ("get",), ("get", "mary"), ("history", "mary"), ("export",))
WRITES = (("apply",), ("run", "--once"), ("run",), ("set", "mary", "task=x"), ("delete", "mary"))
ALL = READS + WRITES
ENDING = tuple(words for words in ALL if words != ("run",))
"""All but the one that goes on with files, and waits for Redis to be what it should be."""


def tree(shell: Shell) -> list[tuple[str, int, bytes]]:
    """The workspace as it is, but for what only this program looks at: locks, and the time of folders."""
    found = []
    for path in [shell.root, *sorted(shell.root.rglob("*"))]:
        if path.name not in ("lock", "turn.lock"):
            data = path.read_bytes() if path.is_file() else b""
            found.append((str(path), path.lstat().st_mode, data))
    return found


def refuses(shell: Shell, words: tuple[str, ...], code: int, *said: str, input: str = "") -> None:
    """Run a command that must fail: its code, its one line with the way out, and that no file was touched."""
    before = tree(shell) if os.access(shell.root, os.R_OK) else []
    result = shell(*words, input=input, timeout=20)
    assert result.code == code, (words, result)
    assert result.out == "", words
    assert [text for text in said if text not in result.err] == [], (words, result.err)
    assert len(result.err.splitlines()) == 1, result.err
    assert (tree(shell) if before else []) == before


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_missing_workspace_is_a_usage_error(shell: Shell, words: tuple[str, ...]) -> None:
    """Named by option or variable, or not named at all."""
    shell.root = shell.root / "nowhere"
    refuses(shell, words, 2, "nowhere (from --root) does not exist", "--root DIR or LUKA_SOT")


def test_every_way_to_name_a_workspace_that_is_none(shell: Shell, tmp_path: Path) -> None:
    """A file, an empty name, a name that no system takes, somebody's home who is not there."""
    file = tmp_path / "file"
    file.write_text("")
    cases = {
        str(file): "is not a folder",
        "": "does not exist",
        "~nobody-of-this-name/x": "does not exist",
        "x" * 5000: "cannot be entered: file name too long",
        str(file / "below"): "cannot be entered: not a directory",
    }
    for root, said in cases.items():
        result = shell.plain(*COMMAND, "diff", "--root", root)
        assert result.code == 2, root
        assert said in result.err
        assert len(result.err.splitlines()) == 1
        assert len(result.err) < 500
    shell.env = {"LUKA_SOT": str(file)}
    assert f"{file} (from LUKA_SOT) is not a folder" in shell.plain(*COMMAND, "get").err
    shell.env = {}
    assert "~/02luka (from the default) does not exist" in shell.plain(*COMMAND, "get").err


NAMES = ["../x", "a:b", "{a}", "", "x" * 300, "größe", "a\nb", "-x", ".", "a b", "@other"]
NAMED = ("get", "set", "delete", "history", "diff", "export")


@pytest.mark.parametrize(("verb", "name"), [*((verb, "../x") for verb in NAMED), *(("set", name) for name in NAMES)])
def test_an_illegal_agent_name_is_a_usage_error_and_never_a_key(
    applied: Shell, client: redis.Redis, verb: str, name: str
) -> None:
    """For every verb that takes one."""
    before = stored(client)
    words = (verb, "--", name, *(["a=1"] if verb == "set" else []))
    refuses(applied, words, 2, "is not a legal agent name", "1 to 64 letters")
    assert stored(client) == before


def test_an_unknown_agent_is_a_no_and_a_near_one_is_named(applied: Shell, client: redis.Redis) -> None:
    """1: the answer is no. Only for diff it is 2, since 1 says there that something differs."""
    before = stored(client)
    for words in (("get", "mery"), ("delete", "mery"), ("export", "mery")):
        refuses(applied, words, 1, "no agent mery", "did you mean mary?")
    refuses(applied, ("get", "zzz"), 1, "no agent zzz", "reconciler get lists")
    refuses(applied, ("history", "zzz"), 1, "no history of zzz", "reconciler get lists")
    refuses(applied, ("rollback", "zzz", "1"), 1, "no history of zzz", "reconciler get lists")
    refuses(applied, ("diff", "mery"), 2, "no agent mery", "did you mean mary?")
    assert stored(client) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "mary"), "nothing to write"),
        (("set", "mary", "task"), "'task' is not KEY=VALUE"),
        (("set", "mary", "=x"), "'=x' is not KEY=VALUE"),
        (("set", "mary", "context.=x"), "'context.=x' is not KEY=VALUE"),
        (("set", "mary", "a={"), "a: not JSON"),
        (("set", "mary", "a=[1,]"), "a: not JSON"),
        (("set", "mary", 'a="'), "a: not JSON"),
        (("set", "mary", "a=" + "[" * 100 + "]" * 100), "a: not JSON: nested deeper than 64 levels"),
        (("set", "mary", "--field", "status=x"), "'status' is not a field of its own; it is given as status=..."),
        (("set", "mary", "--field", "last_update=x"), "it is the time of the newest write, which nobody sets"),
        (("set", "mary", "status=null"), "status=null: the status is text"),
        (("watch", "--count", "x"), "'x' is not a number from 1 on; reconciler watch --help shows how"),
        (("rollback", "mary", "x"), "'x' is not a number from 1 on; reconciler rollback --help"),
        (("run", "--log-format"), "'--log-format' requires an argument; reconciler run --help shows how"),
        (("set", "mary", "--field", "context=x"), "'context' is not a field of its own"),
        (("set", "mary", "--json", "/nowhere.json"), "--json /nowhere.json: No such file or directory"),
        (("set", "mary", "--json", "/"), "--json /: Is a directory"),
        (("apply", "--plan", "/nowhere.json"), "--plan /nowhere.json: No such file or directory"),
        (("apply", "--plan", "/"), "--plan /: Is a directory"),
        (("history", "mary", "-n", "0"), "invalid value for '-n'"),
        (("conflicts", "-n", "x"), "'x' is not a number from 1 on; reconciler conflicts --help shows how"),
        (("conflicts", "--restore", "0"), "'0' is not a number from 1 on; reconciler conflicts --help shows how"),
        (("history", "mary", "-n", "x"), "invalid value for '-n'"),
        (("history",), "missing argument 'AGENT'"),
        (
            ("install",),
            "missing argument 'TARGET...': hooks, shim, launchd, systemd; reconciler install --help shows how",
        ),
        (("completion",), "missing argument '{zsh|bash}': zsh, bash; reconciler completion --help shows how"),
        (("get", "a", "b"), "unexpected extra argument"),
        (("diff", "-o", "xml"), "'xml' is not one of"),
        (("diff", "--bogus"), "no such option"),
        (("bogus",), "no verb 'bogus'"),
        (("appply",), "did you mean apply?"),
        (("validate", "/nowhere.yaml"), "/nowhere.yaml does not exist"),
        (("validate", "/etc/hostname"), "neither a manifest nor a context file"),
        (("export", "--to", "manifests/mary.yaml"), "not a folder"),
        (("diff", "--redis", "ftp://host"), "--redis: the address is not a good redis"),
        (("apply", "--first-run", "x"), "'x' is not one of"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_wrong_command_line_is_exit_code_2(
    applied: Shell, client: redis.Redis, words: tuple[str, ...], said: str
) -> None:
    """Told before anything is done."""
    before = stored(client)
    refuses(applied, words, 2, said)
    assert stored(client) == before


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "5", "NaN", '{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}', "\x00"]
)
def test_what_is_no_json_object_is_not_set(applied: Shell, client: redis.Redis, text: str) -> None:
    """From stdin as well."""
    before = stored(client)
    refuses(applied, ("set", "mary", "--json", "-"), 2, "--json -: ", input=text)
    assert stored(client) == before


@pytest.mark.parametrize("words", [("note=gr\udcfc\udcdf",), ("\udcfc=1",), ("--field", "note=\udcfc")])
def test_an_argument_that_is_no_utf8_is_not_set(applied: Shell, client: redis.Redis, words: tuple[str, ...]) -> None:
    """Latin-1 of an old terminal: nobody could read back what was meant."""
    before = stored(client)
    refuses(applied, ("set", "mary", *words), 2, "is not UTF-8 text; ")
    assert stored(client) == before


def test_who_may_only_read_the_lock_is_told_who_holds_it(stranger: Shell) -> None:
    """A write that is done does not fail for the hint behind it, and `status` asks the same."""
    lock = stranger.root / ".reconciler" / "lock"
    lock.touch()
    lock.chmod(0o444)
    assert stranger("set", "mary", "task=1").code == 0
    assert stranger("status").code == 0


def test_a_value_of_megabytes_goes_through(applied: Shell) -> None:
    """Large is not wrong."""
    done = applied("set", "mary", "--json", "-", input='{"big": "' + "x" * 5_000_000 + '"}')
    assert done.code == 0
    assert applied("apply").code == 0
    assert len(applied("get", "mary").json["context"]["big"]) == 5_000_000
    assert len(applied("history", "mary").out) < 1_000


@contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that handles each connection with `talk`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=_talk, args=(talk, connection), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{port}/0"


def _talk(talk: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with suppress(OSError), connection:
        talk(connection)


def web(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def ssh(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    connection.recv(4096)


def mute(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


@pytest.mark.parametrize(("talk", "verbs"), [(web, ENDING), (ssh, (("diff",), ("apply",)))], ids=["web", "ssh"])
def test_a_server_that_is_not_redis_is_told_from_one_that_is_away(
    applied: Shell, talk: Callable[[socket.socket], None], verbs: tuple[tuple[str, ...], ...]
) -> None:
    """Exit code 3: trying again later does not help."""
    with listening(talk) as applied.redis:
        for words in verbs:
            refuses(applied, words, 3, "answers, but not as Redis does", "is the address and the port right?")


def test_a_server_that_never_answers_counts_as_away(applied: Shell) -> None:
    """Within seconds, not for ever."""
    with listening(mute) as applied.redis:
        assert applied("diff", timeout=10).code == 5
        assert applied("get", "mary", timeout=10).code == 5


@pytest.fixture
def locked(server: str, client: redis.Redis) -> Iterator[redis.Redis]:
    """The server asks for a password."""
    client.config_set("requirepass", "secret")
    yield client
    client.config_set("requirepass", "")


@pytest.mark.parametrize("words", ENDING, ids=" ".join)
def test_a_wrong_password_is_refused_and_never_shown(
    applied: Shell, locked: redis.Redis, words: tuple[str, ...]
) -> None:
    """From the environment, or in the address."""
    before = stored(locked)
    applied.env = {"REDIS_PASSWORD": "wr0ng"}
    refuses(applied, words, 3, "refuses the password", "REDIS_PASSWORD")
    assert stored(locked) == before


def test_no_password_is_ever_shown(applied: Shell, locked: redis.Redis, tmp_path: Path) -> None:
    """Wherever it stands and however the address is broken."""
    urls = (
        "redis://:s3cr3t@127.0.0.1:1/0", "redis://user:s3cr3t@127.0.0.1:1", "redis://:s3/cr3t@h/0", "redis://:s3?s3cr3t@h",
        "redis://:s3cr3t", "redis://s3cr3t", "s3cr3t", "redis://h:s3cr3t", "redis://[s3cr3t", "http://:s3cr3t@h",
        "redis://:12/s3cr3t@h", "redis://:s3cr3t@h@h2", "redis://:s3cr3t#@h", "redis://h/s3cr3t", "redis:s3cr3t",
        "redis://h?password=s3cr3t", "redis://h:1?password=s3cr3t&bogus=1", "unix://:s3cr3t@/nowhere", "redis://:s3cr3t\n@h",
        "redis://:s3cr3t@h:99999", "redis+sentinel://:s3cr3t@h/x", "rediss://:s3cr3t@127.0.0.1:1", "redis://:s3cr3t@@h",
    )  # fmt: skip
    for number, url in enumerate(urls):
        applied.env = {"REDIS_URL": url} if number % 2 else {}
        given = () if number % 2 else ("--redis", url)
        result = applied.plain(*COMMAND, "apply", "--root", str(applied.root), *given)
        assert result.code in (2, 3, 5), (url, result)
        if url != "redis://s3cr3t":  # that is a host's name
            assert "cr3t" not in result.out + result.err, (url, result)
    (applied.root / "reconciler.yaml").write_text("redis: 'ftp://:s3cr3t@h'\n")
    applied.env = {}
    result = applied.plain(*COMMAND, "apply", "--root", str(applied.root))
    assert result.code == 3
    assert "cr3t" not in result.err


def test_a_password_from_a_file_opens_the_door(applied: Shell, locked: redis.Redis, tmp_path: Path) -> None:
    """Its first line; a missing, empty or odd file is told."""
    secret = tmp_path / "secret"
    secret.write_text("secret\nmore\n")
    applied.env = {"REDIS_PASSWORD_FILE": str(secret)}
    assert applied("diff").code == 0
    secret.write_text("\n")
    refuses(applied, ("diff",), 2, "holds no password", "on its first line")
    secret.unlink()
    refuses(applied, ("diff",), 2, "does not exist", "on its first line")
    os.mkfifo(secret)
    refuses(applied, ("diff",), 3, "is not a regular file")


@pytest.mark.parametrize(
    ("text", "said", "code"),
    [
        ("a: [", "reconciler.yaml:2:1: not YAML", 3),
        ("bogus: 1", "reconciler.yaml:1:1: unknown key 'bogus'", 3),
        ("redi: x", "did you mean 'redis'?", 3),
        ("history: many", "reconciler.yaml:1:1: history: ", 3),
        ("- a", "reconciler.yaml:1:1", 3),
        ("just text", "reconciler.yaml:1:1", 3),
        ("interval: 0", "interval", 3),
        ("redis: ftp://x", "reconciler.yaml:1:1: redis", 3),
        ("redis: redis://h:99999", "is not a good redis", 2),
        ("max_deletes: x", "max_deletes", 3),
    ],
)
def test_a_broken_settings_file_is_told_with_its_place(applied: Shell, text: str, said: str, code: int) -> None:
    """For a verb that looks and one that writes."""
    (applied.root / "reconciler.yaml").write_text(text)
    before = tree(applied)
    for verb in (("apply",), ("get", "mary")):
        result = applied.plain(*COMMAND, "--root", str(applied.root), *verb)
        assert result.code == code, result
        assert said in result.err
        assert (result.out, len(result.err.splitlines())) == ("", 1)
    assert tree(applied) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_PORT", "x"), ("REDIS_PORT", "0"), ("REDIS_PORT", "99999"), ("RECONCILER_HISTORY", "-1"),
        ("RECONCILER_INTERVAL", "nan"), ("RECONCILER_INTERVAL", "0"), ("RECONCILER_MAX_SKEW", "soon"),
        ("RECONCILER_MAX_DELETES", "half"), ("RECONCILER_FIRST_RUN", "me"), ("RECONCILER_TOMBSTONES", "1e99"),
        ("RECONCILER_BACKUPS", "2.5"), ("RECONCILER_WRITER", "x" * 100), ("RECONCILER_MANIFESTS", "~no-such-user/x"),
    ],
)  # fmt: skip
def test_a_wrong_setting_in_the_environment_names_it(applied: Shell, name: str, value: str) -> None:
    """And what would be right."""
    applied.env = {name: value}
    refuses(applied, ("apply",), 2, f"reconciler: {name}: '{value[:60]}' is not a good ")


def sources(shell: Shell) -> dict[str, bytes]:
    """The files that are not this program's own."""
    return {name: data for name, data in contents(shell.root).items() if "/.reconciler/" not in name}


Spoil = Callable[[Shell], None]


def _folder(shell: Shell) -> None:
    shell.context_file.unlink()
    shell.context_file.mkdir()


def _fifo(shell: Shell) -> None:
    shell.context_file.unlink()
    os.mkfifo(shell.context_file)


def _loop(shell: Shell) -> None:
    shell.context_file.unlink()
    shell.context_file.symlink_to(shell.context_file.name)


def _text(data: bytes) -> Spoil:
    def spoil(shell: Shell) -> None:
        shell.context_file.write_bytes(data)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_folder, "is a folder, not a file"),
        (_fifo, "is not a regular file"),
        (_loop, "cannot be read"),
        (_text(b""), "context.json:1:1: the file is empty"),
        (_text(b"{"), "context.json:1:2: not JSON"),
        (_text(b'{"agents": []}'), "context.json:1:2: agents"),
        (_text(b"[]"), "context.json:1:1"),
        (_text(b"\xff\xfe"), "context.json:1:1: not UTF-8"),
        (_text(b"[" * 1_000_000), "context.json:1:1"),
    ],
    ids=["folder", "fifo", "loop", "empty", "truncated", "wrong agents", "wrong shape", "not utf-8", "deep"],
)
def test_an_unreadable_context_json_is_named_and_left_alone(
    applied: Shell, client: redis.Redis, spoil: Spoil, said: str
) -> None:
    """Exit code 3; everything good goes on, nothing is wiped on the other side."""
    spoil(applied)
    before, keys = tree(applied), stored(client)
    for verb in ("diff", "status", "validate", "get", "export") if spoil is _folder else ("diff",):
        result = applied(verb)
        assert result.code == (1 if verb in ("status", "validate") else 3), (verb, result)
        assert said in result.out + result.err, result
    assert tree(applied) == before
    applied.write_manifest("gc", "busy")
    done = applied("apply")
    assert done.code == 3
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert client.hget("memory:agents:gc", "status") == b"busy"
    assert stored(client).keys() == keys.keys()
    if applied.context_file.is_file():
        assert (str(applied.context_file), applied.context_file.read_bytes()) in {(n, d) for n, _, d in before}


def test_one_bad_manifest_among_ten_hurts_one_agent(shell: Shell, client: redis.Redis) -> None:
    """The other nine are reconciled, the place is named."""
    for i in range(10):
        shell.write_manifest(f"a{i}")
    (shell.root / "manifests" / "a3.yaml").write_text("kind: Agent\nspec: [\n")
    done = shell("apply")
    assert done.code == 3
    assert "manifests/a3.yaml:3:1: not YAML" in done.err
    assert len(list(client.scan_iter("memory:agents:*"))) == 9
    assert sorted(shell.context()["agents"]) == [f"a{i}" for i in range(10) if i != 3]


def test_manifests_that_are_a_file_are_told(applied: Shell) -> None:
    """And no agent is taken for deleted."""
    for path in (applied.root / "manifests").iterdir():
        path.unlink()
    (applied.root / "manifests").rmdir()
    (applied.root / "manifests").write_text("")
    done = applied("apply", "--prune")
    assert done.code == 3
    assert "manifests: not a folder" in done.err
    assert len(applied("get").json["agents"]) == 6


def _file_in_place(shell: Shell) -> None:
    for path in sorted((shell.root / ".reconciler").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (shell.root / ".reconciler").rmdir()
    (shell.root / ".reconciler").write_text("")


def _garbage(shell: Shell) -> None:
    (shell.root / ".reconciler" / "state.db").write_bytes(b"garbage" * 1000)


def _cut(shell: Shell) -> None:
    path = shell.root / ".reconciler" / "state.db"
    path.write_bytes(path.read_bytes()[:5000])


def _database_folder(shell: Shell) -> None:
    (shell.root / ".reconciler" / "state.db").unlink()
    (shell.root / ".reconciler" / "state.db").mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_file_in_place, ".reconciler: is not a folder; move it away"),
        (_garbage, "state.db is damaged"),
        (_cut, "state.db is damaged"),
        (_database_folder, "state.db: "),
    ],
    ids=["a file", "garbage", "cut", "a folder"],
)
def test_a_spoilt_folder_of_our_own_is_told_and_nothing_is_done(
    applied: Shell, client: redis.Redis, spoil: Spoil, said: str
) -> None:
    """Exit code 3: without base, what is an edit cannot be told."""
    spoil(applied)
    before = stored(client)
    every = (("diff",), ("get",), ("get", "mary"), ("status",), ("export",), ("validate",), *WRITES[:3])
    for words in every if spoil is _garbage else (("diff",), ("apply",)):
        refuses(applied, words, 3, said)
    assert stored(client) == before


def test_a_damaged_base_moved_away_is_a_first_run_that_deletes_nothing(applied: Shell) -> None:
    """The way out that the message names works."""
    _garbage(applied)
    assert "move it away" in applied("apply").err
    (applied.root / ".reconciler" / "state.db").unlink()
    assert applied("apply").code == 0
    assert applied("diff").code == 0
    assert len(applied("get").json["agents"]) == 6


DIFF_APPLY = (("diff",), ("apply",))


@pytest.mark.parametrize(
    ("closed", "words", "code", "said"),
    [
        (".", ALL, 2, "cannot be entered: permission denied"),
        ("shared_memory/context.json", DIFF_APPLY, 3, "context.json: cannot be read: Permission denied"),
        ("shared_memory", (("apply",),), 3, "context.json: cannot be written: Permission denied"),
        ("manifests/mary.yaml", DIFF_APPLY, 3, "mary.yaml: cannot be read: Permission denied"),
        ("reconciler.yaml", DIFF_APPLY, 3, "reconciler.yaml: cannot be read: Permission denied"),
        (".reconciler", (*DIFF_APPLY, ("get",), ("status",)), 3, ".reconciler"),
        (".reconciler/state.db", (*DIFF_APPLY, ("get",), ("status",)), 3, "state.db: "),
        ("manifests", (*DIFF_APPLY, ("apply", "--prune")), 3, "manifests: cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_permission_is_told_with_the_path(
    stranger: Shell, closed: str, words: tuple[tuple[str, ...], ...], code: int, said: str
) -> None:
    """Nothing is taken for deleted because it cannot be read."""
    path = stranger.root / closed
    if closed == "reconciler.yaml":
        path.write_text("history: 5\n")
    if closed in ("shared_memory", "manifests/mary.yaml"):
        stranger.write_manifest("mary", "busy")
    before, rights = sources(stranger), path.stat().st_mode
    path.chmod(0o555 if closed == "shared_memory" else 0)
    try:
        for command in words:
            result = stranger(*command)
            assert result.code == code, (command, result)
            assert said in result.err + result.out, (command, result)
            assert len(result.err.splitlines()) <= 1, result.err
    finally:
        path.chmod(rights)
    if closed != ".":
        assert sources(stranger) == before


def test_a_reader_that_goes_away_ends_the_command_quietly(applied: Shell) -> None:
    """`| head -1`: no traceback, no complaint."""
    applied("set", "mary", "--json", "-", input='{"big": ["' + '", "'.join(["x" * 50] * 20_000) + '"]}')
    script = '"$@" | head -c 1; echo " ${PIPESTATUS[0]}" >&2'
    for words in (("get",), ("export",), ("diff", "-o", "json"), ("schema", "plan")):
        done = applied.plain("bash", "-c", script, "bash", *applied.words(*words))
        assert done.err.strip() in ("141", "0", "1"), (words, done.err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_an_error(applied: Shell) -> None:
    """What could not be printed is not called done; and with stderr full as well nobody is told, but the code is."""
    for words in (("get",), ("diff",), ("schema", "plan"), ("--help",)):
        done = applied.plain("bash", "-c", '"$@" >/dev/full', "bash", *applied.words(*words))
        assert done == (3, "", "reconciler: writing the output: No space left on device; free some space\n"), words
        assert applied.plain("bash", "-c", '"$@" >/dev/full 2>/dev/full', "bash", *applied.words(*words)).code == 3
    assert applied.plain("bash", "-c", '"$@" 2>/dev/full', "bash", *applied.words("get", "zzz")).code == 1


def test_closed_streams_harm_nothing(applied: Shell) -> None:
    """`>&-`: no file of ours gets the number of a standard stream."""
    for redirect in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        applied("set", "mary", f"n={len(redirect)}")
        done = applied.plain("bash", "-c", f'"$@" {redirect}', "bash", *applied.words("apply"))
        assert done.code == 0, (redirect, done)
        assert applied("diff")[:2] == (0, "In sync.\n")


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="only root can mount a small disk")
def test_a_full_disk_leaves_every_file_as_it_was(applied: Shell, client: redis.Redis) -> None:
    """The path and the way out are named; with room again the next round goes on."""
    mounted = applied.root.parent / "small"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(mounted)], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        subprocess.run(["cp", "-a", f"{applied.root}/.", str(mounted)], check=True)
        applied.root = mounted
        filler = mounted / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        before = applied.context_file.read_bytes()
        client.hset("memory:agents:mary", "status", "x" * 100_000)
        done = applied("apply")
        assert done.code == 3
        assert len(done.err.splitlines()) == 1
        assert "full" in done.err or "No space left" in done.err
        assert applied.context_file.read_bytes() == before
        filler.unlink()
        client.hset("memory:agents:mary", "status", "busy")
        assert applied("apply").code == 0
        assert applied.context()["agents"]["mary"]["status"] == "busy"
    finally:
        subprocess.run(["umount", str(mounted)], check=False)
