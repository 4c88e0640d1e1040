"""Files change hands whole, keep their rights, and nobody's version is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from reconciler import files
from reconciler.errors import InputError, ReconcilerError, Refused, WorkspaceHeld
from reconciler.files import FileLock, Identity, Lock, Moved, Replaced
from tests.waiting import wait_until

LIMIT = 1_000_000
PROJECT = Path(__file__).parent.parent


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second process that runs `code` in this project and talks over pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop(process: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
    if process.poll() is None:
        process.send_signal(how)
    process.communicate()


def identity(path: Path) -> Identity:
    found = files.identify(path)
    assert found is not None
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.json"


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    """No test leaves a temporary file, whatever went wrong in it."""
    yield
    assert [found for found in tmp_path.rglob(".*.tmp") if found.is_file()] == []


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory where there is one: syncing takes no time, so races come close."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)
        assert [name for name in os.listdir(folder) if name.endswith(".tmp")] == []


class TestReading:
    def test_what_is_written_is_read_with_its_identity(self, path: Path) -> None:
        """`read` gives the bytes and the identity `identify` gives."""
        path.write_bytes(b"one")
        assert files.read(path, LIMIT) == (b"one", identity(path))

    def test_nothing_there_is_an_answer_and_no_error(self, path: Path) -> None:
        """A missing file, folder or link target reads as None."""
        (path.parent / "link").symlink_to("nowhere")
        assert files.read(path, LIMIT) is None
        assert files.read(path / "deeper" if path.exists() else path.parent / "no" / "x", LIMIT) is None
        assert files.read(path.parent / "link", LIMIT) is None
        assert files.identify(path) is None

    def test_what_is_no_regular_file_is_said_and_not_waited_for(self, path: Path) -> None:
        """A folder, a pipe nobody writes to, a device and a socket are named, at once."""
        os.mkfifo(path.parent / "pipe")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path.parent / "s"))
            for odd in (path.parent, path.parent / "pipe", Path("/dev/zero"), path.parent / "s"):
                with pytest.raises(InputError, match=f"^{odd}: is (a folder|not a regular file)"):
                    files.read(odd, LIMIT)

    def test_a_file_above_the_limit_is_refused_with_both_numbers(self, path: Path) -> None:
        """The limit itself is still fine; one byte more is an InputError."""
        path.write_bytes(b"12345")
        assert files.read(path, 5) is not None
        with pytest.raises(InputError, match="larger than 4 bytes"):
            files.read(path, 4)

    @pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
    def test_a_file_one_may_not_read_is_said_with_the_reason(self, path: Path) -> None:
        """No permission: an InputError that names the file and the way out."""
        path.write_bytes(b"x")
        path.chmod(0)
        with pytest.raises(InputError, match=r"context\.json: cannot be read: Permission denied; give"):
            files.read(path, LIMIT)

    def test_a_link_to_itself_is_said_with_the_reason(self, path: Path) -> None:
        """A loop of links is an InputError, not a crash."""
        path.symlink_to(path)
        with pytest.raises(InputError, match="cannot be read: Too many"):
            files.read(path, LIMIT)

    def test_a_file_written_in_place_is_never_read_half(self, path: Path) -> None:
        """Against a writer that never stops, `read` gives the bytes it claims, or says it cannot."""
        writer = python(SCRIBBLER, path)
        try:
            said(writer)
            refusals: set[str] = set()
            for _ in range(30):
                try:
                    found = files.read(path, 10**9)
                except InputError as error:
                    refusals.add(error.message)
                else:
                    assert found is not None and len(found[0]) == found[1].size
            assert all("keeps changing" in refusal for refusal in refusals)
        finally:
            stop(writer)


SCRIBBLER = """
import itertools, sys
with open(sys.argv[1], "wb", 0) as file:
    print("ready", flush=True)
    for number in itertools.count():
        file.seek(0)
        file.truncate()
        for _ in range(number % 9):
            file.write(b"x" * 999)
