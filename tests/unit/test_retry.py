"""Retries during an outage: the errors that are repeated, the observer of an outage, and its end."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from monitor.errors import Fenced, MonitorError, SourceUnavailable, StoreUnavailable
from monitor.retry import OutageObserver, backoff_s, retry_transient
from tests.fakes import FakeClock


class Call:
    """Fails with the given errors in turn, then returns "done"."""

    def __init__(self, *errors: MonitorError) -> None:
        self._errors = list(errors)

    async def __call__(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "done"


class Observed(OutageObserver):
    def __init__(self) -> None:
        self.events: list[tuple[str, int] | str] = []

    def failed(self, error: MonitorError, n_failures: int) -> None:
        self.events.append((error.detail, n_failures))

    def ended(self) -> None:
        self.events.append("ended")


async def test_transient_errors_are_repeated_until_the_call_succeeds() -> None:
    clock, observed = FakeClock(), Observed()
    call = Call(StoreUnavailable("one"), SourceUnavailable("two"))
    assert await retry_transient(call, pause=partial(clock.sleep, 2.0), observer=observed) == "done"
    assert clock.slept_s == [2.0, 2.0]
    assert observed.events == [("one", 1), ("two", 2), "ended"]


async def test_a_call_that_succeeds_at_once_is_no_outage() -> None:
    clock, observed = FakeClock(), Observed()
    assert await retry_transient(Call(), pause=partial(clock.sleep, 2.0), observer=observed) == "done"
    assert clock.slept_s == observed.events == []


async def test_another_error_ends_the_outage_and_is_raised() -> None:
    observed = Observed()
    call = Call(StoreUnavailable("one"), Fenced("taken over"))
    with pytest.raises(Fenced):
        await retry_transient(call, pause=partial(asyncio.sleep, 0), observer=observed)
    assert observed.events == [("one", 1), "ended"]


async def test_only_the_named_errors_are_repeated() -> None:
    with pytest.raises(SourceUnavailable):
        await retry_transient(
            Call(StoreUnavailable(), SourceUnavailable()), pause=partial(asyncio.sleep, 0), errors=(StoreUnavailable,)
        )


async def test_a_stop_raises_the_next_error_without_a_pause() -> None:
    clock, stop = FakeClock(), asyncio.Event()
    stop.set()
    with pytest.raises(StoreUnavailable):
        await retry_transient(Call(StoreUnavailable()), pause=partial(clock.sleep, 2.0), stop=stop)
    assert clock.slept_s == []


async def test_cancellation_during_a_pause_ends_the_outage() -> None:
    observed = Observed()
    waiting = asyncio.create_task(
        retry_transient(Call(StoreUnavailable("one")), pause=partial(asyncio.sleep, 3600), observer=observed)
    )
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert observed.events == [("one", 1), "ended"]


def test_a_backoff_doubles_up_to_its_limit() -> None:
    waits_s = [backoff_s(n, first_s=1.0, longest_s=10.0) for n in (1, 2, 3, 4, 5, 1_000_000)]
    assert waits_s == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
