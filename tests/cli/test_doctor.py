"""doctor on workspaces with faults: each is named with what mends it, and --fix mends the safe ones."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.doctor import Chart, Check, Process, examine
from reconciler.doctor.looking import CHECKS
from reconciler.errors import Place, Problem
from reconciler.settings import Settings
from reconciler.spool import Part, pack
from reconciler.store.connect import PUBLISHED_PASSWORD
from reconciler.store.inspect import Facts
from tests.cli.shell import COMMAND, Shell
from tests.servers import Server

NOW = 1_762_934_400_000_000
STRAY = '#!/bin/zsh\nRESULT="${3:-{}}"\n'
PLIST = """<?xml version="1.0"?><plist version="1.0"><dict><key>Label</key><string>com.02luka.memory.hub</string>
<key>ProgramArguments</key><array><string>~/02luka/agents/memory_hub/memory_hub.py</string><string>~/a:~/b</string></array></dict></plist>"""
RECORDS = {
    "mary": {"status": "active", "last_update": "2025-11-12T08:00:00Z", "context": '{"role":"dispatcher"}'},
    "gc": {"status": "active", "last_update": "2025-11-12T08:00:00", "context": {}},
    "rnd": {"status": "active", "last_update": "2099-01-01T00:00:00Z", "context": {"result_raw": "{", "n": 1}},
    "no name": {},
}


def write_faults(shell: Shell) -> None:
    """Faults that files can have."""
    root, home = shell.root, shell.root.parent
    (root / "shared_memory").mkdir(exist_ok=True)
    path = root / "shared_memory" / "context.json"
    path.write_text(json.dumps({"version": "1", "last_update": "2025-11-12T08:00:00Z", "agents": RECORDS}, indent=2))
    path.chmod(0o666)
    (root / "tools").mkdir()
    (root / "tools" / "mary_memory_hook.zsh").write_text(STRAY)
    (root / "tools" / "own.sh").write_text(STRAY)
    agents = home / "Library" / "LaunchAgents"
    agents.mkdir(parents=True)
    (agents / "com.02luka.memory.hub.plist").write_text(PLIST)
    folder = root / ".reconciler"
    (folder / "spool").mkdir(parents=True)
    folder.chmod(0o755)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (folder / "lock").write_text(f"{gone.pid} run\n")
    (folder / "spool" / "1762934400000000-5.drop").write_bytes(pack("mary", [Part("last_task", "text", b"WO-1")]))


def checks(report: dict[str, list[dict[str, str]]]) -> set[str]:
    return {finding["check"] for finding in report["findings"]}


def test_ten_faults_are_named_and_the_safe_ones_mended(shell: Shell, launch: Callable[..., Server]) -> None:
    """Every fault is named and the exit code is 1; after --fix only those are left that a person must decide."""
    server = launch("--requirepass", PUBLISHED_PASSWORD)
    shell = replace(shell, redis=server.url)
    write_faults(shell)
    unsafe = {"persistence", "default-password", "naive-time", "future-time", "quarantined", "hooks"}
    safe = {"encoded-twice", "spool", "lock", "mode", "plist"}
    first = shell("doctor", "-o", "json")
    assert (first.code, checks(first.json)) == (1, unsafe | safe)
    fixed = shell("doctor", "--fix")
    assert fixed.code == 1 and "not mended" not in fixed.out and "mended: " in fixed.out
    second = shell("doctor", "-o", "json")
    assert (second.code, checks(second.json)) == (1, unsafe)
    assert not any(finding["fixable"] for finding in second.json["findings"])
    assert [f["where"].rpartition("/")[2] for f in second.json["findings"] if f["check"] == "hooks"] == ["own.sh:2"]
    assert PUBLISHED_PASSWORD not in first.out + first.err + fixed.out + fixed.err
    context = json.loads((shell.root / "shared_memory" / "context.json").read_text())
    assert context["agents"]["mary"]["context"] == {"role": "dispatcher", "last_task": "WO-1"}
    assert "~" not in (shell.root.parent / "Library/LaunchAgents/com.02luka.memory.hub.plist").read_text()


def test_what_a_finding_says_mends_it(shell: Shell) -> None:
    """The command beside a future or a naive time and a result that was no JSON, run as it is printed, takes the
    finding away; whichever of its times an agent declares."""
    write_faults(shell)
    shell("doctor", "--fix")
    path = shell.root / "shared_memory" / "context.json"
    data = json.loads(path.read_text())
    data["agents"] |= {"cls": {"last_seen": "2025-11-12T08:00:00"}, "gg": {"last_seen": "2099-01-01T00:00:00Z"}}
    path.write_text(json.dumps(data))
    assert shell("record", "mary", "--json", "-", input="{").code == 0
    shell("apply")
    mended = {"naive-time", "future-time", "raw-result"}
    first = [one for one in shell("doctor", "-o", "json").json["findings"] if one["check"] in mended]
    assert {one["check"] for one in first} == mended
    for one in first:
        words = shlex.split(one["mend"].partition(", once")[0].replace("=JSON", "=1"))
        assert shell.plain(*COMMAND, "--redis", shell.redis, *words[1:]).code == 0
    shell("apply")
    assert not checks(shell("doctor", "-o", "json").json) & mended


@pytest.mark.parametrize("text", ["x & memory_hub", "<date>memory_hub</date>", "memory_hub"])
def test_what_is_no_property_list_is_one_finding(tmp_path: Path, text: str) -> None:
    """However it is broken; nothing else is missed because of it."""
    folder = tmp_path / "Library" / "LaunchAgents"
    folder.mkdir(parents=True)
    (folder / "m.plist").write_text(f'<?xml version="1.0"?><plist><dict><key>a</key>{text}</dict></plist>')
    (found,) = examine(chart(tmp_path), {"plist": CHECKS["plist"]}).findings
    assert "is no property list" in found.what


def test_what_is_to_be_pasted_into_a_shell_is_quoted(tmp_path: Path) -> None:
    """`&` would end the command, `|` would give every right of CLIENT."""
    refused = Facts("8.0", refused=("HSET x",), noticing=("CLIENT TRACKING", "PSUBSCRIBE"))
    for found in examine(chart(tmp_path, facts=refused), {"rights": CHECKS["rights"]}).findings:
        words = shlex.split(found.mend.replace("<user>", "user"), posix=False)
        assert not [word for word in words if set(word) & set("&|~*") and word[0] != "'"]


def test_everything_else_is_looked_at_without_redis_and_base(shell: Shell) -> None:
    """No server and a damaged state.db are two findings; the other checks still look."""
    write_faults(shell)
    (shell.root / ".reconciler" / "state.db").write_bytes(b"no database at all, but long enough to be looked at")
    (shell.root / "reconciler.yaml").write_text("max_skew: many\n")
    found = replace(shell, redis="redis://127.0.0.1:1")("doctor", "-o", "json")
    assert found.code == 1
    expected = {"redis", "base", "settings", "encoded-twice", "naive-time", "future-time", "quarantined", "spool"}
    assert checks(found.json) >= expected | {"lock", "mode", "hooks", "plist"}
    asked = replace(shell, redis="redis://127.0.0.1:1")("doctor", "--fix")
    assert asked.code == 1
    assert "nothing was mended: mend the settings first" in asked.out and "\nmended: " not in asked.out


def test_rights_are_asked_for_as_the_user_who_lacks_them(shell: Shell, launch: Callable[..., Server]) -> None:
    """A user who may read but not write is told which commands an administrator must allow; nothing is written."""
    server = launch()
    with server.client() as client:
        rules = ("on", ">secret", "~memory:*", "&memory:*", "+@all", "-hset", "-publish", "-config")
        client.execute_command("ACL", "SETUSER", "reader", *rules)
        url = server.url.replace("unix://", "unix://reader:secret@")
        found = replace(shell, redis=url)("doctor", "-o", "json")
        lines = [f["what"] for f in found.json["findings"] if f["check"] == "rights"]
        assert len(lines) == 1 and "HSET memory:" in lines[0] and "PUBLISH memory:updates" in lines[0]
        assert "HGET" not in lines[0] and "secret" not in found.out + found.err
        assert any("persistence: the server refuses CONFIG" in line for line in found.json["skipped"])
        assert not list(client.scan_iter())


def test_a_healthy_workspace_is_healthy(shell: Shell, launch: Callable[..., Server]) -> None:
    """After `apply` on a server that keeps what it is told there is nothing to say."""
    shell = replace(shell, redis=launch("--appendonly", "yes").url)
    (shell.root / "shared_memory").mkdir(exist_ok=True)
    assert shell("set", "mary", "a=1").code == 0
    assert shell("apply").code == 0
    found = shell("doctor", "-v")
    assert (found.code, "Healthy" in found.out) == (0, True), found.out


def chart(root: Path, **given: object) -> Chart:
    settings = Settings(root, "redis://localhost", None, root / "manifests", "me@here")
    return replace(Chart(settings, NOW, root, facts=Facts("8.0.1", keeps=True, refused=())), **given)  # type: ignore[arg-type]


TWICE = Problem(Place("memory:agents:mary context"), "the object is encoded twice", agent="mary", severity="warning")
RAW = {"context.result_raw": '"{"', "context.result_raw_reason": '"not JSON at 1"'}
TABLE: list[tuple[str, dict[str, object], str]] = [
    ("redis", {"away": "localhost is away"}, "localhost is away"),
    ("redis", {"said": ("it has no password although one is configured",)}, "no password"),
    ("version", {"facts": Facts("5.0.14")}, "older than 6.2"),
    ("persistence", {"facts": Facts("8.0", keeps=False)}, "persistence is off"),
    ("persistence", {"facts": Facts("8.0", keeps=True, failing="aof_last_write_status is err")}, "cannot write"),
    ("default-password", {"published": True}, "still accepted"),
    ("rights", {"facts": Facts("8.0", refused=("HSET memory:hub",))}, "HSET memory:hub"),
    ("rights", {"facts": Facts("8.0", refused=(), noticing=("CLIENT TRACKING", "PSUBSCRIBE"))}, "every second"),
    ("clock", {"facts": Facts("8.0", ahead=2_000_000)}, "2.0 s ahead"),
    ("clock", {"facts": Facts("8.0", ahead=-90_000_000)}, "90.0 s behind"),
    ("settings", {"settings_problems": ("reconciler.yaml:1:1: unknown",)}, "unknown"),
    ("settings", {"settings": Settings(Path("/"), "redis://localhost", None, Path("/nowhere"), "me")}, "not exist"),
    ("base", {"stopped": "state.db is damaged"}, "damaged"),
    ("encoded-twice", {"problems": (TWICE,)}, "encoded twice"),
    ("naive-time", {"problems": (replace(TWICE, message="last_update without a time zone: read"),)}, "time zone"),
    ("future-time", {"values": {"redis mary": {"last_update": '"2099-01-01T00:00:00Z"'}}}, "in the future"),
    ("quarantined", {"problems": (replace(TWICE, message="not a hash", severity="error"),)}, "not a hash"),
    ("raw-result", {"values": {"redis mary": RAW}}, "not JSON at 1"),
    ("schema", {"problems": (replace(TWICE, message="a bare string"),)}, "1 further"),
    ("old-hub", {"processes": (Process(7, "python3 /o/agents/memory_hub/memory_hub.py"),)}, "pid 7"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "words"), TABLE, ids=[f"{row[0]}-{row[2]}" for row in TABLE])
def test_each_check_alone(tmp_path: Path, name: str, given: dict[str, object], words: str) -> None:
    """A check finds its own fault, says how to mend it, and finds nothing where nothing is wrong."""
    only: dict[str, Check] = {name: CHECKS[name]}
    assert examine(chart(tmp_path), only).exit_code == 0
    found = examine(chart(tmp_path, **given), only).findings
    assert [finding.check for finding in found] == [name]
    assert words in found[0].what and found[0].mend


def test_two_controllers_of_one_workspace_are_named(tmp_path: Path) -> None:
    """Two `run`s on the same root are named; one alone, or one of another workspace, is not."""
    one = Process(7, f"/v/bin/python /v/bin/reconciler --root {tmp_path} run")
    other = Process(8, f"/v/bin/reconciler --root {tmp_path} run --interval 5")
    stranger = Process(9, f"/v/bin/reconciler --root {tmp_path}2 run")
    only: dict[str, Check] = {"controllers": CHECKS["controllers"]}
    assert not examine(chart(tmp_path, processes=(one, stranger)), only).findings
    assert len(examine(chart(tmp_path, processes=(one, other)), only).findings) == 2


def test_what_a_killed_process_left_is_named(tmp_path: Path) -> None:
    """Old half-written files can be removed by --fix; a version that was never whole is for a person to look at."""
    (tmp_path / "shared_memory").mkdir()
    half = tmp_path / "shared_memory" / ".context.json.77.abc.tmp"
    half.write_text("{")
    os.utime(half, (0, 0))
    (tmp_path / ".reconciler" / "backups").mkdir(parents=True)
    (tmp_path / ".reconciler" / "backups" / "torn-5.json").write_text("{")
    found = examine(chart(tmp_path), {"leftover": CHECKS["leftover"]}).findings
    assert [finding.fix is not None for finding in found] == [True, False]
