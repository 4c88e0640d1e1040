"""Every verb as a person runs it: what it prints where, its exit code, and that it can be read by programs."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import redis
import yaml

from reconciler import schema
from reconciler.cli import VERBS, cli
from reconciler.errors import Place
from tests.cli.shell import COMMAND, PROJECT, Shell

MISSPELT = """\
apiVersion: reconciler/v1
kind: Agent
metadata: {name: mary}
spec:
  status: active
  contxt: {role: dispatcher}
more: 1
"""
AGENTS = ["cls", "gc", "gemini", "gpt", "mary", "rnd"]


def check(name: str, value: object) -> None:
    """Hold plain data against one of our schemas."""
    assert schema.validate(name, value, lambda steps: (Place("output"), ""), source="output") == []


def test_diff_lists_six_agents_and_exits_1_and_after_apply_it_exits_0(six: Shell) -> None:
    """The main job: what differs, agree, nothing differs."""
    before = six("diff")
    assert before.code == 1
    assert [line for line in before.out.splitlines() if not line.startswith(" ")][:-1] == AGENTS
    assert '+ status        "active"        → both  manifests/cls.yaml' in before.out
    assert before.err == ""
    done = six("apply")
    assert (done.code, done.err) == (0, "")
    assert done.out == before.out + "Done.\n"
    after = six("diff")
    assert (after.code, after.out, after.err) == (0, "In sync.\n", "")
    assert six("apply")[:2] == (0, "In sync.\nNothing to do.\n")


def test_diff_of_some_agents_shows_only_those(six: Shell) -> None:
    """Named agents narrow the plan, its count and its exit code."""
    found = six("diff", "mary", "gc")
    assert [line for line in found.out.splitlines() if not line.startswith(" ")][:-1] == ["gc", "mary"]
    assert "8 differences" in found.out


def test_diff_as_json_keeps_to_its_schema_and_is_the_same_twice(six: Shell) -> None:
    """A program reads the plan; the same input gives the same bytes."""
    found = six("diff", "-o", "json")
    assert found.code == 1
    check("plan", found.json)
    assert {change["agent"] for change in found.json["changes"]} == set(AGENTS)
    assert six("diff", "--output", "json").out == found.out
    six("apply")
    check("plan", six("diff", "-o", "json").json)
    assert six("diff", "-o", "json").json["in_sync"] is True


def test_diff_as_markdown_is_a_table(six: Shell) -> None:
    """For a review or a chat."""
    found = six("diff", "-o", "markdown", "mary")
    assert found.code == 1
    assert "| mary | status | create |" in found.out


def test_apply_tells_its_plan_as_json_or_markdown_and_nothing_else(six: Shell) -> None:
    """Data on stdout is one document."""
    done = six("apply", "-o", "json")
    assert done.code == 0
    check("plan", done.json)
    assert six("apply", "-o", "markdown").out == "**In sync.**\n"


def test_run_once_prints_plan_result_and_the_shared_state(six: Shell) -> None:
    """One round, its result in full."""
    done = six("run", "--once")
    assert (done.code, done.err) == (0, "")
    assert "24 differences" in done.out
    assert "Done." in done.out
    assert [line.split()[0] for line in done.out.splitlines()[-8:] if line.strip()][-6:] == AGENTS


def test_the_first_round_makes_context_json_of_manifests(applied: Shell, client: redis.Redis) -> None:
    """What manifests declare is in the file and in Redis, as plain fields."""
    assert applied.context()["agents"]["mary"]["context"] == {"role": "dispatcher"}
    mary = client.hgetall("memory:agents:mary")
    assert mary[b"status"] == b"active"
    assert json.loads(mary[b"context"]) == {"role": "dispatcher"}


def test_get_prints_what_the_context_schema_allows(applied: Shell) -> None:
    """The shared memory has the shape of context.json, in JSON and in YAML."""
    found = applied("get")
    assert (found.code, found.err) == (0, "")
    check("context", found.json)
    assert sorted(found.json["agents"]) == AGENTS
    assert yaml.safe_load(applied("get", "-o", "yaml").out) == found.json
    assert applied("get", "mary").json == found.json["agents"]["mary"]
    assert yaml.safe_load(applied("get", "mary", "-o", "yaml").out)["status"] == "active"


def test_set_reads_values_as_json_or_text_and_get_shows_them(applied: Shell) -> None:
    """count=3 is a number, '"3"' a text; status is the status; everything else stays."""
    done = applied("set", "mary", "task=deploy now", "count=3", 'text="3"', "list=[1, 2]", "status=busy", "done=true")
    assert done.code == 0
    assert done.out.startswith("mary: ")
    assert "(version 2)" in done.out
    mary = applied("get", "mary").json
    assert mary["status"] == "busy"
    expected = {"role": "dispatcher", "task": "deploy now", "count": 3, "text": "3", "list": [1, 2], "done": True}
    assert mary["context"] == expected


def test_set_reads_an_object_from_stdin_and_answers_in_json(applied: Shell) -> None:
    """For programs; what was there already is no change."""
    done = applied("set", "mary", "--json", "-", "--field", "insight=fine", "-o", "json", input='{"a": {"b": [null]}}')
    assert done.code == 0
    assert sorted(done.json["won"]) == ["context.a", "insight"]
    assert done.json["store"] == "redis"
    again = applied("set", "mary", "--json", "-", input='{"a": {"b": [null]}}')
    assert (again.code, again.out) == (0, "mary: nothing changed\n")
    assert applied("get", "mary").json["insight"] == "fine"


def test_a_set_and_a_delete_reach_the_file_with_the_next_round(applied: Shell, client: redis.Redis) -> None:
    """Both say so when no reconciler runs."""
    for words in (("set", "mary", "task=x"), ("delete", "rnd")):
        done = applied(*words)
        assert done.code == 0
        assert "reconciler apply" in done.err
    assert applied("diff").code == 1
    assert applied("apply").code == 0
    agents = applied.context()["agents"]
    assert agents["mary"]["context"]["task"] == "x"
    assert "rnd" not in agents
    assert not client.exists("memory:agents:rnd")
    assert applied("diff").code == 0
    assert applied("get", "rnd").code == 1


def test_history_shows_versions_newest_first_also_of_what_was_deleted(applied: Shell) -> None:
    """When, by whom, what; each version an event that keeps to the schema."""
    applied("set", "mary", "task=x")
    applied("delete", "mary")
    text = applied("history", "mary")
    assert (text.code, text.err) == (0, "")
    assert [line.split()[0] for line in text.out.splitlines() if not line.startswith("        ")] == ["3", "2", "1"]
    assert "+ context.task" in text.out
    found = applied("history", "mary", "-o", "json").json
    for version in found["versions"]:
        check("event", version)
    assert [version["version"] for version in found["versions"]] == [3, 2, 1]
    assert len(applied("history", "mary", "-n", "1", "-o", "json").json["versions"]) == 1
    assert yaml.safe_load(applied("history", "mary", "-o", "yaml").out) == found


def test_rollback_is_one_more_version(applied: Shell) -> None:
    """And the way out is told where there is no such version."""
    applied("set", "mary", "task=x", "status=busy")
    applied("set", "mary", "task=y", "more=1")
    done = applied("rollback", "mary", "2")
    assert (done.code, done.out) == (0, "mary: context.task, context.more (version 4)\n")
    context = applied("get", "mary").json["context"]
    assert context["task"] == "x" and "more" not in context
    assert applied("rollback", "mary", "4", "-o", "json").json["won"] == []
    far = applied("rollback", "mary", "9")
    assert far.code == 1 and "mary is at version 4" in far.err
    assert applied("rollback", "mary", "0").code == 2
    assert applied("rollback", "nobody", "1").code == 1


def test_export_writes_manifests_that_are_valid_and_in_sync(applied: Shell, tmp_path: Path) -> None:
    """Live agents as manifests: on stdout one document each, in a folder one file each."""
    applied("set", "mary", "word=no", "when=2025-11-12", "--field", "insight=fine")
    found = applied("export")
    assert found.code == 0
    documents = list(yaml.safe_load_all(found.out))
    assert [document["metadata"]["name"] for document in documents] == AGENTS
    for document in documents:
        check("manifest", document)
    assert applied("export", "--to", tmp_path / "out").code == 0
    assert applied("validate", tmp_path / "out").code == 0
    assert yaml.safe_load(applied("export", "mary").out)["spec"]["context"]["word"] == "no"
    for path in (tmp_path / "out").iterdir():
        shutil.copy(path, applied.root / "manifests")
    applied("apply")
    assert applied("diff").code == 0


def test_export_keeps_an_agent_called_shared_apart_from_the_shared_sections(shell: Shell, tmp_path: Path) -> None:
    """Two documents of almost the same name are two files."""
    shell.write_context({"shared": {"status": "busy"}}, current_work={"a": 1})
    assert shell("apply").code == 0
    assert shell("export", "--to", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_shared.yaml", "shared.yaml"]
    assert shell("validate", tmp_path / "out").code == 0


def test_export_overwrites_only_when_told_to(applied: Shell, tmp_path: Path) -> None:
    """A guard: exit code 4, and the flag is named."""
    (tmp_path / "mary.yaml").write_text("mine")
    refused = applied("export", "--to", tmp_path)
    assert refused.code == 4
    assert "--force" in refused.err
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".yaml"] == ["mary.yaml"]
    assert applied("export", "--to", tmp_path, "--force").code == 0


def test_validate_is_quiet_about_what_is_good_and_names_what_is_not(six: Shell) -> None:
    """Every problem at once with its place; exit code 1."""
    good = six("validate")
    assert (good.code, good.err) == (0, "")
    assert good.out.startswith("Valid: manifests, context.json, 6 agents in ")
    path = six.root / "manifests" / "mary.yaml"
    path.write_text(MISSPELT)
    bad = six("validate")
    assert bad.code == 1
    assert "manifests/mary.yaml:6:3: spec: unknown key 'contxt'" in bad.err
    assert "did you mean 'context'?" in bad.err
    assert len(bad.err.splitlines()) == 2
    report = six("validate", "-o", "json").json
    assert report["valid"] is False
    assert {problem["place"] for problem in report["problems"]} == {"manifests/mary.yaml"}
    assert six("validate", path).code == 1
    assert six("validate", six.root / "manifests" / "gc.yaml").code == 0


def test_validate_names_what_several_files_say_together(shell: Shell) -> None:
    """Two manifests for one agent, and a schema that is not there: also before a commit, where files are named."""
    folder = shell.root / "manifests"
    folder.mkdir()
    for name in ("a", "b"):
        head = "apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: mary}\nspec: {status: x}\n"
        (folder / f"{name}.yaml").write_text(head + "contextSchema: none.schema.json\n")
    for done in (
        shell("validate"),
        shell("validate", "manifests"),
        shell("validate", folder / "a.yaml", folder / "b.yaml"),
    ):
        assert done.code == 1
        assert "agent mary is declared twice: first in " in done.err
        assert "contextSchema none.schema.json does not exist" in done.err
    for one in (shell("validate", folder / "a.yaml"), shell("validate", folder / "a.yaml", "manifests/./a.yaml")):
        assert one.err.count("error: ") == 1
    (folder / "team").mkdir()
    shutil.move(folder / "b.yaml", folder / "team" / "c.yaml")
    for words in (("manifests/a.yaml", "manifests/team/c.yaml"), ("manifests/team/c.yaml", "manifests")):
        assert "is declared twice" in shell("validate", *words).err, words
    (folder / "team" / "c.yaml").unlink()
    (folder / "d.yaml").symlink_to("a.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    linked = shell("validate", "manifests")
    assert linked.code == 1 and "is declared twice" in linked.err and "loop.yaml: cannot be read" in linked.err
    elsewhere = shell.root / "elsewhere"
    shutil.copytree(PROJECT / "manifests", elsewhere)
    both = shell("validate", PROJECT / "manifests", elsewhere)
    assert (both.code, both.err) == (0, "")


@pytest.mark.parametrize(
    ("text", "said"), [("bogus: 1", "unknown key 'bogus'"), ("tombstones: 0", "not a good tombstones")]
)
def test_validate_answers_no_to_bad_settings_and_checks_the_rest(six: Shell, text: str, said: str) -> None:
    """It is asked what is valid: it does not fail because something is not."""
    (six.root / "reconciler.yaml").write_text(text)
    (six.root / "manifests" / "mary.yaml").write_text(MISSPELT)
    done = six("validate", "-o", "json")
    assert done.code == 1
    places = {problem["place"].partition(":")[0] for problem in done.json["problems"]}
    assert places == {"manifests/mary.yaml", "reconciler.yaml"}
    assert done.json["checked"] == [
        "reconciler.yaml",
        "manifests",
        "context.json",
    ]  # nobody knows which server is meant
    assert done.err == ""
    for path in ("reconciler.yaml", six.root / "reconciler.yaml"):
        named = six("validate", path)
        assert named.code == 1
        assert said in named.err and named.err.count("reconciler.yaml: reconciler.yaml") == 0
    assert six("validate", "manifests/gc.yaml").code == 0


def test_validate_takes_files_without_any_workspace(tmp_path: Path, shell: Shell) -> None:
    """A check before a commit has a repository, not a workspace."""
    done = shell.plain(*COMMAND, "validate", str(PROJECT / "manifests"))
    assert (done.code, done.err) == (0, "")


def test_status_is_one_screen_and_says_what_is_wrong(applied: Shell) -> None:
    """0 while healthy, 1 when not."""
    good = applied("status")
    assert (good.code, good.err) == (0, "")
    assert "reconciler  not running" in good.out
    assert "In sync." in good.out
    facts = applied("status", "-o", "json").json
    assert facts["healthy"] is True
    assert sorted(facts["agents"]) == AGENTS
    assert yaml.safe_load(applied("status", "-o", "yaml").out)["agents"].keys() == facts["agents"].keys()
    applied.context_file.write_text("{")
    bad = applied("status")
    assert bad.code == 1
    assert "shared_memory/context.json:1:2" in bad.out
    assert applied("status", "-o", "json").json["healthy"] is False


def test_schema_prints_the_file_and_needs_no_workspace(shell: Shell) -> None:
    """Without a name it lists them; a name that is none says which there are."""
    names = shell.plain(*COMMAND, "schema")
    assert names.out.split() == ["manifest", "context", "event", "settings", "plan"]
    found = shell.plain(*COMMAND, "schema", "plan")
    assert found.out.strip() == (PROJECT / "schemas" / "plan.schema.json").read_text().strip()
    missing = shell.plain(*COMMAND, "schema", "plann")
    assert missing.code == 1
    assert "did you mean" in missing.err


@pytest.mark.parametrize("words", [(), *[(verb,) for verb in VERBS]], ids=lambda words: " ".join(words) or "reconciler")
def test_help_of_every_verb_is_on_stdout(words: tuple[str, ...], shell: Shell) -> None:
    """It needs no workspace, fits 80 columns and ends with 0."""
    found = shell.plain(*COMMAND, *words, "--help")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("Usage: reconciler")
    assert max(map(len, found.out.splitlines())) <= 80


@pytest.mark.parametrize("name", VERBS)
def test_help_of_every_verb_ends_with_examples_that_are_command_lines(name: str) -> None:
    """People copy them: each is of this verb, and its options are there."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    lines = command.get_help(click.Context(command)).partition("Examples:\n")[2].splitlines()
    assert lines
    for line in lines:
        words = shlex.split(line.partition(" | ")[2] or line.partition(" > ")[0], comments=True)
        assert words[:2] == ["reconciler", name]
        command.make_context(name, words[2:])  # raises where this is no command line


