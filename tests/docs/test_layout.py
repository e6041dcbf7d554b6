"""The layout of the tests: shared code has its own modules, and unit tests start no process and open no socket."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

TESTS = Path(__file__).parents[1]
OUTSIDE = {"subprocess", "multiprocessing", "socket", "socketserver", "http.server"}
"""Modules for processes and sockets."""

if TYPE_CHECKING:
    from collections.abc import Iterator


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_imports_a_test_module_or_conftest() -> None:
    wrong = [
        f"{path.relative_to(TESTS)}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for name in imports(path)
        if name.startswith("tests.") and any(part.startswith(("test_", "conftest")) for part in name.split("."))
    ]
    # Names of functions begin with test_ too, but no helper module has one.
    assert wrong == []


def test_unit_tests_use_no_process_and_no_socket() -> None:
    wrong = {
        f"{path.relative_to(TESTS)}: {name}"
        for path in sorted((TESTS / "unit").rglob("*.py"))
        for name in imports(path)
        if name in OUTSIDE
    }
    assert wrong == set()
