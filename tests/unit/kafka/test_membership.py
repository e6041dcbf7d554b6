"""A name that lasts over restarts, and that no two living processes have."""

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


def test_who_comes_second_has_another_name_and_who_comes_back_has_the_old_one(tmp_path: Path) -> None:
    with static_member_id(tmp_path, "monitor") as first:
        with static_member_id(tmp_path, "monitor") as second:
            assert first != second
        with static_member_id(tmp_path, "monitor") as again:
            assert again == second
    with static_member_id(tmp_path, "monitor") as back:
        assert back == first


def test_groups_and_folders_do_not_take_names_from_each_other(tmp_path: Path) -> None:
    with (
        static_member_id(tmp_path / "a", "monitor") as one,
        static_member_id(tmp_path / "a", "other") as same_seat,
        static_member_id(tmp_path / "b", "monitor") as another,
    ):
        assert one == same_seat  # of two groups: Kafka does not compare them
        assert one != another


def test_a_killed_process_leaves_its_name_to_the_next(tmp_path: Path) -> None:
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


def test_two_folders_at_one_path_on_two_machines_of_one_name_do_not_share_a_name(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    with static_member_id(path, "monitor") as here:
        pass
    path.rename(tmp_path / "of the other machine")
    with static_member_id(path, "monitor") as there:
        assert here != there


def test_a_folder_that_is_moved_keeps_its_name(tmp_path: Path) -> None:
    with static_member_id(tmp_path / "old", "monitor") as before:
        pass
    (tmp_path / "old").rename(tmp_path / "new")
    with static_member_id(tmp_path / "new", "monitor") as after:
        assert before == after


def test_without_a_folder_there_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with static_member_id(tmp_path / "file" / "below", "monitor") as name:
        assert name is None
