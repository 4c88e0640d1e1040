"""Time what a hook costs its caller, beside a shell that does nothing: `python benchmarks/hooks.py --help`.

Each command is started by turns, so that all of them meet the same machine; a process is measured from its start to
its end. The last row is one call of a function in a shell that runs already, as in a dispatcher that sources
`reconciler.zsh`. The workspace is a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from reconciler.service import carry_out, find, installing
from reconciler.workspace import read_settings

RESULT = json.dumps({"exit": 0, "files": ["a.py", "b.py"], "note": "it's done"})
FUNCTION = """\
zmodload zsh/datetime; source $1/tools/reconciler.zsh
for n in {1..$2}; do
  since=$EPOCHREALTIME; reconciler_mary_task WO-1 completed $3; print $(( EPOCHREALTIME - since ))
done
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--calls", type=int, default=500, help="calls of each (%(default)s)")
    calls = arguments.parse_args().calls
    if calls < 1:
        arguments.error("at least one call is needed")
    if not shutil.which("zsh"):
        raise SystemExit("the hooks are zsh scripts, and there is no zsh on PATH")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        root = Path(name)
        settings = read_settings(name, {}, {})
        carry_out(settings, installing(settings, find("hooks")))
        times = measure(root, calls)
        dropped = len(list((root / ".reconciler" / "spool").iterdir()))
        since = subprocess.run(
            ["zsh", "-f", "-c", FUNCTION, "caller", name, str(calls), RESULT],
            capture_output=True,
            text=True,
            check=True,
        )
    times["a function, in a zsh that runs"] = [float(line) for line in since.stdout.split()]
    if dropped != 2 * calls:
        raise SystemExit(f"{dropped} drops after {2 * calls} calls")
    bare = statistics.median(times["zsh -f -c true"])
    print(f"{calls} calls of each, by turns")
    for what, each in times.items():
        middle, late = statistics.median(each), sorted(each)[int(len(each) * 0.95)]
        print(f"{what:<34}{middle * 1000:8.2f} ms{late * 1000:8.2f} ms (95 %){middle / bare:8.2f}")


def measure(root: Path, calls: int) -> dict[str, list[float]]:
    """Seconds of each call of each command."""
    commands = {
        "zsh -f -c true": ["zsh", "-f", "-c", "true"],
        "zsh -c true": ["zsh", "-c", "true"],
        "mary_memory_hook.zsh": [str(root / "tools" / "mary_memory_hook.zsh"), "WO-1", "completed", RESULT],
        "rnd_memory_hook.zsh": [str(root / "tools" / "rnd_memory_hook.zsh"), "P-1", "accepted", RESULT],
    }
    env = {name: value for name, value in os.environ.items() if name != "LUKA_SOT"}
    times: dict[str, list[float]] = {what: [] for what in commands}
    for _ in range(calls):
        for what, words in commands.items():
            since = time.perf_counter()
            subprocess.run(words, check=True, env=env)
            times[what].append(time.perf_counter() - since)
    return times


if __name__ == "__main__":
    main()
