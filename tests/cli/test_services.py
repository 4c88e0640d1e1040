"""`install launchd`, `install systemd`: the service runs, is left alone the second time, and goes without a trace."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ReconcilerError
from reconciler.service import launchd, running, systemd
from reconciler.workspace import read_settings
from tests import starter
from tests.cli.shell import COMMAND, Shell, listing, read_until
from tests.servers import running as server
from tests.waiting import wait_until

SECRET = "s3cret-%-not-to-be-seen"
LABEL = "com.02luka.memory.hub"


class Desk(Shell):
    """Somebody with a HOME of their own and a recording launchctl and systemctl; Redis asks for a password."""

    @property
    def home(self) -> Path:
        return self.root.parent

    @property
    def plist(self) -> Path:
        return self.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"

    @property
    def unit(self) -> Path:
        return self.home / ".config" / "systemd" / "user" / f"{LABEL}.service"

    @property
    def state(self) -> Path:
        return self.home.parent / "state"

    def calls(self) -> list[str]:
        """What launchctl and systemctl were asked since the last time."""
        path = self.state / "calls"
        said = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return said

    def without_ours(self) -> list[Any]:
        """Every file and folder in HOME but those in .reconciler; of folders not the times."""
        return [
            entry[:2] if stat.S_ISDIR(entry[1]) else entry
            for entry in listing(self.home)
            if ".reconciler" not in entry[0]
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A workspace whose path has a blank, signs of XML, of systemd and of shells, and another alphabet."""
    root = tmp_path / "ann" / "wörk & <co> %h $HOME 'it' \"q\" 共"
    root.mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "state").mkdir()
    for name in ("launchctl", "systemctl"):
        words = shlex.join([sys.executable, starter.__file__, str(tmp_path / "state"), name])
        (programs / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / name).chmod(0o755)
    with server("--requirepass", SECRET) as there:
        found = Desk(root, there.url)
        found.env = {"HOME": str(root.parent), "PATH": f"{programs}:{os.environ['PATH']}", "REDIS_PASSWORD": SECRET}
        found.write_manifest("mary")
        try:
            yield found
        finally:
            starter.stop(found.state)


def strings(value: Any) -> Iterator[str]:
    """All texts in a plist."""
    match value:
        case dict():
            yield from (text for each in value.values() for text in strings(each))
        case list():
            yield from (text for each in value for text in strings(each))
        case str():
            yield value


def test_the_launch_agent_runs_is_not_touched_again_and_goes_without_a_trace(desk: Desk) -> None:
    """Nothing in the plist is to be expanded or kept secret, and every path in it is there."""
    before = desk.without_ours()
    done = desk("install", "launchd")
    assert (done.code, "healthy" in done.err) == (0, True), done
    gui = f"gui/{os.getuid()}"
    taken_in = [f"launchctl enable {gui}/{LABEL}", f"launchctl bootstrap {gui} {desk.plist}"]
    assert [call for call in desk.calls() if " print " not in call] == taken_in
    data = desk.plist.read_bytes()
    job = plistlib.loads(data)
    assert (job["Label"], job["KeepAlive"], job["RunAtLoad"], job["ThrottleInterval"]) == (LABEL, True, True, 10)
    assert job["ProgramArguments"][-3:] == ["--root", str(desk.root), "run"]
    assert not any("~" in text or "$" in text.replace(str(desk.root), "") for text in strings(job))
    assert SECRET.encode() not in data
    paths = [path for text in strings(job) for path in text.split(":") if path.startswith("/")]
    assert len(paths) > 8
    assert [path for path in paths if not os.path.exists(path)] == []
    secret = Path(job["EnvironmentVariables"]["REDIS_PASSWORD_FILE"])
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == (SECRET + "\n", 0o600)
    assert desk.context()["agents"]["mary"]["status"] == "active"
    log = desk.root / "logs" / "memory_hub.err.log"
    wait_until(lambda: "Watching for changes" in log.read_text())
    seen = listing(desk.home / "Library"), listing(desk.root / "logs")
    again = desk("install", "launchd")
    assert (again.code, again.out) == (0, "launchd: nothing to do\n")
    assert {call.split()[1] for call in desk.calls()} == {"print"}
    assert seen == (listing(desk.home / "Library"), listing(desk.root / "logs"))
    gone = desk("uninstall", "launchd")
    assert (gone.code, gone.err) == (0, ""), gone
    assert f"launchctl bootout {gui}/{LABEL}" in desk.calls()
    assert not (desk.state / "pid").exists()
    shutil.rmtree(desk.root / "shared_memory")  # the memory itself stays
    assert desk.without_ours() == before
    assert {"launchd.password", "launchd.logs", "installed.json"} & set(os.listdir(desk.root / ".reconciler")) == set()
    assert desk("uninstall", "launchd")[:2] == (0, "launchd: nothing to do\n")


