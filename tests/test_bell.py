"""The bell rings when there is something to look at: real inotify, real files."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.daemon import triggers
from reconciler.daemon.bell import Bell
from reconciler.daemon.triggers import Files
from reconciler.daemon.wakes import Wakes
from reconciler.settings import build
from reconciler.view import Scope
from tests.test_wakes import settle, take

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere files are looked at without a bell")

LONG, SHORT = 10.0, 0.05
Watched = tuple[Path, Wakes, Files]


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Bell]:
    (tmp_path / "old").write_text("before")
    (tmp_path / "folder").mkdir()
    found = Bell([str(tmp_path)], "state.db")
    yield found
    found.close()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A folder of manifests that only the bell looks at, and whom it wakes."""
    monkeypatch.setattr(triggers, "UNHEARD", LONG)
    settings, wakes = build(tmp_path, {}, {}, {}), Wakes(0.0)
    settings.manifests.mkdir()
    files = Files(settings, wakes, lambda text: None)
    files.watch()
    try:
        assert take(wakes) == Scope()
        yield settings.manifests, wakes, files
    finally:
        files.close()


def rings(bell: Bell, seconds: float = LONG) -> bool:
    began = time.monotonic()
    bell.wait(seconds)
    return time.monotonic() - began < seconds


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder / "old").write_text("in place"),
        lambda folder: (folder / "old").rename(folder / "new"),
        lambda folder: (folder / "old").rename(folder / "folder" / "old"),
        lambda folder: (folder / "old").unlink(),
        lambda folder: (folder / "another").mkdir(),
        lambda folder: (folder / "folder").rmdir(),
    ],
    ids=["written", "renamed", "moved", "removed", "folder made", "folder removed"],
)
def test_it_rings_for_whatever_changes(bell: Bell, tmp_path: Path, act: Callable[[Path], object]) -> None:
    """Also for what happened before anybody waited."""
    act(tmp_path)
    assert rings(bell)


def test_it_says_what_it_heard(bell: Bell, tmp_path: Path) -> None:
    """Each path as it is reached from the folder, and whether it is gone."""
    (tmp_path / "old").rename(tmp_path / "folder" / "new")
    assert bell.wait(LONG) == [(str(tmp_path / "old"), True), (str(tmp_path / "folder" / "new"), False)]


def test_what_was_too_much_to_be_told_may_be_anything(bell: Bell, tmp_path: Path) -> None:
    """The system keeps only so many events: then the folder itself is named."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most // 2 + 1):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}").rmdir()
    heard = set[str]()
    while len(news := bell.wait(SHORT)):
        heard |= {path for path, _ in news}
    assert str(tmp_path) in heard


def test_an_edit_wakes_at_once(tmp_path: Path, watched: Watched) -> None:
    """Also one that is written beside the file first: nobody waits for the look at everything."""
    folder, wakes, _ = watched
    settle(wakes, Scope())
    for name in ("mary.yaml", "gc.yaml"):
        (tmp_path / "temporary").write_text("")
        (tmp_path / "temporary").rename(folder / name)
        began = time.monotonic()
        assert take(wakes).paths == frozenset({f"manifests/{name}"})
        assert time.monotonic() - began < LONG / 2


def test_it_rings_when_a_file_is_whole_and_not_before(bell: Bell, tmp_path: Path) -> None:
    """Nobody is sent to read a file that is half written."""
    with (tmp_path / "slow").open("w") as file:
        file.write("half")
        file.flush()
        assert not rings(bell, SHORT)
    assert rings(bell)


def test_a_file_that_is_kept_open_rings_at_each_write(bell: Bell, tmp_path: Path) -> None:
    """A database is never closed by those who work with it."""
    with (tmp_path / "state.db").open("w") as file:
        for _ in range(2):
            file.write("page")
            file.flush()
            assert rings(bell)


def test_a_folder_that_came_later_rings_too(bell: Bell, tmp_path: Path) -> None:
    """With what is in it and below."""
    inner = tmp_path / "later" / "inner"
    inner.mkdir(parents=True)
    while rings(bell, SHORT):
        pass
    (inner / "mary.yaml").write_text("status: busy")
    assert rings(bell)


def test_a_link_is_followed_only_where_it_is_the_watched_folder(tmp_path: Path) -> None:
    """In others behind it nobody looks for manifests, and there may be very many, or the folder itself once more."""
    (tmp_path / "real").mkdir()
    (tmp_path / "else").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "behind").symlink_to(tmp_path / "else")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    bell = Bell([str(tmp_path / "linked")], "")
    (tmp_path / "else" / "file").write_text("")
    assert not rings(bell, SHORT)
    (tmp_path / "real" / "file").write_text("")
    assert bell.wait(LONG) == [(str(tmp_path / "linked" / "file"), False)]
    bell.close()


@pytest.mark.parametrize("by_rename", [False, True])
def test_a_folder_in_the_place_of_one_is_watched_after_the_next_round(
    tmp_path: Path, watched: Watched, by_rename: bool
) -> None:
    """Somebody removed it and made it anew, or put another one there: it has the same name."""
    folder, wakes, files = watched
    if by_rename:
        (tmp_path / "other").mkdir()
        folder.rename(tmp_path / "before")
        (tmp_path / "other").rename(folder)
    else:
        folder.rmdir()
        folder.mkdir()
    assert take(wakes) == Scope()
    files.watch()
    assert take(wakes) == Scope()
    settle(wakes, Scope())
    (folder / "mary.yaml").write_text("")
    assert take(wakes).paths == frozenset({"manifests/mary.yaml"})


def test_whoever_waits_is_rung_up(bell: Bell) -> None:
    """From another thread; it is how watching ends."""
    assert not rings(bell, SHORT)
    threading.Timer(SHORT, bell.ring).start()
    assert rings(bell)
    assert rings(bell)


def test_without_a_bell_files_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may have no more of what rings: nothing is said, since nothing is missed."""

    def none(*_: object) -> Bell:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(triggers, "Bell", none)
    said: list[str] = []
    settings, wakes = build(tmp_path, {}, {}, {}), Wakes(0.0)
    settings.manifests.mkdir()
    files = Files(settings, wakes, said.append)
    files.watch()
    try:
        assert take(wakes) == Scope()
        settle(wakes, Scope())
        (settings.manifests / "mary.yaml").write_text("")
        assert take(wakes).paths == frozenset({"manifests/mary.yaml"})
    finally:
        files.close()
    assert not said
