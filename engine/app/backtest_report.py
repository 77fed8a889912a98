"""A backtest as a table for the terminal and as a page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from rich.console import Console
from rich.table import Table

_BAR, _ROW, _LABEL, _WIDTH = 10, 46, 18, 400
"""A label's line, then a bar for each side: as wide as a phone, so that texts stay legible on one."""
_FIGURES_WIDTH = 64
_LONGEST_LABEL = 48
_MOST_BARS = 40
_COLOURS = ("#8a94a6", "#2f6fed")

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.note { opacity: .75; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; } code { font-size: .9em; }
svg { width: 100%; max-width: 40rem; height: auto; } svg text { fill: currentColor; font-size: 12px; }
div.wide { overflow-x: auto; } h1, p, li { overflow-wrap: anywhere; }
@media (max-width: 34rem) { body { margin: 1rem auto; } th, td { padding: .3rem .35rem; } }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 1em; }
"""

_FIGURES = (
    ("offered", "offers made"),
    ("people", "people reached"),
    ("expectedValue", "expected value"),
    ("expectedCost", "expected cost"),
    ("decisions", "decisions"),
)


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """The figures, the reasons, and the biggest changes, side by side."""
    active, tried = report["active"], report["tried"]
    console.print(
        f"{report['events']:,} events, {_period(report)}",
        highlight=False,
    )
    table = Table("", active["name"], tried["name"], "difference")
    for column in table.columns[1:]:
        column.justify = "right"
    for field, label in _FIGURES:
        table.add_row(label, *_compared(active[field], tried[field]))
    table.add_section()
    for reason in _reasons(active, tried):
        table.add_row(reason, *_reason(reason, active, tried), style="dim")
    console.print(table)
    if report["changes"]:
        changes = Table("biggest changes", "before", "after", "people gained", "people lost", "value")
        for column in changes.columns[1:]:
            column.justify = "right"
        for one in report["changes"]:
            changes.add_row(
                f"{one['rule']} → {one['offer']}",
                f"{one['before']:,}",
                f"{one['after']:,}",
                f"{one['gained']:,}",
                f"{one['lost']:,}",
                f"{one['expectedValue']:+,.2f}",
            )
        console.print(changes)
    else:
        console.print("no rule makes more or fewer offers")
    for side in (active, tried):
        if side["overlaps"]:
            first = side["overlaps"][0]
            console.print(
                f"{side['name']}: {first['people']:,} people heard from both {' and '.join(first['rules'])}",
                highlight=False,
            )
    for line in notes(report):
        console.print(line, style="dim", highlight=False)


def notes(report: Mapping[str, Any]) -> list[str]:
    """How far the report is to be trusted, and what was left out of it."""
    history = report["history"]
    said = []
    if history["recorded"]:
        said.append(
            f"{history['reproduced']:,} of {history['recorded']:,} decisions on record were made again, "
            f"to the byte, those of {history['people']:,} people or households"
        )
    elif report["active"]["name"] == "active":
        said.append("no decision on record was made again to compare: --verify does it for everybody")
    wrong = history["differing"] + history["missing"] + history["unknown"]
    if wrong:
        said.append(
            f"{history['differing']:,} were decided otherwise, {history['missing']:,} not at all, "
            f"{history['unknown']:,} are not on record; for example {', '.join(history['examples'][:3])}"
        )
    if report["excused"]:
        said.append(
            f"{report['excused']:,} decisions could not be compared: "
            "those that suppressed something are past their retention"
        )
    for why, people in report["leftOut"].items():
        said.append(f"{people:,} people are left out: {why}")
    if report["withoutPositions"]:
        said.append(
            f"of {report['withoutPositions']:,} people some positions are past their retention: "
            "what hangs on where they were then is not known, and their decisions were not compared"
        )
    for side in (report["active"], report["tried"]):
        if side["estimated"]:
            said.append(
                f"{side['name']}: how often conditions were false is counted up from the sample on record (≈)"
            )
    if report["weatherIsLimited"]:
        said.append("the weather is known where the rules of that time asked for it, and unknown elsewhere")
    before = f", after {report['eventsBefore']:,} from before it" if report["eventsBefore"] else ""
    processes = f" by {report['workers']} processes" if report["workers"] > 1 else ""
    said.append(
        f"{report['events']:,} events of the period{before} in {report['seconds']:.1f} s{processes}, "
        f"{report['eventsPerSecond']:,}/s; {report['startupSeconds']:.1f} s to start"
    )
    return said


def page(report: Mapping[str, Any]) -> str:
    """The report as HTML, with its charts inside; it asks for nothing else."""
    active, tried = report["active"], report["tried"]
    names = (active["name"], tried["name"])
    rules = sorted({f"{r['rule']} → {r['offer']}" for side in (active, tried) for r in side["rules"]})
    offered = [
        {f"{r['rule']} → {r['offer']}": r["offered"] for r in side["rules"]} for side in (active, tried)
    ]
    reasons = _reasons(active, tried)
    days = sorted({*active["byDay"], *tried["byDay"]})
    body = [
        f"<h1>Backtest: {escape(names[1])}</h1>",
        f"<p class=note>{report['events']:,} events, {_period(report)}. "
        f"Revision <code>{escape(tried['revision'])}</code> "
        f"beside <code>{escape(active['revision'])}</code>.</p>",
        "<p>" + "".join(_key(c, n) for c, n in zip(_COLOURS, names, strict=True)) + "</p>",
        _table(
            ["", *names, "difference"],
            [[label, *_compared(active[field], tried[field])] for field, label in _FIGURES],
        ),
        "<h2>Offers by rule</h2>",
        _bars("offers by rule", rules, [[side.get(rule, 0) for rule in rules] for side in offered]),
        "<h2>Offers by day</h2>",
        _bars(
            "offers by day", days, [[side["byDay"].get(day, 0) for day in days] for side in (active, tried)]
        ),
        "<h2>Why not</h2>",
        _bars(
            "suppressed decisions by reason",
            reasons,
            [[side["suppressed"].get(reason, 0) for reason in reasons] for side in (active, tried)],
        ),
        _table(
            ["reason", *names, "difference"],
            [[reason, *_reason(reason, active, tried)] for reason in reasons],
        ),
        "<h2>The biggest changes</h2>",
        _table(
            ["rule → offer", "before", "after", "people gained", "people lost", "expected value"],
            [
                [
                    f"{one['rule']} → {one['offer']}",
                    f"{one['before']:,}",
                    f"{one['after']:,}",
                    f"{one['gained']:,}",
                    f"{one['lost']:,}",
                    f"{one['expectedValue']:+,.2f}",
                ]
                for one in report["changes"]
            ],
        ),
        "<h2>People who hear from two rules</h2>",
        _table(
            ["rules", "side", "people"],
            [
                [" and ".join(one["rules"]), side["name"], f"{one['people']:,}"]
                for side in (active, tried)
                for one in side["overlaps"]
            ],
        ),
        "<h2>How far to trust this</h2>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in notes(report)) + "</ul>",
    ]
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        '<link rel=icon href="data:,">'
        f"<title>Backtest: {escape(names[1])}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _period(report: Mapping[str, Any]) -> str:
    return f"{report['since']:%Y-%m-%d %H:%M} to {report['until']:%Y-%m-%d %H:%M} UTC"


def _reasons(active: Mapping[str, Any], tried: Mapping[str, Any]) -> list[str]:
    return sorted(
        {*active["suppressed"], *tried["suppressed"]},
        key=lambda reason: (-tried["suppressed"].get(reason, 0), reason),
    )


def _reason(reason: str, active: Mapping[str, Any], tried: Mapping[str, Any]) -> tuple[str, str, str]:
    """How often it was the reason on either side, with a mark where that is an estimate."""
    sides = (active, tried)
    cells = _compared(*(side["suppressed"].get(reason, 0) for side in sides))
    about = ["≈" if reason in side["estimated"] else "" for side in sides]
    return about[0] + cells[0], about[1] + cells[1], (about[0] or about[1]) + cells[2]


def _compared(before: Any, after: Any) -> tuple[str, str, str]:
    """Two figures and their difference; money has cents."""
    if isinstance(before, float):
        return f"{before:,.2f}", f"{after:,.2f}", f"{after - before:+,.2f}"
    return f"{before:,}", f"{after:,}", f"{after - before:+,}"


def _key(colour: str, name: str) -> str:
    return f'<span class=key style="background:{colour}"></span>{escape(name)}'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    if not cells:
        return "<p class=note>none</p>"
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    rows_shown = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<div class=wide><table><tr>{top}</tr>{rows_shown}</table></div>"


def _bars(title: str, labels: Sequence[str], sides: Sequence[Sequence[int]]) -> str:
    """Two bars below each label, one for each side; of very many labels those with the longest."""
    if not labels:
        return "<p class=note>none</p>"
    shown = sorted(range(len(labels)), key=lambda n: -max(side[n] for side in sides))[:_MOST_BARS]
    shown.sort()
    most = max(1, *(value for side in sides for value in side))
    parts = []
    for row, number in enumerate(shown):
        top, label = row * _ROW, labels[number]
        short = label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
        parts.append(f'<text x="0" y="{top + 13}">{escape(short)}<title>{escape(label)}</title></text>')
        for side, colour in enumerate(_COLOURS):
            value = sides[side][number]
            width = value / most * (_WIDTH - _FIGURES_WIDTH)
            y = top + _LABEL + side * (_BAR + 2)
            parts.append(
                f'<rect x="0" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}" rx="2"/>'
                f'<text x="{width + 5:.1f}" y="{y + _BAR - 1}">{value:,}</text>'
            )
    left = len(labels) - len(shown)
    more = f"<p class=note>and {left:,} more, with fewer</p>" if left else ""
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {len(shown) * _ROW}">'
        + "".join(parts)
        + f"</svg>{more}"
    )
