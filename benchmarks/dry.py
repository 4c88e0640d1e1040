"""Dry runs of many manifests, as whole processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import peers
from .filling import empty, manifests
from .group import Group, Measures, Row, Scale
from .rig import PROJECT, environment, limit, reconciler, run, server


@contextmanager
def _dry(scale: Scale) -> Iterator[Measures]:
    """`same`: a workspace in agreement; `new`: one that has manifests only, and a server that has nothing."""
    with server() as at, server() as nothing:
        same, new = at.folder / "same", at.folder / "new"
        manifests(same, scale.agents)
        manifests(new, scale.agents)
        reconciler(same, at.url, "apply")
        reconciler(same, at.url, "diff")

        def first() -> float:
            empty(new)
            return reconciler(new, nothing.url, "diff", code=1).wall

        def known() -> float:
            empty(new)
            return reconciler(new, at.url, "diff", code=1).wall

        measures: dict[str, Callable[[], float]] = {
            "again": lambda: reconciler(same, at.url, "diff").wall,
            "never seen": first,
            "known": known,
            "yaml": lambda: limit("yaml", str(new / "manifests")).wall,
            "check": lambda: float(limit("check", str(new / "manifests")).said),
            "jsonschema": lambda: float(limit("jsonschema", str(new / "manifests")).said),
        }
        octodns = peers.library("octodns", scale.peers)
        if octodns:
            zone = _zone(at.folder / "zone", scale.agents)
            measures["octodns"] = lambda: _octodns(octodns, zone)
        yield measures


def _zone(folder: Path, records: int) -> Path:
    """A zone of as many TXT records, and a target that says the same: nothing to change."""
    lines = ["---"]
    for number in range(records):
        lines += [f"agent-{number:05}:", "  type: TXT", f"  value: item {number} of a worker in team {number % 7}"]
    for name in ("config", "live"):
        (folder / name).mkdir(parents=True)
        (folder / name / "example.com.yaml").write_text("\n".join(lines) + "\n")
    provider = "class: octodns.provider.yaml.YamlProvider\n    enforce_order: false\n    directory: "
    (folder / "octodns.yaml").write_text(
        f"providers:\n  config:\n    {provider}{folder}/config\n  live:\n    {provider}{folder}/live\n"
        "zones:\n  example.com.:\n    sources: [config]\n    targets: [live]\n"
    )
    return folder / "octodns.yaml"


def _octodns(library: Path, config: Path) -> float:
    command = [sys.executable, "-m", "octodns.cmds.sync", "--config-file", str(config), "--quiet"]
    env = {**environment(), "PYTHONPATH": os.pathsep.join((str(library), str(PROJECT)))}
    return run(*command, env=env).wall


GROUPS = (
    Group("dry", _dry, (
        Row("dry run of {agents} manifests, nothing changed : octoDNS, as many records", "again", "octodns", 1 / 20),
        Row("dry run of {agents} manifests never seen : YAML C parser on the same files", "never seen", "yaml", 1.5),
        Row("dry run of them, the agents being in Redis : YAML C parser on the same files", "known", "yaml"),
        Row("parse and check of {agents} manifests : YAML C parser + jsonschema", "check", "jsonschema"),
    )),
)  # fmt: skip
