"""Settings: where a value comes from, what it must be, and that an address never shows its password."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler import settings
from reconciler.address import take_password
from reconciler.errors import InputError, UsageError
from reconciler.settings import TABLE, Settings, build, environment, find_root
from reconciler.workspace import read_settings

ROOT = Path("/work space")
SCHEMA = Path(__file__).parent.parent / "schemas" / "settings.schema.json"


def built(file: Mapping[str, object] = {}, env: Mapping[str, str] = {}, **flags: str) -> Settings:
    return build(ROOT, file, env, flags)


def test_without_anything_the_defaults_hold() -> None:
    """As the table says them."""
    found = built()
    assert found.redis == "redis://localhost:6379/0"
    assert found.manifests == ROOT / "manifests"
    assert found.interval == timedelta(seconds=60)
    assert (found.history, found.backups, found.max_deletes, found.first_run) == (1000, 14, "30%", "newer")
    assert found.local_sections == ("paths",)
    assert found.context_file == ROOT / "shared_memory" / "context.json"


def test_a_flag_wins_over_the_environment_and_that_over_the_file() -> None:
    """Defaults < reconciler.yaml < environment < flags."""
    file = {"redis": "redis://file"}
    env = {"REDIS_URL": "redis://env"}
    assert built(file).redis == "redis://file"
    assert built(file, env).redis == "redis://env"
    assert built(file, env, redis="redis://flag").redis == "redis://flag"
    assert built(file, {"REDIS_URL": ""}).redis == "redis://file"


def test_host_port_and_password_make_an_address_where_there_is_none() -> None:
    """The environment that the specification knows; the password stays out of the address."""
    found = built(env={"REDIS_HOST": "::1", "REDIS_PORT": "7000", "REDIS_PASSWORD": "secret"})
    assert found.redis == "redis://[::1]:7000/0"
    assert found.password == "secret"
    assert "secret" not in repr(found)


def test_a_path_in_the_file_is_relative_to_the_workspace_and_a_flag_to_where_one_stands() -> None:
    """As everybody expects of each."""
    assert built({"manifests": "declared"}).manifests == ROOT / "declared"
    assert built(manifests="declared").manifests == Path.cwd() / "declared"


def test_every_row_of_the_table_is_a_setting_of_the_schema_and_the_other_way_round() -> None:
    """An editor helps with exactly what there is, and with the same defaults."""
    rules = json.loads(SCHEMA.read_text("utf-8"))["properties"]
    assert set(rules) == {row.name for row in TABLE}
    for row in TABLE:
        if "default" in rules[row.name] and not isinstance(rules[row.name]["default"], list):
            assert json.dumps(rules[row.name]["default"]).strip('"') == row.default
    assert len({row.env for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    "url",
    ["embedded:", "redis://h", "redis://h:1/3", "rediss://u:p%40@h:6380/0", "unix:///run/redis.sock", "redis://[::1]:6379",
     "unix://u:p@/run/redis.sock?db=2", "redis://:p@h/0?protocol=3", "redis+sentinel://h:26379/mymaster",
     "redis+sentinel://u:p@h:1,[::1]:2,h3/my.master/3?sentinel_password=p", "redis+cluster://h",
     "redis+cluster://:p@h:1,[::1]:2/"],
)  # fmt: skip
def test_a_good_address_is_taken_as_it_is(url: str) -> None:
    """Every kind there is."""
    assert built(redis=url).redis == url


@pytest.mark.parametrize(
    "url",
    ["", "redis:", "redis://h:s3cr3t", "redis://:s3/cr3t@h", "redis://:s3cr3t@h@h", "redis://[s3cr3t]:x@h",
     "http://:s3cr3t@h", "redis://[s3cr3t",
     "unix://", "unix://:s3/cr3t@/tmp/r.sock",
     "redis://:s3?cr3t@h", "redis://h/s3cr3t", "s3cr3t", "redis://:s3cr3t\n@h", "redis://:s3cr3t@h:0",
     "redis+sentinel://:s3cr3t@h:1,h:2", "redis+sentinel://h:s3cr3t/m", "redis+sentinel://h,/m?sentinel_password=s3cr3t",
     "redis+sentinel://h/m?password=s3cr3t", "redis+sentinel://h/m?s3cr3t", "redis+sentinel://h/m/s3cr3t",
     "redis+sentinel://:s3,cr3t@h@i/m", "redis+cluster://:s3cr3t@h/1", "redis+cluster://h?sentinel_password=s3cr3t",
     "redis+cluster://:s3cr3t@", "redis+cluster://h:s3cr3t"],
)  # fmt: skip
def test_a_bad_address_is_refused_without_quoting_it(url: str) -> None:
    """It may hold a password, and where it ends cannot be told."""
    with pytest.raises(UsageError) as refused:
        built(redis=url)
    assert "cr3t" not in str(refused.value)
    assert str(refused.value).startswith("--redis: the address is not a good redis: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("redis_port", "70000"), ("redis_port", "x"), ("interval", "0"), ("interval", "nan"), ("interval", "inf"),
     ("history", "-1"), ("history", "1.5"), ("max_skew", "-1"), ("tombstones", "0"), ("backups", "many"),
     ("max_deletes", "101%"), ("max_deletes", "-1"), ("first_run", "me"), ("writer", ""), ("writer", "a\nb"),
     ("manifests", "~no-such-user-here/x")],
)  # fmt: skip
def test_a_wrong_value_names_the_setting_and_where_it_came_from(name: str, value: str) -> None:
    """The flag, or the environment's name."""
    flag = "--" + name.replace("_", "-")
    with pytest.raises(UsageError, match=f"^{flag}: .* is not a good {name}: "):
        build(ROOT, {}, {}, {name: value})
    env = next(row.env for row in TABLE if row.name == name)
    if value:
        with pytest.raises(UsageError, match=f"^{env}: "):
            built(env={env: value})


