"""`monitor models encode`, `reconstruct` and `sample`: a trained network besides scoring."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor import wording
from monitor.cli import output
from monitor.cli.params import config_option, file_options, json_option, open_store, take_file_options
from monitor.cli.progress import progress
from monitor.cli.terminal import Styled, Table, echo, echo_prose
from monitor.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from monitor.evaluation.closeness import Closeness
    from monitor.models.detector import TrainedModel
    from monitor.recordings import Recording
    from monitor.replay.network_uses import Latents

SIGNIFICANT = 3


def version_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a version, and the output."""
    for option in (
        click.option("--force", is_flag=True, help="Replace an existing file."),
        click.option("-o", "--output", "target", required=True, type=click.Path(dir_okay=False, path_type=Path),
                     help="FILE.csv or FILE.parquet."),
        click.option("--checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path),
                     help="A checkpoint's folder, instead of a version in the database."),
        click.option("--fleet", help="The champion of this fleet."),
        click.option("--version", help="This version [default: the only champion]."),
    ):  # fmt: skip
        command = option(command)
    return command


FILES = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
STRIDE = click.option("--stride", type=click.IntRange(1), help="Cells between two windows.")


@click.command("encode")
@config_option
@FILES
@version_options
@STRIDE
@click.option("--map", "map_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg",
              help="Draw the latents in two dimensions.")  # fmt: skip
@file_options
@json_option
def encode_windows(files: tuple[Path, ...], stride: int | None, map_file: Path | None, as_json: bool,
                   target: Path, force: bool, **arguments: Any) -> None:  # fmt: skip
    """Write the latent features of each window of FILES, for clustering or search.

    A row has the asset, start, end, score and label of a window, and its latent. --map draws the first two principal
    axes: colour is time, crosses are labelled faults, or anomalous windows where the files have no labels.
    """
    reading = take_file_options(arguments)
    _refuse(target, force=force)
    _refuse(map_file, force=force)
    recordings = _read(files, reading)
    from monitor.replay import network_uses

    model = _load(**arguments)
    with progress("encode") as on_progress:
        found = network_uses.encode(model, recordings, stride, on_progress)
    _write(found.rows(), found.columns(), target)
    facts = {"version": model.version, "windows": len(found.asset), "latent": found.latent.shape[1],
             "stride": found.stride, "output": str(target)}  # fmt: skip
    if map_file is not None and len(found.asset):
        facts |= {"map": str(map_file), "explained": _draw(model, found, map_file)}
    _report(facts, as_json=as_json)


@click.command("reconstruct")
@config_option
@FILES
@version_options
@STRIDE
@file_options
@json_option
def reconstruct_files(files: tuple[Path, ...], stride: int | None, as_json: bool, target: Path, force: bool,
                      **arguments: Any) -> None:  # fmt: skip
    """Write FILES beside their denoised signal.

    Overlapping windows are averaged. A cell without a value gets the one that the network expects, and is marked.
    """
    reading = take_file_options(arguments)
    _refuse(target, force=force)
    recordings = _read(files, reading)
    from monitor.replay import network_uses

    model = _load(**arguments)
    n_filled = [0]

    def rows() -> Iterable[Mapping[str, Any]]:
        for part in network_uses.denoise(model, recordings, stride, on_progress):
            for row in network_uses.denoised_rows(model, part):
                n_filled[0] += sum(row[f"{name}_filled"] for name in model.sensors)
                yield row

    with progress("reconstruct") as on_progress:
        n = _write(rows(), network_uses.denoised_columns(model.sensors), target)
    _report({"version": model.version, "rows": n, "filled": n_filled[0], "output": str(target)}, as_json=as_json)


