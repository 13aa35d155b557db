"""Settings from everywhere, their errors as sentences, and which addresses may be dialled (I45)."""

from __future__ import annotations

from pathlib import Path

import pytest

from amends_server.addresses import is_allowed, parse_address, parse_pattern
from amends_server.clock import SystemClock
from amends_server.config import CALLS_IN_FLIGHT_MAX, SettingsError, load_settings, without_password
from amends_server.ids import new_id

LOOPBACK = ("127.0.0.1:*", "localhost:*", "[::1]:*")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "CONFIG",
        "LISTEN",
        "STORE",
        "PARTICIPANTS",
        "PARTICIPANT_ALLOW",
        "DRAIN_S",
        "REFLECTION",
        "LOG_LEVEL",
    ):
        monkeypatch.delenv(f"AMENDS_{name}", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_defaults(folder: Path) -> None:
    settings = load_settings()
    assert settings.listen == "127.0.0.1:7242"
    assert settings.store == f"sqlite:///{folder}/data/amends/amends.db"
    assert settings.participants == {}
    assert settings.participant_allow == LOOPBACK
    assert settings.payload_bytes_max == 1 << 20


def test_without_a_data_folder_it_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load_settings().store == "sqlite:////home/somebody/.local/share/amends/amends.db"


def test_an_argument_goes_before_the_environment_before_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "amends.toml").write_text('listen = "127.0.0.1:1"\nstore = "memory:"\ndrain_s = 1\nlog_level = "debug"\n')
    monkeypatch.setenv("AMENDS_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("AMENDS_DRAIN_S", "2")
    settings = load_settings(listen="127.0.0.1:3", store=None)
    assert (settings.listen, settings.drain_s, settings.store, settings.log_level) == (
        "127.0.0.1:3",
        2.0,
        "memory:",
        "debug",
    )


def test_the_environment_can_name_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "amends.toml").write_text('log_level = "debug"\n')
    (folder / "other.toml").write_text('log_level = "error"\n')
    monkeypatch.setenv("AMENDS_CONFIG", str(folder / "other.toml"))
    assert load_settings().log_level == "error"


def test_participants_are_addresses_or_tables(folder: Path) -> None:
    (folder / "amends.toml").write_text(
        '[participants]\nbank = "localhost:7301"\nshop = {address = "[0:0::1]:7302", concurrency_max = 4}\n'
    )
    participants = load_settings().participants
    assert (participants["bank"].address, participants["bank"].concurrency_max) == (
        "localhost:7301",
        CALLS_IN_FLIGHT_MAX,
    )
    assert (participants["shop"].address, participants["shop"].concurrency_max) == ("[::1]:7302", 4)


def test_participants_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENDS_PARTICIPANTS", '{"bank": "localhost:7301"}')
    assert load_settings().participants["bank"].address == "localhost:7301"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("lisen = 1\n", ["no setting `lisen`", "listen"]),
        ('[participants.bank]\naddress = "localhost:1"\nport = 2\n', ["no setting `participants.bank.port`"]),
        ('listen = "nowhere"\n', ["setting listen", "`nowhere` is not HOST:PORT", "AMENDS_LISTEN=…", "amends.toml"]),
        ('listen = "127.0.0.1:65536"\n', ["setting listen", "from 0 to 65535"]),
        ('store = "mysql://me:hush@x"\n', ["setting store", "sqlite:///PATH", "postgresql://", "me:***@x"]),
        ('store = "sqlite:///"\n', ["setting store", "sqlite:///PATH"]),
        ("drain_s = -1\n", ["setting drain_s", "AMENDS_DRAIN_S=…"]),
        ('log_level = "loud"\n', ["setting log_level", "'debug', 'info'"]),
        ('participant_allow = ["10.0.*:1"]\n', ["setting participant_allow", "`10.0.*:1`"]),
        ('[participants]\nbank = "unix:/tmp/x"\n', ["setting participants.bank", "`unix:/tmp/x`"]),
        ('[participants]\nbank = "10.0.0.1:1"\n', ["participants.bank", "participant_allow does not allow"]),
        ("[participants.bank]\naddress = 'localhost:1'\nconcurrency_max = 0\n", ["participants.bank.concurrency_max"]),
        ("listen = \n", ["amends.toml", "not valid TOML"]),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(folder: Path, toml: str, words: list[str]) -> None:
    (folder / "amends.toml").write_text(toml)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    "url",
    ["me:hu#sh@x/sagas", "me:hu/sh@x/sagas", "me:5/hush@x/sagas", "me:5?hush@x/sagas", "x:hush/sagas", "[::1/sagas"],
)
def test_a_database_whose_host_cannot_be_told_from_the_password_is_refused_unseen(url: str) -> None:
    with pytest.raises(SettingsError, match="postgresql://USER:PASSWORD@HOST:PORT/DATABASE") as caught:
        load_settings(store=f"postgresql://{url}")
    assert "hu" not in str(caught.value)
    assert "sh@" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hu:sh@x/sagas", "postgresql://me:***@x/sagas"),
        ("postgresql://me:hu@sh@x:1,y:2/sagas?a=b", "postgresql://me:***@x:1,y:2/sagas?a=b"),
        ("postgres://[::1]:5432/sagas?password=hush&a=b", "postgres://[::1]:5432/sagas?password=***&a=b"),
        ("postgresql:///?host=/run/postgresql&user=me", "postgresql:///?host=/run/postgresql&user=me"),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(load_settings(store=url).store) == shown