def test_what_was_there_before_is_put_back(desk: Desk) -> None:
    """The old hub's LaunchAgent and its logs."""
    (desk.root / "logs").mkdir()
    (desk.root / "logs" / "memory_hub.err.log").write_text("old\n")
    desk.plist.parent.mkdir(parents=True)
    desk.plist.write_text("<plist>~/02luka</plist>")
    assert desk("install", "launchd").code == 0
    assert plistlib.loads(desk.plist.read_bytes())["Label"] == LABEL
    assert (desk.root / "logs" / "memory_hub.out.log").exists()
    gone = desk("uninstall", "launchd")
    assert (gone.code, f"launchctl bootstrap gui/{os.getuid()} {desk.plist}" in gone.err) == (0, True)
    assert desk.plist.read_text() == "<plist>~/02luka</plist>"
    assert os.listdir(desk.root / "logs") == ["memory_hub.err.log"]
    assert (desk.root / "logs" / "memory_hub.err.log").read_text().startswith("old\n")


def place_of(desk: Desk, name: str) -> Path:
    return desk.plist if name == "launchd" else desk.unit


@pytest.mark.parametrize("name", ["launchd", "systemd"])
def test_what_somebody_edited_in_our_service_is_ours_and_what_was_there_before_is_kept(desk: Desk, name: str) -> None:
    """Installed once more it is as it should be, and taken away it is as it was."""
    place = place_of(desk, name)
    place.parent.mkdir(parents=True)
    place.write_text("what was there before\n")
    assert desk("install", name).code == 0
    ours = place.read_bytes()
    place.write_bytes(ours.replace(b"10", b"11"))
    assert desk("install", name).code == 0
    assert place.read_bytes() == ours
    assert desk("uninstall", name).code == 0
    assert place.read_text() == "what was there before\n"


@pytest.mark.parametrize("name", ["launchd", "systemd"])
def test_a_service_is_taken_away_as_a_whole_or_not_at_all(desk: Desk, name: str) -> None:
    """One that was edited goes on as it is, with its password; one whose file is gone is ended."""
    place, secret = place_of(desk, name), desk.root / ".reconciler" / f"{name}.password"
    assert desk("install", name).code == 0
    place.write_bytes(place.read_bytes().replace(b"10", b"11"))
    before = listing(desk.root / ".reconciler" / "installed.json"), place.read_bytes()
    assert desk("uninstall", name).code == 4
    assert (listing(desk.root / ".reconciler" / "installed.json"), place.read_bytes()) == before
    assert (desk.state / "pid").exists() and secret.exists()
    place.unlink()
    gone = desk("uninstall", name)
    assert (gone.code, gone.err) == (0, "")
    assert not (desk.state / "pid").exists() and not secret.exists()
    assert desk("uninstall", name).out == f"{name}: nothing to do\n"


def test_another_password_or_setting_starts_it_anew(desk: Desk) -> None:
    """What the shell knows goes with the service, which sees nothing of the shell."""
    assert desk("install", "launchd").code == 0
    desk.calls()
    desk.env |= {"RECONCILER_INTERVAL": "7.5", "RECONCILER_WRITER": "ann@desk"}
    assert desk("install", "launchd").code == 0
    variables = plistlib.loads(desk.plist.read_bytes())["EnvironmentVariables"]
    assert (variables["RECONCILER_INTERVAL"], variables["RECONCILER_WRITER"]) == ("7.5", "ann@desk")
    assert variables["REDIS_URL"] == desk.redis
    asked = [call.split()[1] for call in desk.calls()]
    assert [word for word in asked if word != "print"] == ["bootout", "enable", "bootstrap"]


def test_the_dry_run_shows_no_password_and_writes_nothing(desk: Desk) -> None:
    """Also one that stands in the address."""
    del desk.env["REDIS_PASSWORD"]
    desk.redis = desk.redis.replace("unix://", f"unix://:{SECRET.replace('%', '%25')}@")
    before = listing(desk.home)
    for name in ("launchd", "systemd"):
        shown = desk("install", name, "--dry-run")
        assert shown.code == 0, shown
        assert "REDIS_PASSWORD_FILE" in shown.out
        assert "s3cret" not in shown.out + shown.err
        assert "would run: " in shown.err
    assert listing(desk.home) == before
    assert desk("install", "launchd").code == 0
    assert b"s3cret" not in desk.plist.read_bytes()
    assert (desk.root / ".reconciler" / "launchd.password").read_text() == SECRET + "\n"


@pytest.mark.parametrize(("name", "command"), [("launchd", "launchctl"), ("systemd", "systemctl")])
def test_where_there_is_no_such_system_nothing_is_written(desk: Desk, name: str, command: str) -> None:
    """One line says so, and what may be right here."""
    desk.env["PATH"] = str(desk.state)
    before = listing(desk.home)
    done = desk("install", name)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"reconciler: {command} is not on PATH")
    assert listing(desk.home) == before


