"""One parser of database URLs: the driver, the checks and every message agree on where the password is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import make_url

from monitor.config import load, store_url
from monitor.config.database_url import has_password, mask_url, split_postgresql
from monitor.errors import ConfigError
from monitor.store.url import parse

if TYPE_CHECKING:
    from pathlib import Path

PASSWORDS = [
    "sl/SEKRET", "etPW@SEKRET", "SEKRET?x=1", "SEKRET#1", "100%SEKRET", "a:SEKRET", "://SEKRET@", "ü SEKRET+&=",
]  # fmt: skip
BASE = """
[kafka]
bootstrap = "h:9092"
topics = ["t"]
[[fleet]]
name = "f"
interval = "1s"
"""


@pytest.mark.parametrize("password", PASSWORDS)
def test_the_driver_gets_password_host_and_database(password: str) -> None:
    for scheme in ("postgresql", "postgres"):
        address = parse(f"{scheme}://monitor:{password}@db.example:5433/plant?sslmode=require")
        found = make_url(address.url)
        assert (found.username, found.password) == ("monitor", password)
        assert (found.host, found.port, found.database) == ("db.example", 5433, "plant")
        assert found.query == {"ssl": "require"}


@pytest.mark.parametrize("password", PASSWORDS)
def test_no_form_of_the_url_repeats_the_password(password: str) -> None:
    url = f"postgresql://monitor:{password}@db.example/plant"
    shown = [mask_url(url), repr(split_postgresql(url)), str(parse(url)), repr(parse(url))]
    assert "SEKRET" not in "".join(shown)
    assert mask_url(url) == "postgresql://monitor:***@db.example/plant"


@pytest.mark.parametrize("login", ["SEKRET/x", ":SEKRET", "SEKRET/x:y", "SEKRET@x"])
def test_an_odd_user_name_is_hidden_too(login: str) -> None:
    assert mask_url(f"postgresql://{login}@db/plant") == "postgresql://***@db/plant"


def test_an_encoded_password_is_decoded_once() -> None:
    assert make_url(parse("postgresql://u:a%2Fb%25@h/d").url).password == "a/b%"


@pytest.mark.parametrize(
    "rest", ["u:SEK/RET@h:x/d", "u:SEK@RET@h", "u:SEKRET@h/d?pool=1", "u:SEKRET@h:99999/d", "u:SEKRET/h/d"]
)
def test_an_error_repeats_nothing_of_the_login(rest: str, tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(f'{BASE}[store]\nurl = "postgresql://{rest}"\n')
    file.chmod(0o640)
    for read in (load, store_url):
        with pytest.raises(ConfigError, match=r"store\.url: \(hidden\)") as caught:
            read(file, {})
        assert not any(part in str(caught.value) for part in ("SEK", "RET"))


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_readable_file_may_not_hold_any_password(password: str, tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text(f"{BASE}[store]\nurl = 'postgresql://u:{password}@h/d'\n")
    file.chmod(0o644)
    assert has_password(f"postgresql://u:{password}@h/d")
    with pytest.raises(ConfigError, match="has mode 0644"):
        load(file, {})


def test_sockets_and_ipv6_hosts_are_read() -> None:
    assert make_url(parse("postgresql://u@/d?host=/run/postgresql").url).query == {"host": "/run/postgresql"}
    assert make_url(parse("postgresql://u:p@[::1]:5432/d").url).host == "::1"
    assert make_url(parse("postgresql:///d").url).database == "d"
