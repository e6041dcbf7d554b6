"""The static member id of a killed process."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from monitor.kafka.membership import static_member_id

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import pathlib, sys, time
from monitor.kafka.membership import static_member_id
with static_member_id(pathlib.Path(sys.argv[1]), "monitor") as name:
    print(name, flush=True)
    time.sleep(60)
"""


def test_the_id_of_a_killed_process_goes_to_the_next(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        with static_member_id(tmp_path, "monitor") as other:
            assert other != name
    finally:
        child.kill()
        child.communicate()
    with static_member_id(tmp_path, "monitor") as again:
        assert again == name
