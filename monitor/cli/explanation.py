"""The explanation of an alert: one sentence, the fewest sensors that clear it, their course, and similar alerts.

Input: an open database and an alert. Output: printed lines, or a document for `--json`. NumPy is imported here and not
before, torch never.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from monitor import wording
from monitor.cli import output, terminal
from monitor.cli.params import config_path
from monitor.cli.terminal import Styled, Table, echo, echo_prose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.explain import Evidence
    from monitor.store.reader import Reader

    Alert = Mapping[str, Any]

BLOCKS = "▁▂▃▄▅▆▇█"
MISSING = "·"
SHOWN_SENSORS = 3
"""Sensors with a drawing: the clearing ones first, then those with the largest shares."""
WIDTH = 48
MIN_SIMILARITY = 0.3


def document(store: Reader, alert: Alert, *, with_arrays: bool = False) -> dict[str, Any]:
    """Return the keys that `--json` adds to an alert. `with_arrays`: the evidence itself, too."""
    from monitor.store.queries.evidence import arrays_of

    if alert["class"] != "process":
        return {"explanation": None} | ({"evidence": None} if with_arrays else {})
    evidence = store.evidence(alert["id"])
    found = {
        "sentence": _sentence(alert, evidence),
        "clearing": alert["clearing"],
        "similar": store.similar(alert["id"]),
    }
    return {"explanation": found} | ({"evidence": evidence and arrays_of(evidence)} if with_arrays else {})


def echo_explanation(store: Reader, alert: Alert, *, local: bool) -> None:
    """Print the explanation of an alert of class `process`."""
    evidence = store.evidence(alert["id"])
    if told := _sentence(alert, evidence):
        echo()
        echo_prose(f"{told}.", "bold")
    if alert["clearing"]:
        echo_prose(f"Without {_listed(alert['clearing'])}, the window that fired is below the threshold.")
    elif alert["clearing"] is not None:
        echo_prose("No few sensors alone explain the window that fired.")
    if evidence is not None and len(evidence.cell_us):
        _echo_courses(alert, evidence, local=local)
    _echo_similar(store.similar(alert["id"]), local=local)


def _sentence(alert: Alert, evidence: Evidence | None) -> str:
    from monitor.config import sensor_texts
    from monitor.explain import sentence

    texts = sensor_texts(config_path(), alert["fleet"])
    units = {name: each["unit"] for name, each in texts.items()}
    return sentence(alert, evidence, units, {name: each["description"] for name, each in texts.items()})


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---------------------------------------------------------------- drawings


def _echo_courses(alert: Alert, evidence: Evidence, *, local: bool) -> None:
    from monitor.explain import blamed_sensors, shown

    ranked = [*blamed_sensors(alert), *(sensor["name"] for sensor in alert["sensors"])]
    names = [name for name in dict.fromkeys(ranked) if name in evidence.sensors][:SHOWN_SENSORS]
    width = max(16, min(WIDTH, terminal.columns() - max(map(len, names), default=0) - 34))
    echo()
    table = Table("evidence:rest", "", "course", "least:right", "most:right")
    for name in names:
        c = evidence.sensors.index(name)
        both = evidence.values[:, c], evidence.expected[:, c]
        low, high = _limits(*both)
        for title, word, column, style in ((name, "actual", both[0], "red"), ("", "expected", both[1], "green")):
            known = column[[math.isfinite(each) for each in column.tolist()]]
            ends = (shown(float(known.min())), shown(float(known.max()))) if len(known) else ("–", "–")
            drawn = sparkline(evidence.cell_us.tolist(), column.tolist(), width, low, high)
            table.add(title, word, Styled(drawn, style), *ends)
    table.print()
    first, last = (output.timestamp(int(evidence.cell_us[at]), local=local) for at in (0, -1))
    echo(Styled(f"{first} to {last}", "dim"))


def _limits(*columns: Any) -> tuple[float, float]:
    known = [each for column in columns for each in column.tolist() if math.isfinite(each)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def sparkline(times: Sequence[int], values: Sequence[float], width: int, low: float, high: float) -> str:
    """Draw values over time in one line, the mean of each part of the time. A part without any value is a dot.

    Without values in a part because cells are thinned out, the part before goes on.
    """
    begin, span = times[0], max(1, times[-1] - times[0])
    parts: list[list[float]] = [[] for _ in range(width)]
    for at, value in zip(times, values, strict=True):
        parts[min(width - 1, (at - begin) * width // span)].append(value)
    drawn = []
    for part in parts:
        known = [each for each in part if math.isfinite(each)]
        if known:
            level = (sum(known) / len(known) - low) / (high - low) if high > low else 0.5
            drawn.append(BLOCKS[min(len(BLOCKS) - 1, int(level * len(BLOCKS)))])
        else:
            drawn.append(MISSING if part or not drawn else drawn[-1])
    return "".join(drawn)


def _echo_similar(found: Sequence[Mapping[str, Any]], *, local: bool) -> None:
    alike = [row for row in found if row["similarity"] >= MIN_SIMILARITY]
    if not alike:
        return
    echo()
    table = Table("similar", "asset:rest", "opened", "alike:right", "label:rest")
    for row in alike:
        label = row["label"] or "–"
        note = f": {row['label_note']}" if row["label_note"] else ""
        opened = output.timestamp(row["opened_at"], local=local)
        table.add(str(row["id"]), row["asset"], opened, wording.percent(row["similarity"]), f"{label}{note}")
    table.print()
