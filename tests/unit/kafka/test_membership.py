"""Static member ids last over restarts, and no two living processes have the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.kafka.membership import static_member_id

if TYPE_CHECKING:
    from pathlib import Path


def test_ids_differ_and_a_free_one_is_used_again(tmp_path: Path) -> None:
    with static_member_id(tmp_path, "monitor") as first:
        with static_member_id(tmp_path, "monitor") as second:
            assert first != second
        with static_member_id(tmp_path, "monitor") as again:
            assert again == second
    with static_member_id(tmp_path, "monitor") as back:
        assert back == first


def test_groups_and_folders_have_ids_of_their_own(tmp_path: Path) -> None:
    with (
        static_member_id(tmp_path / "a", "monitor") as one,
        static_member_id(tmp_path / "a", "other") as same_number,
        static_member_id(tmp_path / "b", "monitor") as another,
    ):
        assert one == same_number  # in another group, where it is no conflict
        assert one != another


def test_folders_of_the_same_path_and_host_name_have_other_ids(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints"
    with static_member_id(path, "monitor") as here:
        pass
    path.rename(tmp_path / "of the other machine")
    with static_member_id(path, "monitor") as there:
        assert here != there


def test_a_moved_folder_keeps_its_id(tmp_path: Path) -> None:
    with static_member_id(tmp_path / "old", "monitor") as before:
        pass
    (tmp_path / "old").rename(tmp_path / "new")
    with static_member_id(tmp_path / "new", "monitor") as after:
        assert before == after


def test_without_a_folder_there_is_no_id(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with static_member_id(tmp_path / "file" / "below", "monitor") as name:
        assert name is None
