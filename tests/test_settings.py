"""Settings: what the environment says, everything that is wrong with it at once, and its secrets."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.app.keys import Keys
from engine.app.settings import (
    SETTINGS,
    Settings,
    SettingsError,
    from_environment,
    load_or_create_keys,
)
from tests import served
from tests.conftest import open_folder

DOCUMENTED = frozenset(
    f"VIEWFINDER_{name}"
    for name in (
        "DATABASE_URL", "DATA", "RULES", "MODELS", "HOST", "PORT", "WORKERS", "WRITE_KEYS", "SERVER_KEYS",
        "ADMIN_TOKEN", "TLS_CERT", "TLS_KEY", "USER_TOKENS", "USER_TOKEN_KEY", "APNS_URL", "APNS_KEY_FILE",
        "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC", "FCM_URL", "FCM_CREDENTIALS_FILE", "WEBPUSH_KEY_FILE",
        "WEBPUSH_SUBJECT", "WEATHER_URL",
    )
)  # fmt: skip
"""Of design 5.2."""

ALL_KEYS = {"WRITE_KEYS": "app", "SERVER_KEYS": "shop", "ADMIN_TOKEN": "operator"}
NO_KEYS = dict.fromkeys(ALL_KEYS, "")


def settings(**variables: str) -> Settings:
    """Of VIEWFINDER_… variables, written without the prefix."""
    return from_environment({f"VIEWFINDER_{name}": value for name, value in variables.items()})


def problems(**variables: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings(**variables)
    return [problem.removeprefix("VIEWFINDER_") for problem in caught.value.problems]


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as found:
        yield found


# What there is.


def test_serve_lists_every_setting(folder: Path) -> None:
    ended = served.command(folder, "serve", "--help")
    assert ended.returncode == 0
    listed = dict(re.findall(r"^(VIEWFINDER_\w+)(.*)", ended.stdout, re.MULTILINE))
    assert set(listed) >= DOCUMENTED
    assert set(listed) == {setting.variable for setting in SETTINGS}
    assert {name: text.split("]")[0] for name, text in listed.items() if text.startswith(" [")} == {
        "VIEWFINDER_DATA": " [.viewfinder",
        "VIEWFINDER_RULES": " [rules",
        "VIEWFINDER_MODELS": " [models",
        "VIEWFINDER_HOST": " [127.0.0.1",
        "VIEWFINDER_PORT": " [8080",
        "VIEWFINDER_WORKERS": " [1",
        "VIEWFINDER_USER_TOKENS": " [off",
        "VIEWFINDER_FCM_URL": " [https://fcm.googleapis.com",
        "VIEWFINDER_CLOCK": " [system",
        "VIEWFINDER_SILENCE_MINUTES": " [30",
        "VIEWFINDER_CACHE_MB": " [256",
    }


def test_what_is_not_said_is_as_documented() -> None:
    said = from_environment({"PATH": "/bin", "VIEWFINDE_PORT": "x"})
    assert (said.data, said.rules, said.models) == (".viewfinder", "rules", "models")
    assert (said.host, said.port, said.workers) == ("127.0.0.1", 8080, 1)
    assert (said.database_url, said.admin_token, said.user_tokens) == (None, None, "off")
    assert (said.write_keys, said.server_keys) == ((), ())


def test_what_is_said_is_taken() -> None:
    said = settings(
        DATABASE_URL="postgresql:///v?host=/run/postgresql", DATA="d", RULES="r", MODELS="m", HOST="::1",
        PORT="0", WORKERS="4", WRITE_KEYS="a, b,", SERVER_KEYS="c", ADMIN_TOKEN="t", TLS_CERT="x.pem",
        TLS_KEY="y.pem", CLOCK="replay", CACHE_MB="16", FCM_URL="http://127.0.0.1:9",
        FCM_CREDENTIALS_FILE="f.json",
    )  # fmt: skip
    assert said.database_url == "postgresql:///v?host=/run/postgresql"
    assert (said.data, said.rules, said.models, said.host, said.port) == ("d", "r", "m", "::1", 0)
    assert (said.workers, said.cache_mb, said.clock) == (4, 16, "replay")
    assert (said.write_keys, said.server_keys, said.admin_token) == (("a", "b"), ("c",), "t")
    assert (said.tls_cert, said.tls_key) == ("x.pem", "y.pem")
    assert (said.fcm_url, said.fcm_credentials_file) == ("http://127.0.0.1:9", "f.json")


# What is wrong.


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PRT", "did you mean VIEWFINDER_PORT?"),
        ("WRITE_KEY", "did you mean VIEWFINDER_WRITE_KEYS?"),
        ("FCM_CREDENTIALS", "did you mean VIEWFINDER_FCM_CREDENTIALS_FILE?"),
        ("ADMIN_TOKN_FILE", "did you mean VIEWFINDER_ADMIN_TOKEN_FILE?"),
        ("write_keys", "did you mean VIEWFINDER_WRITE_KEYS?"),
        ("XYZ", "see viewfinder serve --help"),
        ("LOG_LEVEL", "see viewfinder serve --help"),
    ],
)
def test_an_unknown_variable(name: str, hint: str) -> None:
    assert problems(**{name: "x"}) == [f"{name}: there is no such setting; {hint}"]


def test_all_that_is_wrong_comes_at_once(folder: Path) -> None:
    wrong = {
        "CACHE_MB": "0", "CLOCK": "fast", "DATABASE_URL": "mysql://shop", "FCM_URL": "ftp://push",
        "PORT": "http", "PRT": "80", "SERVER_KEYS": "app", "TLS_CERT": "x.pem", "USER_TOKENS": "sometimes",
        "WORKERS": "many", "WRITE_KEYS": "app",
    }  # fmt: skip
    assert problems(**wrong) == [
        "CACHE_MB: must be a whole number from 1 to 1000000, not '0'",
        "CLOCK: must be one of system, replay, not 'fast'",
        "DATABASE_URL: must be a URL that starts with postgres:// or postgresql://",
        "FCM_URL: must be a URL that starts with http:// or https://",
        "PORT: must be a whole number from 0 to 65535, not 'http'",
        "PRT: there is no such setting; did you mean VIEWFINDER_PORT?",
        "USER_TOKENS: must be one of off, optional, required, not 'sometimes'",
        "WORKERS: must be a whole number from 1 to 64, not 'many'",
        "TLS_CERT and VIEWFINDER_TLS_KEY: set both or none",
        "WRITE_KEYS and VIEWFINDER_SERVER_KEYS: a key is in both",
    ]
    ended = served.command(folder, "serve", **wrong)
    assert ended.returncode == 2
    said = [line.strip() for line in ended.stderr.splitlines()[1:]]
    assert [line.removeprefix("VIEWFINDER_") for line in said] == problems(**wrong)
    assert not (folder / "data").exists()


@pytest.mark.parametrize("value", ["-1", "65536", "8080.0", "", "0x50", "port"])
def test_a_port_that_is_none(value: str) -> None:
    [problem] = problems(PORT=value)
    assert problem == f"PORT: must be a whole number from 0 to 65535, not {value!r}"


@pytest.mark.parametrize("value", ["", ",", " , ,"])
def test_keys_that_are_none(value: str) -> None:
    assert problems(WRITE_KEYS=value) == ["WRITE_KEYS: needs at least one key, comma-separated"]


def test_a_public_key_gives_no_more_than_a_public_key_should() -> None:
    """Write keys stand in every app: one that is a server key or the admin token too opens everything."""
    assert problems(WRITE_KEYS="a,b", SERVER_KEYS="c,b", ADMIN_TOKEN="t")
    assert problems(WRITE_KEYS="a,b", SERVER_KEYS="c", ADMIN_TOKEN="b")


# From files.


def test_every_setting_may_come_from_a_file(tmp_path: Path) -> None:
    said = {
        "DATABASE_URL": "postgres://h/d", "PORT": "81", "WORKERS": "2", "WRITE_KEYS": "a,b", "CACHE_MB": "5",
        "USER_TOKENS": "off", "APNS_URL": "https://push", "FCM_URL": "https://push", "CLOCK": "replay",
        "WEATHER_URL": "https://sky", "HOST": "localhost", "SILENCE_MINUTES": "7",
        "RECEIVERS_ALLOW": "10.0.0.0/8,crm",
    }  # fmt: skip
    names = [setting.variable.removeprefix("VIEWFINDER_") for setting in SETTINGS]
    values = {name: said.get(name, f"the {name}") for name in names}
    for name, value in values.items():
        (tmp_path / name).write_text(f"{value}\n", "utf-8")
    from_files = settings(**{f"{name}_FILE": str(tmp_path / name) for name in names})
    assert from_files == settings(**values)
    assert from_files != settings()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe", "cannot be read: it is not UTF-8"),
        (b"", "is empty"),
        (b" \n", "is empty"),
    ],
)
def test_a_file_that_holds_no_secret(content: bytes | None, why: str, tmp_path: Path) -> None:
    """An empty one must not let another token be made without a word."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    [problem] = problems(ADMIN_TOKEN_FILE=str(file))
    assert problem.startswith("ADMIN_TOKEN_FILE: ")
    assert why in problem


