"""Evidence of alerts: its extent, and that it does not depend on batches, restarts and retries."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text

from monitor.config import Config
from monitor.errors import StoreUnavailable
from monitor.store.engine import AsyncStore
from monitor.store.evidence_chunks import kept_cells, kept_scores
from monitor.store.reader import open_reader
from monitor.stream.pipeline import Pipeline
from monitor.types import Contribution, Reconstruction, Scores
from tests.fakes import FakeClock, LogSource, Record
from tests.unit.stream.plant import P0, S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from monitor.explain import Evidence
    from monitor.store.commit import Commit, Saved
    from monitor.types import Int64, Windows

LENGTH = 8
FLEET: dict[str, Any] = {
    "name": "pumps", "interval": "1s", "window": LENGTH, "assets": "P*", "sensors": ["flow", "heat"],
    "alerts": {"confirm": "2 of 3", "recover": 4},
}  # fmt: skip


class Doubling:
    """A scorer that expects twice the values it sees, and finds `flow` at fault. Scores depend on the window alone."""

    def __init__(self) -> None:
        self.fired: list[int] = []

    async def score(self, windows: Windows, end_us: Int64, sensors: Sequence[str]) -> Scores:
        newest = np.nan_to_num(windows.values[:, -1, 0])
        score = (newest / 100).astype(np.float32)
        score[newest == 77] = np.nan
        found = {int(row): (Contribution(sensors[0], 1.0, 0.0, None),) for row in np.flatnonzero(score >= 1)}
        return Scores(windows, score, [None] * len(windows), found, reconstruct=self.reconstruct)

    async def reconstruct(self, scores: Scores, rows: Int64, fired: Int64, sensors: Sequence[str]) -> Reconstruction:
        self.fired += fired.tolist()
        return Reconstruction(scores.windows.values[rows] * 2, dict.fromkeys(fired.tolist(), (sensors[0],)))


def config_of(**fleet: Any) -> Config:
    return Config.model_validate({"kafka": {"bootstrap": "nowhere:1", "topics": ["plant"]}, "fleet": [FLEET | fleet]})


def log_of(flow: Sequence[float | None], assets: Sequence[str] = ("P1",)) -> list[Record]:
    """One reading per asset and second. None = no reading."""
    found: list[Record] = []
    for second, value in enumerate(flow):
        for asset in assets:
            if value is not None:
                body = {"ts": second, "sensors": {"flow": value, "heat": second % 5}}
                found.append((len(found), -1, asset.encode(), json.dumps(body).encode()))
    return found


def pipeline(config: Config, store: AsyncStore, log: Sequence[Record], batch: int = 7) -> Pipeline:
    return Pipeline(config, LogSource({P0: log}, batch), store, Doubling(), owner="test", clock=FakeClock())


def evidence_of(folder: Path) -> list[Evidence]:
    with open_reader(f"sqlite:///{folder}/monitor.db") as reader:
        alerts = sorted(reader.alerts(), key=lambda alert: (alert["asset"], alert["opened_at"]))
        found = [reader.evidence(alert["id"]) for alert in alerts]
    return [each for each in found if each is not None]


def plain(evidence: Evidence) -> tuple[Any, ...]:
    """Return evidence in comparable form."""
    arrays = (evidence.cell_us, evidence.values, evidence.expected, evidence.end_us, evidence.score)
    return evidence.sensors, *(array.tobytes() for array in arrays)


QUIET, LOUD = [10.0] * 20, [150.0, 160.0, 170.0]


async def test_evidence_goes_from_the_fired_window_to_the_closing_one(store: AsyncStore, tmp_path: Path) -> None:
    flow = [*QUIET, *LOUD, *QUIET]
    await pipeline(config_of(), store, log_of(flow)).run()
    (found,) = evidence_of(tmp_path)
    # Second of two anomalous windows: it ends behind cell 21. Four normal windows after the last loud one close it.
    cells = np.arange(22 - LENGTH, 27)
    assert found.cell_us.tolist() == (cells * S).tolist()
    assert found.values[:, 0].tolist() == [flow[cell] for cell in cells]
    assert found.expected[:, 0].tolist() == [flow[cell] * 2 for cell in cells]
    ends = np.arange(22 - LENGTH, 28)  # scores begin one window before
    assert found.end_us.tolist() == (ends * S).tolist()
    assert found.score.tolist() == pytest.approx([flow[end - 1] / 100 for end in ends])


async def test_clearing_sensors_are_those_of_the_fired_window(store: AsyncStore, tmp_path: Path) -> None:
    await pipeline(config_of(), store, log_of([*QUIET, *LOUD, *QUIET])).run()
    rows = await store.read(lambda connection: connection.execute(text("SELECT clearing, state FROM alert")).all())
    assert [tuple(row) for row in rows] == [('["flow"]', "closed")]
    assert (tmp_path / "monitor.db").exists()


async def test_a_window_without_score_adds_cells_and_no_score(store: AsyncStore, tmp_path: Path) -> None:
    await pipeline(config_of(), store, log_of([*QUIET, *LOUD, 77.0, *QUIET])).run()
    (found,) = evidence_of(tmp_path)
    assert 77.0 in found.values[:, 0].tolist()
    assert 24 * S not in found.end_us.tolist()
    assert len(found.cell_us) == len(range(22 - LENGTH, 28))


async def test_cells_of_windows_that_a_gap_swallowed_are_none(store: AsyncStore, tmp_path: Path) -> None:
    flow: list[float | None] = [*QUIET, *LOUD, *[None] * 6, *QUIET]
    await pipeline(config_of(max_gap="2s"), store, log_of(flow)).run()
    (found,) = evidence_of(tmp_path)
    assert (np.diff(found.cell_us) > 0).all()
    assert np.isfinite(found.values).any(axis=1).sum() >= LENGTH + 1


@pytest.mark.parametrize("seed", range(4))
async def test_evidence_does_not_depend_on_batches_and_restarts(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(seed)
    stride = rng.choice([1, 1, 3])
    flow = [rng.choice([10.0, 10.0, 20.0, 77.0]) for _ in range(30)]
    for _ in range(3):
        flow += [rng.uniform(90, 250) for _ in range(rng.randint(4, 60))]
        flow += [rng.choice([10.0, None, 30.0]) for _ in range(rng.randint(2, 40))]
    log = log_of(flow, ("P1", "P2"))
    config = config_of(stride=stride, max_gap="3s")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    async with AsyncStore(f"sqlite:///{whole}/monitor.db", owner=True) as store:
        await pipeline(config, store, log, batch=10_000).run()
    async with AsyncStore(f"sqlite:///{cut}/monitor.db", owner=True) as store:
        n = 0
        while n < len(log):
            n = min(len(log), n + rng.randint(1, 60))
            one = pipeline(config, store, log[:n], batch=rng.randint(1, 9))
            if rng.random() < 0.3:
                _lose_an_answer(monkeypatch, store)
            await one.run()
    right, found = evidence_of(whole), evidence_of(cut)
    assert len(right) >= 2
    assert [plain(each) for each in found] == [plain(each) for each in right]


def _lose_an_answer(monkeypatch: pytest.MonkeyPatch, store: AsyncStore) -> None:
    """Let the next commit succeed and report an outage: the pipeline saves it again."""
    save, losses = store.save, [StoreUnavailable("the answer was lost")]

    async def lossy(commit: Commit) -> Saved:
        saved = await save(commit)
        if losses:
            raise losses.pop()
        return saved

    monkeypatch.setattr(store, "save", lossy)


async def test_a_long_alert_keeps_four_windows_of_cells_at_most(store: AsyncStore, tmp_path: Path) -> None:
    flow = [*QUIET, *[150.0] * 50, 900.0, *[150.0] * 200, *QUIET]
    await pipeline(config_of(), store, log_of(flow)).run()
    (found,) = evidence_of(tmp_path)
    assert len(found.cell_us) <= 4 * LENGTH
    assert len(found.score) <= 4 * LENGTH
    assert found.cell_us[0] == (22 - LENGTH) * S
    newest = found.cell_us[-2 * LENGTH :]
    assert (np.diff(newest) == S).all()
    assert found.score.max() == pytest.approx(9.0)  # the worst score is kept, however old


@pytest.mark.parametrize("limit", [4, 16, 256])
def test_thinning_in_steps_is_thinning_at_once(limit: int) -> None:
    rng = np.random.default_rng(limit)
    score = rng.random(limit * 9).astype(np.float32)
    for n in (1, limit - 1, limit, limit + 1, limit * 9):
        state, worst = np.empty(0, np.int64), np.empty(0, np.int64)
        at = 0
        while at < n:
            step = min(n - at, int(rng.integers(1, limit * 2)))
            state, worst = (np.concatenate((each, np.arange(at, at + step))) for each in (state, worst))
            state = state[kept_cells(len(state), limit)]
            worst = worst[kept_scores(score[worst], limit)]
            at += step
        assert state.tolist() == kept_cells(n, limit).tolist()
        assert worst.tolist() == kept_scores(score[:n], limit).tolist()
        assert score[:n].argmax() in worst
