"""What the tables of monitor.toml are made of: types of settings, and how a table says what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 (pydantic reads annotations when the class is made)
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from monitor.config.values import parse_duration, parse_names


def one_of(offered: Sequence[str]) -> AfterValidator:
    """A word from a list; the error carries the list, so that the nearest word can be named."""

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
Span = Annotated[Duration, AfterValidator(_above_zero)]
"""A duration above zero."""


def span_or(word: str) -> BeforeValidator:
    """A duration above zero, or a word that means None."""
    return BeforeValidator(lambda value: None if value in (word, None) else _above_zero(parse_duration(value)))


class Table(BaseModel):
    """A table of monitor.toml: immutable, and no key is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


def refuse(problems: dict[str, str]) -> None:
    """Raise everything that is wrong between the settings of one table: key → sentence."""
    if problems:
        raise PydanticCustomError("several", "several", {"problems": problems})


def folder(info: ValidationInfo) -> Path:
    """Where relative paths of monitor.toml start."""
    context: dict[str, Any] = info.context or {}
    found = context.get("folder")
    return found if isinstance(found, Path) else Path.cwd()
