"""What launchctl and systemctl are in tests: they start the program and stop it, and write down what they were asked.

`python starter.py FOLDER (launchctl|systemctl) WORD...`; FOLDER holds `calls`, and `pid` while the program runs.
"""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parent.parent


class Job(NamedTuple):
    """What to start, and how."""

    words: list[str]
    folder: str
    env: dict[str, str]
    out: str = os.devnull
    err: str = os.devnull


def of_plist(path: Path) -> Job:
    """As launchd reads it."""
    job = plistlib.loads(path.read_bytes())
    logs = job["StandardOutPath"], job["StandardErrorPath"]
    return Job(job["ProgramArguments"], job["WorkingDirectory"], job["EnvironmentVariables"], *logs)


def of_unit(path: Path) -> Job:
    """As systemd reads the few lines that it has."""
    text = path.read_text().replace("%%", "%")
    (words,) = re.findall(r"^ExecStart=:(.*)$", text, re.M)
    pairs = [shlex.split(line)[0].partition("=") for line in re.findall(r"^Environment=(.*)$", text, re.M)]
    return Job(shlex.split(words), os.environ["HOME"], {name: value for name, _, value in pairs})


def unit() -> Path:
    (found,) = (Path(os.environ["HOME"]) / ".config" / "systemd" / "user").glob("*.service")
    return found


def mind(state: Path, job: Job) -> None:
    """Start a job and stay until it ends, as its parent."""
    env = {"HOME": os.environ["HOME"], "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"} | job.env
    with open(job.out, "ab") as out, open(job.err, "ab") as err:
        process = subprocess.Popen(job.words, cwd=job.folder, env=env, stdout=out, stderr=err)
    (state / "pid.new").write_text(str(process.pid))
    (state / "pid.new").rename(state / "pid")
    process.wait()
    (state / "pid").unlink()


def wait_for(path: Path, *, there: bool) -> None:
    """Until a file is there, or is not; as long as its caller waits."""
    while path.exists() != there:
        time.sleep(0.01)


def start(state: Path, *words: str) -> None:
    quiet = subprocess.DEVNULL
    subprocess.Popen(
        [sys.executable, __file__, str(state), "mind", *words],
        stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True,
    )  # fmt: skip
    wait_for(state / "pid", there=True)


def stop(state: Path) -> None:
    if (state / "pid").exists():
        os.kill(int((state / "pid").read_text()), signal.SIGTERM)
        wait_for(state / "pid", there=False)


def main(state: Path, command: str, *words: str) -> int:
    """One call; its exit code."""
    if command == "mind":
        mind(state, of_plist(Path(words[1])) if words[0] == "plist" else of_unit(Path(words[1])))
        return 0
    with (state / "calls").open("a") as calls:
        calls.write(" ".join([command, *words]) + "\n")
    running, enabled = (state / "pid").exists(), state / "enabled"
    match [command, *words]:
        case ["launchctl", "print", _]:
            return 0 if running else 113
        case ["launchctl", "bootstrap", _, path]:
            if running:
                sys.stderr.write("Bootstrap failed: 5: Input/output error\n")
                return 5
            start(state, "plist", path)
        case ["launchctl", "bootout", _]:
            stop(state)
        case ["systemctl", "--user", "is-active", _]:
            return 0 if running else 3
        case ["systemctl", "--user", "is-enabled", _]:
            return 0 if enabled.exists() else 1
        case ["systemctl", "--user", "enable", _]:
            enabled.touch()
        case ["systemctl", "--user", "restart", _]:
            stop(state)
            start(state, "unit", str(unit()))
        case ["systemctl", "--user", "stop", _]:
            stop(state)
        case ["systemctl", "--user", "disable", "--now", _]:
            enabled.unlink()
            stop(state)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
