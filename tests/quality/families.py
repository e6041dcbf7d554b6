"""Figures of the network families: each claim measured. Writes deploy/MODELS.md and its picture.

    python -m tests.quality.families [deploy] [--keep FILE.json]

Input: the labelled recordings, and a simulated machine whose signal is known without its noise. Output: the page. With
`--keep`, sections measured by an earlier run are taken from the file. Invariant: no figure is written by hand. Labels
are used for the figures alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monitor.budget import Budget
from monitor.evaluation.closeness import MEASURES, closeness
from monitor.models import apply
from monitor.models.build import build
from monitor.models.pca import Pca
from monitor.models.spec import FleetSpec, ModelSpec, TrainingSet
from monitor.replay.network_uses import sample
from monitor.training.fit import fit
from tests.quality.recordings import load
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from monitor.models.detector import TrainedModel

    Windows = NDArray[np.float32]

SENSORS = ("swing", "turn", "load", "strain", "rectified", "double")
LENGTH, INTERVAL_S = 64, 60.0
NOISE = 0.5
"""Spread of the noise, in spreads of the sensor's clean signal: 6 dB."""
N_ROWS = 8000
STEPS = 500
"""Batches of a training, where the page does not say otherwise. More bring little, and take as much longer."""
COST_STEPS = 100
"""Batches of a training whose time is measured."""
DRAWN = "conv+denoising"
NETWORKS = ("dense", "conv", "lstm")

SAMPLED = ("asd/omi-1", "skab/anomaly_free")
SAMPLE_LENGTH = 32
GENERATORS = ("pca", "dense", "dense+variational", "conv+variational", "dense+adversarial")

FAULTS = ("00", "01", "02", "03", "06", "07", "08", "10", "11", "12", "14")
"""Runs of `tep`. 00 has no fault."""
FAULT_FROM, BLOCK, STRIDE, NEIGHBOURS = 660, 160, 8, 5
"""First row of the fault in its run, rows of a block, rows between two windows, and the k of the k nearest."""
ENCODERS = ("pca", "dense", "conv", "lstm", "dense+sparse", "conv+denoising", "dense+variational", "dense+adversarial")

OVERFITTED = ("oil3w/t5_WELL-00015_20171013140047", "dense")
HARD = ("ucr/132_InternalBleeding10", "dense")
DISTORTED = ("skab/valve1_0", "dense")

USES = {
    "auto": "the default, for alerts: an ensemble solved in closed form",
    "pca": "the baseline, solved in one step; short histories; hundreds of sensors",
    "dense": "one long vector: the cheapest network, for short windows and repeating shapes",
    "conv": "local patterns anywhere in the window",
    "lstm": "order over long windows; dear for what it finds",
    "forecast": "each cell predicted from those before it: spikes and jumps; no latent",
    "dense+sparse": "few large numbers in the latent: easier to read",
    "conv+denoising": "noisy sensors, and assets that lack some of them; the network to clean signals with",
    "conv+stacked": "layers pretrained one by one; where training from the PCA gets stuck",
    "dense+variational": "synthetic windows, and a score that averages over draws",
    "dense+adversarial": "synthetic windows, by a discriminator instead of a divergence",
}
"""Family → when to use it, in the order of the page."""


# ---------------------------------------------------------------- parts


def machine(n_rows: int, seed: int) -> NDArray[np.float64]:
    """Return clean readings [n_rows, 6]: a load that wanders, and a rotation whose speed follows it."""
    shocks = np.random.default_rng(seed).standard_normal(n_rows)
    wander = np.zeros(n_rows)
    for row in range(1, n_rows):
        wander[row] = 0.995 * wander[row - 1] + 0.1 * shocks[row]
    load_ = np.tanh(wander)
    phase = np.cumsum(2 * np.pi / (24 + 8 * load_))
    swing = np.sin(phase)
    columns = [swing, np.cos(phase), load_, swing * (1 + load_ / 2), np.abs(swing), load_**2 + 0.3 * np.sin(2 * phase)]
    return np.stack(columns, 1)