def test_a_named_file_must_exist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENDS_CONFIG", str(folder / "nowhere.toml"))
    with pytest.raises(SettingsError, match=r"AMENDS_CONFIG names the file .*nowhere\.toml, which does not exist"):
        load_settings()


def test_a_table_in_the_environment_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENDS_PARTICIPANTS", "bank=localhost:1")
    with pytest.raises(SettingsError, match=r"participants.*JSON"):
        load_settings()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "127.0.0.1:65535", "localhost:80", "LOCALHOST:80", "[::1]:9", "[0:0:0:0:0:0:0:1]:9"],
)
def test_i45_loopback_is_allowed(address: str) -> None:
    assert is_allowed(address, LOOPBACK)


@pytest.mark.parametrize(
    "address",
    [
        *("", ":", ":80", "localhost", "localhost:", "localhost:0", "localhost:65536", "localhost:+1", "localhost:１"),
        *("127.0.0.1.evil.com:1", "evil.com:1", "localhost.:1", "localhost.evil.com:1", "127.0.0.1:1.evil.com:1"),
        *("user@127.0.0.1:1", "127.0.0.1@evil.com:1", "127.0.0.1:1@evil.com:1", "127.0.0.1:1/../x", "127.0.0.1%00:1"),
        *(
            "dns:///127.0.0.1:1",
            "dns:127.0.0.1:1",
            "dns://evil.com/127.0.0.1:1",
            "ipv4:127.0.0.1:1",
            "http://localhost:1",
        ),
        *("unix:/tmp/socket", "unix:1", "unix:///tmp/localhost:1", "vsock:1:1", "xds:///localhost:1"),
        *("127.0.0.1:1,evil.com:1", "127.0.0.1:1\n", " 127.0.0.1:1", "127.0.0.1:1 ", "127.0.0.1 :1", "127.0.0.1:1\0"),
        *("127.1:1", "2130706433:1", "0x7f000001:1", "0177.0.0.1:1", "127.0.0.2:1", "0.0.0.0:1", "1２7.0.0.1:1"),
        *("[::ffff:127.0.0.1]:1", "[::1%lo]:1", "[::]:1", "::1:1", "[::1]", "[::1]x:1", "[localhost]:1", "[::1]:1]:1"),
    ],
)
def test_i45_what_only_looks_like_loopback_is_not(address: str) -> None:
    assert not is_allowed(address, LOOPBACK)


@pytest.mark.parametrize(
    ("pattern", "address", "allowed"),
    [
        ("*:*", "anything.example:1", True),
        ("*:*", "unix:/tmp/x", False),
        ("*:7000", "a:7000", True),
        ("*:7000", "a:7001", False),
        ("*.example.com:*", "a.b.example.com:1", True),
        ("*.example.com:*", "example.com:1", False),
        ("*.example.com:*", "badexample.com:1", False),
        ("*.EXAMPLE.com:*", "a.example.COM:1", True),
        ("shop:7301", "shop:7301", True),
        ("shop:7301", "shop:73010", False),
        ("[::1]:5", "[0::1]:5", True),
    ],
)
def test_i45_patterns(pattern: str, address: str, allowed: bool) -> None:
    assert is_allowed(address, [pattern]) is allowed


@pytest.mark.parametrize(
    "pattern", ["", "*", "**:*", "a*:1", "10.0.*:1", "*.*.com:1", "localhost", "dns:///a:1", "*.:1"]
)
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        parse_pattern(pattern)


def test_a_host_that_is_called_like_a_scheme_is_dialled_as_a_host() -> None:
    assert parse_address("unix:80").target == "dns:///unix:80"


def test_ids_sort_by_time_and_do_not_meet_again() -> None:
    now = SystemClock().now()
    ids = [new_id(now + i * 1_000) for i in range(100)]
    assert ids == sorted(ids)
    assert len({new_id(now) for _ in range(1_000)}) == 1_000
    assert all(len(name) == 32 and name.isalnum() for name in ids)
