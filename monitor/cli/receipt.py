"""The receipt of a training in words: the data used and left out, with the reasons, and the exclusions to settle.

Input: `training.receipt` of a card (see `training/used_data.py`). Output: lines. Invariant: an older card has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monitor import wording
from monitor.cli import output
from monitor.cli.terminal import Styled, Table, echo, echo_facts, echo_prose
from monitor.training.words import USES, why_in_total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_INTERVALS = 6
"""Intervals that are listed without `--intervals`: the longest ones that were left out."""
STYLES = {"trained": "green", "held_out": "cyan", "left_out": "yellow"}


def print_receipt(receipt: Mapping[str, Any], *, local: bool, all_intervals: bool) -> None:
    """Print digests, totals by reason, the longest intervals left out (or all intervals), and warnings."""
    echo(Styled("\nReceipt", "bold"), Styled("  each time that the training used or left out", "dim"))
    digests = f"data {_short(receipt['data_digest'])}, configuration {_short(receipt['config_digest'])}"
    echo_facts({"repeat it": f"seed {receipt['seed']}, {digests}"})
    table = Table("  use", "windows:right", "hours:right", "intervals:right", "because:rest")
    for row in receipt["totals"]:
        use = Styled(f"  {USES.get(row['use'], row['use'])}", STYLES.get(row["use"], ""))
        hours = wording.number(row["hours"])
        table.add(use, f"{row['n_windows']:,}", hours, f"{row['n_intervals']:,}", why_in_total(row["reason"]))
    table.print()
    for warning in receipt["warnings"]:
        echo_prose(f"– {warning}", "yellow", indent="    ")
    _intervals(receipt["intervals"], local=local, is_all=all_intervals)


def _short(digest: str) -> str:
    return f"{digest[:12]}…"


def _intervals(found: Sequence[Mapping[str, Any]], *, local: bool, is_all: bool) -> None:
    chosen = list(found)
    if not is_all:
        left_out = [row for row in found if row["use"] == "left_out" and row["n_windows"]]
        chosen = sorted(left_out, key=lambda row: -row["n_windows"])[:MAX_INTERVALS]
    if not chosen:
        return
    echo(Styled("\n  Each interval" if is_all else "\n  The longest left out", "dim"),
         Styled("" if is_all else "  (all: --intervals)", "dim"))  # fmt: skip
    table = Table("  asset", *["use"] * is_all, "from", "to", "windows:right", "because:rest")
    for row in chosen:
        subject = f"  {row['asset']}/{row['sensor']}" if row.get("sensor") else f"  {row['asset']}"
        use = [Styled(USES.get(row["use"], row["use"]), STYLES.get(row["use"], ""))] * is_all
        joined = f" ({row['n_joined']} intervals)" if row.get("n_joined") else ""
        times = [output.timestamp(row[name], local=local) for name in ("from", "to")]
        table.add(subject, *use, *times, f"{row['n_windows']:,}", f"{row['why']}{joined}")
    table.print()