def windows_of(values: NDArray[Any], length: int, stride: int = 1) -> Windows:
    """Return windows [N, T, C] of readings [rows, C]."""
    view = np.lib.stride_tricks.sliding_window_view(values, length, axis=0).transpose(0, 2, 1)[::stride]
    return np.asarray(view, dtype=np.float32)


def spec_of(family: str, **settings: Any) -> ModelSpec:
    """Return the model of "architecture", "architecture+objective" or "architecture+stacked"."""
    architecture, _, extra = family.partition("+")
    if extra == "stacked":
        return ModelSpec(architecture, stacked=True, max_train_s=3600, **settings)
    return ModelSpec(architecture, extra or "plain", max_train_s=3600, **settings)


def trained(
    family: str, windows: Windows, sensors: tuple[str, ...], interval_s: float, **settings: Any
) -> TrainedModel:
    """Train one family on healthy windows of one asset."""
    n, length, _ = windows.shape
    end_us = ((np.arange(n) + length) * interval_s * 1e6).astype(np.int64)
    budget = Budget(alarms_per_week=1.0, confirm=3, among=5, recover=6, step_s=interval_s)
    training = TrainingSet(windows, np.zeros(n, np.int32), end_us)
    return fit(training, spec_of(family, **settings), FleetSpec("families", sensors, interval_s, budget))


# ---------------------------------------------------------------- noise


def measure_noise(
    families: Iterable[str], n_rows: int = N_ROWS, **settings: Any
) -> tuple[dict[str, Any], dict[str, Windows]]:
    """Return the signal-to-noise ratio before and after, in decibels, and some windows to draw.

    Training sees noisy readings alone. The ratio is measured on readings of another seed, against the clean signal.
    """
    clean, other = machine(n_rows, 0), machine(4000, 1)
    spread = clean.std(0)
    draw = np.random.default_rng(2)
    noisy, other_noisy = (each + NOISE * spread * draw.standard_normal(each.shape) for each in (clean, other))
    truth, measured = windows_of(other, LENGTH, 16), windows_of(other_noisy, LENGTH, 16)

    def decibels(found: Windows, cells: slice) -> float:
        signal = np.var((truth[:, cells] - clean.mean(0)) / spread)
        return float(10 * np.log10(signal / np.mean(((found - truth)[:, cells] / spread) ** 2)))

    def ratios(found: Windows) -> dict[str, float]:
        return {"window": decibels(found, slice(None)), "newest": decibels(found, slice(-1, None))}

    rows = {"before": ratios(measured)}
    shown = {"clean": truth, "measured": measured}
    for family in families:
        model = trained(family, windows_of(noisy, LENGTH), SENSORS, INTERVAL_S, **settings)
        shown[family] = apply.reconstruct(model, measured)
        rows[family] = ratios(shown[family])
        print("noise", family, rows[family], flush=True)
    return rows, shown


def picture(shown: dict[str, Windows], family: str) -> str:
    """Draw one sensor in three windows: measured, clean, and reconstructed by `family`."""
    sensor, rows = SENSORS.index("strain"), (10, 60, 110)
    names = ("measured", "clean", family)
    series = {name: np.concatenate([shown[name][row, :, sensor] for row in rows]) for name in names}
    low, high = series["measured"].min(), series["measured"].max()
    width, height, pad = 760, 200, 24

    def points(values: NDArray[np.float32]) -> str:
        x = np.linspace(8, width - 8, len(values))
        y = pad + (height - pad - 8) * (high - values) / (high - low)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    looks = {"measured": ("#9aa5b1", 1.0), "clean": ("#2d7d46", 2.2), family: ("#c2410c", 1.4)}
    lines = [
        f'<polyline points="{points(values)}" fill="none" stroke="{looks[name][0]}" stroke-width="{looks[name][1]}"/>'
        for name, values in series.items()
    ]
    key = "".join(
        f'<text x="{8 + 190 * n}" y="16" fill="{looks[name][0]}">{name}</text>' for n, name in enumerate(series)
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="sans-serif" font-size="13">',
        f"<title>Sensor strain in three windows: measured, clean, and by {family}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>', *lines, key, "</svg>", "",
    ])  # fmt: skip


