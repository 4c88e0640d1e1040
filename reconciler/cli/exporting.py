"""export: the live state as manifests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .. import files
from ..errors import InputError, Refused, UsageError
from ..explain import observe
from ..settings import Settings
from ..sources import manifests
from ..sources.manifests import Manifest
from ..sources.text import MAX_BYTES
from ..sources.yaml_text import read_documents, write_document
from ..stamp import format_time
from ..state import LAST_UPDATE, SHARED, Agent, NotJson, encode, present, same_text
from ..updates import check_known
from ..view import View, without_local
from ..workspace import open_workspace
from .common import busy, output_option, print_data, report, verb, warn


@verb("export")
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@click.option("--to", "folder", metavar="DIR", help="Write one file an agent there instead of to stdout.")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@output_option("yaml", "json")
def export_command(settings: Settings, agents: tuple[str, ...], folder: str | None, force: bool, output: str) -> int:
    """Write live agents as manifests, to stdout or into a folder.

    To apply them changes nothing, whatever is written meanwhile. Policies, labels and contextSchema of manifests that
    are there are kept. A value that YAML cannot say is left out and named, with exit code 3.
    """
    if folder is not None and output == "json":
        raise UsageError("--to writes YAML", hint="leave out -o json, or --to")
    with open_workspace(settings, warn, reading=True) as workspace, busy("Reading"):
        view, away = observe(workspace)
    report(view.plan.problems)
    state = without_local(settings, view.merged)
    alive = {name: fields for name, fields in sorted(state.items()) if present(fields)}
    check_known(agents, alive)
    target = Path(folder) if folder is not None else settings.manifests
    made = {name: _manifest(settings, view, name, alive[name], target) for name in agents or alive}
    left_out = [line for _, lines in made.values() for line in lines]
    documents = {name: document for name, (document, _) in made.items()}
    if output == "json":
        print_data({"schema_version": 1, "manifests": list(documents.values())}, output)
    else:
        texts = {name: write_document(document) for name, document in documents.items()}
        if folder is not None:
            left_out += _write_all(settings, view, target, texts, force)
        else:
            click.echo("---\n".join(texts.values()), nl=False)
    for line in left_out:
        click.echo(f"error: {line}", err=True)
    if away is not None:
        click.echo(f"files were used: {away}", err=True)
    return 3 if view.plan.errors or left_out else 5 if away else 0


def _manifest(
    settings: Settings, view: View, agent: str, fields: Agent, folder: Path
) -> tuple[dict[str, Any], list[str]]:
    """An agent's manifest as it would stand in a folder, and a line for each value that had to be left out."""
    values = present(fields)
    said = _readable(agent, values)
    lost = [f"{agent} {name}: YAML cannot say {values[name][:60]}; left out"
            for name in values if name not in said and name != LAST_UPDATE]  # fmt: skip
    document = manifests.to_yaml_plain(agent, said)
    known = view.desired.loaded.manifests.get(agent)
    document["metadata"]["updated"] = format_time(_dated(fields, known))
    return {**document, **_kept(settings, known, document["metadata"], folder)}, lost


def _dated(fields: Agent, known: Manifest | None) -> int:
    """So early that it beats no write, also none that is made before the file is there; and later than the manifest
    that stands in its place, whose time must move forward to count."""
    oldest = min(value.at for value in fields.values() if value.text is not None)
    return max(oldest, known.updated + 1) if known and known.updated is not None else oldest


def _readable(agent: str, values: Mapping[str, str]) -> Mapping[str, str]:
    """The values that a manifest gives back as they were: all together if possible, else looked at one by one."""
    wanted = {name: text for name, text in values.items() if name != LAST_UPDATE}
    if _comes_back(agent, wanted):
        return wanted
    return {name: text for name, text in wanted.items() if _comes_back(agent, {name: text})}


def _comes_back(agent: str, values: Mapping[str, str]) -> bool:
    try:
        plain = manifests.to_yaml_plain(agent, values)
        encode(plain)
        data = write_document(plain).encode()
        if len(data) > MAX_BYTES:  # nobody will read it back
            return True
        found, problems = manifests.parse(data, agent)
    except (NotJson, InputError, UnicodeEncodeError):
        return False
    back = found[0].values if found and not problems else {}
    return back.keys() == values.keys() and all(same_text(back[name], values[name]) for name in values)


def _kept(settings: Settings, known: Manifest | None, metadata: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a manifest says that is no live state: its labels go into `metadata`, the rest is given."""
    kept: dict[str, Any] = {}
    if known is None:
        return kept
    path = settings.manifests_base / known.path
    if labels := _labels(path, known):
        metadata["labels"] = labels
    if known.policy:
        kept["policy"] = dict(known.policy)
    if known.context_schema is not None:
        kept["contextSchema"] = os.path.relpath(path.parent / known.context_schema, folder)
    return kept


def _labels(path: Path, known: Manifest) -> dict[str, str]:
    try:
        found = files.read(path, MAX_BYTES)
        documents = read_documents(found[0], known.path) if found else []
    except InputError:
        return {}
    said: Any = next((document.value for document in documents if document.line == known.line), None)
    match said:
        case {"metadata": {"labels": dict(labels)}}:
            return labels
    return {}


def _write_all(settings: Settings, view: View, folder: Path, texts: Mapping[str, str], force: bool) -> list[str]:
    """Write one file each; a line for each that would be too large to be read back."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--to {folder}: not a folder", hint="manifests are files in a folder")
    # No agent's name starts like this, so that an agent called shared keeps its own file.
    names = {name: folder / f"{'_shared' if name == SHARED else name}.yaml"
             for name, text in texts.items() if len(text.encode()) <= MAX_BYTES}  # fmt: skip
    _refuse_second(settings, view, folder, names)
    there = [str(path) for path in names.values() if path.exists()]
    if there and not force:
        more = f" and {len(there) - 1} more are" if len(there) > 1 else " is"
        raise Refused(f"{there[0]}{more} there already", hint="--force overwrites")
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in names.items():
        files.replace(path, texts[name].encode(), files.identify(path))
    click.echo(f"{len(names)} manifest{'s' * (len(names) != 1)} in {folder}", err=True)
    return [f"{name}: not written, a manifest has 1 MiB at most" for name in texts if name not in names]


def _refuse_second(settings: Settings, view: View, folder: Path, names: Mapping[str, Path]) -> None:
    """Two manifests for one agent would be an error from then on."""
    if not folder.resolve().is_relative_to(settings.manifests.resolve()):
        return
    for name, path in names.items():
        known = view.desired.loaded.manifests.get(name)
        if known is not None and (settings.manifests_base / known.path).resolve() != path.resolve():
            hint = "name the agents to export, or export into a folder of its own"
            raise Refused(f"{name} is declared in {known.path}:{known.line} already", hint=hint)
        if known is not None and len(view.desired.loaded.files[known.path].manifests) > 1:
            hint = "export into a folder of its own"
            raise Refused(f"{known.path} declares other agents too, which would be lost", hint=hint)
