"""Each SQL query of the dashboards on a real PostgreSQL, as the role that Grafana has, with rows in every table."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from monitor.store import schema
from monitor.store.engine import AsyncStore
from tests import example_database
from tests.servers import ROOT

if TYPE_CHECKING:
    from tests.servers import PostgresServer

GRAFANA = ROOT / "deploy" / "grafana"
BOARD = json.loads((GRAFANA / "dashboards" / "alerts.json").read_text())
PANELS = {panel["title"]: panel["targets"] for panel in BOARD["panels"] if panel["type"] != "row"}
VARIABLES = {variable["name"]: variable["query"] for variable in BOARD["templating"]["list"]}
MAY_BE_EMPTY = {"Silent assets", "Trainings", "Shelves and maintenance in force", "Who did what"}
SINCE_S = int(example_database.START.timestamp()) - 86_400
MACROS = {
    "$__unixEpochFrom()": str(SINCE_S),
    "$__unixEpochTo()": str(SINCE_S + 30 * 86_400),
    "${fleet:sqlstring}": "'turbines'",
    "${asset:sqlstring}": "'R80711','R80736'",
}


def as_grafana_sends(sql: str) -> str:
    for macro, value in MACROS.items():
        sql = sql.replace(macro, value)
    assert "$" not in sql, "an unknown macro"
    return sql


@pytest.fixture(scope="module")
def rows(postgres: PostgresServer) -> Any:
    """A call of a query as the role `grafana`, on the example database."""
    url = postgres.url()

    async def fill() -> None:
        await schema.upgrade(url)
        async with AsyncStore(url, owner=True) as store:
            await store.run(example_database._add_versions)
            await store.run(example_database._add_results)

    asyncio.run(fill())
    for statement in (GRAFANA / "role.sql").read_text().split(";"):
        sql = re.sub(r"--.*", "", statement).strip().replace(":'password'", "'secret'")
        if "\\gexec" in sql:
            _, sql = sql.split("\\gexec")
            postgres.execute("CREATE ROLE grafana LOGIN", url=url)
        if sql.strip():
            postgres.execute(sql, url=url)

    def fetch(sql: str) -> list[dict[str, Any]]:
        import asyncpg

        async def run() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(url.replace("monitor@", "grafana:secret@"))
            try:
                return [dict(row) for row in await connection.fetch(sql)]
            finally:
                await connection.close()

        return asyncio.run(run())

    return fetch


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_has_rows(title: str, rows: Any) -> None:
    for target in PANELS[title]:
        found = rows(as_grafana_sends(target["rawSql"]))
        assert found or title in MAY_BE_EMPTY
        if target["format"] == "time_series":
            assert {"time", "metric"} <= found[0].keys()
            assert len(found[0]) == 3


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_has_values(name: str, rows: Any) -> None:
    assert [tuple(row.values()) for row in rows(as_grafana_sends(VARIABLES[name]))] in (
        [("turbines",)],
        [("R80711",), ("R80736",)],
    )


@pytest.mark.parametrize("sql", ["SELECT * FROM console_token", "SELECT link_key FROM identity", "DELETE FROM act"])
def test_grafanas_role_reads_figures_alone(sql: str, rows: Any) -> None:
    with pytest.raises(Exception, match=r"permission denied|read-only transaction"):
        rows(sql)