# ---------------------------------------------------------------- samples


def measure_samples(folder: Path, name: str, families: Iterable[str], **settings: Any) -> dict[str, dict[str, float]]:
    """Return the distances of synthetic windows from training windows, mean over the sensors, by generator.

    Beside them: halves of the training windows from each other, held-out windows, and noise with each sensor's mean and
    spread. The training windows are the four fifths that the networks learn from.
    """
    recording = load(folder, name)
    windows = windows_of(recording.values, SAMPLE_LENGTH)
    healthy = windows[: recording.train_rows - SAMPLE_LENGTH + 1]
    learnt = healthy[: int(0.8 * len(healthy)) - SAMPLE_LENGTH : SAMPLE_LENGTH // 2]
    is_faulty = windows_of(recording.label[:, None], SAMPLE_LENGTH).max((1, 2)) > 0
    later = windows[recording.train_rows :][~is_faulty[recording.train_rows :]][::SAMPLE_LENGTH]
    draw = np.random.default_rng(0)
    noise = draw.standard_normal(learnt.shape) * learnt.std((0, 1)) + learnt.mean((0, 1))

    def mean_distances(synthetic: Windows) -> dict[str, float]:
        return {each.measure: float(np.nanmean(each.synthetic)) for each in closeness(learnt, synthetic)}

    rows = {
        "halves": {each.measure: float(np.nanmean(each.real)) for each in closeness(learnt, later)},
        "held-out": mean_distances(later),
        "noise": mean_distances(noise.astype(np.float32)),
    }
    for family in families:
        if family in rows:
            continue
        model = trained(family, healthy, recording.sensors, recording.interval_s, **settings)
        rows[family] = mean_distances(sample(model, len(learnt), seed=0))
        print("samples", name, family, rows[family], flush=True)
    return rows


# ---------------------------------------------------------------- latents


def fault_windows(folder: Path) -> tuple[Windows, NDArray[np.int64], NDArray[np.int64]]:
    """Return windows [N, T, C] of all runs of tep while their fault lasts, their run and their block.

    A window lies within one block of its run, so that two of different blocks share no row.
    """
    windows, runs, blocks = [], [], []
    for number, fault in enumerate(FAULTS):
        values = load(folder, f"tep/fault{fault}").values[FAULT_FROM:]
        for block in range(len(values) // BLOCK):
            found = windows_of(values[block * BLOCK : (block + 1) * BLOCK], LENGTH, STRIDE)
            windows.append(found)
            runs += [number] * len(found)
            blocks += [block] * len(found)
    return np.concatenate(windows), np.array(runs), np.array(blocks)


def neighbour_accuracy(features: NDArray[Any], runs: NDArray[np.int64], blocks: NDArray[np.int64]) -> float:
    """Return the share of windows whose nearest neighbours, none of their own block in any run, are of their run."""
    points = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32).reshape(len(features), -1))
    distance = torch.cdist(points, points).numpy()
    distance[blocks[:, None] == blocks] = np.inf
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    votes = [Counter(runs[row].tolist()).most_common(1)[0][0] for row in nearest]
    return float(np.mean(np.array(votes) == runs))