def test_a_setting_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from the file")
    assert problems(ADMIN_TOKEN="said", ADMIN_TOKEN_FILE=str(tmp_path / "token")) == [
        "ADMIN_TOKEN_FILE: VIEWFINDER_ADMIN_TOKEN is set too; set one of them"
    ]
    assert problems(ADMIN_TOKEN_FILE=str(tmp_path)) == ["ADMIN_TOKEN_FILE: cannot be read: Is a directory"]


def test_a_wrong_value_from_a_file_names_the_file_s_variable(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("http\n")
    [problem] = problems(PORT_FILE=str(tmp_path / "port"))
    assert problem == "PORT_FILE: must be a whole number from 0 to 65535, not 'http'"


# Who may reach it.

OUTSIDE = [
    "0.0.0.0",
    "::",
    "192.168.1.20",
    "example.com",
    "127.0.0.1.example.com",
    "localhost.example.com",
    "",
]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert settings(HOST=host).host == host
    assert settings(HOST=host, CLOCK="replay").clock == "replay"


@pytest.mark.parametrize("host", OUTSIDE)
def test_another_host_is_refused_without_user_tokens_and_keys(host: str) -> None:
    without = problems(HOST=host)
    assert [problem.partition(":")[0] for problem in without] == [
        "HOST",
        "WRITE_KEYS",
        "SERVER_KEYS",
        "ADMIN_TOKEN",
    ]
    assert "user tokens" in without[0]
    assert [problem.partition(":")[0] for problem in problems(HOST=host, **ALL_KEYS)] == ["HOST"]
    partly = problems(HOST=host, WRITE_KEYS="a", ADMIN_TOKEN="t")
    assert [problem.partition(":")[0] for problem in partly] == ["HOST", "SERVER_KEYS"]


@pytest.mark.parametrize("host", OUTSIDE)
def test_a_replay_clock_is_refused_outside_loopback(host: str) -> None:
    said = problems(HOST=host, CLOCK="replay", **ALL_KEYS)
    assert "CLOCK: a replay clock is refused on any host but loopback" in said


@pytest.mark.parametrize("how", ["optional", "required"])
def test_user_tokens_that_are_not_built_are_not_promised(how: str) -> None:
    said = problems(HOST="0.0.0.0", USER_TOKENS=how, USER_TOKEN_KEY="key.pem", **ALL_KEYS)
    assert said == ["USER_TOKENS: user tokens are not supported yet; leave it off"]


def test_serve_does_not_listen_where_it_must_not(folder: Path) -> None:
    ended = served.command(folder, "serve", HOST="0.0.0.0", **NO_KEYS)
    assert ended.returncode == 2
    assert "VIEWFINDER_HOST: 0.0.0.0 is not loopback" in ended.stderr
    assert "VIEWFINDER_ADMIN_TOKEN: must be set on any host but loopback" in ended.stderr
    assert not (folder / "data").exists()


# Keys that are made.


def test_keys_are_made_once_and_kept_for_their_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "a" / "data"
    before = os.umask(0)
    try:
        first, made = load_or_create_keys(settings(DATA=str(data)))
    finally:
        os.umask(before)
    assert made
    [file] = data.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again, made_again = load_or_create_keys(settings(DATA=str(data)))
    assert not made_again
    assert again == first
    assert first.admin_token is not None
    keys = {*first.write_keys, *first.server_keys, first.admin_token}
    assert len(keys) == 3
    assert all(len(key) >= 32 for key in keys)
    other, _ = load_or_create_keys(settings(DATA=str(tmp_path / "b")))
    assert keys.isdisjoint({*other.write_keys, *other.server_keys, other.admin_token})


def test_keys_that_others_may_read_are_not_used_as_they_are(tmp_path: Path) -> None:
    """A restored backup, or a chmod too many: mended or refused, but not let pass."""
    load_or_create_keys(settings(DATA=str(tmp_path)))
    file = tmp_path / "keys.json"
    file.chmod(0o644)
    refused = ""
    try:
        load_or_create_keys(settings(DATA=str(tmp_path)))
    except SettingsError as fault:
        refused = str(fault)
    assert str(file) in refused or stat.S_IMODE(file.stat().st_mode) == 0o600


def test_only_what_is_not_said_is_made(tmp_path: Path) -> None:
    said = settings(DATA=str(tmp_path), WRITE_KEYS="app", ADMIN_TOKEN="operator")
    found, made = load_or_create_keys(said)
    assert made
    assert (found.write_keys, found.admin_token) == (("app",), "operator")
    assert len(found.server_keys) == 1
    complete = settings(DATA=str(tmp_path / "none"), **ALL_KEYS)
    assert load_or_create_keys(complete) == (complete, False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b"\xff", b'{"write_key": 1}'])
