"""The page of the library: its example runs as written and finds the fault that it describes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from monitor import Detector
from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PAGE = (ROOT / "deploy" / "library.md").read_text("utf-8")
FAULT = range(6000, 6120)


def test_the_example_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "deploy/library.md", "exec"), names)
    said = capsys.readouterr().out
    found = [alert for alert in names["detector"].alerts(names["frame"]) if alert.first_row >= FAULT.start - 32]
    assert len(found) == 1, said
    assert found[0].first_row in FAULT
    assert found[0].sensors[0].name == "pressure"
    assert said.count("peak ") == 1
    assert f"{names['worst'].sensors[0].share:4.0%}" in said


def test_every_public_name_and_argument_is_on_the_page() -> None:
    public = {name for name in vars(Detector) if not name.startswith("_")} | Detector().get_params().keys()
    assert [name for name in sorted(public) if not re.search(rf"`[^`\n]*\b{name}\b", PAGE)] == []