def measure_latents(folder: Path, families: Iterable[str], **settings: Any) -> dict[str, dict[str, float]]:
    """Return the accuracy of the k nearest neighbours in the latent of each family, and its size.

    Beside them: raw windows, the mean of each sensor over the window, and chance. The networks learn from the healthy
    rows alone.
    """
    recording = load(folder, "tep/fault00")
    healthy = recording.values[: recording.train_rows]
    windows, runs, blocks = fault_windows(folder)
    standard = (windows - healthy.mean(0)) / np.maximum(healthy.std(0), 1e-9)
    rows = {
        "chance": {"accuracy": 1 / len(FAULTS), "size": 0},
        "raw windows": {"accuracy": neighbour_accuracy(standard, runs, blocks), "size": standard[0].size},
        "means": {"accuracy": neighbour_accuracy(standard.mean(1), runs, blocks), "size": standard.shape[2]},
    }
    for family in families:
        if family in rows:
            continue
        model = trained(family, windows_of(healthy, LENGTH), recording.sensors, recording.interval_s, **settings)
        latent = apply.encode(model, windows)
        rows[family] = {"accuracy": neighbour_accuracy(latent, runs, blocks), "size": latent.shape[1]}
        print("latents", family, rows[family], flush=True)
    return rows


# ---------------------------------------------------------------- troubles


def measure_trouble(folder: Path, name: str, family: str, **settings: Any) -> dict[str, Any]:
    """Return the course of a training and the troubles on its card."""
    recording = load(folder, name)
    windows = windows_of(recording.values[: recording.train_rows], LENGTH)
    model = trained(family, windows, recording.sensors, recording.interval_s, **settings)
    receipt = model.card.training
    diagnosis = receipt["diagnosis"]
    print("trouble", name, receipt["troubles"], flush=True)
    return {
        "recording": name, "family": family, "n_windows": receipt["n_train"],
        "train_error": receipt["train_error"], "held_out_error": receipt["check_error"],
        "last_error": diagnosis["curve"][-1][2], "best_step": receipt["best_step"], "n_steps": receipt["n_steps"],
        "gap": diagnosis["gap"], "pca_gap": diagnosis["pca_gap"], "curve": diagnosis["curve"],
        "not_rebuilt": diagnosis["not_rebuilt"], "explained": receipt["explained_variance"],
        "detail": diagnosis["detail_explained"], "troubles": receipt["troubles"],
    }  # fmt: skip