@pytest.mark.parametrize("value", ["30%", "12.5%", "0", "100%", 5])
def test_a_limit_is_a_share_or_a_number(value: str | int) -> None:
    """As the schema says."""
    assert built({"max_deletes": value}).max_deletes == str(value)


def test_the_workspace_is_named_by_flag_variable_or_habit(tmp_path: Path) -> None:
    """The first of them that is given; what is no folder is refused with where it came from."""
    (tmp_path / "02luka").mkdir()
    assert find_root(str(tmp_path), {"LUKA_SOT": "/nowhere"}) == tmp_path
    assert find_root(None, {"LUKA_SOT": str(tmp_path)}) == tmp_path
    with pytest.raises(UsageError, match=r"/nowhere \(from LUKA_SOT\) does not exist"):
        find_root(None, {"LUKA_SOT": "/nowhere"})
    with pytest.raises(UsageError, match="'' \\(from --root\\) does not exist"):
        find_root("", {"LUKA_SOT": str(tmp_path)})


def test_a_settings_file_is_held_to_its_schema_with_the_place(tmp_path: Path) -> None:
    """And what it says counts."""
    (tmp_path / settings.FILE).write_text("history: 5\nlocal_sections: [paths, machine]\n")
    found = read_settings(str(tmp_path), {}, {})
    assert (found.history, found.local_sections) == (5, ("paths", "machine"))
    (tmp_path / settings.FILE).write_text("# mine\n")
    assert read_settings(str(tmp_path), {}, {}).history == 1000
    (tmp_path / settings.FILE).write_text("history: 5\nhistroy: 6\n")
    with pytest.raises(InputError, match=r"reconciler\.yaml:2:1: unknown key 'histroy'; did you mean 'history'\?"):
        read_settings(str(tmp_path), {}, {})


