"""Valid and refused values of `[store].url`."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.errors import ConfigError
from monitor.store.url import parse


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///monitor.db", "monitor.db"),
        ("sqlite:////var/lib/monitor.db", "/var/lib/monitor.db"),
        ("sqlite+aiosqlite:///a b/monitor.db", "a b/monitor.db"),
    ],
)
def test_a_sqlite_url_names_a_file(url: str, path: str) -> None:
    address = parse(url)
    assert address.is_sqlite
    assert address.path == Path(path)
    assert str(address) == path


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_postgresql_url_gets_asyncpg_and_hides_its_password(scheme: str) -> None:
    address = parse(f"{scheme}://monitor:s3cret@db:5432/monitor?ssl=require")
    assert address.url == "postgresql+asyncpg://monitor:s3cret@db:5432/monitor?ssl=require"
    assert not address.is_sqlite
    assert "s3cret" not in str(address) + repr(address)


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_sslmode_of_libpq_is_accepted(mode: str) -> None:
    assert parse(f"postgresql://db/monitor?sslmode={mode}").url == f"postgresql+asyncpg://db/monitor?ssl={mode}"


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://db/monitor", "monitor.db", "", "mysql://monitor:s3cret@db/x"]
)
def test_another_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///monitor") as caught:
        parse(url)
    assert "s3cret" not in str(caught.value)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown option pool; there are host, port, ssl"):
        parse("postgresql://db/monitor?ssl=require&pool=5")
