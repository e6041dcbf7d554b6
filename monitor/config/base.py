"""Types and checks that the tables of monitor.toml share.

Input: values from the file or the environment. Output: typed values. Invariant: a table reports all its problems in one
error.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 (pydantic reads annotations when the class is made)
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from monitor.config.values import parse_duration, parse_names


def one_of(offered: Sequence[str]) -> AfterValidator:
    """Accept only these words. The error holds them, so that its sentence can name the nearest."""

    def check(value: str) -> str:
        if value not in offered:
            raise PydanticCustomError("not_offered", "is not offered", {"offered": list(offered)})
        return value

    return AfterValidator(check)


def _above_zero(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be above zero")
    return value


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(parse_names)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[Duration, AfterValidator(_above_zero)]


def duration_or(word: str) -> BeforeValidator:
    """Accept a duration above zero, or a word that means None."""
    return BeforeValidator(lambda value: None if value in (word, None) else _above_zero(parse_duration(value)))


auto_or_value = BeforeValidator(lambda value: None if value == "auto" else value)
"""Accept a value, or "auto", which means None."""


class ConfigTable(BaseModel):
    """A table of monitor.toml: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


def raise_problems(problems: dict[str, str]) -> None:
    """Raise all problems between the settings of one table, if there are any: key → sentence."""
    if problems:
        raise PydanticCustomError("several", "several", {"problems": problems})


def config_folder(info: ValidationInfo) -> Path:
    """Return the folder of monitor.toml, where its relative paths start."""
    context: dict[str, Any] = info.context or {}
    found = context.get("folder")
    return found if isinstance(found, Path) else Path.cwd()
