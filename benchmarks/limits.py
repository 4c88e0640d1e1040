"""The limits of reading manifests, each in a bare Python process: `limits.py WHAT FOLDER`.

Prints the seconds that the work itself took. Modules are imported where they are needed: nothing here may pay for
what it does not use.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def parse_yaml(folder: str) -> float:
    """Read and parse every manifest with PyYAML's C loader."""
    import yaml

    start = time.perf_counter()
    for path in sorted(Path(folder).rglob("*.yaml")):
        yaml.load(path.read_bytes(), yaml.CSafeLoader)
    return time.perf_counter() - start


def check(folder: str) -> float:
    """Read, parse and check every manifest as the program does it."""
    from reconciler.sources.manifests import parse

    start = time.perf_counter()
    for path in sorted(Path(folder).rglob("*.yaml")):
        found, problems = parse(path.read_bytes(), path.name)
        assert found and not problems
    return time.perf_counter() - start


def jsonschema(folder: str) -> float:
    """Read and parse every manifest with PyYAML's C loader, and check it with jsonschema."""
    import yaml
    from jsonschema import Draft202012Validator

    from reconciler.schema import schema_text

    validator = Draft202012Validator(json.loads(schema_text("manifest")))
    start = time.perf_counter()
    for path in sorted(Path(folder).rglob("*.yaml")):
        validator.validate(yaml.load(path.read_bytes(), yaml.CSafeLoader))
    return time.perf_counter() - start


WORK: dict[str, Callable[[str], float]] = {"yaml": parse_yaml, "check": check, "jsonschema": jsonschema}

if __name__ == "__main__":
    print(WORK[sys.argv[1]](sys.argv[2]))