def measure_careless(folder: Path, name: str, family: str, rates: Iterable[float], n_steps: int) -> dict[str, float]:
    """Return held-out errors of the same network trained without care: random start, one learning rate, the last step.

    The errors are in the windows' own variance: 1 = the mean.
    """
    recording = load(folder, name)
    values = recording.values[: recording.train_rows]
    standard = (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
    x = torch.from_numpy(windows_of(standard, LENGTH).transpose(0, 2, 1).copy())
    n_train = int(0.8 * len(x)) - LENGTH
    training, held_out = x[:n_train], x[int(0.8 * len(x)) :]
    pca = Pca.solve(training)
    errors = {"pca": float((pca(held_out) - held_out).square().mean() / held_out.var())}
    for rate in rates:
        torch.manual_seed(0)
        network = build(family, x.shape[1], LENGTH, code=pca.hyper["n_components"])
        optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
        for _ in range(n_steps):
            batch = training[torch.randint(n_train, (128,))]
            loss = (network(batch) - batch).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            errors[f"{rate:g}"] = float((network(held_out) - held_out).square().mean() / held_out.var())
    print("careless", errors, flush=True)
    return errors


# ---------------------------------------------------------------- costs


def measure_cost(family: str, n_rows: int = 20_000) -> dict[str, float]:
    """Return CPU seconds of a training on eight sensors, and CPU microseconds of scoring a window, with one thread."""
    clean = machine(n_rows, 3)
    values = np.concatenate([clean, clean[:, :2] * clean[:, 2:3]], 1)
    values += 0.3 * np.random.default_rng(4).standard_normal(values.shape)
    windows = windows_of(values, LENGTH)
    started_s = time.process_time()
    model = trained(family, windows, tuple(f"sensor {n}" for n in range(8)), INTERVAL_S, max_steps=COST_STEPS)
    trained_s = time.process_time() - started_s
    some = np.ascontiguousarray(windows[:4096])
    each_s = []
    for _ in range(4):
        started_s = time.process_time()
        model.score(some)
        each_s.append(time.process_time() - started_s)
    print("cost", family, trained_s, min(each_s) / len(some) * 1e6, flush=True)
    return {"train_s": trained_s, "window_us": min(each_s) / len(some) * 1e6,
            "n_steps": model.card.training.get("n_steps", 0)}  # fmt: skip


# ---------------------------------------------------------------- the page


def measure_all(folder: Path, kept: dict[str, Any], keep: Callable[[], None]) -> str | None:
    """Measure everything that `kept` lacks, and call `keep` after each figure. Return the picture, if it was drawn."""
    drawn: str | None = None

    def fill(section: str, name: str, measure: Callable[[], Any]) -> None:
        found = kept.setdefault(section, {})
        if name not in found:
            found[name] = measure()
            keep()

    def noise(family: str) -> dict[str, float]:
        nonlocal drawn
        rows, shown = measure_noise([family], max_steps=STEPS)
        if family == DRAWN:
            drawn = picture(shown, DRAWN)
        return rows[family]

    def samples(name: str, family: str) -> dict[str, float]:
        return measure_samples(folder, name, [family], max_steps=STEPS)[family]

    fill("noise", "before", lambda: measure_noise([])[0]["before"])
    networks = [f"{name}{extra}" for name in NETWORKS for extra in ("", "+denoising")]
    for family in ("pca", *networks, "dense+variational"):
        fill("noise", family, lambda family=family: noise(family))
    for family in ("chance", "raw windows", "means", *ENCODERS):
        fill("latents", family, lambda family=family: measure_latents(folder, [family], max_steps=200)[family])
    for name in SAMPLED:
        for family in ("halves", "held-out", "noise", *GENERATORS):
            fill(f"samples {name}", family, lambda name=name, family=family: samples(name, family))
    for key, (name, family) in {"overfitted": OVERFITTED, "hard": HARD, "distorted": DISTORTED}.items():
        fill("troubles", key,
             lambda name=name, family=family: measure_trouble(folder, name, family, max_steps=STEPS))  # fmt: skip
    fill("troubles", "careless",
         lambda: measure_careless(folder, *HARD, rates=(0.001, 0.01, 0.1, 1.0), n_steps=STEPS))  # fmt: skip
    for family in USES:
        fill("costs", family, lambda family=family: measure_cost(family))
    return drawn


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(kept: dict[str, Any]) -> str:
    """Return the page."""
    noise, latents, troubles = kept["noise"], kept["latents"], kept["troubles"]
    over, hard, distorted, careless = (troubles[name] for name in ("overfitted", "hard", "distorted", "careless"))
    costs = [
        [f"`{family}`", use, f"{cost['window_us']:.1f}", f"{cost['train_s']:.0f}"]
        for family, use in USES.items()
        for cost in [kept["costs"][family]]
    ]
    ratios = [
        [f"`{name}`", *(f"{noise[f'{name}{extra}'][which]:.1f}" for extra in ("", "+denoising") for which in WHICH)]
        for name in NETWORKS
    ]
    pca = noise["pca"]
    ratios.insert(0, ["`pca`", *(f"{pca[which]:.1f}" for which in WHICH), "", ""])
    samples = [SAMPLES_OF.format(name=name, table=_sample_table(kept[f"samples {name}"])) for name in SAMPLED]
    accuracies = [
        [name if name in ("chance", "raw windows", "means") else f"`{name}`",
         f"{row['size']:.0f}" if row["size"] else "", f"{row['accuracy']:.2f}"]
        for name, row in latents.items()
    ]  # fmt: skip
    best = max(ENCODERS, key=lambda family: latents[family]["accuracy"])
    lost = {name: distorted["explained"][name] for name in distorted["not_rebuilt"]}
    return PAGE.format(
        costs=table(("family", "when to use it", "a window, µs", f"{COST_STEPS} steps, s"), costs),
        steps=STEPS, cost_steps=COST_STEPS, before=noise["before"]["window"],
        **{f"gain_{name}": noise[f"{name}+denoising"]["window"] - noise[name]["window"] for name in NETWORKS},
        noise=table(("", "plain, window", "newest cell", "denoising, window", "newest cell"), ratios),
        variational=noise["dense+variational"]["window"],
        samples="\n".join(samples),
        latents=table(("features", "numbers", "right"), accuracies),
        n_faults=len(FAULTS) - 1, block_h=BLOCK * 3 / 60, neighbours=NEIGHBOURS,
        raw=latents["raw windows"]["accuracy"], chance=latents["chance"]["accuracy"],
        best=latents[best]["accuracy"], best_name=best, smaller=latents["raw windows"]["size"] / latents[best]["size"],
        over=over, over_trouble=_quoted(over, "overfitting"), over_last=over["last_error"] / over["held_out_error"],
        careless=table(("", *(f"rate {rate}" for rate in careless if rate != "pca"), "PCA", "the product"),
                       [["error", *(_error(error) for rate, error in careless.items() if rate != "pca"),
                         _error(careless["pca"]), _error(1 - hard["explained"]["all"])]]),
        hard=hard, hard_trouble=_quoted(hard, "learning"),
        distorted=distorted, distorted_trouble=_quoted(distorted, "distorted"),
        lost=", ".join(f"{name} {share:.2f}" for name, share in lost.items()),
    )  # fmt: skip


WHICH = ("window", "newest")
SAMPLES_OF = """
`{name}`:

{table}
"""


def _sample_table(rows: dict[str, dict[str, float]]) -> str:
    names = {"halves": "halves of the training windows", "held-out": "real windows of later",
             "noise": "white noise of the same mean and spread"}  # fmt: skip
    return table(
        ("windows", *(each.replace("_", " ") for each in MEASURES)),
        [[names.get(name, f"`{name}`"), *(f"{row[each]:.3f}" for each in MEASURES)] for name, row in rows.items()],
    )


def _quoted(row: dict[str, Any], start: str) -> str:
    """Return the trouble that begins with a word, as the card has it. Empty = the training had none."""
    found = [f"> {trouble}" for trouble in row["troubles"] if trouble.startswith(start)]
    return "\n>\n".join(found) or "> (none on this run)"


def _error(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) and value < 1e3 else "diverges"


PAGE = """\
# The models, and how well each does what it says

Made by `python -m tests.quality.families` on one thread of a CPU, with {steps} steps of training unless said. No figure
is written by hand. `tests/quality/test_families.py` measures the main ones in every build, with less data.

A family is an architecture with an objective, written `conv+denoising` here, and `architecture = "conv"` with
`objective = "denoising"` in the configuration. `+stacked` is `stacked = true`.

## Which to take
{costs}

Scoring a window of 64 cells and 8 sensors, in batches, and training on 8 sensors × 20,000 rows: the time of
{cost_steps} of at most 1,000 steps, with everything around them. `auto` and `pca` have no steps. CPU time of one
thread. Other programs change it less than the time on the wall, but by up to a half.

`auto` detects. Take another one for a latent to cluster by (`monitor models encode`), a clean signal
(`monitor models reconstruct`), or synthetic windows (`monitor models sample`).

## Does it lower noise?
A simulated machine of six sensors whose signal is known without its noise. Networks learn from noisy readings alone.
The ratio of signal to noise is {before:.1f} dB before. After reconstruction, in dB:

{noise}

![Measured, clean and reconstructed](models-denoising.svg)

- The bottleneck alone lowers noise: a part of a window that does not fit the few numbers of the latent is lost.
- The denoising objective adds {gain_dense:.1f} dB to `dense`, {gain_conv:.1f} to `conv` and {gain_lstm:.1f} to `lstm`.
- The variational objective has {variational:.1f} dB for `dense`.
- The newest cell has neighbours on one side only, so less of its noise is known to be noise.

## Are its samples like the data?
Synthetic windows of 32 cells beside the training windows: distances of the values of each sensor (Kolmogorov-Smirnov;
Wasserstein, in spreads), and differences of autocorrelation and cross-correlation. 0 is best. Means over the sensors.
{samples}
- Yardsticks: random halves of the training windows, and real windows of later. A machine that changes makes the second
  one large (`skab`).
- Autocorrelation and cross-correlation of samples are about as near as real windows of later (`asd`), and white noise
  is far away.
- The values are the weak point: no nearer than white noise of the right mean and spread. A sensor with few levels, or
  one that is mostly zero, comes out smooth.
- **What falls short:** a variational or adversarial network is not clearly better here than a PCA with a normal latent.
  Compare them on your data: `monitor models sample FILES -o samples.csv` prints the same distances.

## Do latents separate faults?
The {n_faults} known faults of `tep` and its run without one. Networks learn from the healthy rows alone (200 steps).
The share of windows whose {neighbours} nearest neighbours are mostly of the same run. Neighbours are of other blocks
of {block_h:.0f} hours: none shares a row with the window, in any run.

{latents}

Raw windows have {raw:.2f}, with {smaller:.0f} times the numbers of a latent. The best latent is that of
`{best_name}` ({best:.2f}). Chance is {chance:.2f}.
Latents keep most of what separates faults, though no network has seen one, and add nothing. Fault 03 is known to be
nearly invisible, and there is one run of each.

## What goes wrong, and what monitor does about it

### Overfitting
`{over[recording]}`, `{over[family]}`, {over[n_windows]} windows to learn from.
The error on held-out windows is {over[gap]:.1f} times that on training windows. For the PCA, which cannot memorise, it
is {over[pca_gap]:.1f} times: that much is drift. Training keeps the weights of the best check on held-out windows,
step {over[best_step]} of {over[n_steps]}. Those of the last step have an error {over_last:.2f} times as large.
The card says:

{over_trouble}

### Hard training
`{hard[recording]}`, `{hard[family]}`. Held-out error after {steps} steps of plain gradient descent from random weights,
by learning rate, in units of the variance (1 = the mean):

{careless}

With too small a rate a network learns little, with too large a one it diverges, and the right one differs from
recording to recording. The product starts from the PCA, warms up, clips gradients, decays the nonlinear weights alone,
and keeps the best step. A training that fails is tried with another seed, and after three the champion stays. If more
steps would help, the card says so:

{hard_trouble}

### Distorted features
`{distorted[recording]}`, `{distorted[family]}`. A bottleneck keeps what explains most of the variance.
Explained variance of the sensors that are lost (below 0: the mean is better, after a drift): {lost}.
A fault there shows when values leave their usual range. The members of `auto` that look at each sensor by itself find
smaller ones. The card says:

{distorted_trouble}
"""


def main() -> None:
    """Write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", type=Path, default=ROOT / "deploy")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(os.environ.get("MONITOR_DATA") or ROOT.parent / "shared" / "data").resolve()
    kept: dict[str, Any] = {}
    if arguments.keep is not None and arguments.keep.is_file():
        kept = json.loads(arguments.keep.read_text())

    def keep() -> None:
        if arguments.keep is not None:
            arguments.keep.write_text(json.dumps(kept, indent=1))

    drawn = measure_all(folder, kept, keep)
    if drawn is not None:
        (arguments.target / "models-denoising.svg").write_text(drawn)
    (arguments.target / "MODELS.md").write_text(page(kept))


if __name__ == "__main__":
    main()