"""


class TestReplacing:
    def test_a_version_that_was_read_is_replaced(self, path: Path) -> None:
        """The usual case: new bytes, new identity, nothing displaced."""
        path.write_bytes(b"old")
        assert files.replace(path, b"new", identity(path))[:3] == Replaced(identity(path))[:3]
        assert path.read_bytes() == b"new"

    def test_a_version_that_was_long_on_its_way_says_how_long(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its time is then none that anybody else can give it; one that somebody wrote since has no such age."""
        write, swap = files._write_beside, files._swap

        def slow(target: Path, *more: Any) -> tuple[Path, Identity]:
            temp, _ = write(target, *more)
            os.utime(temp, (1, 1))
            return temp, identity(temp)

        def hit(temp: Path, target: Path, expected: Identity | None) -> bool:
            swapped = swap(temp, target, expected)
            target.write_bytes(b"new")
            return swapped

        monkeypatch.setattr(files, "_write_beside", slow)
        assert files.replace(path, b"new", None).aged > 1_000_000_000
        assert files.replace(path, b"new", identity(path)).aged > 1_000_000_000
        monkeypatch.setattr(files, "_swap", hit)
        assert files.replace(path, b"new", identity(path)).aged == 0

    def test_a_new_file_is_made_only_where_none_is(self, path: Path) -> None:
        """Expecting nothing and finding a file is Moved, and the file stays."""
        assert files.replace(path, b"one", None).identity == identity(path)
        with pytest.raises(Moved):
            files.replace(path, b"two", None)
        assert path.read_bytes() == b"one"

    @pytest.mark.parametrize("how", ["written", "renamed over", "deleted"])
    def test_a_version_that_was_not_read_stays(self, path: Path, how: str) -> None:
        """Whatever happened to the file since it was read, it is noticed and left alone."""
        path.write_bytes(b"old")
        before = identity(path)
        if how == "written":
            path.write_bytes(b"newer")
        elif how == "renamed over":
            (path.parent / "other").write_bytes(b"old")
            os.rename(path.parent / "other", path)
        else:
            path.unlink()
        after = files.identify(path)
        with pytest.raises(Moved):
            files.replace(path, b"mine", before)
        assert files.identify(path) == after

    def test_a_version_renamed_in_at_the_last_moment_comes_back(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the check and the swap somebody saves: ours stands, theirs is handed over with its time."""
        path.write_bytes(b"old")
        expected = identity(path)
        theirs = path.parent / "theirs"
        theirs.write_bytes(b"theirs")
        saved = identity(theirs)
        rename = files._rename

        def late(source: Path, target: Path, flag: int) -> bool:
            if theirs.exists():
                os.rename(theirs, target)
            return rename(source, target, flag)

        monkeypatch.setattr(files, "_rename", late)
        assert files.replace(path, b"ours", expected)[:3] == (identity(path), b"theirs", saved.mtime_ns)
        assert path.read_bytes() == b"ours"

    def test_what_cannot_be_read_back_goes_back_in_its_place(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Somebody puts a link there at the last moment: it is there afterwards, and the caller is told."""
        path.write_bytes(b"old")
        expected = identity(path)
        link = path.parent / "link"
        link.symlink_to("elsewhere")
        rename = files._rename

        def late(source: Path, target: Path, flag: int) -> bool:
            if link.is_symlink():
                os.rename(link, target)
            return rename(source, target, flag)

        monkeypatch.setattr(files, "_rename", late)
        with pytest.raises(Moved):
            files.replace(path, b"ours", expected)
        assert os.readlink(path) == "elsewhere"

    def test_a_file_system_without_exchange_will_do(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where two names cannot be exchanged, check and rename do the work."""
        monkeypatch.setattr(files, "_rename", lambda *_: False)
        first = files.replace(path, b"one", None)
        files.replace(path, b"two", first.identity)
        assert path.read_bytes() == b"two"
        for wrong in (None, first.identity):
            with pytest.raises(Moved):
                files.replace(path, b"three", wrong)

    def test_no_version_of_a_second_writer_vanishes_unseen(self, quick: Path) -> None:
        """Two programs replace one file as fast as they can; what we took the place of, we have seen.

        The writer names each version that was gone before it renamed the next one over it. Only we can have
        replaced that one, so we must have read it or got it back.
        """
        path = quick / "context.json"
        writer = python(RIVAL, path)
        try:
            seen = {b"0"}
            said(writer)
            while writer.poll() is None:
                found = files.read(path, LIMIT)
                if found is None:
                    continue
                seen.add(found[0])
                try:
                    done = files.replace(path, b"ours", found[1])
                except Moved:
                    continue
                seen.add(done.displaced or b"0")
            assert writer.stdout is not None
            gone = writer.stdout.read().split()
        finally:
            stop(writer)
        assert len(gone) > 50
        assert {number.encode() for number in gone} - seen == set()


RIVAL = """
import os, sys
path = sys.argv[1]
gone, mine = [], 0
for number in range(1, 20_001):
    with open(path + ".rival", "w") as file:
        file.write(str(number))
        next_one = os.fstat(file.fileno()).st_ino
    if mine and os.stat(path).st_ino != mine:
        gone.append(number - 1)
    os.rename(path + ".rival", path)
    for _ in range(number % 50):
        os.stat(path)
    mine = next_one
    if number == 1:
        print("ready", flush=True)
print(*gone)
"""


class TestRights:
    @pytest.mark.parametrize(
        ("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o664, 0o664), (0o666, 0o664), (0o777, 0o775)]
    )
    def test_the_mode_stays_but_never_lets_everybody_write(self, path: Path, before: int, after: int) -> None:
        """A file keeps its mode, without the bit that lets the world write."""
        path.write_bytes(b"old")
        path.chmod(before)
        files.replace(path, b"new", identity(path))
        assert path.stat().st_mode & 0o7777 == after

    @pytest.mark.parametrize(("umask", "mode"), [(0, 0o644), (0o022, 0o644), (0o077, 0o600)])
    def test_a_new_file_obeys_the_umask(self, path: Path, umask: int, mode: int) -> None:
        """New files are 0644 less the umask."""
        before = os.umask(umask)
        try:
            files.replace(path, b"new", None)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o7777 == mode

    @pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
    def test_the_owner_stays_where_that_is_permitted(self, path: Path) -> None:
        """Root mending somebody's file leaves it theirs."""
        path.write_bytes(b"old")
        os.chown(path, 12345, 23456)
        files.replace(path, b"new", identity(path))
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
    def test_rights_of_a_group_that_cannot_be_kept_do_not_go_to_another(self, quick: Path) -> None:
        """Group rights go when the group cannot stay: they were not meant for ours."""
        quick.chmod(0o777)
        path = quick / "context.json"
        path.write_bytes(b"old")
        path.chmod(0o664)
        code = (
            "import os, sys; from pathlib import Path; from reconciler import files; files._rename_call()\n"
            "p = Path(sys.argv[1]); os.setgroups([]); os.setgid(23456); os.setuid(12345)\n"
            "files.replace(p, b'new', files.identify(p)); print(oct(p.stat().st_mode))"
        )
        assert python(code, path).communicate()[0].strip() == "0o100644"

    @pytest.mark.skipif(sys.platform != "linux", reason="extended attributes have another name here")
    def test_extended_attributes_stay(self, path: Path) -> None:
        """Access lists and labels are attributes: they go with the content."""
        path.write_bytes(b"old")
        try:
            os.setxattr(path, "user.note", b"kept")
        except OSError:
            pytest.skip("this file system has no attributes")
        files.replace(path, b"new", identity(path))
        assert os.getxattr(path, "user.note") == b"kept"


class TestLinks:
    def test_a_linked_folder_and_a_linked_file_are_written_through(self, tmp_path: Path) -> None:
        """Both links stay links; the file they lead to changes."""
        real = tmp_path / "real"
        real.mkdir()
        (real / "data.json").write_bytes(b"old")
        (real / "context.json").symlink_to("data.json")
        (tmp_path / "shared").symlink_to(real)
        path = tmp_path / "shared" / "context.json"
        files.replace(path, b"new", identity(path))
        assert (real / "data.json").read_bytes() == b"new"
        assert (tmp_path / "shared").is_symlink() and (real / "context.json").is_symlink()

    def test_a_link_that_leads_nowhere_or_to_a_pipe_is_refused(self, path: Path) -> None:
        """Only a regular file is written through; the way out is said."""
        path.symlink_to("nowhere")
        with pytest.raises(Refused, match="does not exist; remove the link"):
            files.replace(path, b"new", None)
        os.mkfifo(path.parent / "nowhere")
        with pytest.raises(Refused, match="not a regular file"):
            files.replace(path, b"new", files.identify(path))

    @pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
    @pytest.mark.parametrize("what", ["link", "target"])
    def test_a_link_of_or_to_somebody_elses_file_is_refused(self, path: Path, what: str) -> None:
        """Nobody can make us write into a file they chose."""
        target = path.parent / "target"
        target.write_bytes(b"precious")
        path.symlink_to(target)
        os.chown(path if what == "link" else target, 12345, 12345, follow_symlinks=False)
        with pytest.raises(Refused, match="belongs to another user"):
            files.replace(path, b"new", identity(path))
        assert target.read_bytes() == b"precious"


class TestFailing:
    def test_a_full_disk_leaves_the_old_file(self, path: Path) -> None:
        """Past the space there is (here: the limit on file size): one line, the old bytes, no rest."""
        path.write_bytes(b"old")
        code = (
            "import resource, sys; from pathlib import Path; from reconciler import files, errors\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); p = Path(sys.argv[1])\n"
            "try: files.replace(p, b'x' * 9999, files.identify(p))\n"
            "except errors.ReconcilerError as error: print(error, flush=True)"
        )
        assert python(code, path).communicate()[0].startswith(f"{path}: cannot be written: File too large; ")
        assert path.read_bytes() == b"old"

    def test_a_really_full_disk_leaves_the_old_file(self, tmp_path: Path) -> None:
        """The same on a file system of 64 KiB, where one can be mounted."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
        if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("cannot mount here")
        try:
            path = disk / "context.json"
            path.write_bytes(b"old")
            with pytest.raises(ReconcilerError, match="No space left on device; free some space"):
                files.replace(path, b"x" * 100_000, identity(path))
            assert os.listdir(disk) == ["context.json"] and path.read_bytes() == b"old"
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    @pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
    def test_a_folder_one_may_not_write_is_said(self, path: Path) -> None:
        """A read-only folder: one line with the reason and the way out."""
        path.write_bytes(b"old")
        path.parent.chmod(0o500)
        try:
            with pytest.raises(ReconcilerError, match="Permission denied; give this user"):
                files.replace(path, b"new", identity(path))
        finally:
            path.parent.chmod(0o700)

    def test_a_missing_folder_is_said(self, path: Path) -> None:
        """No folder: one line that says so."""
        with pytest.raises(ReconcilerError, match="No such file or directory; create the folder"):
            files.replace(path.parent / "no" / "context.json", b"new", None)


class TestPrivate:
    def test_a_private_file_is_for_this_user_only(self, path: Path) -> None:
        """Mode 0600 whatever was there, and a link is replaced, not followed."""
        target = path.parent / "target"
        target.write_bytes(b"precious")
        path.symlink_to(target)
        files.write_private(path, b"secret")
        assert path.stat().st_mode & 0o7777 == 0o600 and path.read_bytes() == b"secret"
        assert target.read_bytes() == b"precious"

    def test_a_private_folder_is_made_with_its_parents_and_closed(self, tmp_path: Path) -> None:
        """0700 for itself, also when it was open before."""
        folder = tmp_path / "a" / "b"
        assert files.private_folder(folder) == folder
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o755)
        files.private_folder(folder)
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_a_file_in_the_place_of_a_folder_is_said(self, path: Path) -> None:
        """One line, with the way out."""
        path.write_bytes(b"")
        with pytest.raises(ReconcilerError, match="is not a folder; move it away"):
            files.private_folder(path)
        with pytest.raises(ReconcilerError, match="cannot be written: "):
            files.private_folder(path / "deeper")

    @pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
    def test_somebody_elses_folder_is_refused(self, tmp_path: Path) -> None:
        """A folder or a link that another user made is not used."""
        folder = tmp_path / "theirs"
        folder.mkdir()
        link = tmp_path / "link"
        link.symlink_to(tmp_path)
        for path in (folder, link):
            os.chown(path, 12345, 12345, follow_symlinks=False)
            with pytest.raises(ReconcilerError, match="belongs to another user"):
                files.private_folder(path)


class TestBackups:
    def test_one_copy_a_day_and_only_the_newest_stay(self, path: Path) -> None:
        """The first version of each day is kept, for as many days as asked."""
        folder = path.parent / "backups"
        assert files.backup(path, folder, date(2025, 11, 12), keep=3) is None
        for day in range(5):
            for version in (b"first", b"second"):
                path.write_bytes(version)
                files.backup(path, folder, date(2025, 11, 12) + timedelta(days=day), keep=3)
        (folder / "context-notes.json").write_bytes(b"not ours")
        assert sorted(found.name for found in folder.glob("context-2*")) == [
            "context-2025-11-14.json",
            "context-2025-11-15.json",
            "context-2025-11-16.json",
        ]
        assert {found.read_bytes() for found in folder.glob("context-2*")} == {b"first"}
        assert (folder / "context-notes.json").exists()


HOLD = """
import sys; from pathlib import Path; from reconciler.files import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

AGAIN = """
import sys; from pathlib import Path; from threading import Event; from reconciler.files import Lock
print("at work", flush=True)
while True:
    with Lock(Path(sys.argv[1]), 60):
        Event().wait(0.05)
"""


class TestLocks:
    def test_a_second_reconciler_is_told_who_holds_the_workspace(self, tmp_path: Path) -> None:
        """WorkspaceHeld names the pid; `holder` tells it too; afterwards it is free."""
        path = tmp_path / "lock"
        assert Lock.holder(path) is None and not path.exists()
        other = python(HOLD, path)
        try:
            assert said(other) == "held"
            assert Lock.holder(path) == other.pid
            with (
                pytest.raises(WorkspaceHeld, match=rf"another reconciler \(pid {other.pid}\) holds"),
                Lock(path),
            ):
                pass
        finally:
            other.communicate("")
        assert Lock.holder(path) is None
        with Lock(path):
            assert Lock.holder(path) == os.getpid()

    def test_who_waits_is_next(self, tmp_path: Path) -> None:
        """Also behind one who takes it again as soon as it is free."""
        path = tmp_path / "lock"
        other = python(AGAIN, path)
        said(other)
        try:
            for _ in range(5):
                with Lock(path, 2.0):
                    assert Lock.holder(path) == os.getpid()
        finally:
            stop(other, signal.SIGKILL)

    def test_the_lock_of_a_killed_process_is_free(self, tmp_path: Path) -> None:
        """Kill -9: the stale pid in the file stops nobody."""
        path = tmp_path / "lock"
        other = python(HOLD, path)
        said(other)
        stop(other, signal.SIGKILL)
        assert path.read_text() == f"{other.pid}\n"
        assert Lock.holder(path) is None
        with Lock(path):
            assert Lock.holder(path) == os.getpid()

    def test_a_holder_may_say_what_it_is(self, tmp_path: Path) -> None:
        """Until it lets go; of another pid nothing is said."""
        path = tmp_path / "lock"
        assert Lock.signed(path, os.getpid()) == ""
        with Lock(path) as lock:
            assert Lock.signed(path, os.getpid()) == ""
            lock.sign("run")
            assert (Lock.holder(path), Lock.signed(path, os.getpid())) == (os.getpid(), "run")
            assert Lock.signed(path, os.getpid() + 1) == ""
        assert Lock.signed(path, os.getpid()) == ""

    def test_what_a_killed_holder_said_is_not_the_next_ones_word(self, tmp_path: Path) -> None:
        """Who has just taken the lock over has not signed yet."""
        path = tmp_path / "lock"
        gone = python("")
        gone.communicate()
        path.write_text(f"{gone.pid} run\n")
        taken = FileLock(path)
        assert taken.take()
        assert Lock.holder(path) == 0
        assert Lock.signed(path, gone.pid) == ""
        taken.release()
        path.write_text(f"{10**30} run\n")
        assert Lock.signed(path, 10**30) == ""

    def test_children_do_not_inherit_the_lock(self, tmp_path: Path) -> None:
        """Neither a started program nor a fork keeps it after we let go, nor frees it while we hold it."""
        path = tmp_path / "lock"
        lock = Lock(path)
        with lock:
            started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
            reading, writing = os.pipe()
            forked = os.fork()
            if not forked:
                os.close(writing)
                lock.release()
                os.read(reading, 1)
                os._exit(0)
            assert Lock.holder(path) == os.getpid()
        try:
            assert Lock.holder(path) is None
        finally:
            os.close(writing)
            os.close(reading)
            os.waitpid(forked, 0)
            started.communicate(b"\n")

    def test_many_share_what_one_can_hold_alone(self, tmp_path: Path) -> None:
        """Shared and exclusive exclude each other, also within one process; waiting ends when it is free."""
        one, two, alone = (FileLock(tmp_path / "users") for _ in range(3))
        assert one.take(shared=True) and two.take(shared=True) and not alone.take()
        one.release()
        two.release()
        one.release()
        assert alone.take() and not one.take(shared=True)
        other = python(HOLD, tmp_path / "other")
        said(other)
        waiting = FileLock(tmp_path / "other")
        assert not waiting.take(seconds=0.02)
        stop(other)
        assert waiting.take(seconds=10)
        for lock in (alone, waiting):
            lock.release()

    def test_a_lock_lasts_as_long_as_the_child_that_was_given_it(self, tmp_path: Path) -> None:
        """Passed on deliberately, the lock is held until that child ends."""
        lock = FileLock(tmp_path / "server")
        lock.take()
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()])
        lock.hand_over()
        assert not lock.take()
        child.communicate(b"\n")
        wait_until(lock.take, what="the lock of a child that ended")
        lock.release()


