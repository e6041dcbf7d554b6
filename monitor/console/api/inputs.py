"""Parameters and bodies of the API, with their limits. Unknown keys of a body are refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from fastapi import Path, Query, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from monitor.console.api.documents import Page
from monitor.console.state import Console  # noqa: TC001 (FastAPI reads annotations of dependencies)
from monitor.printable import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Callable

    from monitor.store.reader import Reader

T = TypeVar("T")

MAX_LIMIT, DEFAULT_LIMIT = 1000, 100
MAX_OFFSET = 10_000
"""Rows that may be skipped. Further back, `to` is quicker."""
_TIME = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})$"


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not re.match(_TIME, value):
        raise ValueError("write a time as in 2015-07-27T10:00:00Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no time of the calendar") from None


def _printable(text: str) -> str:
    """Replace invisible characters and terminal commands, sign by sign, so that the length stays."""
    return "".join(sign if sign == "\n" or escape_unprintable(sign) == sign else "\ufffd" for sign in text)


Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
From = Annotated[Moment | None, Query(alias="from", description="From this time on.")]
To = Annotated[Moment | None, Query(alias="to", description="Before this time.")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most items.")]
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET, description="Items to skip.")]
Id = Annotated[int, Path(ge=1, lt=2**31)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Text = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_printable)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"\S"), AfterValidator(_printable)]
LabelWord = Literal["fault", "normal", "ignore"]
Sort = Literal["opened", "peak", "lasted", "severity", "asset"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NoteBody(_Body):
    """A remark."""

    note: Text = ""


class ShelveBody(_Body):
    """How long, and why."""

    until: Word = Field(description="7d, a time, recovered, worse:2x, or 5x/1d.")
    reason: Reason


class ShelfBody(ShelveBody):
    """Alerts to shelve: all that match."""

    fleet: Word | None = None
    asset: Word | None = Field(None, description="Name or pattern.")
    sensor: Word | None = None


class LabelBody(_Body):
    """An operator's word."""

    label: LabelWord | None = Field(description="null = remove the label.")
    note: Text = ""


class CloseBody(_Body):
    """Why."""

    reason: Reason


class IntervalLabelBody(_Body):
    """An operator's word on a time of an asset."""

    fleet: Word | None = None
    asset: Word
    from_: Moment = Field(alias="from")
    to: Moment
    label: LabelWord
    note: Text = ""


class MaintenanceBody(_Body):
    """A maintenance window: once, or recurring with `cron` and `duration_s`."""

    fleet: Word = Field(description="Name or pattern.")
    asset: Word = Field("*", description="Name or pattern.")
    from_: Moment = Field(alias="from")
    to: Moment | None = Field(None, description="null = recurs without an end.")
    reason: Reason
    cron: Word | None = Field(None, description="Start of each occurrence.")
    duration_s: float | None = Field(None, gt=0, le=366 * 86400)
    timezone: Word = "UTC"


class AcceptedNormal(_Body):
    """A time that is the new normal: the training learns it, and it is never taken for a fault."""

    from_: Moment = Field(alias="from")
    to: Moment
    asset: Word | None = Field(None, description="null = every asset of the fleet.")


class JobBody(_Body):
    """The job to queue, and its fleet."""

    fleet: Word
    kind: Literal["retrain", "drill"] = Field(
        "retrain", description="drill: measure what the champion would detect, and open or close its alert."
    )
    note: Text = ""
    accept_normal: AcceptedNormal | None = None


class PromoteBody(NoteBody):
    """The reason of a promotion."""

    force: bool = Field(False, description="Also a version that the gate rejected; then the note must say why.")


def console_of(request: Request) -> Console:
    """Return the console of a request."""
    console: Console = request.app.state.console
    return console


async def page(
    request: Request, rows: Callable[[Reader, int], list[dict[str, Any]]], limit: int, offset: int
) -> Page[Any]:
    """Return a part of a list. `rows(reader, n)`: the first n rows."""
    found = await console_of(request).read(lambda reader: rows(reader, offset + limit + 1))
    is_more = len(found) > offset + limit and offset + limit <= MAX_OFFSET
    return Page(items=found[offset : offset + limit], next_offset=offset + limit if is_more else None)
