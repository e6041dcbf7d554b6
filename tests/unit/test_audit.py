from __future__ import annotations

import pytest

from tests.audit import PROJECT, bill_of_materials, closure, is_allowed, vulnerabilities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND 0BSD AND Zlib", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("LGPL-3.0 OR MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-2.0-or-later", False),
        ("GNU General Public License v3 (GPLv3); MIT", False),
        ("unknown", False),
        ("Proprietary", False),
        ("limited", False),
    ],
)
def test_licences_are_judged(text: str, expected: bool) -> None:
    assert is_allowed(text) is expected


def test_the_bill_lists_what_the_extras_bring_and_no_tool() -> None:
    document = bill_of_materials(closure(PROJECT, {"all"}))
    names = {component["name"] for component in document["components"]}
    assert {"aiokafka", "asyncpg", "greenlet", "pyarrow", "torch"} <= names
    assert not names & {"pytest", "ruff", "mypy", PROJECT}
    assert all(component["purl"].endswith(f"@{component['version']}") for component in document["components"])
    assert document == bill_of_materials(closure(PROJECT, {"all"}))


def test_without_a_program_nothing_counts_as_audited() -> None:
    assert vulnerabilities("/nowhere/uv") == ([], 0, 0)
