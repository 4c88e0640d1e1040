"""What is shipped: the wheel carries the schemas, the script and the types, and works where nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree without any network."""
    out = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(PROJECT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the wheel alone."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*words, "--target", str(folder), str(wheel)], check=True, capture_output=True)
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python with the installed package in front of everything, away from this tree."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """No tests, no workspace; samples, schemas and templates inside the package."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"reconciler"}
    scripts = {f"reconciler/store/{name}.lua" for name in ("read", "usual", "write")}
    assert {"reconciler/py.typed", *scripts} <= set(names)
    shipped = {f"reconciler/service/files/{path.name}" for path in (PROJECT / "reconciler/service/files").iterdir()}
    assert len(shipped) >= 5 and shipped <= set(names)
    for folder in ("launchd", "manifests", "schemas"):
        assert {f"reconciler/{folder}/{path.name}" for path in (PROJECT / folder).iterdir()} <= set(names)


def test_the_installed_program_reads_its_own_schemas_and_script(installed: Path) -> None:
    """From where it was installed, not from this tree."""
    shown = run(installed, "-m", "reconciler", "schema", "manifest")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == json.loads((PROJECT / "schemas" / "manifest.schema.json").read_text("utf-8"))
    program = "import reconciler.store.redis_store as store; print(store.__file__); print(store.SCRIPT)"
    told = run(installed, "-c", program).stdout
    assert told.startswith(str(installed))
    script = "".join(
        (PROJECT / "reconciler" / "store" / name).read_text("utf-8") for name in ("usual.lua", "write.lua")
    )
    assert told.partition("\n")[2].strip() == script.strip()


def test_the_installed_program_has_its_samples_and_its_template(installed: Path, tmp_path: Path) -> None:
    """`init` and `install launchd` find what they need where it was installed."""
    made = run(installed, "-m", "reconciler", "init", str(tmp_path / "new"))
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "new" / "manifests" / "mary.yaml").is_file()
    program = "from reconciler.service import find; from reconciler.workspace import read_settings\n"
    program += f"print(len(find('launchd').wanted(read_settings({str(tmp_path)!r}, {{}}, {{}}))[1].edit(None)))"
    assert int(run(installed, "-c", program).stdout) > 500


def test_the_installed_program_knows_its_version(installed: Path, wheel: Path) -> None:
    """The same in the wheel's name and on the command line; pip makes a command of it."""
    assert run(installed, "-m", "reconciler", "--version").stdout == f"reconciler, version {wheel.name.split('-')[1]}\n"
    assert (installed / "bin" / "reconciler").exists()