def test_a_mode_that_is_given_is_what_the_file_has(tmp_path: Path) -> None:
    """Of a new file and of one that is replaced; never with the right to write for everybody."""
    path = tmp_path / "script"
    first = files.replace(path, b"1", None, 0o755)
    assert path.stat().st_mode & 0o777 == 0o755 & ~_umask()
    second = files.replace(path, b"2", first.identity, 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    files.replace(path, b"3", second.identity, 0o777)
    assert path.stat().st_mode & 0o777 == 0o775


def test_only_the_version_that_was_read_is_removed(tmp_path: Path) -> None:
    """Another one stays, and the caller hears of it."""
    path = tmp_path / "file"
    read = files.replace(path, b"1", None).identity
    newer = files.replace(path, b"2", read).identity
    with pytest.raises(Moved):
        files.remove(path, read)
    assert path.read_bytes() == b"2"
    files.remove(path, newer)
    assert not path.exists()


def test_what_the_dead_left_beside_a_file_is_found(path: Path) -> None:
    """Only theirs: not what a process is writing now, not what belongs to another file."""
    dead = python("")
    dead.communicate()
    names = (f".{path.name}.{dead.pid}", f".{path.name}.{os.getpid()}", f".other.{dead.pid}", path.name)
    made = [path.with_name(f"{name}.0123abcd.tmp") for name in names]
    for one in made:
        one.touch()
    assert files.left_beside(path) == made[:1]
    for one in made:
        one.unlink()


def test_what_is_displaced_is_kept_before_it_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever fails to keep it leaves it where the next one finds it."""
    path.write_bytes(b"read")
    read, real = identity(path), files._rename

    def late(source: Path, target: Path, flag: int) -> bool:
        path.unlink()
        path.write_bytes(b"newer")
        return real(source, target, flag)

    def fail(data: bytes, mtime_ns: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_rename", late)
    with pytest.raises(KeyboardInterrupt):
        files.replace(path, b"ours", read, keep=fail)
    [left] = path.parent.glob(".*.tmp")
    assert (path.read_bytes(), left.read_bytes()) == (b"ours", b"newer")
    left.unlink()


def test_folders_are_made_and_removed_when_nothing_is_in_them(tmp_path: Path) -> None:
    """Told which ones were made; what Python compiled of the modules named is nothing."""
    inner = tmp_path / "a" / "b"
    assert files.make_folder(inner) == [tmp_path / "a", inner]
    assert files.make_folder(inner) == []
    (inner / "__pycache__").mkdir()
    (inner / "__pycache__" / "ours.cpython-311.pyc").write_bytes(b"")
    (inner / "__pycache__" / "theirs.cpython-311.pyc").write_bytes(b"")
    files.remove_folder(inner, "ours")
    assert [path.name for path in (inner / "__pycache__").iterdir()] == ["theirs.cpython-311.pyc"]
    files.remove_folder(inner, "theirs")
    assert not inner.exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReconcilerError, match="is not a folder"):
        files.make_folder(tmp_path / "file")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