def test_a_spoilt_file_of_keys_is_said_and_kept(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_or_create_keys(settings(DATA=str(tmp_path)))
    assert str(file) in str(caught.value)
    assert file.read_bytes() == content


def test_serve_says_that_its_keys_are_spoilt(folder: Path) -> None:
    served.write_workspace(folder / "rules")
    (folder / "data").mkdir()
    (folder / "data" / "keys.json").write_text("{}")
    ended = served.command(folder, "serve", **NO_KEYS)
    assert ended.returncode in (1, 2)
    assert "keys.json: cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [entry.name for entry in (folder / "data").iterdir()] == ["keys.json"]


def test_serve_shows_made_keys_once_and_takes_them(folder: Path, postgres_dsn: str) -> None:
    with served.serve(folder, postgres_dsn, **NO_KEYS) as first:
        write, server, admin = re.findall(
            r"^  (?:write key|server key|admin token) +(\S+)$", first.stdout, re.M
        )
        everything = first.stdout + first.stderr
        assert all(everything.count(key) == 1 for key in (write, server, admin))
        assert all(first.stderr.count(key) == 0 for key in (write, server, admin))
        event = {"userId": "ada", "event": "Thank Me", "messageId": "m1"}
        with first.client(write) as app, first.client(None) as nobody:
            assert app.post("/v1/track", json=event).status_code == 200
            token = {"authorization": f"Bearer {admin}"}
            assert nobody.get("/admin/profiles/user_id/ada", headers=token).status_code == 200
            assert nobody.get("/admin/profiles/user_id/ada").status_code == 401
            token = {"authorization": f"Bearer {write}"}
            assert nobody.get("/admin/profiles/user_id/ada", headers=token).status_code in (401, 403)
    with served.serve(folder, postgres_dsn, **NO_KEYS) as second:
        everything = second.stdout + second.stderr
        assert not any(key in everything for key in (write, server, admin))
        with second.client(server) as shop:
            assert shop.post("/v1/track", json=event | {"messageId": "m2"}).status_code == 200


# Secrets.

SECRETS = {
    "WRITE_KEYS": "s3cret-app", "SERVER_KEYS": "s3cret-shop", "ADMIN_TOKEN": "s3cret-operator",
    "USER_TOKEN_KEY": "s3cret-pem", "DATABASE_URL": "postgres://viewfinder:s3cret-word@db/viewfinder",
}  # fmt: skip


def test_no_secret_is_in_a_repr(tmp_path: Path) -> None:
    said = settings(DATA=str(tmp_path), **SECRETS)
    keys = Keys(frozenset(said.write_keys), frozenset(said.server_keys))
    for shown in (repr(said), str(said), f"{said}", repr([said]), repr(keys)):
        assert "s3cret" not in shown
    made, _ = load_or_create_keys(settings(DATA=str(tmp_path)))
    assert made.admin_token is not None
    assert made.admin_token not in repr(made)


@pytest.mark.parametrize(
    "variables",
    [
        {"DATABASE_URL": "mysql://viewfinder:s3cret@db/viewfinder"},
        {"DATABASE_URL": "postgres://viewfinder:s3cret@[db/viewfinder"},
        {"WRITE_KEYS": "s3cret,b", "SERVER_KEYS": "s3cret"},
        {"ADMIN_TOKEN": "s3cret", "PORT": "x"},
        {"ADMIN_TOKN": "s3cret"},
    ],
)
def test_no_secret_is_in_a_complaint(variables: dict[str, str]) -> None:
    assert "s3cret" not in "\n".join(problems(**variables))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_secret_is_on_a_command_line(folder: Path, postgres_dsn: str) -> None:
    """Anyone on the machine can list those, also of the workers that `serve` starts."""
    assert "://viewfinder@" in postgres_dsn
    dsn = postgres_dsn.replace("://viewfinder@", "://viewfinder:s3cret-word@")
    keys = {name: value for name, value in SECRETS.items() if "KEYS" in name}
    with served.serve(folder, dsn, WORKERS="2", **keys) as engine:
        children = Path(f"/proc/{engine.process.pid}/task/{engine.process.pid}/children").read_text().split()
        assert len(children) >= 2
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children]
        assert all(b"serve" in line for line in lines)
        assert not any(b"s3cret" in line for line in lines)
        assert "s3cret" not in engine.stdout + engine.stderr
