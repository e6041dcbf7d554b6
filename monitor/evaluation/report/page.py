"""The page of an evaluation: means, an overview of series and methods, navigation, and a section for each series.

Input: the plan, its results and their means. Output: one HTML document.
Invariant: the document needs no script and no network, and all text from outside is escaped.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from monitor.budget import WEEK_S
from monitor.drawing import text as escape
from monitor.evaluation.differences import differences, interval_text, signed, verdict
from monitor.evaluation.plots import HEIGHT, THRESHOLD_Y
from monitor.evaluation.report.section import duration_text, section
from monitor.evaluation.results import results_by_policy, titles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from monitor.evaluation.differences import Difference, SetDifference
    from monitor.evaluation.plan import EvaluationPlan
    from monitor.evaluation.results import MethodResult, SeriesKey

    Titles = dict[SeriesKey, tuple[str, str]]
    """Set and name of each series for display."""

_COLUMNS = (
    ("vus_pr", "VUS-PR", True),
    ("auc_pr", "AUC-PR", True),
    ("auc_roc", "AUC-ROC", True),
    ("range_f1", "Range F1", True),
    ("event_recall", "Events found", True),
    ("false_alarms_per_week", "False alarms per week", False),
    ("alarmed_share", "Normal time alarmed", False),
    ("delay_s", "Median delay", False),
    ("fit_s", "Learning", False),
)
"""Key, heading, and whether the largest value is the best."""
_ALERT_KEYS = ("event_recall", "false_alarms_per_week", "alarmed_share", "delay_s")
"""Keys that depend on the alert policy."""


def page(
    plan: EvaluationPlan, results: Sequence[MethodResult], means: dict[str, dict[str, Any]], made_at: datetime
) -> str:
    """Return the HTML document. `means`: see `results.means`."""
    series: dict[SeriesKey, list[MethodResult]] = {}
    for one in results:
        series.setdefault(one.key, []).append(one)
    shown = titles(results)
    anchors = {key: f"s{number}" for number, key in enumerate(series, 1)}
    main = next(iter(means), "")
    introduction = escape(_introduction(plan, series, made_at))
    style = files(__package__).joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Evaluation: {len(series)} series</title><style>{style}</style></head><body>"
        f"{_defs()}<nav>{_navigation(series, shown, anchors, main)}</nav><main>"
        f'<header id="top"><h1>Evaluation</h1><p>{introduction}</p>{_cards(means, main)}'
        f"</header><section>{_means_table(means, _COLUMNS)}{_legend()}</section>{_differences(results)}"
        f"{_policy_tables(plan, results)}"
        f'<section id="overview"><h2>VUS-PR by series</h2>{_overview(series, shown, anchors, list(means))}</section>'
        + "".join(section(anchors[key], shown[key], ones) for key, ones in series.items())
        + "</main></body></html>\n"
    )


def _introduction(
    plan: EvaluationPlan, series: dict[SeriesKey, list[MethodResult]], made_at: datetime
) -> str:
    sets = len({ones[0].set for ones in series.values()})
    n_failed = sum(all(one.error for one in ones) for ones in series.values())
    failed = f"; {n_failed} of them could not be evaluated" if n_failed else ""
    settings = plan.settings
    length = "one cycle of its sensors, or 64" if settings.window is None else settings.window
    return (
        f"{_count(len(series), 'recording')} of {_count(sets, 'set')}{failed}, {made_at:%Y-%m-%d %H:%M} UTC. "
        f"Learnt from each recording's healthy head, without labels; windows of {length} rows, "
        f"thresholds set to allow {settings.budget.count:g} false alarm{'s' if settings.budget.count != 1 else ''} "
        f"per {str(settings.budget).partition('/')[2]}, seed {settings.seed}. "
        "Means are means of set means; false alarms per week are all of a set's over all its normal time."
    )


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _cards(means: dict[str, dict[str, Any]], main: str) -> str:
    mean = means.get(main, {})
    normal = duration_text(mean["weeks"] * WEEK_S) if mean.get("weeks") else None
    cards = [
        (f"VUS-PR of {main}", _figure(mean.get("vus_pr"))),
        (f"Events found by {main}", f"{mean['events_found']} of {mean['events']}" if mean.get("events") else "–"),
        (f"False alarms of {main}", f"{mean['false_alarms']} in {normal}" if normal else "–"),
        ("Median delay, mean of sets", "–" if mean.get("delay_s") is None else duration_text(mean["delay_s"])),
    ]
    return '<div class="cards">' + "".join(
        f"<div><b>{escape(value)}</b><span>{escape(title)}</span></div>" for title, value in cards
    ) + "</div>"  # fmt: skip


def _policy_tables(plan: EvaluationPlan, results: Sequence[MethodResult]) -> str:
    """Return a table of means for each other policy of the plan."""
    columns = [column for column in _COLUMNS if column[0] in _ALERT_KEYS]
    return "".join(
        f"<section><h2><small>by the same scores</small> {escape(trial['policy'])}</h2>"
        f"{_means_table(trial['mean'], columns)}</section>"
        for trial in results_by_policy(plan, results)
    )


def _differences(results: Sequence[MethodResult]) -> str:
    """Return the section that compares the default with every other method. Empty if there is nothing to compare."""
    compared = differences([one.row() for one in results])
    if not compared:
        return ""
    base = compared[0].base
    sets = list(dict.fromkeys(name for one in compared for name in one.per_set))
    reach = max(0.01, *(abs(value) for one in compared for value in (one.difference, one.low or 0, one.high or 0)))
    head = "".join(f"<th>{escape(name)}</th>" for name in sets)
    rows = []
    for one in compared:
        interval = "–" if one.low is None else interval_text(one)
        cells = "".join(_set_cell(one.per_set.get(name)) for name in sets)
        kind = "" if one.is_beaten else ' class="open"'
        rows.append(
            f"<tr{kind}><th>{escape(one.method)}</th><td>{signed(one.difference)}</td>"
            f'<td>{escape(interval)}</td><td class="span">{_interval_bar(one, reach)}</td>'
            f"<td>{one.better}–{one.worse}</td>{cells}</tr>"
        )
    return (
        f'<section id="differences"><h2>{escape(base)} against the others</h2>'
        f'<p class="facts">{escape(verdict(compared) or "")} VUS-PR of {escape(base)} less that of the other, with the '
        "95 % interval of the mean of sets, from series drawn again within their sets. Better–worse counts series."
        f'</p><div class="wide"><table class="against"><thead><tr><th>Method</th><th>Difference</th><th>95 % interval'
        f"</th><th></th><th>Better–worse</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "</section>"
    )


def _interval_bar(one: Difference, reach: float) -> str:
    """Draw the interval about a line at 0. `reach`: the largest value drawn."""
    low, high = (one.difference, one.difference) if one.low is None or one.high is None else (one.low, one.high)
    left, right, at = (50 + 50 * value / reach for value in (low, high, one.difference))
    title = escape(f"{signed(one.difference)} ({interval_text(one)})")
    return (
        f'<span class="bar" title="{title}"><i style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        f'<b style="left:{at:.1f}%"></b></span>'
    )


def _set_cell(each: SetDifference | None) -> str:
    if each is None:
        return "<td>–</td>"
    kind = "more" if each.difference > 0 else "less" if each.difference < 0 else ""
    return f'<td class="{kind}" title="{signed(each.difference)}">{each.better}–{each.worse}</td>'


def _means_table(means: dict[str, dict[str, Any]], columns: Sequence[tuple[str, str, bool]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for _, title, _ in columns)
    rows = []
    for method, mean in means.items():
        cells = []
        for name, _, is_better in columns:
            value = mean[name]
            # A mean over fewer series is not comparable with one over all of them.
            known = [one[name] for one in means.values() if one[name] is not None and not one["n_failed"]]
            is_best = is_better and not mean["n_failed"] and value is not None and value == max(known)
            best = ' class="best"' if is_best else ""
            bar = f'<s style="width:{100 * value:.1f}%"></s>' if is_better and value is not None else ""
            cells.append(f"<td{best}>{bar}{escape(_cell(name, value))}</td>")
        n_all = mean["n_series"] + mean["n_failed"]
        missing = f" <small>{mean['n_series']} of {n_all} series</small>" if mean["n_failed"] else ""
        rows.append(f"<tr><th>{escape(method)}{missing}</th>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table class="means"><thead><tr><th>Method</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name in ("delay_s", "fit_s"):
        return duration_text(value) if value >= 10 else f"{value:.1f} s"
    if name in ("event_recall", "alarmed_share"):
        return f"{100 * value:.0f} %"
    return f"{float(f'{value:.2g}'):,g}" if name == "false_alarms_per_week" else f"{value:.3f}"


def _legend() -> str:
    return (
        '<p class="legend"><span><i class="train"></i> learnt from</span>'
        '<span><i class="event"></i> labelled event</span>'
        '<span><i class="found"></i> alert that met an event</span><span><i class="false"></i> false alarm</span>'
        '<span><i class="missed"></i> missed event</span><span><i class="one"></i> threshold, 1.0</span></p>'
    )


def _overview(
    series: dict[SeriesKey, list[MethodResult]], shown: Titles, anchors: dict[SeriesKey, str], methods: list[str]
) -> str:
    head = "".join(f"<th>{escape(method)}</th>" for method in methods)
    rows = []
    for key, results in series.items():
        by_method = {one.method: one for one in results}
        cells = "".join(_heat(by_method.get(method)) for method in methods)
        folder, name = shown[key]
        link = f'<a href="#{anchors[key]}"><small>{escape(folder)}</small> {escape(name)}</a>'
        rows.append(f"<tr><th>{link}</th>{cells}</tr>")
    return (
        f'<div class="wide"><table class="heat"><thead><tr><th>Series</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heat(one: MethodResult | None) -> str:
    if one is None or one.error is not None:
        return f'<td title="{escape(one.error or "") if one else ""}">✕</td>'
    if one.ranking is None or one.ranking.vus_pr is None:
        return '<td title="no labelled event: nothing to rank">–</td>'
    return f'<td style="--v:{one.ranking.vus_pr:.2f}">{one.ranking.vus_pr:.3f}</td>'


def _navigation(
    series: dict[SeriesKey, list[MethodResult]], shown: Titles, anchors: dict[SeriesKey, str], main: str
) -> str:
    parts = ['<a class="home" href="#top">Evaluation</a><a href="#overview">Overview</a>']
    last = None
    for key, results in series.items():
        folder, name = shown[key]
        if folder != last:
            parts.append(f"<b>{escape(folder)}</b>")
            last = folder
        value = next((one.ranking.vus_pr for one in results if one.method == main and one.ranking), None)
        bar = "" if value is None else f'<s style="width:{100 * value:.0f}%"></s>'
        parts.append(f'<a href="#{anchors[key]}" title="{escape(name)}"><span>{escape(name)}</span>{bar}</a>')
    return "".join(parts)


def _defs() -> str:
    """Return the gradient of all score plots, which changes colour at the threshold."""
    share = f"{THRESHOLD_Y / HEIGHT:.4f}"
    return (
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
        f'<linearGradient id="heat" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="0" y2="{HEIGHT}">'
        f'<stop offset="{share}" class="hot"/><stop offset="{share}" class="normal"/></linearGradient></defs></svg>'
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
