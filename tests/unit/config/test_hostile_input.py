"""Files and variables that no operator means: each is an error with a sentence, and none repeats a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from monitor.config import load, store_url
from monitor.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

BASE = '[kafka]\nbootstrap = "h:9092"\ntopics = ["t"]\n[[fleet]]\nname = "f"\ninterval = "1s"\n'


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "monitor.toml"
    file.write_text(text)
    file.chmod(0o640)
    return file


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"x = {'[' * 500}{']' * 500}", "nests values more than 16 deep"),
        (f"x = {'[' * 9000}{']' * 9000}", "nests values more than 16 deep"),
        (f"x{'.a' * 3000} = 1", "nests values more than 16 deep"),
        (f"x = {'9' * 5000}", "a number with thousands of digits"),
        (f"#{'x' * 2_000_000}", "more than 1024 KiB"),
    ],
    ids=["list", "deep list", "dotted", "digits", "long"],
)
def test_a_huge_file_is_refused_with_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    file = written(tmp_path, BASE + text)
    for read in (load, store_url):
        with pytest.raises(ConfigError, match=sentence):
            read(file, {})


def test_a_huge_hexadecimal_number_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, f"{BASE}[http]\nlisten = 0x{'9' * 5000}")
    with pytest.raises(ConfigError, match=r"http\.listen: a value of this length is not text"):
        load(file, {})


@pytest.mark.parametrize("index", ["²", "٣", "9" * 5000, "99999", "-1", ""])
def test_an_odd_number_in_a_variable_is_an_error(index: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has one problem"):
        load(written(tmp_path, BASE), {f"MONITOR_FLEET__{index}__WINDOW": "8"})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (BASE.replace('"h:9092"', '"u:SEKRET@h:9"'), "kafka.bootstrap"),
        (BASE.replace('"h:9092"', '"SEKRET@h:9"'), "kafka.bootstrap"),
        (BASE.replace('"h:9092"', '["u:SEKRET@h:9"]'), "kafka.bootstrap"),
        (BASE.replace("topics", 'username = ["SEKRET"]\ntopics'), "kafka.username"),
        (BASE.replace("topics", "username = {a = 'SEKRET'}\ntopics"), "kafka.username"),
        ('kafka = "u:SEKRET@h:9"', "kafka"),
        ("kafka = [{password = 'SEKRET'}]", "kafka"),
        (BASE + "[store]\nurl = {password = 'SEKRET'}", "store.url"),
    ],
)
def test_a_secret_in_the_wrong_place_is_hidden(text: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), {})
    assert f"\n  {key}: " in str(caught.value)
    assert "SEKRET" not in str(caught.value)


def test_control_characters_of_a_value_are_escaped(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, BASE + '[log]\nlevel = "\\u009b31m\\u202e"'), {})
    assert str(caught.value).isprintable() or "\u009b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
