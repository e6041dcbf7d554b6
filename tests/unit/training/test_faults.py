"""Injected faults: seeded, in the last steps, and of the kind that the name says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monitor.models.scaler import CLIP
from monitor.training.faults import KINDS, SIZES, inject

N_SENSORS, LENGTH = 8, 32
N = 40 * len(KINDS)
SEED = 0
LATE = LENGTH // 2


def windows(n: int = N, length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, N_SENSORS, length, generator=torch.Generator().manual_seed(seed))


def pool() -> torch.Tensor:
    """Return healthy windows with values that `windows` does not have."""
    return 5 + 0.1 * windows(50, seed=1)


def faulty_sensors(kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return every faulty sensor of a kind, before and after, [T]."""
    x = windows()
    out, kinds = inject(x, None, pool(), SEED)
    rows = [(int(n), int(c)) for n, c in (out != x).any(-1).nonzero() if KINDS[kinds[n]] == kind]
    assert len(rows) > 40
    return [(x[row].numpy(), out[row].numpy()) for row in rows]


def test_the_same_seed_gives_the_same_faults() -> None:
    first, again, other = (inject(windows(), None, pool(), seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_inputs_are_not_changed() -> None:
    x, others = windows(), pool()
    inject(x, None, others, SEED)
    assert torch.equal(x, windows())
    assert torch.equal(others, pool())


def test_missing_values_are_not_changed() -> None:
    x = windows()
    present = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.7
    out, _ = inject(x, present, pool(), SEED)
    assert torch.equal(out[~present], x[~present])
    assert torch.equal(out[present], inject(x, None, pool(), SEED)[0][present])


@pytest.mark.parametrize("length", [4, 7, 16, 33, 64])
def test_only_the_last_half_is_changed(length: int) -> None:
    x = windows(length=length)
    out, _ = inject(x, None, x, SEED)
    assert torch.equal(out[..., : length // 2], x[..., : length // 2])
    assert (out[..., -1] != x[..., -1]).any(1).float().mean() > 0.9


def test_all_kinds_are_equally_frequent() -> None:
    _, kinds = inject(windows(), None, pool(), SEED)
    assert np.bincount(kinds).tolist() == [N // len(KINDS)] * len(KINDS)


def test_one_sensor_or_a_quarter_is_faulty() -> None:
    x = windows()
    n_faulty = (inject(x, None, pool(), SEED)[0] != x).any(-1).sum(1)
    assert set(n_faulty.tolist()) == {1, N_SENSORS // 4}
    assert (n_faulty == 1).float().mean() == pytest.approx(0.5, abs=0.1)


def test_faulty_values_are_clipped() -> None:
    x = (9 * windows()).clamp(-CLIP, CLIP)
    assert inject(x, None, pool(), SEED)[0].abs().max() == CLIP


def test_a_spike_is_one_or_two_outliers() -> None:
    widths = set()
    for before, after in faulty_sensors("spike"):
        changed = np.flatnonzero(after != before)
        widths.add(len(changed))
        assert changed[-1] == LENGTH - 1
        sizes = (after - before)[changed]
        np.testing.assert_allclose(sizes, sizes[0], rtol=1e-4)
        assert min(abs(abs(sizes[0]) - np.array(SIZES))) < 1e-4
    assert widths == {1, 2}


def test_a_shift_is_another_level() -> None:
    sizes = []
    for before, after in faulty_sensors("shift"):
        late = (after - before)[np.flatnonzero(after != before)[0] :]
        np.testing.assert_allclose(late, late[0], rtol=1e-4)
        sizes.append(late[0])
    assert {round(abs(float(size)), 3) for size in sizes} == {size / 2 for size in SIZES}
    assert 0.3 < np.mean(np.array(sizes) > 0) < 0.7   # up and down


def test_a_drift_grows_evenly_to_its_size() -> None:
    for before, after in faulty_sensors("drift"):
        late = (after - before)[np.flatnonzero(after != before)[0] :]
        np.testing.assert_allclose(late, late[0] * np.arange(1, len(late) + 1), rtol=1e-3, atol=1e-5)
        assert min(abs(abs(late[-1]) - np.array(SIZES))) < 1e-4


def test_a_stuck_sensor_holds_its_last_value() -> None:
    for before, after in faulty_sensors("stuck"):
        first = np.flatnonzero(after != before)[0]
        assert (after[first:] == before[first - 1]).all()


def test_noise_keeps_the_level() -> None:
    added = [(after - before)[after != before] for before, after in faulty_sensors("noise")]
    together = np.concatenate(added)
    assert abs(together.mean()) < 0.15 * together.std()
    assert 0.4 < np.mean(together > 0) < 0.6


def test_a_swap_has_values_of_another_time() -> None:
    for before, after in faulty_sensors("swap"):
        assert (after[after != before] > 4).all()
    x = windows()
    out, kinds = inject(x, None, pool(), SEED)
    for n in np.flatnonzero(kinds == KINDS.index("swap")):
        for sensor in (out[n] != x[n]).any(-1).nonzero()[:, 0]:
            late = out[n, sensor] != x[n, sensor]
            assert (pool()[:, sensor, late] == out[n, sensor, late]).all(-1).any()


def test_gain_changes_the_amplitude() -> None:
    gains = set()
    for before, after in faulty_sensors("gain"):
        late = np.flatnonzero(after != before)
        gain = (after - before.mean())[late] / (before - before.mean())[late]
        np.testing.assert_allclose(gain, np.median(gain), rtol=1e-2)
        gains.add(round(float(np.median(gain)), 2))
    assert gains == {1.5, 2.0, 3.0, 0.67, 0.5, 0.33}