def test_where_nobody_is_logged_in_no_unit_is_written(desk: Desk) -> None:
    """systemd is there, but not for this user: the unit would be left behind, and `uninstall` could not stop it."""
    systemctl = desk.home.parent / "bin" / "systemctl"
    systemctl.write_text("#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n")
    before = desk.without_ours()
    done = desk("install", "systemd")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert done.err.startswith("reconciler: systemctl --user: Failed to connect to bus")
    assert "log in as this user" in done.err
    assert desk.without_ours() == before


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"REDIS_URL": "redis+sentinel://a:1/m?sentinel_password=s3cret"}, "the password of the sentinels"),
        ({"REDIS_PASSWORD": " s3cret"}, "use redis_password_keychain"),
        ({"RECONCILER_MANIFESTS": "a\nb"}, "cannot be written into a service's file"),
    ],
)
def test_what_a_service_cannot_be_told_is_refused(desk: Desk, env: dict[str, str], text: str) -> None:
    """Before anything is written; the secret is not said."""
    before = listing(desk.home)
    desk.env |= env
    for name in ("launchd", "systemd"):
        done = desk.plain(*COMMAND, "--root", str(desk.root), "install", name)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
        assert text in done.err
        assert "s3cret" not in done.err
    assert listing(desk.home) == before


def test_a_workspace_that_somebody_runs_by_hand_is_left_to_them(desk: Desk) -> None:
    """The service would wait for ever."""
    with desk.start("run") as process:
        read_until(process, "Watching for changes")
        done = desk("install", "launchd")
    assert (done.code, f"pid {process.pid}" in done.err, desk.plist.exists()) == (6, True, False)


def test_a_service_that_does_not_get_well_says_why(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last lines of its log, and no older ones; Redis away is exit code 5."""
    for key, value in desk.env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(running, "WAIT", 0.0)
    log = desk.root / "logs" / "memory_hub.err.log"
    log.parent.mkdir()
    log.write_text("an older line\n")
    assert desk("install", "launchd").code == 0
    settings = read_settings(str(desk.root), {"redis": desk.redis})

    def started(word: str, url: str) -> ReconcilerError:
        job = plistlib.loads(desk.plist.read_bytes())
        job["ProgramArguments"][-1:] = [word]
        job["EnvironmentVariables"]["REDIS_URL"] = url
        desk.plist.write_bytes(plistlib.dumps(job))
        with pytest.raises(ReconcilerError, match="is installed, but after 0 s it ") as failed:
            launchd.TARGET.start(settings, True, lambda line: None)
        return failed.value

    def told() -> ReconcilerError:
        with pytest.raises(ReconcilerError) as failed:
            running.wait_until_healthy(settings, (log, len("an older line\n")), lambda line: None)
        return failed.value

    started("dance", desk.redis)
    wait_until(lambda: "'dance'" in told().message)
    assert f"it has not started; {log} ends with:\n  " in told().message
    assert "an older line" not in told().message
    started("run", "redis://localhost:1")
    wait_until(lambda: "Redis is away" in told().message)
    assert told().exit_code == 5


def test_the_unit_runs_is_not_touched_again_and_goes_without_a_trace(desk: Desk) -> None:
    """As with launchd; systemd keeps the log."""
    before = desk.without_ours()
    done = desk("install", "systemd")
    assert (done.code, "healthy" in done.err) == (0, True), done
    told = [call.split()[2] for call in desk.calls()]
    assert told == ["is-active", "daemon-reload", "enable", "restart"] or told[-3:] == [
        "daemon-reload",
        "enable",
        "restart",
    ]
    text = desk.unit.read_text()
    assert SECRET not in text
    assert "%%h" in text
    again = desk("install", "systemd")
    assert (again.code, again.out, desk.unit.read_text()) == (0, "systemd: nothing to do\n", text)
    assert {call.split()[2] for call in desk.calls()} == {"is-active", "is-enabled"}
    assert desk("uninstall", "systemd").code == 0
    shutil.rmtree(desk.root / "shared_memory")
    assert desk.without_ours() == before


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on PATH")
def test_systemd_finds_nothing_wrong_with_the_unit(desk: Desk) -> None:
    """And takes every word of it as it is meant."""
    path = desk.home / systemd.UNIT
    path.write_bytes(systemd.render(read_settings(str(desk.root), {"redis": desk.redis}, {})))
    words = ["systemd-analyze", "verify", "--user", "--man=no", str(path)]
    runtime = {"XDG_RUNTIME_DIR": str(desk.state)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **runtime})
    ours = [line for line in done.stderr.splitlines() if LABEL in line]
    assert ours == []
