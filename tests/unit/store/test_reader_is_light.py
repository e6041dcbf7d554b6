"""Imports of an operator's read command."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "sqlalchemy", "alembic", "asyncio", "numpy", "torch", "pydantic", "structlog", "asyncpg", "aiosqlite",
    "prometheus_client",
}  # fmt: skip


def test_reading_sqlite_imports_nothing_slow(tmp_path: object) -> None:
    program = (
        "import sys; from monitor.store.reader import open_reader; from monitor.errors import NotFound\n"
        f"try: open_reader('sqlite:///{tmp_path}/none.db')\n"
        "except NotFound: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "sqlite3" in loaded
    assert not loaded & HEAVY
