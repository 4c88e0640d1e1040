"""What a round is compared with, each in a bare Python process: `limits.py WHAT ARGUMENTS`.

Prints the seconds that the work itself took. `round` is the program's own round without its command line, so
that interpreter and imports can be told from the work. Modules are imported where they are needed: nothing
here may pay for what it does not use.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

CHUNK = 500
"""Commands in one pipeline, as many agents as the program takes."""


def parse_yaml(folder: str) -> float:
    """Read and parse every manifest with PyYAML's C loader."""
    import yaml

    start = time.perf_counter()
    for path in sorted(Path(folder).rglob("*.yaml")):
        yaml.load(path.read_bytes(), yaml.CSafeLoader)
    return time.perf_counter() - start


def write_hashes(socket: str, data: str) -> float:
    """Write the hashes with pipelined HSETs: no stamps, no versions, no history, no events."""
    import redis

    hashes = json.loads(Path(data).read_text())
    client = redis.Redis(unix_socket_path=socket)
    start = time.perf_counter()
    pipe = client.pipeline(transaction=False)
    for index, (key, values) in enumerate(hashes.items(), start=1):
        pipe.hset(key, mapping=values)
        if index % CHUNK == 0:
            pipe.execute()
    pipe.execute()
    return time.perf_counter() - start


def read_hashes(socket: str, data: str) -> float:
    """Read the hashes, whose names are known, with pipelined HGETALLs."""
    import redis

    keys = list(json.loads(Path(data).read_text()))
    client = redis.Redis(unix_socket_path=socket)
    start = time.perf_counter()
    for first in range(0, len(keys), CHUNK):
        pipe = client.pipeline(transaction=False)
        for key in keys[first : first + CHUNK]:
            pipe.hgetall(key)
        pipe.execute()
    return time.perf_counter() - start


def run_round(root: str, socket: str, dry: str) -> float:
    """One round of the program, `dry` or not, without the command line around it."""
    from reconciler.controller import Options, reconcile
    from reconciler.workspace import open_workspace, read_settings

    settings = read_settings(root, {"redis": f"unix://{socket}"})
    with open_workspace(settings, lambda text: None) as workspace:
        start = time.perf_counter()
        reconcile(workspace, Options(dry=dry == "dry"))
        return time.perf_counter() - start


WORK: dict[str, Callable[..., float]] = {
    "yaml": parse_yaml,
    "hset": write_hashes,
    "hgetall": read_hashes,
    "round": run_round,
}

if __name__ == "__main__":
    print(WORK[sys.argv[1]](*sys.argv[2:]))
