"""One real server for all of these tests, empty at the start of each; workspaces as each test wants them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from reconciler.controller import reconcile
from reconciler.store.embedded import Embedded
from reconciler.workspace import open_workspace, read_settings
from tests.cli.shell import PROJECT, Shell


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server of our own, that somebody else may use as well."""
    folder = Path(tempfile.mkdtemp(prefix="rc-"))
    folder.chmod(0o755)
    with Embedded(folder / "valkey") as running:
        yield f"unix://{running.socket}"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(server: str) -> Iterator[redis.Redis]:
    """A client of the server, which is empty."""
    with redis.Redis.from_url(server) as found:
        found.flushall()
        yield found


@pytest.fixture
def shell(tmp_path: Path, server: str, client: redis.Redis) -> Shell:
    """An empty workspace with a space in its path, and an empty server."""
    root = tmp_path / "work space"
    root.mkdir()
    return Shell(root, server)


@pytest.fixture
def six(shell: Shell) -> Shell:
    """A workspace with the six agents of the specification, nothing applied yet."""
    shutil.copytree(PROJECT / "manifests", shell.root / "manifests")
    return shell


@pytest.fixture
def applied(six: Shell) -> Shell:
    """The six agents in files and Redis, in sync; by a round within this process, which is quicker."""
    with open_workspace(read_settings(str(six.root), {"redis": six.redis}, {}), print) as workspace:
        assert reconcile(workspace).exit_code == 0
    return six


@pytest.fixture
def stranger(applied: Shell) -> Shell:
    """The applied workspace as a user sees it who can be kept out of parts of it: root without its privileges."""
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("nothing can be closed to root")
        applied.prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    return applied
