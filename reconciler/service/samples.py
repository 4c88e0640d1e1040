"""What `init` puts into a workspace, each only where there is nothing yet.

Samples declare something only in a workspace whose memory is new: in one that is adopted, `status: active` of a sample
would be the newest write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

from .. import files, schema
from ..settings import FILE, TABLE, Row, Settings
from ..sources.manifests import manifest_files
from ..sources.yaml_text import write_document
from ..state import decode
from .shipped import shipped

CONTEXT = b'{\n  "version": "1.0",\n  "agents": {}\n}\n'


class Found(NamedTuple):
    """One file or folder of a workspace, and whether it was made now."""

    path: Path
    made: bool


def begin(settings: Settings) -> Iterator[Found]:
    """Make what is missing, and tell each. Raises ReconcilerError; what is there keeps every byte."""
    known = (settings.folder / "state.db").exists()
    adopted = known or settings.context_file.exists()
    schemas = settings.root / "schemas"
    files.private_folder(settings.folder)
    for folder in (settings.root / "logs", settings.context_file.parent, settings.manifests, schemas):
        yield Found(folder, bool(files.make_folder(folder)))
    yield _put(settings.root / FILE, settings_text().encode())
    for name in schema.schema_names():
        yield _put(schemas / f"{name}.schema.json", schema.schema_text(name).encode())
    if not manifest_files(settings.manifests):
        yield from _samples(settings, ".sample" if adopted else "")
    if not known:  # else the next round writes what it knows
        yield _put(settings.context_file, CONTEXT)


def _samples(settings: Settings, suffix: str) -> Iterator[Found]:
    """The sample manifests; with a suffix nobody reads them."""
    where = os.path.relpath(settings.root / "schemas", settings.manifests)
    for sample in manifest_files(shipped("manifests")):
        text = sample.read_bytes().replace(b"$schema=../schemas/", b"$schema=" + os.fsencode(where) + b"/", 1)
        yield _put(settings.manifests / (sample.name + suffix), text)


def _put(path: Path, data: bytes) -> Found:
    try:
        files.replace(path, data, None)
        return Found(path, True)
    except files.Moved:
        return Found(path, False)


def settings_text() -> str:
    """reconciler.yaml with every setting, and nothing set."""
    known = decode(schema.schema_text("settings"))["properties"]
    return _HEAD + "".join(_setting(row, known[row.name]) for row in TABLE)


_HEAD = """\
# yaml-language-server: $schema=schemas/settings.schema.json
#
# The settings of this workspace. Each line shows the default, or an example where the default is to have none; take
# away its # to set it. The environment and the options of a command are stronger.
# A password has no place here: see redis_password_file.
"""


def _setting(row: Row, known: Mapping[str, Any]) -> str:
    value = known["default"] if "default" in known else known["examples"][0]
    unit = f"{row.unit}; " if row.unit else ""
    return f"\n# {row.what} ({unit}{row.env})\n" + indent(write_document({row.name: value}), "#")