def test_help_lists_exactly_the_verbs_there_are(shell: Shell) -> None:
    """What is not there yet is not listed."""
    lines = shell.plain(*COMMAND, "--help").out.partition("Verbs:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(VERBS)


def test_options_stand_before_or_behind_the_verb_and_the_later_one_wins(six: Shell, tmp_path: Path) -> None:
    """As people type them."""
    behind = six.plain(*COMMAND, "diff", "--root", str(six.root), "--redis", six.redis)
    mixed = six.plain(*COMMAND, "--root", str(tmp_path), "diff", "--redis", six.redis, "--root", str(six.root))
    assert behind == mixed == six("diff")
    (tmp_path / "none").mkdir()
    elsewhere = six("diff", "--manifests", tmp_path / "none")
    assert (elsewhere.code, elsewhere.out) == (0, "In sync.\n")


def test_the_environment_names_workspace_and_server(six: Shell) -> None:
    """LUKA_SOT and REDIS_URL serve where no option is given."""
    six.env = {"LUKA_SOT": str(six.root), "REDIS_URL": six.redis}
    assert six.plain(*COMMAND, "apply").code == 0
    assert sorted(six.plain(*COMMAND, "get").json["agents"]) == AGENTS


def test_no_agents_is_no_error(shell: Shell) -> None:
    """An empty workspace and an empty server are in sync."""
    assert shell("diff")[:2] == (0, "In sync.\n")
    assert shell("apply")[:2] == (0, "In sync.\nNothing to do.\n")
    assert shell("run", "--once").out.endswith("No agents.\n")
    assert shell("status").code == 0
    assert shell("get").json["agents"] == {}
    assert shell("export")[:2] == (0, "")
    assert shell("validate").code == 0


def test_two_thousand_agents_go_through_every_verb(shell: Shell, client: redis.Redis) -> None:
    """Nothing here grows with the square of it, and no list floods the screen."""
    shell.write_context({f"agent-{i:04}": {"status": "idle", "context": {"n": i}} for i in range(2_000)})
    assert len(shell("diff", "-o", "json").json["changes"]) == 3 * 2_000
    assert shell("apply", "-o", "markdown").code == 0
    assert shell("diff")[:2] == (0, "In sync.\n")
    assert len(shell("get").json["agents"]) == 2_000
    client.hset("memory:agents:agent-1999", "status", "busy")
    assert shell("diff").code == 1
    once = shell("run", "--once")
    assert once.code == 0
    assert "and 1950 more" in once.out
    assert len(once.out.splitlines()) < 70
    assert shell.context()["agents"]["agent-1999"]["status"] == "busy"


def test_the_embedded_store_serves_without_any_server(six: Shell) -> None:
    """`embedded:` keeps the shared memory from one command to the next, and leaves no process behind."""
    six.redis = "embedded:"
    assert six("apply").code == 0
    assert six("set", "mary", "task=x").code == 0
    assert six("get", "mary").json["context"]["task"] == "x"
    assert six("history", "mary", "-o", "json").json["versions"][0]["version"] == 2
    assert not (six.root / ".reconciler" / "valkey" / "valkey.sock").exists()


def test_while_redis_is_away_files_serve_and_the_exit_code_is_5(applied: Shell) -> None:
    """Nothing blocks, nothing is lost: what was written meanwhile is merged when Redis is back."""
    server, applied.redis = applied.redis, "redis://127.0.0.1:1"
    for words in (("diff",), ("apply",), ("run", "--once"), ("validate",), ("get",), ("get", "mary"), ("export",)):
        assert applied(*words).code == 5, words
    assert applied("history", "mary").code == 5
    assert applied("rollback", "mary", "1").code == 5
    assert applied("status").code == 1
    written = applied("set", "mary", "task=offline")
    assert written.code == 5
    assert written.out == "mary: context.task written to files\n"
    assert applied("delete", "rnd").code == 5
    assert applied.context()["agents"]["mary"]["context"]["task"] == "offline"
    applied.redis = server
    assert applied("apply").code == 0
    assert applied("get", "mary").json["context"]["task"] == "offline"
    assert "rnd" not in applied("get").json["agents"]


def test_a_write_that_redis_does_not_take_ends_with_5_too(applied: Shell, client: redis.Redis) -> None:
    """Redis is there, and out of memory: files have it, which is not done in the sense of 0."""
    client.config_set("maxmemory", 1)
    try:
        written = applied("set", "mary", "task=late", "-o", "json")
        deleted = applied("delete", "rnd")
    finally:
        client.config_set("maxmemory", 0)
    assert (written.code, written.json["store"]) == (5, "file")
    assert deleted.code == 5
    assert written.err == deleted.err == "files were used: Redis took no write, and learns it later\n"
    assert applied("apply").code == 0
    assert applied("get", "mary").json["context"]["task"] == "late"
    assert "rnd" not in applied("get").json["agents"]


def test_a_number_that_is_too_large_for_python_ends_no_history(applied: Shell, client: redis.Redis) -> None:
    """It is JSON, Redis and files hold it, and so does the history, token for token."""
    client.hset("memory:agents:mary", "context", '{"role":"dispatcher","far":1e400,"exact":1.10}')
    assert applied("apply").code == 0
    text, data = applied("history", "mary", "-n", "1"), applied("history", "mary", "-n", "1", "-o", "json")
    assert text.code == data.code == 0
    assert "+ context.far  Infinity" in text.out
    assert '"new": 1e400' in data.out
    assert '"new": 1.10' in data.out


def test_set_writes_every_token_as_it_was_given(applied: Shell, client: redis.Redis) -> None:
    """As `record` does; a string is spelt as everywhere else."""
    words = ("x=1.10", "long=12345678901234567890.125", "far=1e400", 'deep={"b": [1.0, 2e3]}', r'text="\u00e9\/"')
    assert applied("set", "mary", *words, "--json", "-", input='{"from": {"one": 1.50}, "e": "\\u00e9"}').code == 0
    context = (client.hget("memory:agents:mary", "context") or b"").decode()  # type: ignore[union-attr]
    for token in ('"x":1.10', '"long":12345678901234567890.125', '"far":1e400', '"deep":{"b":[1.0,2e3]}', '"text":"é/"',
                  '"from":{"one":1.50}', '"e":"é"'):  # fmt: skip
        assert f"\n{token}" in context
    assert applied("set", "mary", "status=3", "--field", "insight=[1.50]").code == 0
    assert client.hmget("memory:agents:mary", "status", "insight") == [b"3", b"[1.50]"]
    assert applied("set", "mary", "status=null").code == 2


def test_an_empty_name_is_no_missing_option(applied: Shell) -> None:
    """As where a shell's variable is not set: nothing is done that nobody reviewed."""
    applied.write_manifest("mary", note="new")
    for words in (("apply", "--plan", ""), ("set", "mary", "task=x", "--json", "")):
        assert applied(*words).code == 2, words
    assert applied("diff").code == 1


def test_the_real_output_of_a_plan_needs_no_unicode_terminal(six: Shell) -> None:
    """Where only ASCII can be printed, JSON is escaped and text is not lost."""
    six.write_manifest("mary", note="größer → 世界 😀")
    expected = six("diff", "-o", "json").json
    six.env = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    found = six("diff", "-o", "json")
    assert found.out.isascii()
    assert found.json == expected
    assert six("diff").code == 1
    assert six("apply").code == 0
    assert six("get", "mary").json["context"]["note"] == "größer → 世界 😀"


def test_help_costs_well_under_150_ms_of_cpu_and_imports_no_client(shell: Shell) -> None:
    """Heavy imports happen when needed."""
    heavy = ("redis", "yaml", "jsonschema", "rich", "apscheduler", "watchfiles", "sqlite3", "socket")
    program = f"""if True:
        import sys, time
        from reconciler.cli import main
        sys.argv = ["reconciler", "--help"]
        main()
        print(time.process_time(), [name for name in {heavy} if name in sys.modules], file=sys.stderr)
    """
    runs = [
        subprocess.run([sys.executable, "-c", program], env=shell.environment(), capture_output=True, text=True).stderr
        for _ in range(5)
    ]
    assert all(run.partition(" ")[2].strip() == "[]" for run in runs)
    assert min(float(run.split()[0]) for run in runs) < 0.15


def test_no_verb_is_said_in_one_line(shell: Shell) -> None:
    """Usage errors name the way to the help."""
    found = shell.plain(*COMMAND)
    assert (found.code, found.out) == (2, "")
    assert found.err == "reconciler: no verb given; reconciler --help shows how\n"
