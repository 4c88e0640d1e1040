"""`record`: what it drops, what it says, and that it needs nothing but the workspace's folder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import redis

from reconciler.spool import parse
from reconciler.state import CONTEXT
from tests.cli.shell import Shell, read_until

NOWHERE = "redis://localhost:1"


def recorded(root: Path) -> list[tuple[str, dict[str, object]]]:
    """The drops in the spool: agent, and its context keys with their values."""
    found = []
    for path in sorted((root / ".reconciler" / "spool").glob("*.drop")):
        drop = parse(path.stem, path.read_bytes())
        said = {name.removeprefix(CONTEXT): field.text for name, field in drop.fields.items()}
        found.append((drop.agent, {key: json.loads(text) for key, text in said.items() if text is not None}))
    return found


def test_a_task_and_its_result_are_dropped_without_redis(shell: Shell) -> None:
    """Exit code 0; it says that nobody takes it in yet, and how that is done."""
    shell.redis = NOWHERE
    done = shell("record", "mary", "--task", "WO-1", "--status", "completed", "--json", "-", input='{"ok": [1, 2.0]}')
    assert done == (0, "mary: last_task, task_status, result recorded\n",
                    "no reconciler is running: the next `reconciler apply` takes it in\n")  # fmt: skip
    expected = {"last_task": "WO-1", "task_status": "completed", "result": {"ok": [1, 2.0]}}
    assert recorded(shell.root) == [("mary", expected)]
    done = shell("record", "rnd", "--proposal", "P-7", "--outcome", "adopted", "--score", "+0.5", "--score-delta=-2",
                 "--learning", "first\nsecond", "--error", "none", "--metrics", '{"cpu": 3}')  # fmt: skip
    assert recorded(shell.root)[1:] == [("rnd", {
        "last_proposal": "P-7", "outcome": "adopted", "score": 0.5, "score_delta": -2, "learning": "first\nsecond",
        "error": "none", "metrics": {"cpu": 3},
    })]  # fmt: skip


def test_pairs_are_any_other_keys(shell: Shell) -> None:
    """What reads as JSON is JSON, anything else is text."""
    shell("record", "mary", "count=3", "note=[all good", 'tags=["a"]', "done=true", "plan=b=c", "context.k='x'")
    expected = {"count": 3, "note": "[all good", "tags": ["a"], "done": True, "plan": "b=c", "k": "'x'"}
    assert recorded(shell.root) == [("mary", expected)]


@pytest.mark.parametrize("payload", [b'{"stray": 1}}', b"\xff\xfe", b"a\0b", b""])
def test_what_is_not_json_is_kept_and_told(shell: Shell, payload: bytes) -> None:
    """It is recorded all the same: nothing is lost because somebody made a mistake."""
    (shell.root / "result").write_bytes(payload)
    done = shell("record", "mary", "--task", "WO-1", "--json", shell.root / "result")
    assert (done.code, done.out) == (0, "mary: last_task, result_raw recorded\n")
    assert done.err.startswith("warning: result is kept as result_raw: ")
    said = recorded(shell.root)[0][1]
    assert set(said) == {"last_task", "result_raw", "result_raw_reason"}


def test_an_argument_of_the_shell_is_what_it_is(shell: Shell) -> None:
    """Nothing in it runs, nothing in it is taken away."""
    text = "it's $(touch pwned) `id` \" ; rm -rf\n\U0001f680"
    shell("record", "mary", "--error", text, f"note={text}")
    assert recorded(shell.root) == [("mary", {"error": text, "note": text})]
    words = [os.fsencode(word) for word in shell.words("record", "mary", "--error")]
    subprocess.run([*words, b"caf\xe9"], env=shell.environment(), check=True, capture_output=True)
    assert recorded(shell.root)[1][1]["error_raw_reason"] == "not UTF-8 at byte 4; in base64"


WRONG = [
    (("record",), "missing argument 'AGENT'"),
    (("record", "../x", "a=1"), "'../x' is not a legal agent name"),
    (("record", "mary"), "nothing to record"),
    (("record", "mary", "novalue"), "'novalue' is not KEY=VALUE"),
    (("record", "mary", "=3"), "'=3' is not KEY=VALUE"),
    (("record", "mary", "--json", "nowhere"), "--json nowhere: No such file or directory"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_cannot_be_recorded_is_said_in_one_line(shell: Shell, words: tuple[str, ...], message: str) -> None:
    """With exit code 2, and nothing is dropped."""
    done = shell(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"reconciler: {message}")
    assert recorded(shell.root) == []


def test_a_spool_that_cannot_be_made_is_said_in_one_line(shell: Shell) -> None:
    """Somebody put a file in its place."""
    (shell.root / ".reconciler").mkdir(mode=0o700)
    (shell.root / ".reconciler" / "spool").write_text("in the way")
    done = shell("record", "mary", "a=1")
    assert done.code == 3
    assert "spool: is not a folder; move it away" in done.err


def test_one_drop_is_not_said_as_many(applied: Shell) -> None:
    """While it waits, and when a round takes it in."""
    applied("record", "mary", "--task", "WO-1")
    assert "spool       1 drop waits for a round" in applied("status").out
    assert "* 1 drop is taken in that waited in the spool" in applied("apply").out


def test_a_reconciler_that_runs_takes_it_in(applied: Shell, client: redis.Redis) -> None:
    """Then there is nothing to say about that."""
    with applied.start("run") as process:
        read_until(process, "Watching for changes")
        assert applied("record", "mary", "--task", "WO-1").err == ""


def test_a_result_that_no_round_could_read_is_refused_and_not_said_to_be_recorded(shell: Shell) -> None:
    """Exit code 2 and nothing in the spool."""
    (shell.root / "big.json").write_text('"' + "x" * (16 << 20) + '"')
    done = shell("record", "mary", "--json", str(shell.root / "big.json"))
    assert (done.code, done.out, recorded(shell.root)) == (2, "", [])