@click.command("sample")
@config_option
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@version_options
@click.option("--n", "n", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Windows.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed, the same windows.")
@click.option("--noise/--no-noise", default=True, help="Add each sensor's healthy error [default: --noise].")
@file_options
@json_option
def sample_windows(files: tuple[Path, ...], n: int, seed: int, noise: bool, as_json: bool, target: Path, force: bool,
                   **arguments: Any) -> None:  # fmt: skip
    """Write synthetic healthy windows, each as an asset of its own. Compare them with those of FILES.

    The latents are drawn from the prior of a variational or adversarial network, or from a normal distribution fitted
    to healthy latents. The comparison shows how far synthetic windows are from real ones, beside how far halves of the
    real ones are from each other.
    """
    reading = take_file_options(arguments)
    _refuse(target, force=force)
    recordings = _read(files, reading) if files else []
    from monitor.replay import network_uses

    model = _load(**arguments)
    windows = network_uses.sample(model, n, seed, with_noise=noise)
    _write(network_uses.sample_rows(model, windows, 0), network_uses.sample_columns(model.sensors), target)
    facts: dict[str, Any] = {"version": model.version, "windows": n, "output": str(target)}
    compared = []
    if recordings:
        from monitor.evaluation.closeness import closeness

        real = network_uses.real_windows(model, recordings)
        if len(real) < 8:
            raise MonitorError(f"the files hold {len(real)} healthy windows without overlap; 8 are needed to compare")
        facts["real_windows"] = len(real)
        compared = closeness(real, windows, seed=seed)
    if as_json:
        output.print_json(facts | {"closeness": [_closeness_json(each, model) for each in compared] or None})
        return
    _report(facts, as_json=False)
    if compared:
        _closeness_table(compared, model)


# ---------------------------------------------------------------- parts


def _read(files: tuple[Path, ...], reading: Any) -> list[Recording]:
    from monitor.recordings import read_files

    return [recording for _, recording in read_files(files, reading)]


def _load(version: str | None, fleet: str | None, checkpoint: Path | None) -> TrainedModel:
    """Load the version that the options name."""
    if checkpoint is not None and (version or fleet):
        raise click.UsageError("--checkpoint goes without --version and --fleet")
    if checkpoint is None:
        with open_store() as store:
            checkpoint = Path(store.model(version, fleet=fleet)["path"])
    from monitor.models.detector import TrainedModel

    return TrainedModel.load(checkpoint)


def _refuse(target: Path | None, *, force: bool) -> None:
    if target is not None and target.exists() and not force:
        raise MonitorError(f"{target} is there already; name another, or replace it with --force")


def _write(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any], target: Path) -> int:
    from monitor.recordings.tables import write_table

    try:
        return write_table(rows, columns, target)
    except OSError as error:
        raise MonitorError(f"{target}: {error.strerror}") from error


def _draw(model: TrainedModel, found: Latents, file: Path) -> list[float]:
    """Draw the map, and return the variance that each axis explains."""
    from monitor.drawing.scatter import scatter
    from monitor.replay.network_uses import principal_axes

    points, explained = principal_axes(found.latent)
    first, last = int(found.start_us.min()), int(found.end_us.max())
    is_labelled = bool(found.label.any())
    marked = found.label if is_labelled else found.score >= 1.0
    what = "labelled fault" if is_labelled else "anomalous"
    drawing = scatter(
        points[:, 0],
        points[:, 1],
        (found.start_us - first) / max(1, last - first),
        marked,
        title=f"Latents of {len(points):,} windows by {model.version}",
        desc=f"The first two principal axes explain {explained[0]:.0%} and {explained[1]:.0%} of the variance. "
        f"{int(marked.sum()):,} windows are marked: {what}.",
        axes=(f"first axis, {explained[0]:.0%}", f"second axis, {explained[1]:.0%}"),
        ends=(output.timestamp(first)[:16], output.timestamp(last)[:16]),
        mark_name=what,
    )
    try:
        file.write_text(drawing, encoding="utf-8")
    except OSError as error:
        raise MonitorError(f"{file}: {error.strerror}") from error
    return [round(each, 4) for each in explained]


def _report(facts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(facts)
        return
    target = facts["output"]
    rest = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items() if name != "output")
    echo(Styled("✓", "green"), " ", Styled(str(target), "bold"), f"  {rest}")


def _closeness_json(each: Closeness, model: TrainedModel) -> dict[str, Any]:
    def by_sensor(values: Iterable[float]) -> dict[str, float | None]:
        return {name: None if isnan(value) else round(float(value), 5)
                for name, value in zip(model.sensors, values, strict=True)}  # fmt: skip

    return {"measure": each.measure, "synthetic": by_sensor(each.synthetic), "real": by_sensor(each.real),
            "real_most": by_sensor(each.real_most)}  # fmt: skip


def _closeness_table(compared: list[Closeness], model: TrainedModel) -> None:
    """Print each distance: synthetic to real, and real to real in brackets."""
    table = Table("sensor", *(f"{each.measure.replace('_', '-')}:right" for each in compared))
    for c, name in enumerate(model.sensors):
        cells = [_pair(each.synthetic[c], each.real[c]) for each in compared]
        table.add(name, *cells)
    echo()
    table.print()
    echo_prose("Distances of synthetic to real windows; in brackets, of one half of the real ones to the other.", "dim")


def _pair(synthetic: float, real: float) -> str:
    if isnan(synthetic):
        return "–"
    return f"{wording.number(float(synthetic), SIGNIFICANT)} ({wording.number(float(real), SIGNIFICANT)})"