def test_what_is_set_here_can_be_told_as_an_environment(tmp_path: Path) -> None:
    """Every setting but a password, and only those that the file alone does not give."""
    (tmp_path / "reconciler.yaml").write_text("interval: 5\nhistory: 7\ncron: '1 2 3 4 5'\n")
    text = (
        "REDIS_HOST=elsewhere REDIS_PASSWORD=x REDIS_PASSWORD_FILE=secret REDIS_PASSWORD_KEYCHAIN=item "
        "RECONCILER_MANIFESTS=here RECONCILER_LOCAL_SECTIONS=a,b RECONCILER_MAX_SKEW=0.5 RECONCILER_HISTORY=7 "
        "RECONCILER_INTERVAL=0.25 RECONCILER_QUIET=3 RECONCILER_TOMBSTONES=1.5 RECONCILER_BACKUPS=0 "
        "RECONCILER_MAX_DELETES=5 RECONCILER_FIRST_RUN=live RECONCILER_INBOX=true RECONCILER_WRITER=ann@desk"
    )
    env = dict(pair.split("=") for pair in text.split()) | {"RECONCILER_CRON": "* * * * *"}
    assert {row.env for row in TABLE} - env.keys() == {"REDIS_URL", "REDIS_PORT"}
    alone, found = read_settings(str(tmp_path), {}, {}), read_settings(str(tmp_path), {}, env)
    told = environment(found, alone)
    assert told.keys() == env.keys() - {"REDIS_HOST", "REDIS_PASSWORD", "RECONCILER_HISTORY"} | {"REDIS_URL"}
    assert read_settings(str(tmp_path), {}, told | {"REDIS_PASSWORD": "x"}) == found
    assert environment(alone, alone) == {}


@pytest.mark.parametrize(
    ("url", "without", "password"),
    [
        ("redis://:p%2Fw@h:1/2", "redis://h:1/2", "p/w"),
        ("rediss://ann:pw@h", "rediss://ann@h", "pw"),
        ("redis://ann@h/0?x=1", "redis://ann@h/0?x=1", None),
        ("unix://ann:pw@/run/a b.sock?db=1", "unix://ann@/run/a b.sock?db=1", "pw"),
        ("unix:///r.sock?password=p%25w&db=2", "unix:///r.sock?db=2", "p%w"),
        (
            "redis+sentinel://:pw@a:1,b:2/m/1?sentinel_username=s",
            "redis+sentinel://a:1,b:2/m/1?sentinel_username=s",
            "pw",
        ),
        ("redis+cluster://:pw@a:1,b:2", "redis+cluster://a:1,b:2", "pw"),
        ("embedded:", "embedded:", None),
    ],
)
def test_a_password_is_taken_out_of_an_address(url: str, without: str, password: str | None) -> None:
    """All else stays, the user too."""
    assert take_password(url) == (without, password)


def test_a_password_comes_from_the_keychain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `security`, which only macOS has; what goes wrong with it is one line and the way out."""
    (tmp_path / "reconciler.yaml").write_text("redis_password_keychain: hub's\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs the command security, which only macOS has; use redis_password_file"):
        read_settings(str(tmp_path), {}, {})
    security = tmp_path / "security"
    security.write_text('#!/bin/sh\n[ "$*" = "find-generic-password -s hub\'s -w" ] && echo " p w"\n')
    security.chmod(0o755)
    assert read_settings(str(tmp_path), {}, {}).password == " p w"
    assert read_settings(str(tmp_path), {}, {"REDIS_PASSWORD": "stronger"}).password == "stronger"
    security.write_text("#!/bin/sh\necho 'security: The item could not be found.' >&2\nexit 44\n")
    with pytest.raises(UsageError, match=r"gives no password: security: The item could not be found\.; put it there: "):
        read_settings(str(tmp_path), {}, {})


def test_a_password_file_gives_its_first_line_unless_one_is_given(tmp_path: Path) -> None:
    """A variable wins over the file, which then is not even opened."""
    secret = tmp_path / "secret"
    secret.write_text(" s3cr3t \nmore\n")
    env = {"REDIS_PASSWORD_FILE": str(secret)}
    assert read_settings(str(tmp_path), {}, env).password == "s3cr3t"
    assert read_settings(str(tmp_path), {}, {**env, "REDIS_PASSWORD": "other"}).password == "other"
    secret.write_bytes(b"\xff\xfe\n")
    with pytest.raises(UsageError, match="holds no password"):
        read_settings(str(tmp_path), {}, env)


@pytest.mark.parametrize("host", [":", "::\t"])
def test_a_host_that_makes_no_address_is_refused(host: str) -> None:
    """It is named with where it came from."""
    with pytest.raises(UsageError, match=r"REDIS_HOST: .* is not a good redis_host"):
        built(env={"REDIS_HOST": host})
